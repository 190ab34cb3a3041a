//! What surrounds a router, once per service. From the outside in, and why there:
//!
//! 1. request id and log line, outermost, because every answer must have both;
//! 2. rendering of problems, inside 1 because it needs the id, outside everything that can fail;
//! 3. panics, so that a defect is a neutral 500 and not a closed connection;
//! 4. the router with its 404 and 405.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use caracal_core::error::{Retry, Service};
use caracal_host::World;
use futures::FutureExt;

use crate::envelope::{Face, finish, render};
use crate::peer::Peer;
use crate::problem::Problem;
use crate::request_id::RequestId;

/// Puts the shell around a router.
pub fn shell(face: Face, world: World, router: Router) -> Router {
    router
        .fallback(move || async move { Problem::new(face.not_found) })
        .method_not_allowed_fallback(move || async move { Problem::new(face.method) })
        .layer(from_fn(move |request: Request, next: Next| around(face, world.clone(), request, next)))
}

async fn around(face: Face, world: World, mut request: Request, next: Next) -> Response {
    let began = world.monotonic();
    let id = RequestId::of(request.headers(), &world);
    request.extensions_mut().insert(id.clone());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let client = request.extensions().get::<Peer>().map(|peer| peer.address.ip());
    let head = method == http::Method::HEAD;
    let mut response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
            Problem::because(face.internal, "").cause(format!("panicked: {}", text.unwrap_or_default())).into_response()
        }
    };
    let problem = response.extensions_mut().remove::<Problem>();
    let status = response.status();
    if let Some(problem) = &problem {
        let (parts, body) = render(problem, &id).into_parts();
        // What inner layers set (`Allow` of a 405) stays.
        for (name, value) in &parts.headers {
            response.headers_mut().insert(name, value.clone());
        }
        response.headers_mut().remove(http::header::CONTENT_LENGTH);
        *response.body_mut() = if head { Body::empty() } else { Body::from(body) };
    }
    finish(&face, status, response.headers_mut(), &id);
    let took = world.monotonic().saturating_sub(began);
    log(
        &Line { service: face.service, id: &id, method: method.as_str(), path: &path, client, status: status.as_u16(), took },
        problem.as_ref(),
    );
    response
}

struct Line<'a> {
    service: Service,
    id: &'a RequestId,
    method: &'a str,
    path: &'a str,
    client: Option<std::net::IpAddr>,
    status: u16,
    took: Duration,
}

/// One line a request. Probes are only told at debug level; what is our fault is told with its cause.
fn log(line: &Line<'_>, problem: Option<&Problem>) {
    let Line { service, id, method, path, client, status, took } = line;
    let service = service.name();
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let client = client.map(tracing::field::display);
    match problem {
        Some(problem) if *status >= 500 => {
            let cause = problem.cause.as_deref().unwrap_or_default();
            let code = problem.situation.code;
            if problem.situation.retry == Retry::Later {
                tracing::warn!(
                    service,
                    request_id = id.as_str(),
                    client_ip = client,
                    method,
                    path,
                    status,
                    code,
                    cause,
                    micros,
                    "unavailable"
                );
            } else {
                tracing::error!(
                    service,
                    request_id = id.as_str(),
                    client_ip = client,
                    method,
                    path,
                    status,
                    code,
                    cause,
                    micros,
                    "failed"
                );
            }
        }
        Some(problem) => {
            let (code, cause) = (problem.situation.code, problem.cause.as_deref());
            let reason = problem.refusal.as_ref().map(|r| r.reason);
            tracing::info!(
                service,
                request_id = id.as_str(),
                client_ip = client,
                method,
                path,
                status,
                code,
                reason,
                cause,
                micros,
                "refused"
            );
        }
        None if matches!(*path, "/health" | "/ready" | "/metrics" | "/metrics.json") => {
            tracing::debug!(service, request_id = id.as_str(), client_ip = client, method, path, status, micros, "answered");
        }
        None => tracing::info!(service, request_id = id.as_str(), client_ip = client, method, path, status, micros, "answered"),
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use caracal_core::error::sts;
    use http::header::{ALLOW, RETRY_AFTER};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    const FACE: Face = Face {
        service: Service::Sts,
        not_found: sts::NOT_FOUND,
        method: sts::METHOD,
        internal: sts::INTERNAL,
        challenge: Some("Bearer"),
    };

    async fn ask(method: &str, path: &str) -> (u16, http::HeaderMap, serde_json::Value) {
        let (world, _) = World::fixed(1);
        let router = Router::new()
            .route("/fine", get(|| async { "fine" }))
            .route("/boom", get(|| async { panic!("secret words") as &'static str }))
            .route("/no", get(|| async { Err::<(), _>(Problem::new(sts::UNAVAILABLE)) }))
            .route("/who", get(|| async { Problem::new(sts::CLIENT_REFUSED) }));
        let request = Request::builder().method(method).uri(path).header("x-request-id", "req-7").body(Body::empty()).unwrap();
        let response = shell(FACE, world, router).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), parts.headers, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    #[tokio::test]
    async fn every_answer_has_its_id_and_is_not_stored() {
        for (method, path, status) in [
            ("GET", "/fine", 200),
            ("GET", "/boom", 500),
            ("GET", "/no", 503),
            ("GET", "/x", 404),
            ("POST", "/fine", 405),
            ("GET", "/who", 401),
        ] {
            let (got, headers, body) = ask(method, path).await;
            assert_eq!(got, status, "{path}");
            assert_eq!(
                (&headers["x-request-id"], &headers["cache-control"]),
                (&"req-7".parse().unwrap(), &"no-store".parse().unwrap())
            );
            if status >= 400 {
                assert_eq!(body["requestId"], "req-7", "{path}");
            }
        }
    }

    #[tokio::test]
    async fn a_panic_is_neutral() {
        let (_, _, body) = ask("GET", "/boom").await;
        let refusal = serde_json::json!({"v":1,"reason":"unavailable","rule":"platform.unavailable","enough":[],"ask":"wait","retry_after":1});
        assert_eq!(body, serde_json::json!({"error":"internal_error","requestId":"req-7","refusal":refusal}));
    }

    #[tokio::test]
    async fn statuses_bring_their_headers() {
        assert_eq!(ask("POST", "/fine").await.1[ALLOW], "GET,HEAD");
        assert_eq!(ask("GET", "/no").await.1[RETRY_AFTER], "1");
        assert_eq!(ask("GET", "/who").await.1["www-authenticate"], "Bearer");
    }
}
