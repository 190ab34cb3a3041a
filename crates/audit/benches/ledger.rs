//! What the ledger costs: events a second, CPU and bytes of an event, on each backend that can be reached.
//!
//! `cargo bench -p caracal-audit`, or under `scripts/services` for PostgreSQL too. Events are those of governed calls: two decisions and
//! the call. Measured is from the signed bytes to the committed ledger, in the batches that ingestion makes. CPU is this process's, so
//! PostgreSQL's own is not in it.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, missing_docs, reason = "a measurement")]
#![allow(clippy::disallowed_methods, reason = "what is measured is time")]

use std::time::{Duration, Instant};

use caracal_audit::NamedKey;
use caracal_audit::append::Ledger;
use caracal_audit::judge::{Judge, Message};
use caracal_core::event::{AuditEvent, DecidedBy, Verdict};
use caracal_core::id::{EventId, ZoneId};
use caracal_crypto::mac::{MacKey, audit_signature};
use caracal_host::World;
use caracal_store::{Store, StoreConfig};
use caracal_testkit::{Database, backends};
use serde_json::{Value, json};

const CALLS: usize = 10_000;
const BATCH: usize = 500;
const KEY: [u8; 32] = [7; 32];

#[tokio::main]
async fn main() {
    for recorded in [false, true] {
        for database in backends().await {
            measure(&database, recorded).await;
        }
    }
}

async fn measure(database: &Database, recorded: bool) {
    let world = World::system();
    let config =
        StoreConfig { database_url: database.url().map(ToOwned::to_owned), dir: database.dir().to_owned(), connections: 4 };
    let store = Store::open(&config, world.clone(), Some(MacKey::from_bytes(&KEY))).await.unwrap();
    let judge = Judge { keys: vec![NamedKey::new(&KEY)], retention: Duration::from_hours(24) };
    let ledger = Ledger::new(store.clone(), world.clone(), &judge.keys, "bench.local/log");
    let mut calls = Calls::new(world.clone(), recorded);
    let (mut wall, mut cpu, mut bytes) = (Duration::ZERO, Duration::ZERO, 0);
    for _ in 0..CALLS / 1000 {
        let messages: Vec<Message> = (0..1000).flat_map(|_| calls.next()).collect();
        bytes += messages.iter().flat_map(|m| &m.data).map(Vec::len).sum::<usize>();
        let (began, before) = (Instant::now(), cpu_time());
        for batch in messages.chunks(BATCH) {
            let accepted = batch.iter().map(|m| judge.judge(m.clone(), world.now()).unwrap()).collect();
            ledger.append(&calls.zone, accepted).await.unwrap();
        }
        wall += began.elapsed();
        cpu += cpu_time().saturating_sub(before);
    }
    let events = (CALLS * 3) as f64;
    let stored = store.ledger_bytes().await.unwrap();
    println!(
        "{:8} {:20} {:7.0} events/s  {:5.1} µs CPU  {:5.0} bytes stored of {:5.0} sent, an event",
        database.name(),
        if recorded { "with recorded input" } else { "without" },
        events / wall.as_secs_f64(),
        cpu.as_micros() as f64 / events,
        stored as f64 / events,
        bytes as f64 / events,
    );
}

/// User and system time of this process, to the hundredth of a second.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    Duration::from_millis(fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
}

struct Calls {
    world: World,
    key: MacKey,
    recorded: bool,
    zone: String,
    applications: Vec<String>,
    sessions: Vec<(String, String)>,
    decided_by: DecidedBy,
    count: usize,
}

impl Calls {
    fn new(world: World, recorded: bool) -> Self {
        let id = || world.mint::<ZoneId>().to_string();
        Self {
            key: MacKey::from_bytes(&KEY),
            recorded,
            zone: id(),
            applications: (0..10).map(|_| id()).collect(),
            sessions: (0..500).map(|_| (id(), id())).collect(),
            decided_by: DecidedBy {
                policy_set_id: id(),
                policy_set_version_id: id(),
                manifest_sha: caracal_core::digest::sha256_hex(b"manifest"),
            },
            count: 0,
            world,
        }
    }

