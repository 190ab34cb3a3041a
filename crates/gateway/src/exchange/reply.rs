//! What the STS answered (`gateway.md` 7.4, 8).
#![allow(clippy::result_large_err, reason = "a refusal is moved once, into the box of a failure")]

use std::collections::HashMap;

use bytes::Bytes;
use caracal_core::directive::Directive;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Granted, StsRefusal};

/// Members of a hold that pass on to the caller.
const HOLD: &[&str] = &["approval_id", "approval_type", "state", "tier", "binding", "approval_expires_at"];
/// Bytes of an error that are read.
const ERROR_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the member `refusal`.
const REFUSAL_BYTES_MAX: usize = 4096;

#[derive(Deserialize)]
struct Success {
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    upstreams: HashMap<String, Value>,
}

/// Reads an answer for a resource.
pub fn read_reply(response: &Response<Bytes>, resource: &str) -> Result<Granted, StsRefusal> {
    if response.status() == StatusCode::OK {
        return success(response, resource);
    }
    Err(refusal(response))
}

fn success(response: &Response<Bytes>, resource: &str) -> Result<Granted, StsRefusal> {
    let unusable = |why: &str| StsRefusal::unavailable(502, "the token service's answer cannot be used", why);
    if !is_json(response) {
        return Err(unusable("the media type is not JSON"));
    }
    // The parser's own text may quote the answer, which holds credentials.
    let success: Success = serde_json::from_slice(response.body()).map_err(|_| unusable("the body is not the expected JSON"))?;
    if success.access_token.is_empty() {
        return Err(unusable("there is no access token"));
    }
    let not_configured = || StsRefusal::new(403, "access_denied", "resource upstream not configured");
    let Some(value) = success.upstreams.get(resource) else { return Err(not_configured()) };
    let directive: Directive = serde_json::from_value(value.clone()).map_err(|_| unusable("the directive is malformed"))?;
    if directive.url.is_empty() {
        return Err(not_configured());
    }
    Ok(Granted { resource_token: Some(success.access_token), directive })
}

fn refusal(response: &Response<Bytes>) -> StsRefusal {
    let status = response.status();
    let body = &response.body()[..response.body().len().min(ERROR_BYTES_MAX)];
    let error: Option<Map<String, Value>> = serde_json::from_slice(body).ok();
    let text = |name: &str| error.as_ref()?.get(name)?.as_str().filter(|t| !t.is_empty());
    if response.headers().get("x-caracal-gateway-auth").is_some_and(|v| v == "failed") {
        // Our own trouble must not reach the caller as if its credential were bad.
        return StsRefusal::unavailable(502, "the token service refused the Gateway", "the STS did not authenticate the Gateway");
    }
    let Some(code) = text("error") else {
        let passed = if (400..600).contains(&status.as_u16()) { status } else { StatusCode::BAD_GATEWAY };
        let reason = passed.canonical_reason().unwrap_or("token service unavailable");
        return StsRefusal::unavailable(passed.as_u16(), reason, format!("the STS answered {status} without an error"));
    };
    if !(400..600).contains(&status.as_u16()) {
        return StsRefusal::unavailable(502, "the token service's answer cannot be used", format!("status {status}"));
    }
    let mut refusal = StsRefusal::new(status.as_u16(), code, text("error_description").unwrap_or_default());
    let member = error.as_ref().and_then(|e| e.get("refusal"));
    refusal.refusal = member.filter(|value| has_shape(value)).cloned();
    for name in HOLD {
        if let Some(value) = error.as_ref().and_then(|e| e.get(*name)) {
            refusal.members.insert((*name).to_owned(), value.clone());
        }
    }
    let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok());
    if code == "interaction_required" {
        refusal.challenge = header(WWW_AUTHENTICATE).map(str::to_owned);
    }
    refusal.retry_after = header(RETRY_AFTER).and_then(|t| t.trim().parse().ok());
    refusal
}

