//! Audit behind HTTP (`audit.md` 1, 9), and its background work.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use caracal_core::error::Service;
use caracal_core::error::audit as rows;
use caracal_core::message::Stream;
use caracal_host::jobs::Stop;
use caracal_host::{Metrics, Supervisor, World};
use caracal_store::Store;
use caracal_store::outbox::Which;
use caracal_stream::{Bus, EVIDENCE_GROUP};
use caracal_web::bearer::Gate;
use caracal_web::probes::{self, MetricsGate, Unready};
use caracal_web::{Face, Problem, shell};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, StatusCode};

use crate::config::Config;
use crate::ingest::{Health, IngestError, Ingestor};
use crate::judge::Judge;
use crate::metrics::Numbers;
use crate::search::{Search, answer};

const FACE: Face =
    Face { service: Service::Audit, not_found: rows::NOT_FOUND, method: rows::METHOD, internal: rows::INTERNAL, challenge: None };
/// Most rows of the outbox that are counted one by one.
const OUTBOX_COUNTED: usize = 10_000;
/// How long a search may take.
const SEARCH: Duration = Duration::from_secs(10);
/// How often lag and dead letters are counted.
const POLL: Duration = Duration::from_secs(5);
/// How often the stream is cut.
const TRIM: Duration = Duration::from_mins(1);
/// How long evidence stays in the stream after it was committed, in seconds.
const KEPT: i64 = 3600;

/// What Audit is made of.
pub struct Parts {
    /// Its configuration.
    pub config: Config,
    /// Time and chance.
    pub world: World,
    /// State and ledger.
    pub store: Store,
    /// Where evidence arrives.
    pub bus: Bus,
    /// The registry of numbers.
    pub metrics: Metrics,
    /// First part of the names of new logs, when the configuration has none: `caracal-<installation id>.local/log`.
    pub origin: String,
    /// Tells that the process ends.
    pub stop: Stop,
}

struct Inner {
    config: Config,
    world: World,
    store: Store,
    bus: Bus,
    numbers: Numbers,
    stop: Stop,
}

/// Audit, ready to be served and to be given its jobs. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    inner: Arc<Inner>,
    ingestor: Ingestor,
}

impl Audit {
    /// Puts Audit together.
    pub fn new(parts: Parts) -> Self {
        let numbers = Numbers::new(parts.metrics);
        let judge = Judge { keys: parts.config.keys.clone(), retention: parts.config.retention };
        let origin = parts.config.origin.clone().unwrap_or(parts.origin);
        // Hosts have names, and on a host the port is one living process's.
        let name = format!("{}:{}", parts.config.common.hostname, parts.config.common.address.port());
        let (store, bus, world) = (parts.store, parts.bus, parts.world);
        let (batch, numbers_of) = (parts.config.batch, numbers.clone());
        let ingestor = Ingestor::new(store.clone(), bus.clone(), name, world.clone(), judge, &origin, batch, numbers_of);
        let inner = Inner { config: parts.config, world, store, bus, numbers, stop: parts.stop };
        Self { inner: Arc::new(inner), ingestor }
    }

    /// Takes evidence in; for tests and for a last pass at the end.
    pub fn ingestor(&self) -> &Ingestor {
        &self.ingestor
    }
}

/// The routes.
pub fn service(audit: &Audit) -> Router {
    let inner = audit.inner.clone();
    let gate = MetricsGate::new(inner.config.common.metrics_bearer.clone(), inner.config.common.mode);
    let ready = (inner.clone(), audit.ingestor.clone());
    let consumer = audit.ingestor.clone();
    let router = Router::new()
        .route("/api/audit/search", get(search))
        .with_state(inner.clone())
        .route("/health", get(move || async move { health(consumer.health()) }))
        .merge(probes::ready_route(Service::Audit, Unready::because("postgres_unreachable"), move || {
            let (inner, ingestor) = ready.clone();
            async move { inner.ready(ingestor.health()).await }
        }))
        .merge(probes::metrics_routes(Service::Audit, gate, inner.numbers.registry.clone(), Some(probes::flat_json), || async {}));
    shell(FACE, inner.world.clone(), router)
}

