//! What is done to the ledger in the database itself is refused, and where the refusal was taken away, found.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use caracal_audit::append::Ledger;
use caracal_audit::judge::{Judge, Message};
use caracal_audit::{NamedKey, recheck};
use caracal_core::event::{AuditEvent, Verdict};
use caracal_crypto::mac::{MacKey, audit_signature};
use caracal_host::World;
use caracal_store::ledger::{Filter, Order};
use caracal_store::{Store, StoreConfig};
use caracal_testkit::{Database, backends};

use support::Intruder;

const KEY: [u8; 32] = [7; 32];
const ZONES: [&str; 2] = ["0195f2a9-1b22-7c3d-9e4f-5a6b7c8d9e0f", "0195f2a9-1b22-7c3d-9e4f-5a6b7c8d9e10"];

/// Two zones with four entries each: three of ours, one that another emitter spelt its own way.
async fn ledgers(database: &Database) -> Store {
    let world = World::system();
    let config =
        StoreConfig { database_url: database.url().map(ToOwned::to_owned), dir: database.dir().to_owned(), connections: 2 };
    let store = Store::open(&config, world.clone(), None).await.unwrap();
    let judge = Judge { keys: vec![NamedKey::new(&KEY)], retention: Duration::from_hours(24) };
    let ledger = Ledger::new(store.clone(), world.clone(), &judge.keys, "test.local/log");
    for zone in ZONES {
        let mut batch = Vec::new();
        for i in 0..4 {
            let mut event = AuditEvent::new(world.mint(), zone.into(), "token_exchange", Verdict::Allow, "complete", world.now())
                .with("application_id", "0195f2a9-1b22-7c3d-9e4f-5a6b7c8d9e11")
                .with("agent_session_id", format!("session {i}"))
                .with("resource", format!("resource://ledger/{i}"));
            event.request_id = format!("req-{i}");
            let mut data = event.to_data();
            if i == 3 {
                data.push(b'\n');
            }
            let sig = audit_signature(&MacKey::from_bytes(&KEY), &data);
            batch.push(judge.judge(Message { source: "test".into(), data: Some(data), sig }, world.now()).unwrap());
        }
        ledger.append(zone, batch.into()).await.unwrap();
    }
    store
}

async fn findings(store: &Store) -> Vec<(&'static str, u64)> {
    let mut all = Vec::new();
    for zone in ZONES {
        let checked = recheck(store, zone, &[NamedKey::new(&KEY)]).await.unwrap().unwrap();
        all.extend(checked.findings.into_iter().map(|f| (f.code, f.seq)));
    }
    all
}

#[tokio::test]
async fn the_database_refuses_to_change_or_delete_an_entry() {
    for database in backends().await {
        let store = ledgers(&database).await;
        let mut intruder = Intruder::of(&database).await;
        for sql in ["UPDATE ledger_entries SET decision = NULL", "DELETE FROM ledger_entries", "TRUNCATE ledger_entries"] {
            let refused = intruder.does(sql).await.unwrap_err();
            assert!(
                refused.contains("evidence is never") || (refused.contains("syntax") && database.url().is_none()),
                "{sql}: {refused}"
            );
        }
        assert!(findings(&store).await.is_empty());
    }
}

