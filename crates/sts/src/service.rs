//! The routes of the STS (`sts.md` 1).

use std::net::IpAddr;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{OriginalUri, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use caracal_core::claims::Use;
use caracal_core::error::{Service, sts as rows};
use caracal_core::id::ZoneId;
use caracal_core::refusal::{Ask, Refusal};
use caracal_core::time::Time;
use caracal_crypto::keys::Jwks;
use caracal_crypto::mac::GatewayCall as Signed;
use caracal_ephemeral::{Kind, Presented as Id, Taken};
use caracal_web::probes::{self, MetricsGate, Unready};
use caracal_web::read::Rules;
use caracal_web::{Face, Peer, Problem, RequestId, shell};
use http_body_util::Full;

use crate::exchange::Sts;
use crate::gateway::{GatewayCall, GatewayRefusal};
use crate::refusals;
use crate::reply;
use crate::request::{Plain, Presented, TokenRequest};

const FACE: Face =
    Face { service: Service::Sts, not_found: rows::NOT_FOUND, method: rows::METHOD, internal: rows::INTERNAL, challenge: None };
const FORM: Rules = Rules {
    bytes_max: 65_536,
    too_large: rows::TOO_LARGE,
    media_type: rows::MEDIA_TYPE,
    malformed: rows::MALFORMED,
    invalid: rows::MALFORMED,
};

/// How far the clocks of Gateway and STS may differ, in seconds.
const SKEW: u64 = 60;
/// How long a nonce is remembered, in seconds.
const NONCE: i64 = 120;

static TIMESTAMP: HeaderName = HeaderName::from_static("x-caracal-gateway-timestamp");
static NONCE_HEADER: HeaderName = HeaderName::from_static("x-caracal-gateway-request");
static SIGNATURE: HeaderName = HeaderName::from_static("x-caracal-gateway-signature");
static AUTH_FAILED: HeaderName = HeaderName::from_static("x-caracal-gateway-auth");

/// The STS over HTTP.
pub fn service(sts: &Sts) -> Router {
    let inner = &sts.inner;
    let check = {
        let sts = sts.clone();
        move || {
            let sts = sts.clone();
            async move { sts.ready().await }
        }
    };
    let metrics_gate = MetricsGate::new(inner.config.common.metrics_bearer.clone(), inner.config.common.mode);
    let routes = Router::new()
        .route("/oauth/2/token", post(token))
        .route("/.well-known/jwks.json", get(jwks))
        .with_state(sts.clone())
        .merge(probes::routes(Service::Sts, Unready::because("postgres_unreachable"), check))
        .merge(probes::metrics_routes(Service::Sts, metrics_gate, inner.metrics.clone(), Some(probes::flat_json), || async {}));
    shell(FACE, inner.world.clone(), routes)
}

impl Sts {
    /// The checks of `/ready`, in order.
    async fn ready(&self) -> Result<(), Unready> {
        let inner = &self.inner;
        inner.store.ping().await.map_err(|_| Unready::because("postgres_unreachable"))?;
        inner.memory.ping().await.map_err(|_| Unready::because("redis_unreachable"))?;
        if inner.spool.healthy() { Ok(()) } else { Err(Unready::because("audit_replay_unavailable")) }
    }
}

async fn token(
    State(sts): State<Sts>,
    Extension(id): Extension<RequestId>,
    peer: Option<Extension<Peer>>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let started = sts.inner.world.monotonic();
    // The MAC is over the bytes as received, so they are kept beside the form read from them.
    let bytes = FORM.bytes(&headers, body).await?;
    let form = FORM.form(&uri, &headers, Full::new(bytes.clone()), &["resource"]).await?;
    let plain = Plain::of(&form)?;
    let by_gateway = [&TIMESTAMP, &NONCE_HEADER, &SIGNATURE].iter().any(|name| headers.contains_key(*name));
    if by_gateway {
        gateway_signed(&sts, &headers, uri.path(), &bytes, &plain, id.as_str()).await?;
    }
    let request = TokenRequest::of(&plain)?;
    let (form, outcome) = if by_gateway {
        ("gateway", gateway(&sts, &request, id.as_str()).await)
    } else {
        let trust = sts.inner.config.common.trust_proxy;
        let address: Option<IpAddr> = peer.map(|Extension(peer)| peer.client(&headers, trust));
        let form = if request.edge.is_absent() { "bootstrap" } else { "delegated" };
        (form, sts.exchange(&request, address, id.as_str()).await.map(|minted| reply::granted(minted, false)))
    };
    let word = if outcome.is_ok() { "granted" } else { "refused" };
    sts.inner.numbers.exchanges.with_label_values(&[form, word]).inc();
    sts.inner.numbers.mint_seconds.observe((sts.inner.world.monotonic().saturating_sub(started)).as_secs_f64());
    outcome.map_err(Problem::from)
}

/// The rules of section 11, in order. The nonce is used up only once the signature holds.
async fn gateway_signed(
    sts: &Sts,
    headers: &HeaderMap,
    path: &str,
    body: &[u8],
    plain: &Plain<'_>,
    id: &str,
) -> Result<(), Problem> {
    let failed = || Problem::from(refusals::client()).header(AUTH_FAILED.clone(), HeaderValue::from_static("failed"));
    let text = |name: &HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty());
    if plain.gateway_request_id().is_empty() || plain.gateway_request_id() != id {
        return Err(failed());
    }
    let key = sts.inner.config.gateway_key.as_ref().ok_or_else(failed)?;
    let (Some(timestamp), Some(nonce), Some(signature)) = (text(&TIMESTAMP), text(&NONCE_HEADER), text(&SIGNATURE)) else {
        return Err(failed());
    };
    let timestamp: i64 = timestamp.parse().map_err(|_| failed())?;
    let now = sts.inner.world.now();
    if now.as_secs().abs_diff(timestamp) > SKEW {
        return Err(failed());
    }
    if !(Signed { timestamp, nonce, method: "POST", path, body }).verify(key, signature) {
        return Err(failed());
    }
    let presented = Id { kind: Kind::Nonce, id: nonce, issued: Time::from_secs(timestamp), until: now.plus_secs(NONCE), by: id };
    match sts.inner.memory.take(presented).await {
        Ok(Taken::First) => Ok(()),
        Ok(Taken::Seen(_) | Taken::Unsure) | Err(_) => Err(failed()),
    }
}

