//! A caller that hangs up at each await of a write: the write is whole or absent, and the next user of a connection finds no open
//! transaction.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::time::Duration;

use caracal_core::id::{ApplicationId, Id};
use caracal_core::message::Producer;
use caracal_store::StoreError;
use caracal_store::coordination::{cascade, delegations, sessions};
use caracal_store::journal::{Consume, Outcome, Purpose, Spend, SpooledEvent};
use caracal_store::management::Application;
use caracal_testkit::{polled, until};

use support::{Fixture, each, new_application};

/// What a write left behind, counted in one snapshot.
async fn counted(f: &Fixture, sql: Vec<String>) -> Vec<u64> {
    let read = f.store.read::<_, StoreError, _>(move |tx| {
        Box::pin(async move {
            let mut all = Vec::new();
            for one in sql {
                all.push(tx.first(format!("SELECT count(*) FROM {one}"), vec![]).await?.unwrap().count(0)?);
            }
            Ok(all)
        })
    });
    read.await.unwrap()
}

/// Whether a write is there: all of its parts, or none of them.
async fn whole(f: &Fixture, parts: &[String]) -> bool {
    let counts = counted(f, parts.to_vec()).await;
    assert!(counts.iter().all(|n| *n > 0) || counts.iter().all(|n| *n == 0), "{}: {counts:?} of {parts:?}", f.database.name());
    counts[0] > 0
}

/// Hangs up at every await. What was never begun leaves nothing; what was begun runs to its end.
async fn at_each_await<W, F>(f: &Fixture, mut write: W)
where
    W: FnMut(usize) -> (F, Vec<String>),
    F: Future,
{
    for times in 0.. {
        let (future, parts) = write(times);
        let done = polled(future, times).await.is_some();
        whole(f, &parts).await;
        f.no_transaction_is_open().await;
        if times > 0 {
            until(
                "what was begun is whole",
                Duration::from_secs(10),
                async || {
                    if whole(f, &parts).await { Ok(()) } else { Err("absent") }
                },
            )
            .await;
        } else {
            assert!(!whole(f, &parts).await);
        }
        if done {
            assert!(times > 1, "nobody hung up");
            return;
        }
    }
}

fn told(id: impl std::fmt::Display) -> String {
    format!("outbox WHERE payload LIKE '%{id}%'")
}

impl Fixture {
    /// Rows of a table that name these bytes.
    fn rows(&self, table: &str, column: &str, bytes: &[u8]) -> String {
        let column =
            if self.database.url().is_some() { format!("encode({column}, 'hex')") } else { format!("lower(hex({column}))") };
        format!("{table} WHERE {column} = '{}'", caracal_core::digest::hex(bytes))
    }

    fn named(&self, table: &str, column: &str, id: impl Id) -> String {
        self.rows(table, column, &id.to_bytes())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_door() {
    for f in each().await {
        at_each_await(&f, |times| {
            let (zone, id): (_, ApplicationId) = (f.zone, f.world.mint());
            let door = f.store.door::<_, (), _>(Some(zone), Producer::Api, move |door| {
                Box::pin(async move { Ok(Application::insert(door, new_application(id, zone, &format!("a{times}"))).await?) })
            });
            (door, vec![f.named("applications", "id", id), told(id)])
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_start_a_delegation_and_a_revocation() {
    for f in each().await {
        let (zone, source) = (f.zone, f.session(None).await);
        at_each_await(&f, |_| {
            let new = f.new_session(None);
            let id = new.id;
            let door = f.store.door::<_, (), _>(Some(zone), Producer::Coordinator, move |door| {
                Box::pin(async move { Ok(sessions::insert(door, &new).await?) })
            });
            (door, vec![f.named("sessions", "id", id), f.named("change_log", "entity_id", id)])
        })
        .await;
        let target = f.session(None).await;
        at_each_await(&f, |_| {
            let edge = f.new_edge(source, target, None, None);
            let id = edge.id;
            let door = f.store.door::<_, (), _>(Some(zone), Producer::Coordinator, move |door| {
                Box::pin(async move { Ok(delegations::insert(door, zone, &edge).await?) })
            });
            (door, vec![f.named("delegations", "id", id), f.named("change_log", "entity_id", id)])
        })
        .await;
        let mut edges = Vec::new();
        for _ in 0..32 {
            edges.push(f.edge(f.session(None).await, f.session(None).await, None, None).await);
        }
        at_each_await(&f, |times| {
            let edge = edges[times];
            let door = f.store.door::<_, (), _>(Some(zone), Producer::Coordinator, move |door| {
                Box::pin(async move { Ok(cascade::revoke_edge(door, zone, edge, "r").await?) })
            });
            (door, vec![format!("{} AND status = 'revoked'", f.named("delegations", "id", edge)), told(edge)])
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_journal_entry() {
    for f in each().await {
        let stamp = f.fresh().await;
        at_each_await(&f, |times| {
            let mut entry = f.mint(stamp, vec![]);
            let (record, event) = (entry.record.as_ref().unwrap().id, f.world.mint());
            entry.events = vec![SpooledEvent { id: event, data: b"{}".to_vec(), sig: String::new() }];
            entry.spend =
                Spend::Id(Consume { purpose: Purpose::Mandate, id: vec![times.try_into().unwrap(); 16], until: f.world.now() });
            let journal = f.store.journal().clone();
            let commit = async move { assert_eq!(journal.commit(entry).await.unwrap(), Outcome::Durable) };
            let consumed = f.rows("consumed_ids", "id", &[u8::try_from(times).unwrap(); 16]);
            (commit, vec![f.named("authority_records", "id", record), f.named("spool", "event_id", event), consumed])
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_plain_write_and_of_a_read() {
    for f in each().await {
        at_each_await(&f, |times| {
            let name: &'static str = Box::leak(format!("hang-{times}").into_boxed_str());
            (f.store.lease(name, "a".into(), Duration::from_mins(1)), vec![format!("leases WHERE name = '{name}'")])
        })
        .await;
        for times in 0.. {
            let read = f.store.read::<_, StoreError, _>(|tx| {
                Box::pin(async move { tx.first("SELECT count(*) FROM zones", vec![]).await?.unwrap().count(0) })
            });
            let done = polled(read, times).await;
            f.no_transaction_is_open().await;
            if done.is_some() {
                break;
            }
        }
    }
}
