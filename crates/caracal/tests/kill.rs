//! `kill -9` of a running stack in the middle of a thousand governed calls. What was answered has its evidence, what the upstream saw
//! has evidence, the chain verifies, and no mandate of before opens anything after.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use caracal_client::{Admin, Places};
use caracal_host::World;
use caracal_store::{Store, StoreConfig};

use support::work::{Sent, Work, ids, upstream};
use support::{TOKEN, offset, ready, up};

const CALLS: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_that_is_killed_forgets_nothing_it_did() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let offset = offset();
    let (url, seen) = upstream().await;
    let mut process = up(home, offset, &[]);
    ready(offset, home).await;

    let at = |port: u16| format!("http://localhost:{}", port + offset);
    let places = Places { sts: at(8080), coordinator: at(4000), gateway: at(8081) };
    let work = Work::provision(Admin::new(at(3000), TOKEN.to_owned()), places, &url).await;

    // A thousand calls; after three hundred answers the process is gone.
    let load = work.load(CALLS);
    let alive = || assert!(process.try_wait().unwrap().is_none(), "{}", fs::read_to_string(home.join("log")).unwrap());
    load.answered(CALLS * 3 / 10, alive).await;
    process.kill().unwrap();
    process.wait().unwrap();
    let sent = load.end().await;
    assert!(sent.iter().any(|s| s.answered.is_none()), "the kill met calls under way");

    let mut process = up(home, offset, &[]);
    ready(offset, home).await;
    let answered: BTreeSet<String> = sent.iter().filter_map(|s| s.answered.clone()).collect();
    let events = work.evidence_of(&answered).await;
    let exchanges = ids(&events, "token_exchange");
    let reached: BTreeSet<String> = seen.lock().unwrap().values().flatten().cloned().collect();
    let missing: Vec<_> = reached.difference(&exchanges).collect();
    assert!(missing.is_empty(), "the upstream saw calls without evidence: {missing:?}");
    assert!(seen.lock().unwrap().values().all(|ids| ids.len() == 1), "no call twice");

    // What reached the upstream was consumed for good, answered or not.
    let spent: Vec<&Sent> = sent.iter().filter(|s| seen.lock().unwrap().contains_key(&s.path)).collect();
    assert!(spent.len() >= answered.len());
    for one in &spent {
        assert_eq!(work.call(&one.mandate, "/again").await.0, 401, "{}", one.path);
    }
    assert!(!seen.lock().unwrap().contains_key("/again"));
    // What did not is spent or not: it opens one call at the most.
    for (n, one) in sent.iter().filter(|s| !seen.lock().unwrap().contains_key(&s.path)).enumerate() {
        let path = format!("/late/{n}");
        let status = [work.call(&one.mandate, &path).await.0, work.call(&one.mandate, &path).await.0];
        assert!(matches!(status, [200 | 401, 401]), "{}: {status:?}", one.path);
    }
    // And life goes on.
    assert_eq!(work.call(&work.mint().await, "/after").await.1, "ok");

    let stopped = Command::new("kill").arg(process.id().to_string()).status().unwrap();
    assert!(stopped.success() && process.wait().unwrap().success(), "a graceful stop exits 0");
    let key = fs::read_to_string(home.join("stack/secrets/auditHmacKey")).unwrap();
    let key = caracal_audit::NamedKey::new(&hex::decode(key.trim()).unwrap());
    let config = StoreConfig { database_url: None, dir: home.join("stack/data"), connections: 2 };
    let store = Store::open(&config, World::system(), None).await.unwrap();
    let recheck = caracal_audit::recheck(&store, &work.zone, &[key]).await.unwrap().unwrap();
    assert!(recheck.findings.is_empty(), "{:?}", recheck.findings);
    assert!(recheck.entries >= events.len() as u64);
    assert!(store.spooled(10).await.unwrap().is_empty(), "a graceful stop takes everything in");
}
