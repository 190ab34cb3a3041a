//! `/health`, `/ready`, `/metrics`: what probes and scrapers ask, in the words of each service.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use caracal_core::error::Service;
use caracal_host::config::Mode;
use caracal_host::metrics::{Metrics, TEXT_TYPE};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use crate::bearer::{Scheme, bearer, same_secret};

/// How long a readiness check may take before it counts as failed.
const READY_MS_MAX: u64 = 1_900;

/// Why a service is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unready {
    /// It is ending.
    Draining,
    /// One stable word, and what it depends on where the service says so.
    Because {
        /// The word.
        reason: &'static str,
        /// `postgres`, `sqlite`, `redis`, `outbox`; only told by the API and the Coordinator.
        dependency: Option<&'static str>,
    },
}

impl Unready {
    /// A word.
    pub const fn because(reason: &'static str) -> Self {
        Self::Because { reason, dependency: None }
    }

    /// A word and a dependency.
    pub const fn on(reason: &'static str, dependency: &'static str) -> Self {
        Self::Because { reason, dependency: Some(dependency) }
    }
}

/// The answer of `/health` of a live service.
pub fn health(service: Service) -> http::Response<Bytes> {
    match service {
        Service::Api | Service::Coordinator => answer(StatusCode::OK, &json!({"ok": true})),
        Service::Sts | Service::Gateway | Service::Audit => http::Response::new(Bytes::new()),
    }
}

/// The answer of `/ready`.
pub fn ready(service: Service, state: &Result<(), Unready>) -> http::Response<Bytes> {
    let terse = matches!(service, Service::Api | Service::Coordinator);
    match state {
        Ok(()) if terse => answer(StatusCode::OK, &json!({"ok": true})),
        Ok(()) => answer(StatusCode::OK, &json!({"ok": true, "ready": true})),
        Err(Unready::Draining) if terse => answer(StatusCode::SERVICE_UNAVAILABLE, &json!({"ok": false, "draining": true})),
        Err(Unready::Draining) => {
            answer(StatusCode::SERVICE_UNAVAILABLE, &json!({"ok": false, "ready": false, "reason": "shutting_down"}))
        }
        Err(Unready::Because { reason, dependency: Some(dependency) }) if terse => {
            answer(StatusCode::SERVICE_UNAVAILABLE, &json!({"ok": false, "error": reason, "dependency": dependency}))
        }
        Err(Unready::Because { reason, .. }) if terse => {
            answer(StatusCode::SERVICE_UNAVAILABLE, &json!({"ok": false, "error": reason}))
        }
        Err(Unready::Because { reason, .. }) => {
            answer(StatusCode::SERVICE_UNAVAILABLE, &json!({"ok": false, "ready": false, "reason": reason}))
        }
    }
}

/// Runs a readiness check within its time; `late` is what a check that does not answer is called.
pub async fn checked<F>(check: F, late: Unready) -> Result<(), Unready>
where
    F: Future<Output = Result<(), Unready>>,
{
    within(Duration::from_millis(READY_MS_MAX), check, late).await
}

async fn within<F>(most: Duration, check: F, late: Unready) -> Result<(), Unready>
where
    F: Future<Output = Result<(), Unready>>,
{
    tokio::time::timeout(most, check).await.unwrap_or(Err(late))
}

/// Routes `/health` and `/ready`. `check` is asked at each probe.
pub fn routes<C, F>(service: Service, late: Unready, check: C) -> Router
where
    C: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), Unready>> + Send + 'static,
{
    ready_route(service, late, check).route("/health", get(move || async move { boxed(health(service)) }))
}

/// Route `/ready` alone, for a service whose `/health` says more than that it lives.
pub fn ready_route<C, F>(service: Service, late: Unready, check: C) -> Router
where
    C: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), Unready>> + Send + 'static,
{
    Router::new().route("/ready", get(move || async move { boxed(ready(service, &checked(check(), late).await)) }))
}

/// Who may read the numbers.
#[derive(Clone, Debug)]
pub struct MetricsGate {
    bearer: Option<SecretString>,
    open: bool,
}

impl MetricsGate {
    /// `METRICS_BEARER` as configured; without one the numbers are open in `dev` and closed otherwise.
    pub fn new(bearer: Option<SecretString>, mode: Mode) -> Self {
        Self { bearer, open: !mode.published() }
    }

    /// Whether a request may read them.
    pub fn allows(&self, headers: &HeaderMap) -> bool {
        match &self.bearer {
            Some(expected) => bearer(headers, Scheme::Exact).is_ok_and(|presented| same_secret(presented, expected)),
            None => self.open,
        }
    }
}

