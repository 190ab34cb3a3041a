//! The freshness fence, a test for each rule of the architecture's table, by the rule's own words. Each fails without its rule.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::time::Duration;

use caracal_core::id::Id;
use caracal_store::StoreError;
use caracal_store::change::Entity;
use caracal_store::journal::Outcome;
use caracal_store::path::Asked;
use futures::poll;
use sqlx::Connection;
use tokio::sync::oneshot;

use support::{each, end, open, postgres};

/// "A reload reads epoch, changes and entities in one snapshot": a change between two reads of one load is seen by neither.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_reads_one_snapshot() {
    for f in each().await {
        let session = f.session(None).await;
        let zone = f.zone;
        let (reached, between) = oneshot::channel();
        let (go_on, resumed) = oneshot::channel::<()>();
        let store = f.store.clone();
        let load = tokio::spawn(async move {
            store
                .read::<_, StoreError, _>(move |tx| {
                    Box::pin(async move {
                        let epoch = |row: Option<caracal_store::Row>| row.unwrap().count(0);
                        let sql = "SELECT epoch FROM zone_epochs WHERE zone_id = $1";
                        let before = epoch(tx.first(sql, vec![caracal_store::Value::id(zone)]).await?)?;
                        reached.send(()).unwrap();
                        resumed.await.unwrap();
                        let status = "SELECT status FROM sessions WHERE id = $1";
                        let status = tx.first(status, vec![caracal_store::Value::id(session)]).await?.unwrap().text(0)?;
                        let after = epoch(tx.first(sql, vec![caracal_store::Value::id(zone)]).await?)?;
                        Ok((before, after, status))
                    })
                })
                .await
        });
        between.await.unwrap();
        f.end(session).await;
        go_on.send(()).unwrap();
        let (before, after, status) = load.await.unwrap().unwrap();
        assert_eq!((before, status.as_str()), (after, "active"), "a state that never was");
    }
}

/// "A loaded entity enters the cache only if its snapshot is not older than what the cache has applied."
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_load_does_not_put_back_what_a_revocation_took_out() {
    for f in each().await {
        let (session, other) = (f.session(None).await, f.session(None).await);
        f.fresh().await;
        // Read before the end, arrives after it.
        let slow = f.store.references(f.zone, Asked { session: Some(session), ..Asked::default() }).await.unwrap();
        f.end(session).await;
        f.fresh().await;
        assert!(!f.good(slow.stamp, &[Entity::session(session)]));
        assert!(f.good(slow.stamp, &[Entity::session(other)]), "what did not change stays");
        let again = f.store.references(f.zone, Asked { session: Some(session), ..Asked::default() }).await.unwrap();
        assert!(f.good(again.stamp, &[Entity::session(session)]), "a newer load is good");
    }
}

/// "A strange mark, a smaller epoch or a pruned log empties the zone's caches."
#[tokio::test(flavor = "multi_thread")]
async fn another_history_empties_the_caches() {
    for tamper in [
        "UPDATE zone_epochs SET mark = mark + 1 WHERE zone_id = $1",
        "UPDATE zone_epochs SET epoch = epoch - 1, mark = mark + 1 WHERE zone_id = $1",
        "WITH gone AS (DELETE FROM change_log WHERE zone_id = $1 RETURNING 1) UPDATE zone_epochs SET epoch = epoch + 9, mark = mark + 1, \
         pruned_before = epoch + 9 WHERE zone_id = $1",
    ] {
        let Some(f) = postgres(10).await else { return };
        let session = f.session(None).await;
        let before = f.fresh().await;
        assert!(f.good(before, &[Entity::session(session)]));
        f.fresh().await;
        assert!(f.good(before, &[Entity::session(session)]), "the same history again changes nothing");
        let zone = f.zone.to_bytes().to_vec();
        sqlx::query(tamper).bind(zone).execute(&mut f.raw().await).await.unwrap();
        let after = f.fresh().await;
        assert!(!f.good(before, &[Entity::session(session)]), "{tamper}");
        assert!(!f.good(before, &[]), "not even what read nothing");
        assert!(f.good(after, &[Entity::session(session)]), "and life goes on");
    }
}

