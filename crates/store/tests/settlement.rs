//! A door whose commit fails: as if it had never stood open, for whoever comes next.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use caracal_core::id::SessionId;
use caracal_core::message::Producer;
use caracal_store::change::Entity;
use caracal_store::journal::Outcome;
use caracal_store::path::Asked;
use caracal_store::{DoorError, StoreError, Value};

use support::{Fixture, each};

/// A door that changes a Session and whose every statement goes well, but not its commit.
async fn fails_at_its_commit(f: &Fixture, session: SessionId) {
    if f.database.url().is_some() {
        f.run(
            "CREATE OR REPLACE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''late''; END'; \
             CREATE CONSTRAINT TRIGGER late AFTER INSERT ON leases DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()",
        )
        .await;
    }
    let door = f.store.door::<(), (), _>(Some(f.zone), Producer::Coordinator, move |door| {
        Box::pin(async move {
            let late = match door.tx().dialect() {
                caracal_store::Dialect::Sqlite => {
                    door.execute("PRAGMA defer_foreign_keys = ON", vec![]).await?;
                    "INSERT INTO signing_keys (id, zone_id, sealed, created_at) VALUES ($1, $1, $1, 0)"
                }
                caracal_store::Dialect::Postgres => {
                    "INSERT INTO leases (name, holder, generation, until) VALUES (encode($1, 'hex'), '', 0, 0)"
                }
            };
            door.execute("UPDATE sessions SET status = 'terminated' WHERE id = $1", vec![Value::id(session)]).await?;
            door.changed(Entity::session(session));
            door.execute(late, vec![vec![7_u8; 16].into()]).await?;
            Ok(())
        })
    });
    let outcome = door.await;
    assert!(matches!(outcome, Err(DoorError::Store(StoreError::Unavailable(_)))), "{}: {outcome:?}", f.database.name());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_leaves_the_zone_as_it_was() {
    for f in each().await {
        let session = f.session(None).await;
        f.fresh().await;
        fails_at_its_commit(&f, session).await;
        let stamp = f.fresh().await;
        let loaded = f.store.references(f.zone, Asked { session: Some(session), ..Asked::default() }).await.unwrap();
        assert!(loaded.session.is_some_and(|s| s.is_live(f.world.now())));
        assert!(f.good(loaded.stamp, &[Entity::session(session)]), "{}: what is read now is as new as can be", f.database.name());
        let mint = f.store.journal().commit(f.mint(stamp, vec![Entity::VIEW, Entity::session(session)]));
        assert_eq!(mint.await.unwrap(), Outcome::Durable);
        f.end(session).await;
        let mint = f.store.journal().commit(f.mint(stamp, vec![Entity::VIEW, Entity::session(session)]));
        assert_eq!(mint.await.unwrap(), Outcome::Stale, "{}: the number of the failed commit is used again", f.database.name());
    }
}
