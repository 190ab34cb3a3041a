//! What is over goes, and nothing else; whoever missed what was told of a zone reads the zone again.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::time::Duration;

use caracal_core::message::Producer;
use caracal_store::change::Entity;
use caracal_store::coordination::receipts::{self, Receipt, ReceiptKey};
use caracal_store::journal::{Consume, Entry, Outcome, Purpose, Spend};
use caracal_store::path::Asked;
use caracal_store::retention::Retention;

use support::{Fixture, each, open, postgres};

const DAY: Duration = Duration::from_hours(24);
/// Everything that is over goes at once.
const NOTHING: Retention = Retention { outbox: Duration::ZERO, changes: Duration::ZERO, records: Duration::ZERO };

impl Fixture {
    async fn use_up(&self, ids: std::ops::Range<u32>, until: i64) {
        let until = self.world.now().plus_secs(until);
        let uses = ids.map(|id| {
            let spend = Spend::Id(Consume { purpose: Purpose::Mandate, id: id.to_be_bytes().to_vec(), until });
            self.store.journal().commit(Entry { spend, ..Entry::default() })
        });
        let outcomes = futures::future::join_all(uses).await;
        assert!(outcomes.iter().all(|o| matches!(o, Ok(Outcome::Durable))));
    }

    async fn receipt(&self, name: &str, seconds: i64) {
        let key = ReceiptKey { operation: "start", zone: self.zone, scope: "s".into(), digest: name.as_bytes().to_vec() };
        let door = self.store.door::<_, (), _>(Some(self.zone), Producer::Coordinator, move |door| {
            Box::pin(async move {
                let receipt = Receipt { fingerprint: vec![1], status: 201, body: "{}".into() };
                Ok(receipts::keep(door, &key, &receipt, seconds).await?)
            })
        });
        door.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_goes_and_nothing_else() {
    for f in each().await {
        // More than a batch holds; what is over for less than clocks may differ stays.
        f.use_up(0..2500, -180).await;
        f.use_up(2500..2510, -60).await;
        f.receipt("old", -1).await;
        f.receipt("new", 60).await;
        let mut over = f.record();
        over.expires_at = f.world.now().plus_secs(-1);
        for record in [over, f.record()] {
            let entry = Entry { zone: Some(f.zone), record: Some(record), ..Entry::default() };
            assert_eq!(f.store.journal().commit(entry).await.unwrap(), Outcome::Durable);
        }
        let waiting = f.store.outbox_waiting(100).await.unwrap();
        f.store.outbox_published(vec![waiting[0].id]).await.unwrap();

        let kept = Retention::of_outbox(7 * DAY);
        assert_eq!(f.store.prune(kept, "a").await.unwrap(), 2501, "{}: ids and a receipt", f.database.name());
        assert_eq!(f.store.prune(Retention { changes: DAY, ..NOTHING }, "a").await.unwrap(), 2, "a message and a record");
        for (table, rows) in
            [("consumed_ids", 10), ("idempotency_receipts", 1), ("authority_records", 1), ("outbox", waiting.len() as u64 - 1)]
        {
            assert_eq!(f.count(table).await, rows, "{}: {table}", f.database.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_several_processes_does_it() {
    for f in each().await {
        f.use_up(0..10, -180).await;
        f.store.lease("store.retention", "other".into(), Duration::from_mins(1)).await.unwrap().unwrap();
        assert_eq!(f.store.prune(NOTHING, "a").await.unwrap(), 0, "{}", f.database.name());
        f.store.release("store.retention", "other".into()).await.unwrap();
        assert!(f.store.prune(NOTHING, "a").await.unwrap() >= 10);
    }
}

/// "A pruned log empties the zone's caches": of a process that had not read it, and of no other.
#[tokio::test(flavor = "multi_thread")]
async fn who_missed_a_pruned_change_reads_the_zone_again() {
    let Some(f) = postgres(10).await else { return };
    let other = open(&f.database, 4).await;
    let session = f.session(None).await;
    let behind = other.fence().fresh(f.zone).await.unwrap().stamp;
    let loaded = other.references(f.zone, Asked { session: Some(session), ..Asked::default() }).await.unwrap();
    for _ in 0..3 {
        f.session(None).await;
    }
    let current = f.fresh().await;
    assert!(f.store.prune(NOTHING, "a").await.unwrap() > 0);
    assert!(f.count("change_log").await > 0, "the newest epoch's changes stay");

    assert!(f.good(current, &[Entity::session(session)]));
    assert_eq!(f.fresh().await, current, "who had read it all keeps what it holds");
    let mint = f.mint(current, vec![Entity::session(session)]);
    assert_eq!(f.store.journal().commit(mint).await.unwrap(), Outcome::Durable, "and commits what it decided on it");

    let mint = f.mint(behind, vec![Entity::session(session)]);
    assert_eq!(other.journal().commit(mint).await.unwrap(), Outcome::Stale, "who had not cannot tell what its decision missed");
    let fresh = other.fence().fresh(f.zone).await.unwrap().stamp;
    assert!(!other.fence().good(f.zone, loaded.stamp, &loaded.read), "its caches are empty");
    let again = other.references(f.zone, Asked { session: Some(session), ..Asked::default() }).await.unwrap();
    assert!(other.fence().good(f.zone, again.stamp, &again.read), "and fill again");
    let mint = f.mint(fresh, vec![Entity::session(session)]);
    assert_eq!(other.journal().commit(mint).await.unwrap(), Outcome::Durable);
}

/// A process that starts on a zone with a long history does not read it.
#[tokio::test(flavor = "multi_thread")]
async fn who_holds_nothing_reads_no_log() {
    let Some(f) = postgres(10).await else { return };
    // A reader of this row would stop at it.
    f.run("UPDATE change_log SET kind = 99").await;
    let other = open(&f.database, 4).await;
    let fresh = other.fence().fresh(f.zone).await.unwrap();
    assert!(fresh.stamp.epoch > 0);
}