/// ".. of what was read": a snapshot of before the fail-over is not one of the history after it, however late it is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_belongs_to_the_history_it_began_in() {
    let Some(f) = postgres(10).await else { return };
    let session = f.session(None).await;
    f.fresh().await;
    let mut other = f.raw().await;
    let mut stalls = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE zones IN ACCESS EXCLUSIVE MODE").execute(&mut *stalls).await.unwrap();
    let (store, zone) = (f.store.clone(), f.zone);
    let asked = Asked { session: Some(session), ..Asked::default() };
    let references = tokio::spawn(async move { store.references(zone, asked).await.unwrap() });
    f.waiting(1).await;
    let store = f.store.clone();
    let view = tokio::spawn(async move { store.zone_rows(zone, caracal_core::time::Time::EPOCH).await.unwrap().unwrap() });
    f.waiting(2).await;
    // The same number under another mark: another history. It is noticed before the loads have an answer.
    f.run("UPDATE zone_epochs SET mark = mark + 1").await;
    f.fresh().await;
    stalls.commit().await.unwrap();
    assert!(!f.good(references.await.unwrap().stamp, &[Entity::session(session)]));
    assert!(!f.good(view.await.unwrap().stamp, &[Entity::VIEW]));
}

/// "The commit that makes it durable looks for that among the changes since": a record is never younger than the revocation of what it
/// stands on, and a busy zone does not starve.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_looks_again_at_what_its_decision_read() {
    for f in each().await {
        let (session, other) = (f.session(None).await, f.session(None).await);
        let stamp = f.fresh().await;
        f.end(other).await;
        let entry = f.mint(stamp, vec![Entity::VIEW, Entity::session(session)]);
        assert_eq!(f.store.journal().commit(entry).await.unwrap(), Outcome::Durable, "another Session's end starves nobody");
        f.end(session).await;
        let entry = f.mint(stamp, vec![Entity::VIEW, Entity::session(session)]);
        let id = entry.record.as_ref().unwrap().id;
        assert_eq!(f.store.journal().commit(entry).await.unwrap(), Outcome::Stale);
        let zone = f.zone;
        let written =
            f.store.read(move |tx| Box::pin(async move { caracal_store::path::record(tx, zone, id).await })).await.unwrap();
        assert!(written.is_none(), "nothing was written");
    }
}

/// "The zone's lock is shared by journals, exclusive for the door": two mints do not wait for one another, a door waits for both.
#[tokio::test(flavor = "multi_thread")]
async fn journals_share_the_zones_lock_and_the_door_has_it_alone() {
    let Some(f) = postgres(10).await else { return };
    let session = f.session(None).await;
    let stamp = f.fresh().await;
    let mut journal = f.raw().await;
    let mut under_way = journal.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock_shared($1)").bind(f.lock_key()).execute(&mut *under_way).await.unwrap();
    let entry = f.mint(stamp, vec![Entity::session(session)]);
    // A journal waits for no journal.
    let second = tokio::time::timeout(Duration::from_secs(5), f.store.journal().commit(entry)).await;
    assert_eq!(second.unwrap().unwrap(), Outcome::Durable);
    let (store, zone) = (f.store.clone(), f.zone);
    let door = tokio::spawn(async move { end(&store, zone, session).await });
    f.waiting(1).await;
    assert!(!door.is_finished(), "the door waits for the journal under way");
    under_way.commit().await.unwrap();
    door.await.unwrap();
}

/// ".. an advisory lock, or journals that keep coming starve the door": who comes after a door that waits waits behind it.
#[tokio::test(flavor = "multi_thread")]
async fn journals_that_keep_coming_do_not_starve_the_door() {
    let Some(f) = postgres(10).await else { return };
    let session = f.session(None).await;
    let stamp = f.fresh().await;
    let mut journal = f.raw().await;
    let mut under_way = journal.begin().await.unwrap();
    // What a journal holds while it is under way, of whichever kind its lock is.
    sqlx::query("SELECT pg_advisory_xact_lock_shared($1)").bind(f.lock_key()).execute(&mut *under_way).await.unwrap();
    let epoch = sqlx::query("SELECT 1 FROM zone_epochs WHERE zone_id = $1 FOR SHARE").bind(f.zone.to_bytes().to_vec());
    epoch.execute(&mut *under_way).await.unwrap();
    let (store, zone) = (f.store.clone(), f.zone);
    let door = tokio::spawn(async move { end(&store, zone, session).await });
    f.waiting(1).await;
    let (journal, entry) = (f.store.journal().clone(), f.mint(stamp, vec![Entity::session(session)]));
    let mint = tokio::spawn(async move { journal.commit(entry).await.unwrap() });
    f.waiting(2).await;
    under_way.commit().await.unwrap();
    door.await.unwrap();
    assert_eq!(mint.await.unwrap(), Outcome::Stale, "the door was first");
}

