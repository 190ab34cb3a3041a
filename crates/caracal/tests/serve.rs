//! Five processes are one Caracal: what one of them knows binds the others, and what was answered has its evidence whoever dies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use caracal_client::{Caracal, Places};
use caracal_host::World;
use caracal_store::{Store, StoreConfig};
use caracal_testkit::Database;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use support::apart::{AUDIT_KEY, Apart};
use support::offset;
use support::work::{LEDGER, Sent, Work, ids, upstream};

/// The ledger of a zone, recomputed from what is stored; how many entries it has.
async fn verified(database: &Database, zone: &str) -> u64 {
    let config = StoreConfig { database_url: database.url().map(str::to_owned), dir: database.dir().to_owned(), connections: 2 };
    let store = Store::open(&config, World::system(), None).await.unwrap();
    let recheck = caracal_audit::recheck(&store, zone, &[caracal_audit::NamedKey::new(&hex::decode(AUDIT_KEY).unwrap())])
        .await
        .unwrap()
        .unwrap();
    assert!(recheck.findings.is_empty(), "{:?}", recheck.findings);
    recheck.entries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_processes_are_one_caracal() {
    let (Some(database), Some(redis)) = (caracal_testkit::postgres().await, caracal_testkit::redis()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut apart = Apart::new(dir.path(), offset(), database.url().unwrap(), &redis);
    apart.start().await;
    apart.spawn("second gateway", "gateway", 1);
    apart.ready("gateway", 1).await;
    let (url, seen) = upstream().await;
    let work = Work::provision(apart.admin(), apart.places(), &url).await;

    // A governed call, over HTTP at every step.
    let mandate = work.mint().await;
    assert_eq!(work.call(&mandate, "/one").await.1, "ok", "{}", apart.logs());
    // Used at one Gateway, used at all.
    let far = Places { gateway: apart.url("gateway", 1), ..apart.places() };
    let far = Caracal::new(far, &work.zone, work.agent.application(), "unused");
    for agent in [&work.agent, &far] {
        let again = agent.call(&mandate, LEDGER, http::Method::GET, "/two", bytes::Bytes::new()).await.unwrap();
        assert_eq!(again.status.as_u16(), 401);
    }
    assert!(!seen.lock().unwrap().contains_key("/two"));

    // An answer that runs at another Gateway ends with its authority, and a mandate of before opens nothing.
    let (running, held) = (work.mint().await, work.mint().await);
    let mut stream =
        TcpStream::connect(("127.0.0.1", apart.url("gateway", 1).rsplit(':').next().unwrap().parse().unwrap())).await.unwrap();
    let head = format!(
        "GET /stream HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nX-Caracal-Resource: {LEDGER}\r\n\r\n",
        running.expose()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&text).contains("tick") {
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..n]);
    }
    work.agent.revoke(&work.lifecycle, &work.edge.id).await.unwrap();
    // Sooner than any snapshot, which is read every half minute: it was told by the stream.
    let ended = async { while !matches!(stream.read(&mut buffer).await, Ok(0) | Err(_)) {} };
    tokio::time::timeout(Duration::from_secs(15), ended).await.expect("the answer ends with its authority");
    assert!((400..500).contains(&work.call(&held, "/three").await.0));
    assert!(!seen.lock().unwrap().contains_key("/three"));

    // The evidence of all of it is in the ledger, and holds.
    let wanted = ["session_started", "delegation_created", "delegation_revoked", "replay_detected", "policy_activated"];
    let events = caracal_testkit::until("evidence of everything", Duration::from_secs(20), async || {
        let events = work.evidence().await;
        let calls = ids(&events, "gateway_resource_request").len();
        let missing: Vec<_> = wanted.iter().filter(|kind| !events.iter().any(|e| e["event_type"] == ***kind)).collect();
        if calls >= 3 && missing.is_empty() { Ok(events.len()) } else { Err(format!("{calls} calls, without {missing:?}")) }
    });
    let events = events.await;
    assert!(verified(&database, &work.zone).await >= events as u64);
    for name in ["gateway", "second gateway", "sts", "coordinator", "api", "audit"] {
        assert!(apart.stop(name), "{name} does not stop well: {}", apart.logs());
    }
}

