//! Evidence on its way into the ledger, on both backends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Body;
use caracal_audit::judge::Judge;
use caracal_audit::metrics::Numbers;
use caracal_audit::{Audit, Config, Ingestor, NamedKey, Parts, recheck, service};
use caracal_core::event::{AuditEvent, Verdict};
use caracal_crypto::mac::{MacKey, audit_signature};
use caracal_host::config::{Run, Sources};
use caracal_host::jobs::Stop;
use caracal_host::{Metrics, World};
use caracal_store::journal::SpooledEvent;
use caracal_store::ledger::{Filter, Order};
use caracal_store::{Store, StoreConfig};
use caracal_stream::spool::{Spool, Table};
use caracal_stream::{Bus, Delivery};
use caracal_testkit::{backends, until};
use http::Request;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use support::Intruder;

const KEY: [u8; 32] = [7; 32];
const ZONE: &str = "0195f2a9-1b22-7c3d-9e4f-5a6b7c8d9e0f";

struct Fixture {
    store: Store,
    world: World,
    bus: Bus,
    delivery: Delivery<Table>,
    ingestor: Ingestor,
    numbers: Numbers,
    database: caracal_testkit::Database,
}

fn judge() -> Judge {
    Judge { keys: vec![NamedKey::new(&KEY)], retention: Duration::from_hours(24) }
}

impl Fixture {
    async fn each() -> Vec<Self> {
        Self::each_by(1000).await
    }

    /// With so many messages taken in at once.
    async fn each_by(batch: usize) -> Vec<Self> {
        let mut all = Vec::new();
        for (database, shared) in backends().await.into_iter().zip([false, true]) {
            let world = World::system();
            let bus = match caracal_testkit::redis() {
                Some(url) if shared => Bus::redis(&url).await.unwrap(),
                _ => Bus::in_process(world.clone()),
            };
            let config =
                StoreConfig { database_url: database.url().map(ToOwned::to_owned), dir: database.dir().to_owned(), connections: 8 };
            let store = Store::open(&config, world.clone(), Some(MacKey::from_bytes(&KEY))).await.unwrap();
            let numbers = Numbers::new(Metrics::new("audit"));
            let delivery = Delivery::new(Table::open(store.clone(), u64::MAX).await.unwrap(), bus.clone());
            let ingestor = Ingestor::new(
                store.clone(),
                bus.clone(),
                "one".into(),
                world.clone(),
                judge(),
                "test.local/log",
                batch,
                numbers.clone(),
            );
            all.push(Self { store, world, bus, delivery, ingestor, numbers, database });
        }
        all
    }

    fn event(&self, request: &str, decision: Verdict) -> AuditEvent {
        let mut event = AuditEvent::new(self.world.mint(), ZONE.into(), "token_exchange", decision, "complete", self.world.now());
        request.clone_into(&mut event.request_id);
        event.with("resource", "resource://ledger").with("agent_labels", serde_json::json!(["clerk", "clerk-senior"]))
    }

    async fn spool(&self, event: &AuditEvent, sig: Option<String>) {
        let data = event.to_data();
        let sig = sig.unwrap_or_else(|| audit_signature(&MacKey::from_bytes(&KEY), &data));
        let table = Table::open(self.store.clone(), u64::MAX).await.unwrap();
        Spool::Table(table).append(vec![SpooledEvent { id: event.id, data, sig }]).await.unwrap();
    }

    /// Sends what waits, takes it in, lets go of it; how many messages were taken in.
    async fn pass(&self) -> usize {
        let mut all = 0;
        while self.delivery.pass().await.unwrap() > 0 {
            all += self.ingestor.pass().await.unwrap();
        }
        all
    }

    async fn all(&self) -> Vec<caracal_store::ledger::Entry> {
        let filter = Filter { order: Order::Ledger, ..Filter::default() };
        self.store.ledger_entries(ZONE.into(), filter, 5000).await.unwrap()
    }

    async fn clean(&self) -> bool {
        recheck(&self.store, ZONE, &[NamedKey::new(&KEY)]).await.unwrap().unwrap().findings.is_empty()
    }
}

/// Acceptance rows 3 and 25.
#[tokio::test]
async fn an_event_becomes_the_first_leaf_and_is_let_go() {
    for f in Fixture::each().await {
        let event = f.event("req-7", Verdict::Allow);
        f.spool(&event, None).await;
        assert_eq!(f.pass().await, 1);
        let entries = f.all().await;
        assert_eq!((entries.len(), entries[0].seq, entries[0].previous), (1, 1, None));
        assert_eq!(entries[0].event.to_value(), serde_json::from_slice::<Value>(&event.to_data()).unwrap());
        assert!(f.store.spooled(10).await.unwrap().is_empty());
        assert!(f.clean().await);
        let head = f.store.ledger_head(ZONE.into()).await.unwrap().unwrap();
        assert_eq!((head.origin, head.next_seq), (format!("test.local/log/{ZONE}"), 2));
    }
}