/// ".. taken in a statement before the one that reads": what a door wrote while the journal waited for the lock is seen.
#[tokio::test(flavor = "multi_thread")]
async fn the_lock_is_taken_before_the_changes_are_read() {
    let Some(f) = postgres(10).await else { return };
    let session = f.session(None).await;
    let stamp = f.fresh().await;
    let mut other = f.raw().await;
    let mut door = other.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(f.lock_key()).execute(&mut *door).await.unwrap();
    let journal = f.store.journal().clone();
    let entry = f.mint(stamp, vec![Entity::session(session)]);
    let mint = tokio::spawn(async move { journal.commit(entry).await.unwrap() });
    f.waiting(1).await;
    let zone = f.zone.to_bytes().to_vec();
    sqlx::query("UPDATE zone_epochs SET epoch = epoch + 1, mark = mark + 1 WHERE zone_id = $1")
        .bind(&zone)
        .execute(&mut *door)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO change_log (zone_id, epoch, mark, kind, entity_id, at) SELECT zone_id, epoch, mark, 2, $2, 0 FROM zone_epochs WHERE zone_id = $1",
    )
    .bind(&zone)
    .bind(session.to_bytes().to_vec())
    .execute(&mut *door)
    .await
    .unwrap();
    door.commit().await.unwrap();
    assert_eq!(mint.await.unwrap(), Outcome::Stale);
}

/// "What only extends raises nothing": a mint's own records leave the epoch alone, or every mint would empty the caches.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_adds_raises_nothing() {
    for f in each().await {
        let session = f.session(None).await;
        let before = f.fresh().await;
        let entry = f.mint(before, vec![Entity::session(session)]);
        assert_eq!(f.store.journal().commit(entry).await.unwrap(), Outcome::Durable);
        assert_eq!(f.fresh().await, before);
        let other = open(&f.database, 4).await;
        if f.database.url().is_some() {
            assert_eq!(other.fence().fresh(f.zone).await.unwrap().stamp.epoch, before.epoch);
        }
    }
}

/// "The fence is a task, not the first caller's future": a caller that hangs up strands nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_strands_nobody() {
    let Some(f) = postgres(10).await else { return };
    f.fresh().await;
    let gate = f.gate().await;
    let mut first = Box::pin(f.store.fence().fresh(f.zone));
    assert!(poll!(&mut first).is_pending());
    f.waiting(1).await;
    // It waits for the round after the one under way.
    let mut second = Box::pin(f.store.fence().fresh(f.zone));
    assert!(poll!(&mut second).is_pending());
    drop(first);
    drop(gate);
    assert!(second.await.is_ok(), "the other caller is answered");
}

/// "A request shares only the answer of a query that had not begun when it arrived", as a Raft read index does.
#[tokio::test(flavor = "multi_thread")]
async fn who_arrives_during_a_query_waits_for_the_next() {
    let Some(f) = postgres(10).await else { return };
    let before = f.fresh().await;
    let gate = f.gate().await;
    let ask = || {
        let (fence, zone) = (f.store.fence().clone(), f.zone);
        tokio::spawn(async move { fence.fresh(zone).await.unwrap().stamp.epoch })
    };
    let first = ask();
    f.waiting(1).await;
    f.run("UPDATE zone_epochs_real SET epoch = epoch + 1, mark = mark + 1").await;
    // The change is committed; whoever arrives now must see it.
    let second = ask();
    drop(gate);
    assert_eq!(first.await.unwrap(), before.epoch, "its query had begun before");
    assert_eq!(second.await.unwrap(), before.epoch + 1);
}

/// "If the fence cannot be answered in time, the request is denied as unavailable. There is no stale allow, ever."
#[tokio::test(flavor = "multi_thread")]
async fn a_fence_without_an_answer_is_a_denial() {
    let Some(f) = postgres(1).await else { return };
    f.fresh().await;
    let (go_on, holder) = f.busy().await;
    assert!(matches!(f.store.fence().fresh(f.zone).await, Err(StoreError::Unavailable(_))));
    drop(go_on);
    holder.await.unwrap();
    f.fresh().await;
}