/// STS and Gateway are killed among calls, Audit sees nothing of it, and Redis forgets everything: what was answered is on their disks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_has_its_evidence_whoever_dies() {
    let (Some(database), Some(redis)) = (caracal_testkit::postgres().await, caracal_testkit::redis()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut apart = Apart::new(dir.path(), offset(), database.url().unwrap(), &redis);
    apart.start().await;
    let (url, seen) = upstream().await;
    let work = Work::provision(apart.admin(), apart.places(), &url).await;

    let load = work.load(1000);
    load.answered(60, || ()).await;
    apart.kill("audit");
    load.answered(120, || ()).await;
    apart.kill("gateway");
    apart.kill("sts");
    let sent = load.end().await;
    assert!(sent.iter().any(|s| s.answered.is_none()), "the kill met calls under way");
    caracal_testkit::redis_forgets(&redis);

    for service in ["sts", "audit", "gateway"] {
        apart.spawn(service, service, 0);
        apart.ready(service, 0).await;
    }
    let answered: BTreeSet<String> = sent.iter().filter_map(|s| s.answered.clone()).collect();
    let events = work.evidence_of(&answered).await;
    let exchanges = ids(&events, "token_exchange");
    let reached: BTreeSet<String> = seen.lock().unwrap().values().flatten().cloned().collect();
    let missing: Vec<_> = reached.difference(&exchanges).collect();
    assert!(missing.is_empty(), "the upstream saw calls without evidence: {missing:?}");
    // A memory that cannot know what was used says so to everything older than itself.
    let spent: Vec<&Sent> = sent.iter().filter(|s| s.answered.is_some()).collect();
    for one in &spent {
        assert_eq!(work.call(&one.mandate, "/again").await.0, 401, "{}", one.path);
    }
    assert!(!seen.lock().unwrap().contains_key("/again"));
    assert_eq!(work.call(&work.mint().await, "/after").await.1, "ok", "and life goes on");
    verified(&database, &work.zone).await;
}

/// A Redis of the test's own, which keeps nothing on disk.
struct Redis {
    port: u16,
    running: Child,
}

impl Redis {
    /// `None` where there is no `redis-server`.
    async fn start(port: u16) -> Option<Self> {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()]);
        let running = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let answers = async || TcpStream::connect(("127.0.0.1", port)).await.map(drop);
        caracal_testkit::until("Redis listens", Duration::from_secs(10), answers).await;
        Some(Self { port, running })
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.running.kill();
        let _ = self.running.wait();
    }
}

/// Redis dies among calls and comes back empty: what needs it denies, what does not goes on, and nothing is restarted or lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_dies_delays_and_loses_nothing() {
    let Some(database) = caracal_testkit::postgres().await else { return };
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Some(redis) = Redis::start(port).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut apart = Apart::new(dir.path(), offset(), database.url().unwrap(), &redis.url());
    apart.start().await;
    let (url, seen) = upstream().await;
    let work = Work::provision(apart.admin(), apart.places(), &url).await;
    let load = work.load(1000);
    load.answered(60, || ()).await;
    drop(redis);
    let sent = load.end().await;
    let answered: BTreeSet<String> = sent.iter().filter_map(|s| s.answered.clone()).collect();

    // Authority is decided on the database alone; a mandate that cannot be remembered opens nothing.
    let away = work.mint().await;
    assert_eq!(work.call(&away, "/away").await.0, 503);
    assert!(!seen.lock().unwrap().contains_key("/away"));
    let session = work.agent.start(&work.lifecycle, &["clerk"], None, false).await.unwrap();

    let _redis = Redis::start(port).await.unwrap();
    for service in ["sts", "gateway", "audit"] {
        apart.ready(service, 0).await;
    }
    work.evidence_of(&answered).await;
    let told = async || {
        let events = work.evidence().await;
        let of = |e: &serde_json::Value| e["event_type"] == "session_started" && e.to_string().contains(&session.id);
        if events.iter().any(of) { Ok(()) } else { Err(events.len()) }
    };
    caracal_testkit::until("what changed meanwhile is told", Duration::from_secs(20), told).await;
    let works = async || match work.call(&work.mint().await, "/after").await {
        (200, _) => Ok(()),
        other => Err(other),
    };
    caracal_testkit::until("calls go through again", Duration::from_secs(20), works).await;
    verified(&database, &work.zone).await;
}
