//! A refused call: what the caller sees, which number rises, and whether evidence is written.

use bytes::Bytes;
use caracal_core::error::gateway as rows;
use caracal_core::error::{Service, Situation};
use caracal_core::refusal::{Ask, Enough, Refusal};
use caracal_web::envelope::{Face, finish, render};
use caracal_web::{Problem, RequestId};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use prometheus::IntCounter;
use serde_json::{Map, Value, json};

use crate::exchange::StsRefusal;
use crate::metrics::Numbers;

/// What the Gateway shows of itself.
pub const FACE: Face =
    Face { service: Service::Gateway, not_found: rows::NOT_FOUND, method: rows::METHOD, internal: rows::INTERNAL, challenge: None };

/// A call that is refused.
#[derive(Debug)]
pub struct Denial {
    /// What the caller sees.
    pub answer: Answer,
    /// The step it fell at; for the log.
    pub step: &'static str,
    /// The number that rises besides `requests_denied`.
    pub number: Option<fn(&Numbers) -> &IntCounter>,
    /// `evaluation_status` of the evidence, where there is any.
    pub evidence: Option<&'static str>,
}

/// What the caller sees.
#[derive(Debug)]
pub enum Answer {
    /// A refusal of the Gateway.
    Own(Box<Refusal>, Option<String>),
    /// A refusal of the STS.
    Sts(Box<StsRefusal>),
}

impl Denial {
    /// A denial of the Gateway at a step.
    pub fn new(step: &'static str, refusal: Refusal) -> Self {
        Self { answer: Answer::Own(Box::new(refusal), None), step, number: None, evidence: None }
    }

    /// Raises a number.
    #[must_use]
    pub fn counted(mut self, number: fn(&Numbers) -> &IntCounter) -> Self {
        self.number = Some(number);
        self
    }

    /// Leaves evidence.
    #[must_use]
    pub const fn evident(mut self, status: &'static str) -> Self {
        self.evidence = Some(status);
        self
    }

    /// Adds what only the log may know.
    #[must_use]
    pub fn cause(mut self, why: impl std::fmt::Display) -> Self {
        if let Answer::Own(_, cause) = &mut self.answer {
            *cause = Some(format!("{why}"));
        }
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        match &self.answer {
            Answer::Own(refusal, _) => refusal.situation.status,
            Answer::Sts(refusal) => refusal.status,
        }
    }

    /// The code.
    pub fn code(&self) -> &str {
        match &self.answer {
            Answer::Own(refusal, _) => refusal.situation.code,
            Answer::Sts(refusal) => &refusal.code,
        }
    }

    /// The refusal for the ledger.
    pub fn for_ledger(&self) -> Option<Value> {
        match &self.answer {
            Answer::Own(refusal, _) => Some(refusal.for_ledger()),
            Answer::Sts(refusal) => refusal.refusal.clone(),
        }
    }

    /// The cause for the log.
    pub fn cause_text(&self) -> Option<&str> {
        match &self.answer {
            Answer::Own(_, cause) => cause.as_deref(),
            Answer::Sts(refusal) => refusal.cause.as_deref(),
        }
    }

    /// The answer.
    pub fn render(&self, id: &RequestId) -> Response<Bytes> {
        match &self.answer {
            Answer::Own(refusal, _) => own(refusal, id),
            Answer::Sts(refusal) => passed(refusal, id),
        }
    }
}

