//! Step six: the answer (`sts.md` 8).

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::mint::Minted;

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// A 200 with the mandate; `upstreams` only to the Gateway.
pub(crate) fn granted(minted: Minted, to_gateway: bool) -> Response {
    let mut body = json!({
        "access_token": minted.token.unwrap_or_default(),
        "token_type": "Bearer",
        "expires_in": minted.claims.exp - minted.claims.iat,
        "issued_token_type": ACCESS_TOKEN,
    });
    if let Some(scope) = minted.claims.scope.filter(|s| !s.is_empty()) {
        body["scope"] = scope.into();
    }
    if !minted.claims.target.is_empty() {
        body["target_resources"] = json!(minted.claims.target);
    }
    if to_gateway {
        let ends = minted.authority_ends.map(caracal_core::time::Time::as_secs);
        let upstreams: Map<String, Value> = minted
            .granted
            .into_iter()
            .filter_map(|g| {
                let mut directive = g.directive?;
                directive.authority_expires_at = ends;
                Some((g.identifier, serde_json::to_value(directive).ok()?))
            })
            .collect();
        body["upstreams"] = Value::Object(upstreams);
    }
    let mut answer = Json(body).into_response();
    answer.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    answer
}
