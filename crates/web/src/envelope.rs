//! How each service says no: one rendering per family of envelopes, made from a [`Problem`] and nothing else.

use std::borrow::Cow;

use bytes::Bytes;
use caracal_core::error::{Retry, Service, Situation};
use caracal_core::refusal::{Ask, Refusal};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::problem::Problem;
use crate::request_id::{RequestId, X_REQUEST_ID};

/// Longest description that leaves, in bytes (`sts.md` 1.3).
const DESCRIPTION_BYTES_MAX: usize = 1024;

/// What a service shows of itself beyond its routes.
#[derive(Clone, Copy, Debug)]
pub struct Face {
    /// The service; it chooses the envelope.
    pub service: Service,
    /// The row of an unknown path.
    pub not_found: &'static Situation,
    /// The row of a known path with another method.
    pub method: &'static Situation,
    /// The row of a defect of ours.
    pub internal: &'static Situation,
    /// `WWW-Authenticate` of a 401 that names none itself.
    pub challenge: Option<&'static str>,
}

/// Renders a problem. The Gateway calls this by itself; routers have it from the shell.
pub fn render(problem: &Problem, id: &RequestId) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(Value::Object(body(problem, id)).to_string()));
    *response.status_mut() = problem.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in &problem.headers {
        headers.append(name, value.clone());
    }
    if let Some(seconds) = retry_after(problem) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Finishes any answer: request id, caching, and what a status demands.
pub fn finish(face: &Face, status: StatusCode, headers: &mut HeaderMap, id: &RequestId) {
    headers.insert(X_REQUEST_ID, id.header());
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let later = status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE;
    if later && !headers.contains_key(RETRY_AFTER) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if status == StatusCode::UNAUTHORIZED
        && let Some(challenge) = face.challenge
        && !headers.contains_key(WWW_AUTHENTICATE)
    {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if face.service == Service::Api {
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    }
}

fn retry_after(problem: &Problem) -> Option<u64> {
    problem.retry_after.or(match problem.situation.retry {
        Retry::Later => Some(1),
        Retry::Never => general(problem).and_then(|refusal| refusal.retry_after),
    })
}

/// The object of the answer. Members of the envelope win over those a handler added.
fn body(problem: &Problem, id: &RequestId) -> Map<String, Value> {
    let mut body = problem.members.clone();
    let description = cut(&problem.description);
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("error", problem.situation.code.into());
    match problem.situation.service {
        Service::Coordinator => {
            put("request_id", id.as_str().into());
            if !description.is_empty() {
                put("message", description.clone().into());
            }
            if !problem.issues.is_empty() {
                put("error_description", description.into());
                put("requestId", id.as_str().into());
            }
        }
        Service::Sts | Service::Gateway | Service::Api | Service::Audit => {
            put("requestId", id.as_str().into());
            if !description.is_empty() {
                put("error_description", description.into());
            }
        }
    }
    if !problem.issues.is_empty() {
        put("details", json!({"issues": problem.issues}));
    }
    if let Some(refusal) = &problem.refusal {
        put("refusal", refusal.for_caller());
    } else if let Some(refusal) = general(problem) {
        put("refusal", refusal.for_caller());
    }
    body
}

/// What the STS says beside its code where nobody said more: every refusal of its has the member (`sts.md` 27.1, 27.2).
fn general(problem: &Problem) -> Option<Refusal> {
    let row = problem.situation;
    if row.service != Service::Sts || problem.refusal.is_some() {
        return None;
    }
    let refusal = |reason, rule, ask| Refusal::new(row, reason, rule, ask, "");
    let mut refusal = match row.status {
        404 => refusal("not_found", "request.object", Ask::Oneself),
        500.. => refusal("unavailable", "platform.unavailable", Ask::Wait).retry_after(problem.retry_after.unwrap_or(1)),
        _ => refusal("request_malformed", "request.form", Ask::Oneself),
    };
    refusal.field.clone_from(&problem.field);
    Some(refusal)
}

fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= DESCRIPTION_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    let end = (0..=DESCRIPTION_BYTES_MAX - 3).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    Cow::Owned(format!("{}…", &text[..end]))
}

#[cfg(test)]
mod tests {
    use caracal_core::error::{coordinator, sts};
    use caracal_host::World;

    use super::*;
    use crate::problem::Issue;

    fn rendered(problem: &Problem) -> (Value, HeaderMap) {
        let (world, _) = World::fixed(1);
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_static("req-7"));
        let response = render(problem, &RequestId::of(&headers, &world));
        (serde_json::from_slice(response.body()).unwrap(), response.headers().clone())
    }

    #[test]
    fn the_stss_envelope() {
        let refusal = Refusal::new(sts::UNAVAILABLE, "unavailable", "platform.fence", Ask::Wait, "try again").retry_after(3);
        let (body, headers) = rendered(&Problem::from(refusal).cause("connection refused"));
        let member = json!({"v":1,"reason":"unavailable","rule":"platform.fence","enough":[],"ask":"wait","retry_after":3});
        assert_eq!(
            body,
            json!({"error":"sts_unavailable","error_description":"try again","requestId":"req-7","refusal":member}),
            "the cause stays inside"
        );
        assert_eq!(headers[RETRY_AFTER], "3");
    }

    #[test]
    fn the_coordinators_envelope() {
        let issues = vec![Issue { path: vec!["labels".into(), "0".into()], message: "expected a text".into() }];
        let (body, _) = rendered(&Problem::because(coordinator::INTERNAL, "wrong body").issues(issues));
        assert_eq!(
            body,
            json!({"error":"internal_error","message":"wrong body","error_description":"wrong body","request_id":"req-7",
                "requestId":"req-7","details":{"issues":[{"path":["labels","0"],"message":"expected a text"}]}})
        );
        let (body, _) = rendered(&Problem::because(coordinator::INTERNAL, "").member("error", "mine").member("state", "ended"));
        assert_eq!(body, json!({"error":"internal_error","request_id":"req-7","state":"ended"}));
    }

    #[test]
    fn a_long_description_is_cut_between_characters() {
        let (body, _) = rendered(&Problem::because(sts::MALFORMED, "é".repeat(1000)));
        let text = body["error_description"].as_str().unwrap();
        assert!(text.len() <= DESCRIPTION_BYTES_MAX && text.ends_with('…'));
    }
}