async fn gateway(sts: &Sts, request: &TokenRequest, id: &str) -> Result<Response, Refusal> {
    let Presented::Mandate(token) = &request.presented else { return Err(refusals::client()) };
    let [resource] = request.resources.as_slice() else { return Err(refusals::malformed("resource", "exactly one resource")) };
    let zone: ZoneId = request.zone.parse().map_err(|_| refusals::token("gateway"))?;
    let mandate = sts.verify(token, Use::Gateway, zone, sts.inner.world.now().as_secs()).await?;
    if mandate.claims.client_id.to_string() != request.application {
        return Err(refusals::record());
    }
    if request.record.is_other_than(Some(mandate.claims.sid))
        || request.session.is_other_than(mandate.claims.session)
        || request.edge.is_other_than(mandate.claims.edge())
    {
        return Err(refusals::record());
    }
    let (method, path) = request.operation.clone().unwrap_or_default();
    let call = GatewayCall { mandate: &mandate, resource, method: &method, path: &path, request_id: id, consume: None };
    match sts.for_gateway(&call, true).await {
        Ok(minted) => Ok(reply::granted(minted, true)),
        Err(GatewayRefusal::Refused(refusal)) => Err(*refusal),
        Err(GatewayRefusal::Replayed) => Err(refusals::internal("nothing was presented to be used up")),
    }
}

async fn jwks(State(sts): State<Sts>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let query = query.unwrap_or_default();
    let zone = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "zone_id").map(|(_, v)| v.into_owned());
    let zone = zone.unwrap_or_default();
    if zone.is_empty() {
        return Err(refusals::malformed("zone_id", "zone_id is required").into());
    }
    let unknown = || Refusal::new(rows::NOT_FOUND, "not_found", "request.object", Ask::Oneself, "unknown zone");
    let zone: ZoneId = zone.parse().map_err(|_| unknown())?;
    let (view, _) = sts.inner.views.fresh(zone).await?.ok_or_else(unknown)?;
    sts.inner.numbers.invalid_keys.inc_by(u64::try_from(view.skipped_keys).unwrap_or(0));
    if view.public.is_empty() {
        return Err(refusals::internal("no key of the zone can be opened").into());
    }
    let mut answer = Json(Jwks::of(&view.public)).into_response();
    let set = answer.headers_mut();
    set.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300, must-revalidate"));
    set.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(answer)
}

/// How long requests may take to finish at the end.
pub const GRACE: Duration = Duration::from_secs(10);