#[tokio::test]
async fn no_column_of_an_entry_can_be_changed_unseen() {
    for database in backends().await {
        let store = ledgers(&database).await;
        let mut intruder = Intruder::of(&database).await;
        intruder.disarms().await;
        let (sixteen, four, hash, key) = (
            intruder.bytes(&"ab".repeat(16)),
            intruder.bytes("abababab"),
            intruder.bytes(&"ab".repeat(32)),
            intruder.bytes("0061"),
        );
        let other = "(SELECT o.body FROM ledger_entries o WHERE o.log = ledger_entries.log AND o.seq = 1)".to_owned();
        let attacks: Vec<(&str, Vec<String>)> = vec![
            ("log", vec![]),
            ("seq", vec!["9".into()]),
            ("occurred_at", vec!["occurred_at + 1".into()]),
            ("ingested_at", vec!["ingested_at + 1".into(), "ingested_at - 1".into()]),
            ("event_type", vec!["1".into(), "NULL".into(), "30000".into()]),
            ("decision", vec!["193".into(), "NULL".into()]),
            ("evaluation_status", vec!["193".into(), "NULL".into()]),
            ("event_id", vec![sixteen.clone()]),
            ("request_id", vec![key.clone(), sixteen.clone(), intruder.bytes("61")]),
            ("application_id", vec![key.clone(), "NULL".into()]),
            ("session_id", vec![key, "NULL".into()]),
            ("secret", vec![sixteen.clone()]),
            ("content", vec![hash.clone(), four.clone()]),
            ("chain_key_id", vec![four, "NULL".into()]),
            ("chain_hmac", vec![hash.clone(), "NULL".into()]),
            ("producer_sig", vec![hash.clone(), "NULL".into()]),
            ("data_hash", vec![hash, "NULL".into()]),
            ("data_mac", vec![sixteen, "NULL".into()]),
            ("body", vec![intruder.bytes("01"), other]),
        ];
        assert_eq!(
            intruder.columns().await,
            attacks.iter().map(|(column, _)| (*column).to_owned()).collect(),
            "every column is tried"
        );
        assert_eq!(findings(&store).await, []);
        for (column, values) in attacks {
            for value in values {
                let set = format!("{column} = {value}");
                assert!(!found_after(&store, &mut intruder, &set).await.is_empty(), "{}: {set}", database.name());
            }
        }
    }
}

/// An entry that still says what it said, but in other columns than searches look at.
#[tokio::test]
async fn no_entry_can_be_hidden_from_searches() {
    for database in backends().await {
        let store = ledgers(&database).await;
        let mut intruder = Intruder::of(&database).await;
        intruder.disarms().await;
        let (application, session) = ("0195f2a9-1b22-7c3d-9e4f-5a6b7c8d9e11", "session 3");
        let (said_application, said_session) =
            ("07".to_owned() + &application.replace('-', ""), "0609".to_owned() + &hex::encode(session));
        let mut attacks: Vec<String> = [
            // The word of the column, told in the body.
            ("event_type", "01000000", "0109c6010000"),
            ("decision", "01000000", "010009c00100"),
            ("evaluation_status", "01000000", "01000009e601"),
            // What was a reference to the column, told out.
            ("application_id", "4022", &format!("40{said_application}")),
            ("session_id", "4523", &format!("45{said_session}")),
        ]
        .into_iter()
        .map(|(column, from, to)| format!("{column} = NULL, body = {}", intruder.replaced("body", from, to)))
        .collect();
        // The same text under another key.
        attacks.push(format!("application_id = {}", intruder.bytes(&format!("00{}", hex::encode(application)))));
        attacks.push(format!("session_id = {}", intruder.bytes(&format!("0000{}", hex::encode(session)))));
        if database.url().is_none() {
            // SQLite's columns hold anything.
            attacks.extend(["decision = '192x'", "decision = 192.5", "seq = 4.5", "seq = 'x'"].map(str::to_owned));
        }
        let mut unseen = Vec::new();
        for set in attacks {
            if found_after(&store, &mut intruder, &set).await.is_empty() {
                unseen.push(set);
            }
        }
        assert!(unseen.is_empty(), "{}: {unseen:#?}", database.name());
    }
}

