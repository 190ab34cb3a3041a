//! `kill -9` of a running stack in the middle of a thousand governed calls. What was answered has its evidence, what the upstream saw
//! has evidence, the chain verifies, and no mandate of before opens anything after.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use caracal_client::{Admin, Caracal, Mandate, Places};
use caracal_crypto::mac::MacKey;
use caracal_host::World;
use caracal_store::{Store, StoreConfig};
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use support::{TOKEN, offset, ready, up};

const LEDGER: &str = "resource://ledger";
const CALLS: usize = 1000;
const WORKERS: usize = 8;

/// An upstream that answers everything and keeps the request id of each call by its path.
async fn upstream() -> (String, Arc<Mutex<BTreeMap<String, Vec<String>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen: Arc<Mutex<BTreeMap<String, Vec<String>>>> = Arc::default();
    let tell = seen.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let tell = tell.clone();
            tokio::spawn(async move {
                let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    bytes.extend_from_slice(&buffer[..n]);
                    while let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                        let head: Vec<u8> = bytes.drain(..end + 4).collect();
                        let head = String::from_utf8(head).unwrap();
                        let path = head.split(' ').nth(1).unwrap().to_owned();
                        let id = head.lines().find_map(|l| l.strip_prefix("x-request-id: ")).unwrap().to_owned();
                        tell.lock().unwrap().entry(path).or_default().push(id);
                        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    (url, seen)
}

/// Every event of a zone.
async fn evidence(admin: &Admin, zone: &str) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = admin.call(Method::GET, &format!("/v1/zones/{zone}/audit?by=seq&after={after}&limit=1000"), None).await.unwrap();
        let items = page["items"].as_array().unwrap();
        let Some(last) = items.last() else { return all };
        after = last["seq"].as_u64().unwrap();
        all.extend(items.iter().cloned());
    }
}

/// Request ids that have an event of a kind.
fn ids(events: &[Value], kind: &str) -> BTreeSet<String> {
    events.iter().filter(|e| e["event_type"] == kind).map(|e| e["request_id"].as_str().unwrap().to_owned()).collect()
}

struct Sent {
    path: String,
    mandate: Mandate,
    answered: Option<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_that_is_killed_forgets_nothing_it_did() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let offset = offset();
    let (url, seen) = upstream().await;
    let mut process = up(home, offset, &[]);
    ready(offset, home).await;

    let at = |port: u16| format!("http://localhost:{}", port + offset);
    let admin = Admin::new(at(3000), TOKEN.to_owned());
    let zone = admin.zone("Kill").await.unwrap();
    let (application, secret) = admin.application(&zone, "worker").await.unwrap();
    let provider = admin.bearer_provider(&zone, "key", "sk-real").await.unwrap();
    admin.resource(&zone, LEDGER, &url, &["ledger:read"], &provider).await.unwrap();
    let grants = json!({LEDGER: {"application": "app", "roles": {"clerk": ["ledger:read"]}}});
    let document = format!(
        "# caracal:data-document\npackage caracal.authz\nimport rego.v1\napp_ids := {}\ngrants := {grants}\n",
        json!({"app": application})
    );
    admin.govern(&zone, "rules", &document).await.unwrap();
    let places = Places { sts: at(8080), coordinator: at(4000), gateway: at(8081) };
    let agent = Caracal::new(places, &zone, &application, secret);
    let lifecycle = agent.bootstrap(&[LEDGER]).await.unwrap();
    let owner = agent.start(&lifecycle, &["clerk"], None, false).await.unwrap();
    let clerk = agent.start(&lifecycle, &["clerk"], None, false).await.unwrap();
    let edge = agent.delegate(&lifecycle, &owner.id, &clerk.id, LEDGER, &["ledger:read"], 3).await.unwrap();