fn is_json(response: &Response<Bytes>) -> bool {
    let text = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// Whether a member `refusal` has the form of `sts.md` 27.
fn has_shape(value: &Value) -> bool {
    let word = |name: &str, more: &[u8]| {
        value.get(name).and_then(Value::as_str).is_some_and(|text| {
            (1..=64).contains(&text.len())
                && text.as_bytes()[0].is_ascii_lowercase()
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || more.contains(&b))
        })
    };
    value.get("v").and_then(Value::as_u64) == Some(1)
        && word("reason", b"")
        && word("rule", b".")
        && value.get("enough").is_some_and(|e| e.as_array().is_some_and(|list| list.iter().all(Value::is_object)))
        && value.get("ask").and_then(Value::as_str).is_some()
        && value.to_string().len() <= REFUSAL_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use caracal_core::directive::AuthMode;
    use serde_json::json;

    use super::*;

    fn answer(status: u16, media: &str, body: &str) -> Response<Bytes> {
        Response::builder().status(status).header("content-type", media).body(Bytes::from(body.to_owned())).unwrap()
    }

    fn read(status: u16, body: &Value) -> Result<Granted, StsRefusal> {
        read_reply(&answer(status, "application/json; charset=utf-8", &body.to_string()), "resource://ledger")
    }

    fn good() -> Value {
        json!({"access_token":"RT","upstreams":{"resource://ledger":{"url":"https://h/b","auth_mode":"caracal_jwt"}}})
    }

    /// Acceptance rows 31 and 34.
    #[test]
    fn successes() {
        let granted = read(200, &good()).unwrap();
        assert_eq!((granted.directive.auth_mode, granted.resource_token.as_deref()), (AuthMode::CaracalJwt, Some("RT")));
        let mut padded = good();
        padded["padding"] = "x".repeat(20 * 1024).into();
        assert!(read(200, &padded).is_ok());
        for (status, media, body) in [
            (200, "text/html", good().to_string()),
            (200, "application/json", "{".to_owned()),
            (200, "application/json", json!({"upstreams": good()["upstreams"]}).to_string()),
            (302, "application/json", String::new()),
        ] {
            let refusal = read_reply(&answer(status, media, &body), "resource://ledger").unwrap_err();
            assert_eq!((refusal.status, refusal.code.as_str()), (502, "sts_unavailable"), "{status} {media}");
        }
        for body in [
            json!({"access_token":"RT"}),
            json!({"access_token":"RT","upstreams":{"row-id":{"url":"https://h","auth_mode":"none"}}}),
            json!({"access_token":"RT","upstreams":{"resource://ledger":{"url":"","auth_mode":"none"}}}),
        ] {
            let refusal = read(200, &body).unwrap_err();
            assert_eq!((refusal.status, refusal.code.as_str(), refusal.is_unavailable()), (403, "access_denied", false));
        }
    }

    /// Acceptance rows 29 and 97.
    #[test]
    fn refusals_pass_unchanged() {
        let member = json!({"v":1,"reason":"role_scope_mismatch","rule":"policy.role","enough":[],"ask":"self"});
        let refusal =
            read(403, &json!({"error":"access_denied","error_description":"no","requestId":"theirs","x":1,"refusal":member}))
                .unwrap_err();
        assert_eq!((refusal.status, refusal.code.as_str(), refusal.description.as_str()), (403, "access_denied", "no"));
        assert_eq!((refusal.refusal, refusal.members.len()), (Some(member), 0));
        for malformed in [json!({"v":2}), json!("x"), json!({"v":1,"reason":"A","rule":"a","enough":[],"ask":"self"})] {
            assert_eq!(read(403, &json!({"error":"a","refusal":malformed})).unwrap_err().refusal, None);
        }
        for (status, code) in [(503, "policy_eval_failed"), (502, "http_request_failed")] {
            assert!(!read(status, &json!({"error": code})).unwrap_err().is_unavailable(), "{code}");
        }
        let empty = read(429, &json!({})).unwrap_err();
        assert_eq!((empty.status, empty.code.as_str()), (429, "sts_unavailable"));
    }

    /// Acceptance row 30.
    #[test]
    fn a_hold_keeps_its_members() {
        let mut response = answer(
            401,
            "application/json",
            &json!({"error":"interaction_required","approval_id":"a","state":"pending","tier":"high","secret":"x"}).to_string(),
        );
        response.headers_mut().insert(WWW_AUTHENTICATE, "Bearer x".parse().unwrap());
        let refusal = read_reply(&response, "r").unwrap_err();
        assert_eq!(refusal.members.keys().collect::<Vec<_>>(), ["approval_id", "state", "tier"]);
        assert_eq!(refusal.challenge.as_deref(), Some("Bearer x"));
    }

    /// Acceptance row 98.
    #[test]
    fn our_own_trouble_is_not_the_callers() {
        let mut response = answer(401, "application/json", r#"{"error":"access_denied"}"#);
        assert_eq!(read_reply(&response, "r").unwrap_err().status, 401);
        response.headers_mut().insert("x-caracal-gateway-auth", "failed".parse().unwrap());
        let refusal = read_reply(&response, "r").unwrap_err();
        assert!(refusal.status == 502 && refusal.is_unavailable());
    }
}