/// Acceptance rows 4 to 7.
#[tokio::test]
async fn copies_are_one_entry_and_other_content_is_an_alert() {
    for f in Fixture::each().await {
        let event = f.event("req-7", Verdict::Allow);
        for _ in 0..5 {
            f.spool(&event, None).await;
        }
        f.pass().await;
        f.spool(&event, None).await;
        let mut other = event.clone();
        other.decision = Verdict::Deny;
        f.spool(&other, None).await;
        let mut moved = event.clone();
        moved.occurred_at = moved.occurred_at.minus_secs(1);
        f.spool(&moved, None).await;
        f.spool(&f.event("forged", Verdict::Allow), Some("00".repeat(32))).await;
        f.pass().await;
        let entries = f.all().await;
        assert_eq!((entries.len(), entries[0].event.decision.as_str()), (1, "allow"));
        assert_eq!((f.numbers.duplicates.get(), f.numbers.tamper_replay.get(), f.numbers.hmac_failures.get()), (5, 2, 1));
        assert_eq!(f.store.ledger_dead_count().await.unwrap(), 3);
        assert!(f.store.spooled(10).await.unwrap().is_empty() && f.clean().await);
    }
}

/// However many rows a statement writes: the last of a batch is as good as the first.
#[tokio::test]
async fn a_large_batch_is_one_ledger() {
    for f in Fixture::each().await {
        for i in 0..150 {
            f.spool(&f.event(&format!("r-{i}"), Verdict::Allow), None).await;
        }
        assert_eq!(f.pass().await, 150);
        let entries = f.all().await;
        let requests: Vec<String> = entries.iter().map(|e| e.event.request_id.clone()).collect();
        assert_eq!(requests, (0..150).map(|i| format!("r-{i}")).collect::<Vec<_>>());
        assert!(f.clean().await);
    }
}

/// Two ingestors on one ledger, as after a crash or with two replicas: no gap, no second entry.
#[tokio::test]
async fn two_ingestors_make_one_ledger() {
    for f in Fixture::each().await {
        for i in 0..90 {
            f.spool(&f.event(&format!("r-{i}"), Verdict::Allow), None).await;
        }
        assert_eq!(f.delivery.pass().await.unwrap(), 90);
        let runs: Vec<_> = (0..3)
            .map(|n| {
                let (store, bus, world, numbers) = (f.store.clone(), f.bus.clone(), f.world.clone(), f.numbers.clone());
                let other = Ingestor::new(store, bus, format!("other {n}"), world, judge(), "test.local/log", 7, numbers);
                tokio::spawn(async move { other.pass().await })
            })
            .collect();
        for run in runs {
            run.await.unwrap().unwrap();
        }
        f.pass().await;
        let entries = f.all().await;
        assert_eq!(entries.iter().map(|e| e.seq).collect::<Vec<_>>(), (1..=90).collect::<Vec<_>>());
        let ids: std::collections::HashSet<_> = entries.iter().map(|e| e.event.id).collect();
        assert_eq!(ids.len(), 90);
        assert!(f.clean().await);
    }
}

/// Acceptance row 13: with another key than the emitters' nothing more is taken in; the rest waits for whoever looks.
#[tokio::test]
async fn a_wrong_key_stops_after_a_hundred() {
    // In one batch, and over several.
    for f in Fixture::each_by(1000).await.into_iter().chain(Fixture::each_by(30).await) {
        f.spool(&f.event("good", Verdict::Allow), None).await;
        for i in 0..150 {
            f.spool(&f.event(&format!("r-{i}"), Verdict::Allow), Some("ab".repeat(32))).await;
        }
        f.pass().await;
        assert!(f.ingestor.health().key_mismatch());
        assert_eq!(f.ingestor.pass().await.unwrap(), 0);
        assert_eq!((f.all().await.len(), f.store.ledger_dead_count().await.unwrap()), (1, 100));
        assert_eq!(f.store.spooled(1000).await.unwrap().len(), 151, "a batch is let go whole");
    }
}

/// A batch that cannot be put aside comes again, and its signatures are not counted again.
#[tokio::test]
async fn what_comes_again_is_no_second_failure() {
    for f in Fixture::each().await {
        let mut intruder = Intruder::of(&f.database).await;
        for i in 0..60 {
            f.spool(&f.event(&format!("r-{i}"), Verdict::Allow), Some("ab".repeat(32))).await;
        }
        f.delivery.pass().await.unwrap();
        intruder.does("ALTER TABLE ledger_dead_letters RENAME TO away").await.unwrap();
        for _ in 0..2 {
            f.ingestor.pass().await.unwrap_err();
        }
        intruder.does("ALTER TABLE away RENAME TO ledger_dead_letters").await.unwrap();
        f.ingestor.pass().await.unwrap();
        assert!(!f.ingestor.health().key_mismatch());
        assert_eq!(f.store.ledger_dead_count().await.unwrap(), 60);
    }
}