/// The answer of `/metrics`.
pub fn metrics(metrics: &Metrics) -> http::Response<Bytes> {
    let mut response = http::Response::new(Bytes::from(metrics.text()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_TYPE));
    response
}

/// The answer of `/metrics.json` of services that use one flat object: names without prefix and `_total`.
pub fn metrics_json(metrics: &Metrics, renamed: impl Fn(&str) -> Option<&'static str>) -> http::Response<Bytes> {
    let mut flat = Map::new();
    for (name, value) in metrics.flat() {
        let name = renamed(&name).map_or(name, str::to_owned);
        flat.insert(name, value.into());
    }
    answer(StatusCode::OK, &Value::Object(flat))
}

/// The answer to whoever may not read the numbers.
pub fn metrics_refused(service: Service) -> http::Response<Bytes> {
    match service {
        Service::Api | Service::Coordinator => answer(StatusCode::UNAUTHORIZED, &json!({"error": "unauthorized"})),
        Service::Sts | Service::Gateway | Service::Audit => {
            let mut response = http::Response::new(Bytes::from_static(b"unauthorized"));
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            response
        }
    }
}

/// Routes `/metrics` and, where `json` is given, `/metrics.json`. `refresh` is awaited before each rendering (for values that need a
/// question to a store).
pub fn metrics_routes<R, F>(service: Service, gate: MetricsGate, numbers: Metrics, json: Option<JsonOf>, refresh: R) -> Router
where
    R: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let gate = Arc::new(gate);
    let text = {
        let (gate, numbers, refresh) = (gate.clone(), numbers.clone(), refresh.clone());
        move |headers: HeaderMap| async move {
            if !gate.allows(&headers) {
                return boxed(metrics_refused(service));
            }
            refresh().await;
            boxed(metrics(&numbers))
        }
    };
    let router = Router::new().route("/metrics", get(text));
    let Some(json) = json else { return router };
    router.route(
        "/metrics.json",
        get(move |headers: HeaderMap| async move {
            if !gate.allows(&headers) {
                return boxed(metrics_refused(service));
            }
            refresh().await;
            boxed(answer(StatusCode::OK, &json(&numbers)))
        }),
    )
}

/// Makes the object of `/metrics.json` from the numbers.
pub type JsonOf = fn(&Metrics) -> Value;

/// One flat object of the numbers (see [`Metrics::flat`]).
pub fn flat_json(metrics: &Metrics) -> Value {
    Value::Object(metrics.flat().into_iter().map(|(name, value)| (name, value.into())).collect())
}

fn answer(status: StatusCode, body: &Value) -> http::Response<Bytes> {
    let mut response = http::Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn boxed(response: http::Response<Bytes>) -> Response {
    response.map(axum::body::Body::from).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_words() {
        let text = |service, state: Result<(), Unready>| String::from_utf8(ready(service, &state).into_body().to_vec()).unwrap();
        assert_eq!(text(Service::Gateway, Ok(())), r#"{"ok":true,"ready":true}"#);
        assert_eq!(text(Service::Api, Ok(())), r#"{"ok":true}"#);
        assert_eq!(text(Service::Gateway, Err(Unready::Draining)), r#"{"ok":false,"ready":false,"reason":"shutting_down"}"#);
        let away = Unready::on("postgres_unreachable", "postgres");
        assert_eq!(text(Service::Sts, Err(away.clone())), r#"{"ok":false,"ready":false,"reason":"postgres_unreachable"}"#);
        assert_eq!(text(Service::Coordinator, Err(away)), r#"{"dependency":"postgres","error":"postgres_unreachable","ok":false}"#);
    }

    #[test]
    fn numbers_are_open_only_in_dev_without_a_bearer() {
        let mut headers = HeaderMap::new();
        assert!(MetricsGate::new(None, Mode::Dev).allows(&headers));
        assert!(!MetricsGate::new(None, Mode::Stable).allows(&headers));
        let gate = MetricsGate::new(Some(SecretString::from("m")), Mode::Dev);
        assert!(!gate.allows(&headers));
        headers.insert("authorization", "Bearer m".parse().unwrap());
        assert!(gate.allows(&headers));
    }

    #[tokio::test]
    async fn a_check_that_hangs_is_a_failed_check() {
        let late = Unready::because("redis_unreachable");
        assert_eq!(within(Duration::from_millis(5), std::future::pending(), late.clone()).await, Err(late));
    }
}
