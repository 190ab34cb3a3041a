//! What agents do while a stack is tormented: an upstream that remembers, a zone with one agent, governed calls by several workers, and
//! the evidence of it all.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use caracal_client::{Admin, Caracal, Delegation, Mandate, Places, Session};
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub const LEDGER: &str = "resource://ledger";
const WORKERS: usize = 8;

/// Request ids of the calls that reached the upstream, by path.
pub type Seen = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

/// An upstream that answers everything with `ok`; below `/stream` its answer never ends.
pub async fn upstream() -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Seen::default();
    let tell = seen.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(stream, tell.clone()));
        }
    });
    (url, seen)
}

async fn answer(mut stream: TcpStream, tell: Seen) {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        bytes.extend_from_slice(&buffer[..n]);
        while let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head: Vec<u8> = bytes.drain(..end + 4).collect();
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let id = head.lines().find_map(|l| l.strip_prefix("x-request-id: ")).unwrap().to_owned();
            let endless = path.starts_with("/stream");
            tell.lock().unwrap().entry(path).or_default().push(id);
            let text: &[u8] = if endless {
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            } else {
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            };
            let mut good = stream.write_all(text).await.is_ok();
            while good && endless {
                good = stream.write_all(b"5\r\ntick\n\r\n").await.is_ok();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if !good {
                return;
            }
        }
    }
}

/// A zone with one agent that may read the ledger.
pub struct Work {
    pub admin: Admin,
    pub zone: String,
    pub agent: Caracal,
    pub lifecycle: Mandate,
    pub clerk: Session,
    pub edge: Delegation,
}

impl Work {
    pub async fn provision(admin: Admin, places: Places, upstream: &str) -> Self {
        let zone = admin.zone("Work").await.unwrap();
        let (application, secret) = admin.application(&zone, "worker").await.unwrap();
        let provider = admin.bearer_provider(&zone, "key", "sk-real").await.unwrap();
        admin.resource(&zone, LEDGER, upstream, &["ledger:read"], &provider).await.unwrap();
        let grants = json!({LEDGER: {"application": "app", "roles": {"clerk": ["ledger:read"]}}});
        let document = format!(
            "# caracal:data-document\npackage caracal.authz\nimport rego.v1\napp_ids := {}\ngrants := {grants}\n",
            json!({"app": application})
        );
        admin.govern(&zone, "rules", &document).await.unwrap();
        let agent = Caracal::new(places, &zone, &application, secret);
        let lifecycle = agent.bootstrap(&[LEDGER]).await.unwrap();
        let owner = agent.start(&lifecycle, &["clerk"], None, false).await.unwrap();
        let clerk = agent.start(&lifecycle, &["clerk"], None, false).await.unwrap();
        let edge = agent.delegate(&lifecycle, &owner.id, &clerk.id, LEDGER, &["ledger:read"], 3).await.unwrap();
        Self { admin, zone, agent, lifecycle, clerk, edge }
    }

    pub async fn mint(&self) -> Mandate {
        self.agent.mint(LEDGER, &["ledger:read"], &self.clerk.id, &self.edge.id).await.unwrap()
    }

    /// Status and body of a call with this mandate.
    pub async fn call(&self, mandate: &Mandate, path: &str) -> (u16, Bytes) {
        let answer = self.agent.call(mandate, LEDGER, Method::GET, path, Bytes::new()).await.unwrap();
        (answer.status.as_u16(), answer.body)
    }

    /// Every event of the zone.
    pub async fn evidence(&self) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let url = format!("/v1/zones/{}/audit?by=seq&after={after}&limit=1000", self.zone);
            let page = self.admin.call(Method::GET, &url, None).await.unwrap();
            let items = page["items"].as_array().unwrap();
            let Some(last) = items.last() else { return all };
            after = last["seq"].as_u64().unwrap();
            all.extend(items.iter().cloned());
        }
    }

    /// The events, once every one of `calls` is among them.
    pub async fn evidence_of(&self, calls: &BTreeSet<String>) -> Vec<Value> {
        for _ in 0..800 {
            let events = self.evidence().await;
            if ids(&events, "gateway_resource_request").is_superset(calls) {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let events = self.evidence().await;
        let known = ids(&events, "gateway_resource_request");
        panic!("answered without evidence: {:?}", calls.difference(&known).collect::<Vec<_>>());
    }

    /// Several workers make governed calls, up to this many, until they are told to stop.
    pub fn load(&self, calls: usize) -> Load {
        let load = Load::default();
        let workers = (0..WORKERS).map(|_| {
            let (agent, session, edge) = (self.agent.clone(), self.clerk.id.clone(), self.edge.id.clone());
            let Load { sent, next, answered, stop, .. } = load.clone();
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    if n >= calls {
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
        });
        load.workers.lock().unwrap().extend(workers.collect::<Vec<_>>());
        load
    }
}

/// Request ids that have an event of a kind.
pub fn ids(events: &[Value], kind: &str) -> BTreeSet<String> {
    events.iter().filter(|e| e["event_type"] == kind).map(|e| e["request_id"].as_str().unwrap().to_owned()).collect()
}

/// A call that was made.
pub struct Sent {
    pub path: String,
    pub mandate: Mandate,
    /// Its request id, where it was answered.
    pub answered: Option<String>,
}

/// Calls under way.
#[derive(Clone, Default)]
pub struct Load {
    sent: Arc<Mutex<Vec<Sent>>>,
    next: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    workers: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Load {
    /// Waits until this many calls were answered; `alive` says whether that can still happen.
    pub async fn answered(&self, count: usize, mut alive: impl FnMut()) {
        while self.answered.load(Ordering::SeqCst) < count {
            alive();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Ends the workers; what they sent.
    pub async fn end(self) -> Vec<Sent> {
        self.stop.store(true, Ordering::SeqCst);
        let workers = std::mem::take(&mut *self.workers.lock().unwrap());
        for worker in workers {
            worker.await.unwrap();
        }
        std::mem::take(&mut *self.sent.lock().unwrap())
    }
}
