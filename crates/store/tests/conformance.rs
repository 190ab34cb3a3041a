//! One suite, every backend: what the store promises to whoever stands on it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::time::Duration;

use caracal_core::delegation::Path;
use caracal_core::id::{ApplicationId, AuthorityRecordId};
use caracal_core::message::Producer;
use caracal_core::time::Time;
use caracal_host::World;
use caracal_store::change::Entity;
use caracal_store::coordination::{cascade, delegations, sessions};
use caracal_store::journal::{Consume, Entry, NewRecord, Outcome, Purpose, Reads, Spend, SpooledEvent};
use caracal_store::management::{Application, Object as _};
use caracal_store::path::Asked;
use caracal_store::{DoorError, Store, StoreConfig, StoreError};

use support::{each, new_application};

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_door_leaves_nothing() {
    for f in each().await {
        let (zone, id): (_, ApplicationId) = (f.zone, f.world.mint());
        let outcome = f
            .store
            .door::<(), &str, _>(Some(zone), Producer::Api, move |door| {
                Box::pin(async move {
                    Application::insert(door, new_application(id, zone, "b")).await?;
                    Err(DoorError::Refused("no"))
                })
            })
            .await;
        assert!(matches!(outcome, Err(DoorError::Refused("no"))));
        let found = f.store.read(move |tx| Box::pin(async move { Application::get(tx, zone, id).await })).await.unwrap();
        assert!(found.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failing_door_fails_one() {
    for f in each().await {
        let zone = f.zone;
        let make = |name: &'static str| {
            let id = f.world.mint();
            f.store.door::<_, (), _>(Some(zone), Producer::Api, move |door| {
                Box::pin(async move { Ok(Application::insert(door, new_application(id, zone, name)).await?) })
            })
        };
        // "a" is taken, in any case; the others share the writer's transaction with it.
        let (first, taken, second) = tokio::join!(make("x"), make("A"), make("y"));
        assert!(first.is_ok() && second.is_ok());
        assert!(matches!(taken, Err(DoorError::Store(StoreError::Refused(_)))), "{taken:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_before_a_revocation_mints_nothing_after_it() {
    for f in each().await {
        let (a, b) = (f.session(None).await, f.session(None).await);
        let edge = f.edge(a, b, None, None).await;
        f.store.fence().fresh(f.zone).await.unwrap();
        let asked = Asked { record: None, session: Some(b), edge: Some(edge) };
        let refs = f.store.references(f.zone, asked).await.unwrap();
        let path = Path::check(refs.edges.clone(), refs.sessions.clone(), f.world.now()).unwrap();
        assert_eq!(path.presented().id, edge);
        assert!(f.store.fence().good(f.zone, refs.stamp, &refs.read));
        let ended = f.revoke(edge).await;
        assert_eq!((ended.edges.len(), ended.sessions.len()), (1, 1));
        let entry = Entry {
            zone: Some(f.zone),
            reads: Some(Reads { stamp: refs.stamp, entities: refs.read.clone() }),
            record: Some(f.record()),
            ..Entry::default()
        };
        assert_eq!(f.store.journal().commit(entry).await.unwrap(), Outcome::Stale);
        // The fence tells the caches.
        f.store.fence().fresh(f.zone).await.unwrap();
        assert!(!f.store.fence().good(f.zone, refs.stamp, &refs.read));
        let again = f.store.references(f.zone, asked).await.unwrap();
        assert!(Path::check(again.edges, again.sessions, f.world.now()).is_err());
        assert_eq!(again.graph_epoch, refs.graph_epoch + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_something_else_stales_nothing() {
    for f in each().await {
        let session = f.session(None).await;
        f.store.fence().fresh(f.zone).await.unwrap();
        let refs = f.store.references(f.zone, Asked { session: Some(session), ..Asked::default() }).await.unwrap();
        f.session(None).await;
        f.store.fence().fresh(f.zone).await.unwrap();
        assert!(f.store.fence().good(f.zone, refs.stamp, &refs.read), "another Session started");
        assert!(
            !f.store.fence().good(f.zone, refs.stamp, &[Entity::session(f.session(None).await)])
                || f.store.dialect() == caracal_store::Dialect::Postgres
        );
        let reads = Some(Reads { stamp: refs.stamp, entities: refs.read });
        let entry = Entry { zone: Some(f.zone), reads, record: Some(f.record()), ..Entry::default() };
        assert_eq!(f.store.journal().commit(entry).await.unwrap(), Outcome::Durable);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_used_up_once_also_in_one_group() {
    for f in each().await {
        let entry = |id: u8| Entry {
            spend: Spend::Id(Consume { purpose: Purpose::Mandate, id: vec![id; 16], until: f.world.now().plus_secs(60) }),
            events: vec![SpooledEvent { id: f.world.mint(), data: b"{}".to_vec(), sig: String::new() }],
            ..Entry::default()
        };
        let before = f.store.spool_depth().await.unwrap();
        let all = futures::future::join_all((0..64).map(|i| f.store.journal().commit(entry(i % 8)))).await;
        let durable = all.iter().filter(|o| matches!(o, Ok(Outcome::Durable))).count();
        let spent = all.iter().filter(|o| matches!(o, Ok(Outcome::Spent))).count();
        assert_eq!((durable, spent), (8, 56));
        assert_eq!(f.store.spool_depth().await.unwrap() - before, 8, "evidence of what was refused is not written with it");
        let other = Entry {
            spend: Spend::Id(Consume { purpose: Purpose::Nonce, id: vec![0; 16], until: f.world.now() }),
            ..Entry::default()
        };
        assert_eq!(f.store.journal().commit(other).await.unwrap(), Outcome::Durable, "another purpose is another id");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_of_a_path_rise_together_or_not_at_all() {
    for f in each().await {
        let (a, b, c) = (f.session(None).await, f.session(None).await, f.session(None).await);
        let root = f.edge(a, b, None, Some(3)).await;
        let leaf = f.edge(b, c, Some(root), Some(100)).await;
        let shown = f.edge(a, c, None, None).await;
        let entry = || Entry {
            zone: Some(f.zone),
            spend: Spend::Budgets(vec![root, leaf]),
            presented: vec![shown],
            record: Some(f.record()),
            events: vec![SpooledEvent { id: f.world.mint(), data: b"{}".to_vec(), sig: String::new() }],
            ..Entry::default()
        };
        let before = f.store.spool_depth().await.unwrap();
        let all = futures::future::join_all((0..8).map(|_| f.store.journal().commit(entry()))).await;
        assert_eq!(all.iter().filter(|o| matches!(o, Ok(Outcome::Durable))).count(), 3);
        assert_eq!(all.iter().filter(|o| matches!(o, Ok(Outcome::Exhausted(e)) if *e == root)).count(), 5);
        let alone = Entry { presented: vec![root], ..entry() };
        assert_eq!(f.store.journal().commit(alone).await.unwrap(), Outcome::Exhausted(root));
        assert_eq!(f.count("authority_records").await, 3, "who is refused has no record");
        assert_eq!(f.store.spool_depth().await.unwrap() - before, 3, "no evidence of a mint");
        let presented = "delegations WHERE presented = 1";
        assert_eq!(f.count(presented).await, 1, "and has presented nothing");
        let zone = f.zone;
        let spent = f.store.read(move |tx| Box::pin(async move { delegations::get(tx, zone, leaf).await })).await.unwrap().unwrap();
        assert_eq!(spent.budget_spent, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_a_session_ends_what_hangs_on_it_and_says_so_once() {
    for f in each().await {
        let root = f.session(None).await;
        let child = f.session(Some(root)).await;
        let grandchild = f.session(Some(child)).await;
        let apart = f.session(None).await;
        let edge = f.edge(child, apart, None, None).await;
        let below = f.edge(apart, grandchild, Some(edge), None).await;
        let zone = f.zone;
        let ended = f
            .store
            .door::<_, (), _>(Some(zone), Producer::Coordinator, move |door| {
                Box::pin(async move {
                    Ok(cascade::end_sessions(door, zone, &[root], cascade::Manner::Terminated, "requested", "r").await?)
                })
            })
            .await
            .unwrap();
        assert_eq!(ended.sessions.len(), 3);
        let mut edges = ended.edges.clone();
        edges.sort_unstable();
        let mut wanted = vec![edge, below];
        wanted.sort_unstable();
        assert_eq!(edges, wanted);
        let rows = f.store.outbox_waiting(1000).await.unwrap();
        for id in [root.to_string(), child.to_string(), grandchild.to_string(), edge.to_string(), below.to_string()] {
            let about = |r: &&caracal_store::outbox::Waiting| {
                r.topic == "caracal.sessions.revoke" && r.fields.iter().any(|(_, v)| *v == id)
            };
            assert_eq!(rows.iter().filter(about).count(), 1, "{id}");
        }
        let left = f.store.read(move |tx| Box::pin(async move { sessions::get(tx, zone, apart).await })).await.unwrap().unwrap();
        assert!(left.session.is_live(f.world.now()), "a Session apart stays");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_has_one_holder_and_a_generation() {
    for f in each().await {
        let life = Duration::from_mins(1);
        let first = f.store.lease("dispatch", "a".into(), life).await.unwrap().unwrap();
        assert_eq!(f.store.lease("dispatch", "a".into(), life).await.unwrap(), Some(first), "renewed");
        assert_eq!(f.store.lease("dispatch", "b".into(), life).await.unwrap(), None);
        f.store.release("dispatch", "a".into()).await.unwrap();
        let second = f.store.lease("dispatch", "b".into(), life).await.unwrap().unwrap();
        assert!(second.generation > first.generation);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_twice_migrates_once() {
    for database in caracal_testkit::backends().await {
        let config =
            StoreConfig { database_url: database.url().map(str::to_owned), dir: database.dir().to_owned(), connections: 4 };
        for _ in 0..2 {
            Store::open(&config, World::system(), None).await.unwrap().ping().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn races_of_mint_and_revoke() {
    // The heart of the fence: whatever the interleaving, no record is durable that was decided on what a revocation took back.
    for f in each().await {
        for round in 0..50 {
            let (a, b) = (f.session(None).await, f.session(None).await);
            let edge = f.edge(a, b, None, None).await;
            let mints = (0..20).map(|_| async {
                let fresh = f.store.fence().fresh(f.zone).await.unwrap();
                let refs = f.store.references(f.zone, Asked { session: Some(b), edge: Some(edge), record: None }).await.unwrap();
                if Path::check(refs.edges, refs.sessions, fresh.now).is_err() {
                    return None;
                }
                let record = NewRecord { subject: format!("race-{round}"), ..f.record() };
                let id: AuthorityRecordId = record.id;
                let entry = Entry {
                    zone: Some(f.zone),
                    reads: Some(Reads { stamp: refs.stamp, entities: refs.read }),
                    record: Some(record),
                    events: vec![],
                    ..Entry::default()
                };
                (f.store.journal().commit(entry).await.unwrap() == Outcome::Durable).then_some(id)
            });
            let revoke = async {
                tokio::task::yield_now().await;
                f.revoke(edge).await;
                // Whoever asks after this answer must be refused.
                let late = f.store.references(f.zone, Asked { session: Some(b), edge: Some(edge), record: None }).await.unwrap();
                assert!(Path::check(late.edges, late.sessions, Time::EPOCH).is_err());
            };
            let (_minted, ()) = tokio::join!(futures::future::join_all(mints), revoke);
        }
    }
}