/// What is rebuilt from its stored text is what was committed to, whatever numbers and cuts it holds.
#[tokio::test]
async fn odd_events_recheck_clean() {
    for f in Fixture::each().await {
        let mut event = f.event(&format!("{} x", "r".repeat(255)), Verdict::Allow);
        event = event
            .with("double", 0.014_700_000_000_000_001)
            .with("large", 9_007_199_254_740_993_u64)
            .with("deep", serde_json::json!({"a": [1e300, null]}));
        f.spool(&event, None).await;
        let mut oversize = f.event("big", Verdict::Allow).with("blob", "y".repeat(60_000));
        oversize.evaluation_status = "complete";
        f.spool(&oversize, None).await;
        f.pass().await;
        assert_eq!(
            (f.all().await.len(), f.store.ledger_dead_count().await.unwrap()),
            (2, 1),
            "the original of what was too large is kept"
        );
        let recheck = recheck(&f.store, ZONE, &[NamedKey::new(&KEY)]).await.unwrap().unwrap();
        assert!(recheck.findings.is_empty(), "{:?}", recheck.findings);
    }
}

/// Acceptance rows 14 and 15, on the store; and by request.
#[tokio::test]
async fn filters_and_pages() {
    for f in Fixture::each().await {
        let now = f.world.now();
        let mut ids = Vec::new();
        for i in 0..25 {
            let mut event = f.event(if i % 2 == 0 { "even" } else { "odd" }, if i == 3 { Verdict::Deny } else { Verdict::Allow });
            event.occurred_at = now;
            event = event.with("trace_id", format!("trace-{i}"));
            if i % 2 == 0 {
                event = event.with("application_id", ZONE);
            }
            ids.push(event.id);
            f.spool(&event, None).await;
        }
        f.pass().await;
        let find = async |filter: Filter| f.store.ledger_entries(ZONE.into(), filter, 100).await.unwrap().len();
        assert_eq!(find(Filter { decision: Some("deny".into()), ..Filter::default() }).await, 1);
        assert_eq!(find(Filter { label: Some("clerk".into()), ..Filter::default() }).await, 25);
        assert_eq!(find(Filter { label: Some("senior".into()), ..Filter::default() }).await, 0, "labels are found whole");
        assert_eq!(find(Filter { event_types: vec!["token_exchange".into(), "x".into()], ..Filter::default() }).await, 25);
        assert_eq!(find(Filter { event_types: vec!["x".into()], ..Filter::default() }).await, 0);
        assert_eq!(find(Filter { since: Some(now), until: Some(now.plus_secs(1)), ..Filter::default() }).await, 25);
        assert_eq!(find(Filter { until: Some(now), ..Filter::default() }).await, 0);
        // What no column decides is looked at entry by entry; by ingestion places are the range.
        assert_eq!(find(Filter { resource: Some("resource://ledger".into()), ..Filter::default() }).await, 25);
        assert_eq!(find(Filter { resource: Some("resource://other".into()), ..Filter::default() }).await, 0);
        assert_eq!(find(Filter { trace_id: Some("trace-7".into()), ..Filter::default() }).await, 1);
        assert_eq!(find(Filter { fingerprint: Some("f".into()), record_id: Some("r".into()), ..Filter::default() }).await, 0);
        assert_eq!(find(Filter { decision: Some("partial".into()), ..Filter::default() }).await, 0);
        assert_eq!(find(Filter { application_id: Some(ZONE.into()), ..Filter::default() }).await, 13);
        assert_eq!(find(Filter { session_id: Some("s\0".into()), ..Filter::default() }).await, 0);
        let ingested = f.all().await[0].ingested_at;
        let by = |since, until| Filter { since, until, by_ingestion: true, order: Order::Ledger, ..Filter::default() };
        assert_eq!(find(by(Some(ingested), None)).await, 25);
        assert_eq!((find(by(None, Some(ingested))).await, find(by(Some(ingested.plus_secs(1)), None)).await), (0, 0));
        assert_eq!(find(Filter { event_id: Some(ids[4]), ..Filter::default() }).await, 1);
        assert_eq!(f.store.ledger_by_request(ZONE.into(), "odd".into(), 1000).await.unwrap().len(), 12);
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = f.store.ledger_entries(ZONE.into(), Filter { after, ..Filter::default() }, 7).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some((last.event.occurred_at, last.event.id));
            seen.extend(page.iter().map(|e| e.event.id));
        }
        ids.sort_unstable();
        ids.reverse();
        assert_eq!(seen, ids, "each exactly once, newest first, although all share one microsecond");
    }
}