fn own(refusal: &Refusal, id: &RequestId) -> Response<Bytes> {
    let mut response = render(&Problem::from(refusal.clone()), id);
    if refusal.situation.status == 405 {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    seal(response, refusal.situation.code, id)
}

fn passed(refusal: &StsRefusal, id: &RequestId) -> Response<Bytes> {
    let mut body: Map<String, Value> = refusal.members.clone();
    body.insert("error".into(), refusal.code.clone().into());
    if !refusal.description.is_empty() {
        body.insert("error_description".into(), refusal.description.clone().into());
    }
    body.insert("requestId".into(), id.as_str().into());
    if let Some(member) = &refusal.refusal {
        body.insert("refusal".into(), member.clone());
    } else if refusal.is_unavailable() {
        body.insert("refusal".into(), json!({"v":1,"reason":"unavailable","rule":"platform.sts","enough":[],"ask":"wait"}));
    } else if refusal.code == "access_denied" && refusal.description == "resource upstream not configured" {
        body.insert(
            "refusal".into(),
            json!({"v":1,"reason":"upstream_not_configured","rule":"resource.upstream","enough":[],"ask":"operator"}),
        );
    }
    let mut response = Response::new(Bytes::from(Value::Object(body).to_string()));
    *response.status_mut() = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = refusal.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if let Some(challenge) = refusal.challenge.as_deref().and_then(|c| HeaderValue::from_str(c).ok()) {
        headers.insert(WWW_AUTHENTICATE, challenge);
    }
    seal(response, &refusal.code, id)
}

/// What every refusal has besides its body.
fn seal(mut response: Response<Bytes>, code: &str, id: &RequestId) -> Response<Bytes> {
    let status = response.status();
    if status == StatusCode::UNAUTHORIZED && !response.headers().contains_key(WWW_AUTHENTICATE) {
        let error = if code == "credential_expired_not_renewable" { "expired_token" } else { "invalid_token" };
        let challenge = format!("Bearer realm=\"caracal-gateway\", error=\"{error}\"");
        if let Ok(value) = HeaderValue::from_str(&challenge) {
            response.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
    }
    finish(&FACE, status, response.headers_mut(), id);
    response
}

/// A refusal that a fresh mandate would answer.
fn mandate(row: &'static Situation, reason: &'static str, rule: &'static str, text: &'static str) -> Refusal {
    Refusal::new(row, reason, rule, Ask::Oneself, text).enough(Enough::Credential { usage: Some("gateway") })
}

/// Step 1, 11b, 12 without memory, 14, and evidence that cannot be written.
pub fn unavailable(step: &'static str, rule: &'static str, text: &'static str) -> Denial {
    Denial::new(step, Refusal::new(rows::UNAVAILABLE, "unavailable", rule, Ask::Wait, text).retry_after(1))
}

/// Step 2.
pub fn missing() -> Denial {
    let refusal = mandate(rows::MANDATE_MISSING, "mandate_missing", "mandate.present", "a bearer mandate is required");
    Denial::new("2", refusal).counted(|n| &n.denials_missing_auth)
}

/// Steps 3, 4, 8, 9, 11.
pub fn invalid(step: &'static str, text: &'static str) -> Denial {
    Denial::new(step, mandate(rows::MANDATE_INVALID, "mandate_invalid", "mandate.verify", text))
}

/// Step 5.
pub fn expiring() -> Denial {
    let refusal =
        mandate(rows::MANDATE_EXPIRING, "mandate_expiring", "mandate.lifetime", "the mandate has less than 35 seconds left");
    Denial::new("5", refusal).counted(|n| &n.denials_expiring)
}

/// Steps 0, 6, 7, 10, 10a.
pub fn malformed(step: &'static str, rule: &'static str, field: &'static str, text: &'static str) -> Denial {
    Denial::new(step, Refusal::new(rows::MALFORMED, "request_malformed", rule, Ask::Oneself, text).field(field))
}

/// Step 0: CONNECT and TRACE.
pub fn method() -> Denial {
    let text = "CONNECT and TRACE are not served";
    Denial::new("0", Refusal::new(rows::METHOD, "request_malformed", "request.routing", Ask::Oneself, text).field("method"))
}

/// Step 10a: a long path.
pub fn long_path() -> Denial {
    let refusal =
        Refusal::new(rows::PATH_TOO_LONG, "request_malformed", "request.path", Ask::Oneself, "the path is longer than 8 KiB");
    Denial::new("10a", refusal.field("path")).counted(|n| &n.denials_bad_routing)
}

/// Steps 10b and 19: a large body.
pub fn too_large(step: &'static str) -> Denial {
    let refusal =
        Refusal::new(rows::TOO_LARGE, "payload_too_large", "request.size", Ask::Oneself, "the body is larger than allowed");
    Denial::new(step, refusal.field("body"))
}

/// Step 11a.
pub fn bound(field: &'static str) -> Denial {
    let text = "the mandate is for another request";
    let refusal = mandate(rows::BOUND_REQUEST, "request_binding_mismatch", "mandate.bound_request", text).field(field);
    Denial::new("11a", refusal).counted(|n| &n.denials_bound_request).evident("request_binding_mismatch")
}

/// Step 12.
pub fn replayed() -> Denial {
    let refusal = mandate(rows::MANDATE_REPLAYED, "mandate_replayed", "mandate.single_use", "the mandate was used before");
    Denial::new("12", refusal).counted(|n| &n.denials_jti_replay)
}

/// Step 13, and a revocation before the head of the answer.
pub fn revoked() -> Denial {
    let refusal = mandate(rows::MANDATE_REVOKED, "mandate_revoked", "mandate.revocation", "the mandate was revoked");
    Denial::new("13", refusal).counted(|n| &n.denials_revoked).evident("session_revoked")
}

/// Steps 16 to 18.
pub fn upstream_refused(step: &'static str, text: &'static str) -> Denial {
    Denial::new(step, Refusal::new(rows::UPSTREAM_REFUSED, "upstream_refused", "resource.upstream", Ask::Operator, text))
}

/// Step 19.
pub fn upstream_failed(row: &'static Situation, text: &'static str) -> Denial {
    Denial::new("19", Refusal::new(row, "upstream_unavailable", "resource.upstream", Ask::Wait, text).retry_after(1))
}

#[cfg(test)]
mod tests {
    use caracal_host::World;
    use http::HeaderMap;

    use super::*;

    fn answer(denial: &Denial) -> (u16, HeaderMap, Value) {
        let (world, _) = World::fixed(1);
        let response = denial.render(&RequestId::new(&world));
        let body = serde_json::from_slice(response.body()).unwrap();
        (response.status().as_u16(), response.headers().clone(), body)
    }

    /// Acceptance row 97.
    #[test]
    fn every_denial_says_what_would_help() {
        for (denial, status, code, reason) in [
            (unavailable("1", "platform.revocation_state", "x"), 503, "sts_unavailable", "unavailable"),
            (missing(), 401, "invalid_token", "mandate_missing"),
            (invalid("3", "x"), 401, "invalid_token", "mandate_invalid"),
            (expiring(), 401, "credential_expired_not_renewable", "mandate_expiring"),
            (malformed("7", "request.routing", "x-caracal-resource", "x"), 400, "invalid_token", "request_malformed"),
            (method(), 405, "invalid_token", "request_malformed"),
            (long_path(), 414, "invalid_token", "request_malformed"),
            (too_large("10b"), 413, "payload_too_large", "payload_too_large"),
            (bound("head"), 403, "access_denied", "request_binding_mismatch"),
            (replayed(), 401, "invalid_token", "mandate_replayed"),
            (revoked(), 401, "invalid_token", "mandate_revoked"),
            (upstream_refused("16", "x"), 502, "internal_error", "upstream_refused"),
            (upstream_failed(rows::UPSTREAM_LATE, "x"), 504, "internal_error", "upstream_unavailable"),
        ] {
            let (got, headers, body) = answer(&denial);
            assert_eq!((got, body["error"].as_str(), body["refusal"]["reason"].as_str()), (status, Some(code), Some(reason)));
            assert!(body["requestId"].is_string() && headers.contains_key("x-request-id"), "{reason}");
            assert_eq!(headers["cache-control"], "no-store");
            assert_eq!(headers.contains_key("www-authenticate"), status == 401, "{reason}");
            assert!(status != 503 || headers.contains_key("retry-after"), "{reason}");
            assert_eq!(status == 405, headers.contains_key("allow"));
        }
        let challenge = answer(&expiring()).1["www-authenticate"].clone();
        assert_eq!(challenge, "Bearer realm=\"caracal-gateway\", error=\"expired_token\"");
    }
}
