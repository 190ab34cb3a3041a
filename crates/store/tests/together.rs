//! Writes that meet: one failure fails one, nobody waits in a circle, and nothing commits onto a history it was not decided on.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use caracal_core::admin::AdminCall;
use caracal_core::claims::SubjectType;
use caracal_core::id::{Id, ZoneId};
use caracal_core::message::Producer;
use caracal_host::World;
use caracal_store::change::Entity;
use caracal_store::coordination::delegations;
use caracal_store::journal::{Consume, Entry, NewRecord, Outcome, Purpose, Reads, Spend};
use caracal_store::{Store, StoreError};
use sqlx::Connection;
use tokio::task::JoinSet;

use support::{open, postgres};

async fn change(store: &Store, zone: ZoneId) {
    let raise = store.door::<_, (), _>(Some(zone), Producer::Api, |door| {
        Box::pin(async move {
            door.changed(Entity::VIEW);
            Ok(())
        })
    });
    raise.await.unwrap();
}

fn record(world: &World) -> NewRecord {
    let (now, application) = (world.now(), world.mint());
    let subject_type = SubjectType::User;
    NewRecord {
        id: world.mint(),
        subject_type,
        subject: "s".into(),
        application,
        parent: None,
        expires_at: now.plus_secs(60),
        at: now,
    }
}

