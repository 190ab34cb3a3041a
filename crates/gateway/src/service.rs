//! The Gateway as a service: what it is made of, which request goes where, and its background work.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use caracal_core::error::Service as Name;
use caracal_egress::Client;
use caracal_host::jobs::Stop;
use caracal_host::{Metrics, Supervisor, World};
use caracal_web::bearer::Gate;
use caracal_web::envelope::{finish, render};
use caracal_web::mandate::Verifier;
use caracal_web::probes::{self, MetricsGate, Unready};
use caracal_web::{Inbound, Problem, RequestId};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde_json::json;

use crate::body::Body;
use crate::bounds::Bounds;
use crate::call::{X_CARACAL_RESOURCE, governed};
use crate::config::Config;
use crate::consumed::Consumed;
use crate::denial::{self, FACE};
use crate::evidence::{DenialBounds, Evidence};
use crate::exchange::Exchange;
use crate::metrics::Numbers;
use crate::revocation::{Revocations, Snapshot};
use crate::upload::Upload;

/// Period of snapshots.
const SNAPSHOT: Duration = Duration::from_secs(30);
/// How long a snapshot asked for by an operator may take.
const RELOAD: Duration = Duration::from_secs(5);
/// How long running responses may go on once the process ends.
const STREAMS_GRACE: Duration = Duration::from_secs(10);
/// How long the listener waits for running calls once the process ends.
pub const DRAIN: Duration = Duration::from_secs(14);

/// Where snapshots come from: the database.
pub trait RevocationSource: Send + Sync + 'static {
    /// What ended within a day, and what is suspended now.
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, String>>;
}

/// What the Gateway is made of.
pub struct Parts {
    /// Its configuration.
    pub config: Config,
    /// Time and chance.
    pub world: World,
    /// Verifies mandates.
    pub verifier: Verifier,
    /// Asks the STS.
    pub exchange: Arc<dyn Exchange>,
    /// Remembers used mandates.
    pub consumed: Arc<dyn Consumed>,
    /// Takes evidence.
    pub evidence: Arc<dyn Evidence>,
    /// Says what was revoked.
    pub revocations: Arc<dyn RevocationSource>,
    /// Sends to upstreams; its guard has the rules for them.
    pub upstreams: Client<Upload>,
    /// The registry of numbers.
    pub metrics: Metrics,
    /// Runs background work.
    pub supervisor: Supervisor,
}

/// What every call shares.
pub struct Inner {
    pub(crate) config: Config,
    pub(crate) world: World,
    pub(crate) verifier: Verifier,
    pub(crate) exchange: Arc<dyn Exchange>,
    pub(crate) consumed: Arc<dyn Consumed>,
    pub(crate) evidence: Arc<dyn Evidence>,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) upstreams: Client<Upload>,
    pub(crate) numbers: Numbers,
    pub(crate) bounds: Arc<Bounds>,
    pub(crate) denials: DenialBounds,
    pub(crate) supervisor: Supervisor,
    /// Asked for when running responses must end.
    pub(crate) streams_end: Stop,
    source: Arc<dyn RevocationSource>,
    metrics_gate: MetricsGate,
    stop: Stop,
}

/// The Gateway. Cheap to clone; a tower service for a [`caracal_web::Listener`].
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gateway")
    }
}