    // A thousand calls by eight workers; after three hundred answers the process is gone.
    let (sent, next, answered, dead) = (
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (agent, session, edge) = (agent.clone(), clerk.id.clone(), edge.id.clone());
            let (sent, next, answered, dead) = (sent.clone(), next.clone(), answered.clone(), dead.clone());
            tokio::spawn(async move {
                while !dead.load(Ordering::SeqCst) {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    if n >= CALLS {
                        return;
                    }
                    let Ok(mandate) = agent.mint(LEDGER, &["ledger:read"], &session, &edge).await else { continue };
                    let path = format!("/c/{n}");
                    let outcome = agent.call(&mandate, LEDGER, Method::GET, &path, Bytes::new()).await;
                    let id = outcome.ok().filter(|a| a.status.is_success() && a.body == "ok").map(|a| {
                        answered.fetch_add(1, Ordering::SeqCst);
                        a.headers["x-request-id"].to_str().unwrap().to_owned()
                    });
                    sent.lock().unwrap().push(Sent { path, mandate, answered: id });
                }
            })
        })
        .collect();
    while answered.load(Ordering::SeqCst) < CALLS * 3 / 10 {
        assert!(process.try_wait().unwrap().is_none(), "{}", fs::read_to_string(home.join("log")).unwrap());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    process.kill().unwrap();
    process.wait().unwrap();
    dead.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.await.unwrap();
    }
    let sent = std::mem::take(&mut *sent.lock().unwrap());
    assert!(sent.iter().any(|s| s.answered.is_none()), "the kill met calls under way");

    let mut process = up(home, offset, &[]);
    ready(offset, home).await;
    let answered: BTreeSet<String> = sent.iter().filter_map(|s| s.answered.clone()).collect();
    let mut events = Vec::new();
    for _ in 0..200 {
        events = evidence(&admin, &zone).await;
        if ids(&events, "gateway_resource_request").is_superset(&answered) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (calls, exchanges) = (ids(&events, "gateway_resource_request"), ids(&events, "token_exchange"));
    let missing: Vec<_> = answered.difference(&calls).collect();
    assert!(missing.is_empty(), "answered without evidence: {missing:?}");
    let reached: BTreeSet<String> = seen.lock().unwrap().values().flatten().cloned().collect();
    let missing: Vec<_> = reached.difference(&exchanges).collect();
    assert!(missing.is_empty(), "the upstream saw calls without evidence: {missing:?}");
    assert!(seen.lock().unwrap().values().all(|ids| ids.len() == 1), "no call twice");

    // What reached the upstream was consumed for good, answered or not.
    let spent: Vec<&Sent> = sent.iter().filter(|s| seen.lock().unwrap().contains_key(&s.path)).collect();
    assert!(spent.len() >= answered.len());
    for one in &spent {
        let again = agent.call(&one.mandate, LEDGER, Method::GET, "/again", Bytes::new()).await.unwrap();
        assert_eq!(again.status.as_u16(), 401, "{}", one.path);
    }
    assert!(!seen.lock().unwrap().contains_key("/again"));
    // And life goes on.
    let fresh = agent.mint(LEDGER, &["ledger:read"], &clerk.id, &edge.id).await.unwrap();
    assert_eq!(agent.call(&fresh, LEDGER, Method::GET, "/after", Bytes::new()).await.unwrap().body, "ok");

    let stopped = Command::new("kill").arg(process.id().to_string()).status().unwrap();
    assert!(stopped.success() && process.wait().unwrap().success(), "a graceful stop exits 0");
    let key = fs::read_to_string(home.join("stack/secrets/auditHmacKey")).unwrap();
    let key = MacKey::from_hex(key.trim()).unwrap();
    let config = StoreConfig { database_url: None, dir: home.join("stack/data"), connections: 2 };
    let store = Store::open(&config, World::system(), None).await.unwrap();
    let recheck = caracal_audit::recheck(&store, &zone, &[key]).await.unwrap().unwrap();
    assert!(recheck.findings.is_empty(), "{:?}", recheck.findings);
    assert!(recheck.entries >= events.len() as u64);
    assert!(store.spooled(10).await.unwrap().is_empty(), "a graceful stop takes everything in");
}