    /// The evidence of a governed call.
    fn next(&mut self) -> Vec<Message> {
        self.count += 1;
        let id = || self.world.mint::<EventId>().to_string();
        let application = self.applications[self.count % self.applications.len()].clone();
        let (session, edge) = self.sessions[self.count % self.sessions.len()].clone();
        let (mint, call, jti, record) = (id(), id(), id(), id());
        let decision = |request: &str, input: Value| {
            let mut event = self.event("token_exchange", "complete", request);
            event.decided_by = Some(self.decided_by.clone());
            event.determining = vec![json!({"policy": "ledger-grants"})];
            event
                .with("application_id", application.clone())
                .with("application_name", "bookkeeper")
                .with("application_registration_method", "managed")
                .with("resource", "resource://ledger")
                .with("agent_session_id", session.clone())
                .with("agent_lifecycle", "task")
                .with("agent_labels", json!(["clerk"]))
                .with("agent_depth", 1)
                .with("delegation_edge_id", edge.clone())
                .with("delegation_hop_count", 1)
                .with("delegation_graph_epoch", 3)
                .with("requested_scopes", json!(["ledger:read"]))
                .with("policy_input_sha256", caracal_core::digest::sha256_hex(request.as_bytes()))
                .with("decision_contract_version", "2026-07-12")
                .with("decision_contract_sha", caracal_core::digest::sha256_hex(b"contract"))
                .with_some("policy_input", self.recorded.then_some(input))
        };
        let claims = json!({"aud": ["http://localhost:8081"], "client_id": application, "agent_session_id": session, "exp": 1_795_622_859,
            "iat": 1_795_622_260, "iss": "http://localhost:8080", "jti": jti, "sid": record, "root_sid": record, "scope": "ledger:read",
            "sub": application, "sub_type": "application", "target": ["resource://ledger"], "use": "gateway", "zone_id": self.zone});
        let input = |context: Value| {
            json!({"action": {"id": "TokenExchange"}, "context": context, "delegation_edge": {"id": edge, "graph_epoch": 3, "path": [edge],
                "constraints_json": {"max_hops": 3, "resources": ["resource://ledger"], "ttl_seconds": 600}, "scopes": ["ledger:read"],
                "issuer_application_id": application, "receiver_application_id": application, "target_session_id": session},
                "principal": {"agent_session_id": session, "id": application, "labels": ["clerk"], "lifecycle": "task",
                "registration_method": "managed", "type": "Application", "zone_id": self.zone}, "resource": {"id": edge,
                "identifier": "resource://ledger", "scopes": ["ledger:read", "ledger:post"], "type": "Resource"}, "schema_version": "2026-05-20"})
        };
        let context = json!({"actor_claims": {"caracal_client_id": application}, "agent_session_id": session, "challenge_resolved": false,
            "delegation_edge_id": edge, "requested_scopes": ["ledger:read"], "trace_id": mint});
        let mut used = context.clone();
        (used["subject_claims"], used["session_id"], used["trace_id"]) = (claims, record.clone().into(), call.clone().into());
        let done = self
            .event("gateway_resource_request", "executed", &call)
            .with("application_id", application.clone())
            .with("agent_session_id", session.clone())
            .with("delegation_edge_id", edge.clone())
            .with("session_id", record.clone())
            .with("jti", jti)
            .with("resource", "resource://ledger")
            .with("method", "GET")
            .with("path", "/balance")
            .with("auth_mode", "provider_api_key")
            .with("provider_id", id())
            .with("gateway_status", 200)
            .with("upstream_status", 200)
            .with("upstream_host", "127.0.0.1:34339")
            .with("result_class", "success")
            .with("latency_ms", 3)
            .with("duration_ms", 4)
            .with("request_bytes", 0)
            .with("response_bytes", 16)
            .with("subject_kind", "application")
            .with("subject_fingerprint", "befbedc8498059c7")
            .with("trace_id", "387e0048412d3b399b1003d3bcbc0850");
        let events = [decision(&mint, input(context)), decision(&call, input(used)).with("session_id", record), done];
        events
            .into_iter()
            .map(|event| {
                let data = event.to_data();
                let sig = audit_signature(&self.key, &data);
                Message { source: String::new(), data: Some(data), sig }
            })
            .collect()
    }

    fn event(&self, kind: &'static str, status: &'static str, request: &str) -> AuditEvent {
        let mut event = AuditEvent::new(self.world.mint(), self.zone.clone(), kind, Verdict::Allow, status, self.world.now());
        request.clone_into(&mut event.request_id);
        event
    }
}