impl Gateway {
    /// A Gateway. It denies every call until [`Gateway::reload`] has taken a first snapshot.
    pub fn new(parts: Parts) -> Self {
        let numbers = Numbers::new(parts.metrics);
        let bounds = Bounds::new(
            parts.config.inflight_max,
            parts.config.streams_max,
            numbers.requests_in_flight.clone(),
            numbers.streams_open.clone(),
        );
        let metrics_gate = MetricsGate::new(parts.config.common.metrics_bearer.clone(), parts.config.common.mode);
        let revocations = Arc::new(Revocations::new(parts.world.clone()));
        let sets = revocations.clone();
        let (active, age, fresh) = (
            numbers.revocations_active.clone(),
            numbers.revocation_snapshot_age_seconds.clone(),
            numbers.revocation_snapshot_fresh.clone(),
        );
        numbers.registry.on_scrape(move || {
            active.set(i64::try_from(sets.len()).unwrap_or(i64::MAX));
            age.set(sets.age().map_or(-1, |a| i64::try_from(a.as_secs()).unwrap_or(i64::MAX)));
            fresh.set(i64::from(sets.fresh()));
        });
        let (exchange, open) = (parts.exchange.clone(), numbers.sts_circuit_open.clone());
        numbers.registry.on_scrape(move || open.set(i64::from(exchange.retry_in().is_some())));
        let stop = parts.supervisor.stop();
        let inner = Inner {
            config: parts.config,
            world: parts.world,
            verifier: parts.verifier,
            exchange: parts.exchange,
            consumed: parts.consumed,
            evidence: parts.evidence,
            revocations,
            upstreams: parts.upstreams,
            numbers,
            bounds,
            denials: DenialBounds::default(),
            supervisor: parts.supervisor,
            streams_end: Stop::new(),
            source: parts.revocations,
            metrics_gate,
            stop,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The sets of revoked ids, for whoever hears of revocations first (the bus, or a commit in the same process).
    pub fn revocations(&self) -> Arc<Revocations> {
        self.inner.revocations.clone()
    }

    /// Takes a snapshot now. To be called once before the listener opens: a failure there stops the start.
    pub async fn reload(&self) -> Result<usize, String> {
        let mark = self.inner.revocations.mark();
        match self.inner.source.snapshot().await {
            Ok(snapshot) => {
                self.inner.revocations.replace(mark, &snapshot);
                self.inner.numbers.revocation_reloads.inc();
                Ok(self.inner.revocations.len())
            }
            Err(error) => {
                self.inner.numbers.revocation_reload_errors.inc();
                Err(error)
            }
        }
    }

    /// Starts the background work: snapshots, and the end of running responses when the process ends.
    pub fn jobs(&self) {
        let gateway = self.clone();
        self.inner.supervisor.every("gateway revocation snapshot", SNAPSHOT, move |_| {
            let gateway = gateway.clone();
            async move { gateway.reload().await.map(|_| ()) }
        });
        let inner = self.inner.clone();
        self.inner.supervisor.spawn("gateway streams", move |stop| {
            let inner = inner.clone();
            async move {
                stop.wait().await;
                tokio::select! {
                    () = tokio::time::sleep(STREAMS_GRACE) => {}
                    () = stop.wait_forced() => {}
                    () = inner.idle() => {}
                }
                inner.streams_end.ask();
                Ok::<_, Infallible>(())
            }
        });
    }

    async fn route(self, request: Request<Inbound>) -> Response<Body> {
        let inner = &self.inner;
        let (parts, body) = request.into_parts();
        let id = RequestId::of(&parts.headers, &inner.world);
        if parts.method == Method::CONNECT || parts.method == Method::TRACE {
            return denial::method().render(&id).map(Body::whole);
        }
        // A request that names a resource is a governed call, whatever its path.
        if parts.headers.contains_key(X_CARACAL_RESOURCE) {
            return governed(inner, parts, body, id).await;
        }
        let answer = match (parts.uri.path(), &parts.method) {
            ("/health", _) => probes::health(Name::Gateway),
            ("/ready", _) => {
                let late = Unready::because("sts_unreachable");
                probes::ready(Name::Gateway, &probes::checked(inner.ready(), late).await)
            }
            ("/metrics" | "/metrics.json", _) if !inner.metrics_gate.allows(&parts.headers) => {
                probes::metrics_refused(Name::Gateway)
            }
            ("/metrics", _) => probes::metrics(&inner.numbers.registry),
            ("/metrics.json", _) => probes::metrics_json(&inner.numbers.registry, |name| match name {
                "requests" => Some("requests_total"),
                "audit_queue_capacity" => Some("audit_queue_cap"),
                _ => None,
            }),
            ("/internal/revocations/reload", &Method::POST) => self.reload_route(&parts.headers, &id).await,
            _ => return governed(inner, parts, body, id).await,
        };
        let (mut head, bytes) = answer.into_parts();
        finish(&FACE, head.status, &mut head.headers, &id);
        Response::from_parts(head, Body::whole(bytes))
    }

    async fn reload_route(&self, headers: &http::HeaderMap, id: &RequestId) -> Response<Bytes> {
        if self.inner.config.admin_token.check(headers) != Gate::Open {
            let mut hidden = Response::new(Bytes::from_static(b"not found"));
            *hidden.status_mut() = StatusCode::NOT_FOUND;
            hidden.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            return hidden;
        }
        let (status, body) = match tokio::time::timeout(RELOAD, self.reload()).await {
            Ok(Ok(entries)) => (StatusCode::OK, json!({"ok": true, "revocations": entries})),
            outcome => {
                let cause = match outcome {
                    Ok(Err(error)) => error,
                    _ => "it took too long".to_owned(),
                };
                tracing::error!(request_id = id.as_str(), cause, "the revocation snapshot failed");
                (StatusCode::SERVICE_UNAVAILABLE, json!({"ok": false, "ready": false, "reason": "revocation_reload_failed"}))
            }
        };
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl Inner {
    /// The checks of `/ready`, in order.
    async fn ready(&self) -> Result<(), Unready> {
        if self.stop.asked() {
            return Err(Unready::Draining);
        }
        if !self.consumed.healthy().await {
            return Err(Unready::because("redis_unreachable"));
        }
        if !self.revocations.fresh() {
            return Err(Unready::because("revocation_snapshot_stale"));
        }
        if let Some(reason) = self.evidence.unready() {
            return Err(Unready::because(reason));
        }
        if !self.exchange.reachable().await {
            return Err(Unready::because("sts_unreachable"));
        }
        Ok(())
    }

    /// Waits until no call runs.
    async fn idle(&self) {
        while self.numbers.requests_in_flight.get() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl tower::Service<Request<Inbound>> for Gateway {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Inbound>) -> Self::Future {
        let gateway = self.clone();
        Box::pin(async move {
            let id = RequestId::of(request.headers(), &gateway.inner.world);
            let answered = AssertUnwindSafe(gateway.route(request)).catch_unwind().await;
            Ok(answered.unwrap_or_else(|_| {
                tracing::error!(request_id = id.as_str(), "a call panicked");
                let (mut head, bytes) = render(&Problem::because(FACE.internal, ""), &id).into_parts();
                finish(&FACE, head.status, &mut head.headers, &id);
                Response::from_parts(head, Body::whole(bytes))
            }))
        })
    }
}