/// What a recheck finds once entry 4 of the first zone, which has a value in every column, was changed; all is put back.
async fn found_after(store: &Store, intruder: &mut Intruder, set: &str) -> Vec<(&'static str, u64)> {
    let place = "log = (SELECT log FROM ledger_heads WHERE zone = '0195f2a9-1b22-7c3d-9e4f-5a6b7c8d9e0f')";
    intruder.does("CREATE TABLE kept AS SELECT * FROM ledger_entries").await.unwrap();
    intruder.does(&format!("UPDATE ledger_entries SET {set} WHERE {place} AND seq = 4")).await.unwrap();
    let found = findings(store).await;
    intruder.does("DELETE FROM ledger_entries; INSERT INTO ledger_entries SELECT * FROM kept; DROP TABLE kept").await.unwrap();
    assert_eq!(findings(store).await, [], "all is as it was");
    found
}

#[tokio::test]
async fn deleted_inserted_and_moved_entries_are_found() {
    for database in backends().await {
        let store = ledgers(&database).await;
        let mut intruder = Intruder::of(&database).await;
        intruder.disarms().await;
        let columns = intruder.columns().await.into_iter().filter(|c| c != "seq" && c != "event_id").collect::<Vec<_>>().join(", ");
        let strange = intruder.bytes(&"cd".repeat(16));
        let insert = |seq: i64| {
            format!(
                "INSERT INTO ledger_entries (seq, event_id, {columns}) \
                 SELECT {seq}, {strange}, {columns} FROM ledger_entries WHERE log = 1 AND seq = 4"
            )
        };
        let swap = |what: &str, one: &str, other: &str| {
            format!(
                "UPDATE ledger_entries SET {what} = 77 WHERE {one}; UPDATE ledger_entries SET {what} = {} WHERE {other}; \
                 UPDATE ledger_entries SET {what} = {} WHERE {what} = 77",
                if what == "seq" { "2" } else { "1" },
                if what == "seq" { "3" } else { "2" },
            )
        };
        let attacks = [
            ("delete one", "DELETE FROM ledger_entries WHERE log = 1 AND seq = 2".to_owned(), "entry_missing"),
            ("delete the newest", "DELETE FROM ledger_entries WHERE log = 1 AND seq = 4".to_owned(), "entry_missing"),
            ("insert behind the head", insert(5), "entry_unexpected"),
            ("insert before the first", insert(0), "entry_unexpected"),
            ("insert long before it", insert(i64::MIN), "entry_unexpected"),
            ("swap two places", swap("seq", "log = 1 AND seq = 2", "log = 1 AND seq = 3"), "leaf_changed"),
            ("swap two zones", swap("log", "log = 1 AND seq = 2", "log = 2 AND seq = 2"), "leaf_changed"),
            ("shorten the head", "UPDATE ledger_heads SET next_seq = 4 WHERE log = 1".to_owned(), "sequence_mismatch"),
            ("another origin", "UPDATE ledger_heads SET origin = 'x' WHERE log = 1".to_owned(), "leaf_changed"),
        ];
        assert_eq!(findings(&store).await, []);
        for (what, sql, code) in &attacks {
            intruder
                .does("CREATE TABLE kept AS SELECT * FROM ledger_entries; CREATE TABLE heads AS SELECT * FROM ledger_heads")
                .await
                .unwrap();
            intruder.does(sql).await.unwrap();
            let found = findings(&store).await;
            assert!(found.iter().any(|(found, _)| found == code), "{}: {what}: {found:?}", database.name());
            if what.contains("before") {
                for order in [Order::NewestFirst, Order::Ledger, Order::LedgerBackwards] {
                    let filter = Filter { order, ..Filter::default() };
                    let places = store.ledger_entries(ZONES[0].into(), filter, 100).await.unwrap();
                    assert_eq!(places.len(), 4, "{}: {what}: searches find what there is", database.name());
                }
            }
            let restore = "DELETE FROM ledger_entries; DELETE FROM ledger_heads; INSERT INTO ledger_entries SELECT * FROM kept; \
                           INSERT INTO ledger_heads SELECT * FROM heads; DROP TABLE kept; DROP TABLE heads";
            intruder.does(restore).await.unwrap();
            assert_eq!(findings(&store).await, [], "all is as it was");
        }
    }
}