/// Audit of these parts, with what is set.
fn audit(f: &Fixture, vars: &[(&str, &str)], stop: &Stop) -> Audit {
    let vars: HashMap<&str, &str> = [("CARACAL_MODE", "dev")].into_iter().chain(vars.iter().copied()).collect();
    let config = Config::read(&Sources::builder(Run::Up).environment(vars).build().unwrap()).unwrap();
    let (store, bus, world) = (f.store.clone(), f.bus.clone(), f.world.clone());
    let (metrics, origin) = (Metrics::new("audit"), "test.local/log".into());
    Audit::new(Parts { config, world, store, bus, metrics, origin, stop: stop.clone() })
}

async fn answer(audit: &Audit, request: http::request::Builder) -> (u16, http::HeaderMap, Vec<u8>) {
    let response = service(audit).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts.status.as_u16(), parts.headers, body.collect().await.unwrap().to_bytes().to_vec())
}

/// Acceptance row 20, of the consumer; `audit.md` 9.
#[tokio::test]
async fn who_cannot_take_evidence_in_is_not_well() {
    for f in Fixture::each().await {
        let stop = Stop::new();
        let audit = audit(&f, &[], &stop);
        let health = async || {
            let (status, _, body) = answer(&audit, Request::builder().uri("/health")).await;
            (status, String::from_utf8(body).unwrap())
        };
        assert_eq!(health().await, (200, String::new()));
        let mut intruder = Intruder::of(&f.database).await;
        intruder.does("ALTER TABLE ledger_heads RENAME TO away").await.unwrap();
        let running = tokio::spawn({
            let (ingestor, stop) = (audit.ingestor().clone(), stop.clone());
            async move { ingestor.run(&stop).await }
        });
        f.spool(&f.event("req-7", Verdict::Allow), None).await;
        f.delivery.pass().await.unwrap();
        let turns = async |wanted: u16| {
            until("health", Duration::from_secs(20), async || if health().await.0 == wanted { Ok(()) } else { Err("not yet") })
                .await;
        };
        turns(503).await;
        assert_eq!(health().await, (503, "consumer_unhealthy".to_owned()));
        intruder.does("ALTER TABLE away RENAME TO ledger_heads").await.unwrap();
        turns(200).await;
        assert_eq!(f.all().await.len(), 1, "nothing was lost");
        stop.ask();
        running.await.unwrap();
    }
}

/// Acceptance row 2, and the search answer.
#[tokio::test]
async fn operators_ask_with_their_token() {
    for f in Fixture::each().await {
        f.spool(&f.event("req-7", Verdict::Allow), None).await;
        f.pass().await;
        let ask = async |token: Option<&str>, header: Option<&str>, query: &str| {
            let vars: Vec<(&str, &str)> = token.map(|t| ("AUDIT_ADMIN_TOKEN", t)).into_iter().collect();
            let mut request = Request::builder().uri(query);
            if let Some(header) = header {
                request = request.header("authorization", header);
            }
            let (status, headers, bytes) = answer(&audit(&f, &vars, &Stop::new()), request).await;
            (status, headers, serde_json::from_slice::<Value>(&bytes).unwrap_or_default())
        };
        let search = format!("/api/audit/search?zone_id={ZONE}");
        assert_eq!(ask(None, Some("Bearer op"), &search).await.0, 404, "without a token the route does not exist");
        for header in [None, Some("Bearer wrong"), Some("op")] {
            let (status, headers, body) = ask(Some("op"), header, &search).await;
            assert_eq!((status, &headers["www-authenticate"]), (401, &"Bearer realm=\"caracal-audit\"".parse().unwrap()));
            assert_eq!(body["error"], "unauthorized");
        }
        assert_eq!(ask(Some("op"), Some("Bearer op"), "/api/audit/search").await.0, 400);
        let (status, _, body) = ask(Some("op"), Some("Bearer op"), &search).await;
        assert_eq!((status, &body["next_cursor"], &body["checkpoint_size"]), (200, &"1".into(), &1.into()));
        let entry = &body["events"][0];
        assert_eq!((&entry["ChainSeq"], &entry["LeafIndex"], &entry["PrevContentSHA256"]), (&1.into(), &0.into(), &"".into()));
        assert_eq!(entry["ContentSHA256"].as_str().unwrap().len(), 64);
        let (_, _, none) = ask(Some("op"), Some("Bearer op"), "/api/audit/search?zone_id=other").await;
        assert_eq!(none, serde_json::json!({"events": [], "next_cursor": "", "checkpoint_size": 0}));
        assert_eq!(ask(None, None, "/ready").await.2, serde_json::json!({"ok": true, "ready": true}));
    }
}