/// The background work: ingestion, and the counts that readiness and numbers show.
pub fn jobs(audit: &Audit, supervisor: &Supervisor) {
    let ingestor = audit.ingestor.clone();
    supervisor.spawn("audit ingestion", move |stop| ingestor.clone().job(stop));
    let inner = audit.inner.clone();
    supervisor.every("audit counts", POLL, move |_| {
        let inner = inner.clone();
        async move { inner.count().await }
    });
    let inner = audit.inner.clone();
    supervisor.every("evidence trimming", TRIM, move |_| {
        let inner = inner.clone();
        async move { inner.trim().await }
    });
}

impl Inner {
    async fn count(&self) -> Result<(), IngestError> {
        let topic = Which::Only(Stream::AuditEvents.name());
        let outbox = self.store.outbox_waiting_of(topic, OUTBOX_COUNTED).await?.len() as u64;
        let tables = self.store.spool_depth().await? + outbox;
        let dead = self.store.ledger_dead_count().await?;
        // What is under way from a table is still in the table, so the larger number has all of them.
        let lag = tables.max(self.bus.progress(Stream::AuditEvents, EVIDENCE_GROUP).await?.behind);
        self.numbers.consumer_lag.set(i64::try_from(lag).unwrap_or(i64::MAX));
        self.numbers.dlq_size.set(i64::try_from(dead).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Cuts the stream behind what is committed, an hour later: nobody else ever cuts it.
    async fn trim(&self) -> Result<(), IngestError> {
        let before = self.world.now().minus_secs(KEPT).as_micros() / 1000;
        let before = u64::try_from(before).unwrap_or(0);
        Ok(self.bus.trim(Stream::AuditEvents, before, Some(EVIDENCE_GROUP)).await?)
    }

    async fn ready(&self, health: &Health) -> Result<(), Unready> {
        if self.stop.asked() {
            return Err(Unready::Draining);
        }
        if health.key_mismatch() {
            return Err(Unready::because("audit_key_mismatch"));
        }
        if health.failing() {
            return Err(Unready::because("consumer_unhealthy"));
        }
        if let Err(error) = self.store.ping().await {
            tracing::warn!(error = %error, "not ready");
            return Err(Unready::because("postgres_unreachable"));
        }
        if let Err(error) = self.bus.ping().await {
            tracing::warn!(error = %error, "not ready");
            return Err(Unready::because("redis_unreachable"));
        }
        let over = |value: i64, most: u64| most > 0 && u64::try_from(value).unwrap_or(0) > most;
        if over(self.numbers.dlq_size.get(), self.config.ready_dlq_max) {
            return Err(Unready::because("audit_dlq_threshold"));
        }
        if over(self.numbers.consumer_lag.get(), self.config.ready_lag_max) {
            return Err(Unready::because("audit_lag_threshold"));
        }
        Ok(())
    }

    /// Operator routes do not exist without a token.
    fn admit(&self, headers: &http::HeaderMap) -> Result<(), Problem> {
        match self.config.admin_token.check(headers) {
            Gate::Open => Ok(()),
            Gate::Absent => Err(Problem::new(rows::NOT_FOUND)),
            Gate::Refused => {
                let challenge = HeaderValue::from_static("Bearer realm=\"caracal-audit\"");
                Err(Problem::new(rows::UNAUTHORIZED).header(WWW_AUTHENTICATE, challenge))
            }
        }
    }
}

/// Alive is who takes evidence in.
fn health(health: &Health) -> Response {
    if health.failing() { (StatusCode::SERVICE_UNAVAILABLE, "consumer_unhealthy").into_response() } else { ().into_response() }
}

async fn search(State(inner): State<Arc<Inner>>, request: Request) -> Result<Response, Problem> {
    inner.admit(request.headers())?;
    let asked = Search::read(request.uri().query(), inner.world.now())?;
    let failed = |error: caracal_store::StoreError| Problem::because(rows::UNAVAILABLE, "the ledger cannot be read").cause(error);
    let size = inner.store.ledger_head(asked.zone.clone()).await.map_err(failed)?.map_or(0, |head| head.next_seq - 1);
    let reading = inner.store.ledger_entries(asked.zone, asked.filter, asked.limit);
    let entries = tokio::time::timeout(SEARCH, reading)
        .await
        .map_err(|_| Problem::because(rows::SEARCH_TIMEOUT, "the search took too long; narrow its window"))?
        .map_err(failed)?;
    Ok(Json(answer(&entries, size)).into_response())
}