fn administrative(n: usize) -> AdminCall {
    AdminCall { request_id: format!("r{n}"), method: "POST".into(), path: "/x".into(), status: 201, ..AdminCall::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn administrative_records_of_many_zones_and_of_none_do_not_meet() {
    for database in caracal_testkit::backends().await {
        let (store, world) = (open(&database, 10).await, World::system());
        let mut doors = JoinSet::new();
        for n in 0..60 {
            // Forty zones, and twenty doors of none.
            let zone: Option<ZoneId> = (n % 3 != 0).then(|| world.mint());
            let store = store.clone();
            doors.spawn(async move {
                let record = administrative(n);
                let work = store.door::<_, (), _>(zone, Producer::Api, move |door| {
                    Box::pin(async move {
                        door.admin(record);
                        Ok(())
                    })
                });
                work.await.map_err(|e| e.to_string())
            });
        }
        let failed: Vec<String> = doors.join_all().await.into_iter().filter_map(Result::err).collect();
        assert!(failed.is_empty(), "{}: {} failed: {:?}", database.name(), failed.len(), failed.first());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_entry_that_the_database_refuses_fails_alone() {
    for database in caracal_testkit::backends().await {
        let (store, world) = (open(&database, 10).await, World::system());
        let (zone, twice) = (world.mint(), record(&World::system()));
        let mut entries = JoinSet::new();
        for n in 0..40 {
            let record = if n < 2 { twice.clone() } else { record(&world) };
            let journal = store.journal().clone();
            entries
                .spawn(async move { journal.commit(Entry { zone: Some(zone), record: Some(record), ..Entry::default() }).await });
        }
        let outcomes = entries.join_all().await;
        let durable = outcomes.iter().filter(|o| matches!(o, Ok(Outcome::Durable))).count();
        assert_eq!(durable, 39, "{}: {:?}", database.name(), outcomes.iter().find(|o| o.is_err()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_shown_the_same_ids_in_opposite_order_answer_each_once() {
    for database in caracal_testkit::backends().await {
        if database.url().is_none() {
            continue;
        }
        let (one, other, world) = (open(&database, 10).await, open(&database, 10).await, World::system());
        for round in 0..10_u32 {
            let mut uses = JoinSet::new();
            for n in 0..200_u32 {
                for (store, id) in [(&one, n), (&other, 199 - n)] {
                    let id = (round * 1000 + id).to_be_bytes().to_vec();
                    let spend = Spend::Id(Consume { purpose: Purpose::Mandate, id, until: world.now().plus_secs(60) });
                    let journal = store.journal().clone();
                    uses.spawn(async move { journal.commit(Entry { spend, ..Entry::default() }).await.unwrap() });
                }
            }
            let outcomes = uses.join_all().await;
            assert_eq!(outcomes.iter().filter(|o| **o == Outcome::Durable).count(), 200);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_that_count_and_mark_the_same_edges_in_opposite_order_do_not_wait_in_a_circle() {
    let Some(f) = postgres(10).await else { return };
    let other = open(&f.database, 10).await;
    let (a, b) = (f.session(None).await, f.session(None).await);
    let mut edges = Vec::new();
    for _ in 0..8 {
        edges.push(f.edge(a, b, None, Some(1_000_000)).await);
    }
    for _ in 0..10 {
        // Both meet at an edge in the middle, so that each holds some while it waits.
        let mut holder = f.raw().await;
        let mut holds = holder.begin().await.unwrap();
        let one = sqlx::query("SELECT 1 FROM delegations WHERE id = $1 FOR UPDATE").bind(edges[4].to_bytes().to_vec());
        one.execute(&mut *holds).await.unwrap();
        let mut mints = JoinSet::new();
        for n in 0..64 {
            for (store, edge) in [(&f.store, n % 8), (&other, 7 - n % 8)] {
                let (journal, spend) = (store.journal().clone(), Spend::Budgets(vec![edges[edge]]));
                let presented = vec![edges[7 - edge]];
                let entry = Entry { zone: Some(f.zone), spend, presented, ..Entry::default() };
                mints.spawn(async move { journal.commit(entry).await });
            }
        }
        f.waiting(2).await;
        holds.commit().await.unwrap();
        let failed: Vec<_> = mints.join_all().await.into_iter().filter(|o| !matches!(o, Ok(Outcome::Durable))).collect();
        assert!(failed.is_empty(), "{} of 128: {:?}", failed.len(), failed[0]);
        f.run("UPDATE delegations SET presented = 0").await;
    }
    let zone = f.zone;
    let spent = f.store.read(move |tx| Box::pin(async move { delegations::get(tx, zone, edges[0]).await })).await.unwrap().unwrap();
    assert_eq!(spent.budget_spent, 10 * 16, "each was counted once");
}

#[tokio::test]
async fn a_decision_of_another_history_does_not_commit() {
    for database in caracal_testkit::backends().await {
        let Some(url) = database.url() else { continue };
        // What a fail-over or a restore may leave: fewer epochs, or as many of another history, or more of it.
        for tamper in [
            "UPDATE zone_epochs SET epoch = 2, mark = 7",
            "UPDATE zone_epochs SET mark = 7",
            "UPDATE zone_epochs SET epoch = 9, mark = 7",
        ] {
            let (store, world) = (open(&database, 10).await, World::system());
            let zone: ZoneId = world.mint();
            for _ in 0..5 {
                change(&store, zone).await;
            }
            let fresh = store.fence().fresh(zone).await.unwrap();
            let entry = Entry {
                zone: Some(zone),
                reads: Some(Reads { stamp: fresh.stamp, entities: vec![Entity::VIEW] }),
                record: Some(record(&world)),
                ..Entry::default()
            };
            let another = Entry { record: Some(record(&world)), ..entry.clone() };
            assert_eq!(store.journal().commit(entry).await.unwrap(), Outcome::Durable, "its own history");
            let pool = sqlx::PgPool::connect(url).await.unwrap();
            sqlx::query("UPDATE change_log SET mark = mark + 1").execute(&pool).await.unwrap();
            sqlx::query(tamper).execute(&pool).await.unwrap();
            let later = "DELETE FROM change_log c USING zone_epochs e WHERE c.zone_id = e.zone_id AND c.epoch > e.epoch";
            sqlx::query(later).execute(&pool).await.unwrap();
            assert_eq!(store.journal().commit(another.clone()).await.unwrap(), Outcome::Stale, "{tamper}");
            // Who decides again on what stands there now may commit.
            let stamp = store.fence().fresh(zone).await.unwrap().stamp;
            let again = Entry { reads: Some(Reads { stamp, entities: vec![Entity::VIEW] }), ..another };
            assert_eq!(store.journal().commit(again).await.unwrap(), Outcome::Durable, "{tamper}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_door_that_stands_still_holds_up_its_own_zone_alone_and_not_for_ever() {
    let Some(f) = postgres(10).await else { return };
    let other: ZoneId = f.world.mint();
    change(&f.store, f.zone).await;
    change(&f.store, other).await;
    let (ours, theirs) = (f.fresh().await, f.store.fence().fresh(other).await.unwrap().stamp);
    let mut frozen = f.raw().await;
    let mut door = frozen.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(f.lock_key()).execute(&mut *door).await.unwrap();

    let (journal, entry) = (f.store.journal().clone(), f.mint(ours, vec![Entity::VIEW]));
    let held = tokio::spawn(async move { journal.commit(entry).await });
    f.waiting(1).await;
    let reads = Some(Reads { stamp: theirs, entities: vec![Entity::VIEW] });
    let entry = Entry { zone: Some(other), reads, record: Some(f.record()), ..Entry::default() };
    assert_eq!(f.store.journal().commit(entry).await.unwrap(), Outcome::Durable);
    assert!(!held.is_finished(), "the other zone went first");
    assert!(matches!(held.await.unwrap(), Err(StoreError::Unavailable(_))), "and this one is told that it cannot be");
    door.rollback().await.unwrap();
    let entry = f.mint(ours, vec![Entity::VIEW]);
    assert_eq!(f.store.journal().commit(entry).await.unwrap(), Outcome::Durable);
}

/// The lock of what belongs to no zone.
const PLATFORM: i64 = 0x6361_7261_6361_6c00;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn first_starts_at_once_make_one_installation() {
    let Some(f) = postgres(10).await else { return };
    let mut first = f.raw().await;
    let mut busy = first.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(PLATFORM).execute(&mut *busy).await.unwrap();
    let mut starts = JoinSet::new();
    for _ in 0..2 {
        let (store, made) = (f.store.clone(), f.world.mint());
        starts.spawn(async move { store.installation(made).await.unwrap() });
    }
    f.waiting(2).await;
    busy.commit().await.unwrap();
    let ids = starts.join_all().await;
    assert_eq!(ids[0], ids[1], "none looks before it is alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_value_that_postgres_cannot_hold_fails_its_own_entry() {
    let Some(f) = postgres(10).await else { return };
    let entry = |subject: &str| {
        let record = NewRecord { subject: subject.into(), ..f.record() };
        let (journal, entry) = (f.store.journal().clone(), Entry { zone: Some(f.zone), record: Some(record), ..Entry::default() });
        tokio::spawn(async move { journal.commit(entry).await })
    };
    let all = [entry("a"), entry("no\0text"), entry("b")];
    let [first, bad, last] = futures::future::join_all(all).await.try_into().unwrap();
    assert!(matches!(bad.unwrap(), Err(StoreError::Refused(_))), "not an outage");
    for good in [first, last] {
        assert_eq!(good.unwrap().unwrap(), Outcome::Durable);
    }
}
