//! One governed call, phase by phase (`gateway.md` 3). Each phase is a type that only the phase before makes, so that nothing is sent
//! that was not received, verified, consumed and permitted, in this order:
//!
//! ```text
//! Received (0 to 10b) ─▶ Verified (11 to 11b) ─▶ Consumed (14, 12, 13) ─▶ Permitted (15) ─▶ sent (16 to 19) ─▶ passed on (20)
//! ```
//!
//! The order of denials is a contract. Whatever fails before the mandate is consumed leaves it usable.

use std::sync::Arc;
use std::time::Duration;

use caracal_core::claims::Use;
use caracal_core::event::{AuditEvent, Verdict};
use caracal_core::id::Id;
use caracal_core::time::Time;
use caracal_store::journal::{Consume, Purpose};
use caracal_web::bearer::{NoBearer, Scheme, bearer};
use caracal_web::mandate::{Expect, Refused, Unverified};
use caracal_web::request_id::is_id;
use caracal_web::{Inbound, Peer, RequestId};
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, Version};

use crate::body::Body;
use crate::bounds::Running;
use crate::consumed::Taken;
use crate::denial::{self, Answer, Denial};
use crate::exchange::{Call, Failure, Granted, StsRefusal};
use crate::record::{Facts, Record};
use crate::revocation::Anchors;
use crate::rules::path::{PATH_BYTES_MAX, SafePath, query_fine, safe_path};
use crate::service::Inner;

/// Longest bearer, in bytes.
const BEARER_BYTES_MAX: usize = 8192;
/// Least time a mandate must have left, in seconds.
const LIFE_SECS_MIN: i64 = 35;
/// The header that names the resource; its presence makes a request a governed call.
pub const X_CARACAL_RESOURCE: &str = "x-caracal-resource";

/// Serves a governed call.
pub async fn governed(inner: &Arc<Inner>, parts: Parts, body: Inbound, id: RequestId) -> Response<Body> {
    inner.numbers.requests.inc();
    let began = inner.world.monotonic();
    let peer = parts.extensions.get::<Peer>().copied();
    let mut facts = None;
    match steps(inner, parts, body, &id, began, &mut facts).await {
        Ok(response) => response,
        Err(denial) => {
            inner.numbers.requests_denied.inc();
            if let Some(number) = denial.number {
                number(&inner.numbers).inc();
            }
            log(&denial, &id, peer, facts.as_deref());
            if let Some(facts) = &facts {
                tell(inner, &denial, facts).await;
            }
            denial.render(&id).map(Body::whole)
        }
    }
}

async fn steps(
    inner: &Arc<Inner>,
    parts: Parts,
    body: Inbound,
    id: &RequestId,
    began: Duration,
    facts: &mut Option<Arc<Facts>>,
) -> Result<Response<Body>, Denial> {
    let received = Received::of(inner, &parts)?;
    let verified = received.verify(inner, &parts, id, began).await?;
    *facts = Some(verified.facts.clone());
    verified.check_binding()?;
    let consumed = verified.admit(inner)?.consume(inner).await?;
    let permitted = consumed.exchange(inner, parts, body).await?;
    Ok(permitted.send().await)
}

/// What was read of a head without asking anybody.
struct Received {
    token: String,
    resource: String,
    path: SafePath,
}

impl Received {
    /// Steps 1 to 10b.
    fn of(inner: &Inner, parts: &Parts) -> Result<Self, Denial> {
        if !inner.revocations.fresh() {
            let stale = denial::unavailable("1", "platform.revocation_state", "revocation state is not current");
            return Err(stale.counted(|n| &n.denials_revocation_stale));
        }
        let token = match bearer(&parts.headers, Scheme::AnyCase) {
            Ok(token) => token,
            Err(NoBearer::Missing) => return Err(denial::missing()),
            Err(NoBearer::Ambiguous) => {
                let text = "the Authorization header occurs with different values";
                return Err(denial::malformed("2", "request.routing", "authorization", text).counted(|n| &n.denials_bad_routing));
            }
        };
        if token.len() > BEARER_BYTES_MAX {
            return Err(denial::invalid("3", "the bearer is too long").counted(|n| &n.denials_bad_bearer));
        }
        let claims = unverified(inner, token)
            .ok_or_else(|| denial::invalid("4", "the bearer is no mandate").counted(|n| &n.denials_bad_bearer))?;
        if claims.exp.saturating_sub(inner.world.now().as_secs()) < LIFE_SECS_MIN {
            return Err(denial::expiring());
        }
        let routing =
            |step, field, text| denial::malformed(step, "request.routing", field, text).counted(|n| &n.denials_bad_routing);
        if parts.headers.get_all("x-caracal-client-id").iter().any(|v| !v.as_bytes().trim_ascii().is_empty()) {
            return Err(routing("6", "x-caracal-client-id", "the caller is known by its mandate alone"));
        }
        let resource = one(&parts.headers, X_CARACAL_RESOURCE)
            .ok_or_else(|| routing("7", X_CARACAL_RESOURCE, "the resource header is malformed or occurs with different values"))?;
        if resource.is_empty() {
            return Err(routing("7", X_CARACAL_RESOURCE, "a resource is required"));
        }
        for (step, claim) in [("8", &claims.zone_id), ("9", &claims.client_id)] {
            if !claim.as_deref().is_some_and(is_id) {
                return Err(denial::invalid(step, "the mandate names no zone or application").counted(|n| &n.denials_bad_routing));
            }
        }
        let raw = parts.uri.path();
        if raw.len() > PATH_BYTES_MAX {
            return Err(denial::long_path());
        }
        let path = safe_path(raw)
            .map_err(|why| denial::malformed("10", "request.path", "path", why).counted(|n| &n.denials_path_traversal))?;
        if !parts.uri.query().is_none_or(query_fine) {
            let text = "the query has a character or escape that is malformed";
            return Err(denial::malformed("10a", "request.query", "query", text).counted(|n| &n.denials_bad_routing));
        }
        let declared = parts.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|t| t.parse::<u64>().ok());
        if declared.is_some_and(|n| n > inner.config.body_bytes_max) {
            return Err(denial::too_large("10b"));
        }
        Ok(Self { token: token.to_owned(), resource: resource.to_owned(), path })
    }

    /// Step 11.
    async fn verify(self, inner: &Inner, parts: &Parts, id: &RequestId, began: Duration) -> Result<Verified, Denial> {
        let refused = |text| denial::invalid("11", text).counted(|n| &n.denials_signature);
        let mandate = match inner.verifier.verify(&self.token).await {
            Ok(mandate) => mandate,
            Err(Refused::Unavailable(why)) => {
                return Err(denial::unavailable("11", "platform.sts", "the zone's keys cannot be had").cause(why));
            }
            Err(_) => return Err(refused("the mandate is not signed by its zone")),
        };
        let now = inner.world.now().as_secs();
        let expect = Expect { usage: Use::Gateway, issuer: inner.config.issuer.clone(), leeway: 0 };
        if let Err(why) = expect.check(&mandate.claims, now) {
            return Err(refused("the mandate is not for the Gateway").cause(why));
        }
        let facts = Facts {
            id: id.clone(),
            mandate,
            resource: self.resource,
            method: parts.method.as_str().to_owned(),
            path: self.path.operation,
            client: parts.extensions.get::<Peer>().map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |peer| peer.address.ip()),
            began,
        };
        Ok(Verified { token: self.token, forwarded: self.path.forwarded, facts: Arc::new(facts) })
    }
}

/// What a token says before it is believed; a mandate that this process knows is read from memory.
fn unverified(inner: &Inner, token: &str) -> Option<Unverified> {
    if let Some(known) = inner.verifier.known(token) {
        let claims = &known.claims;
        let (zone_id, client_id) = (Some(claims.zone_id.to_string()), Some(claims.client_id.to_string()));
        return Some(Unverified { exp: claims.exp, zone_id, client_id });
    }
    Unverified::of(token)
}

/// A header that occurs once, or several times with the same text; trimmed, empty when absent. `None`: it does not.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let Some(first) = all.next() else { return Some("") };
    if all.any(|other| other != first) {
        return None;
    }
    std::str::from_utf8(first.as_bytes()).ok().map(str::trim)
}

/// A call whose mandate is its zone's.
struct Verified {
    token: String,
    forwarded: String,
    facts: Arc<Facts>,
}

impl Verified {
    /// Step 11a.
    fn check_binding(&self) -> Result<(), Denial> {
        // A mandate for one request needs its body compared before it goes on, which this Gateway does not do yet: it opens nothing.
        if self.facts.mandate.claims.bound_request.is_some() { Err(denial::bound("body")) } else { Ok(()) }
    }

    /// Steps 11b and 14.
    fn admit(self, inner: &Inner) -> Result<Admitted, Denial> {
        let claims = &self.facts.mandate.claims;
        let Some(running) = inner.bounds.admit((claims.zone_id, claims.client_id)) else {
            let full = denial::unavailable("11b", "platform.capacity", "too many calls are running");
            return Err(full.counted(|n| &n.inflight_refusals));
        };
        if let Some(seconds) = inner.exchange.retry_in() {
            inner.numbers.sts_exchange_errors.inc();
            let refusal = StsRefusal::unavailable(503, "the token service is unavailable", "the circuit is open");
            let answer = Answer::Sts(Box::new(StsRefusal { retry_after: Some(seconds), ..refusal }));
            let number: fn(&crate::metrics::Numbers) -> &prometheus::IntCounter = |n| &n.sts_circuit_fast_fail;
            return Err(Denial { answer, step: "14", number: Some(number), evidence: Some("sts_unavailable") });
        }
        Ok(Admitted { call: self, running })
    }
}

/// A call there is room for.
struct Admitted {
    call: Verified,
    running: Running,
}

impl Admitted {
    /// Steps 12 and 13. From here on the mandate is spent.
    async fn consume(self, inner: &Inner) -> Result<Consumed, Denial> {
        let facts = &self.call.facts;
        let claims = &facts.mandate.claims;
        let (issued, until) = (Time::from_secs(claims.iat), Time::from_secs(claims.exp));
        match inner.consumed.take(claims.zone_id, claims.jti, issued, until, facts.id.as_str()).await {
            Ok(Taken::First) => {}
            Ok(Taken::Seen(first)) => {
                tell_replay(inner, facts, first).await;
                return Err(denial::replayed());
            }
            Ok(Taken::Unsure) => {
                inner.numbers.jti_store_errors.inc();
                return Err(denial::replayed().cause("the memory of used mandates is younger than the mandate"));
            }
            Err(error) => {
                inner.numbers.jti_store_errors.inc();
                if !inner.config.jti_fail_open {
                    let text = "used mandates cannot be remembered";
                    return Err(denial::unavailable("12", "platform.replay_memory", text).cause(error));
                }
                tracing::warn!(error = %error, "JTI_FAIL_OPEN: a mandate passes unremembered");
            }
        }
        let anchors = Anchors::of(claims);
        if inner.revocations.revoked(&anchors) {
            return Err(denial::revoked());
        }
        Ok(Consumed { call: self.call, anchors, running: self.running })
    }
}

/// A call whose mandate is spent.
struct Consumed {
    call: Verified,
    anchors: Anchors,
    running: Running,
}

impl Consumed {
    /// Step 15.
    async fn exchange(self, inner: &Arc<Inner>, parts: Parts, body: Inbound) -> Result<Permitted, Denial> {
        let Verified { token, forwarded, facts } = self.call;
        let claims = &facts.mandate.claims;
        let consume = inner.exchange.consumes().then(|| Consume {
            purpose: Purpose::Mandate,
            id: claims.jti.to_bytes().to_vec(),
            until: Time::from_secs(claims.exp),
        });
        let began = inner.world.monotonic();
        let deadline = inner.config.sts_timeout;
        let call = Call {
            token: &token,
            mandate: &facts.mandate,
            resource: &facts.resource,
            method: &facts.method,
            path: &facts.path,
            request_id: facts.id.as_str(),
            consume,
            deadline,
        };
        let outcome = match tokio::time::timeout(deadline, inner.exchange.exchange(call)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(StsRefusal::unavailable(504, "the token service did not answer in time", "the deadline passed").into()),
        };
        let took = inner.world.monotonic().saturating_sub(began);
        inner.numbers.sts_exchange_latency_ms.set(i64::try_from(took.as_millis()).unwrap_or(i64::MAX));
        inner.numbers.sts_exchange_duration_seconds.observe(took.as_secs_f64());
        let granted = match outcome {
            Ok(granted) if granted.directive.url.is_empty() => {
                let refusal = StsRefusal::new(403, "access_denied", "resource upstream not configured");
                return Err(exchange_denied(Box::new(refusal)));
            }
            Ok(granted) => granted,
            Err(Failure::Replayed) => {
                tell_replay(inner, &facts, None).await;
                return Err(denial::replayed());
            }
            Err(Failure::Refused(refusal)) => return Err(exchange_denied(refusal)),
        };
        let record = Record::new(inner.clone(), facts, &granted);
        let (inner, anchors, running) = (inner.clone(), self.anchors, self.running);
        let body = Some(body);
        Ok(Permitted { inner, parts, body, forwarded, granted, record, anchors, running, exchanged: took })
    }
}

fn exchange_denied(refusal: Box<StsRefusal>) -> Denial {
    let number: fn(&crate::metrics::Numbers) -> &prometheus::IntCounter =
        if refusal.is_unavailable() { |n| &n.sts_exchange_errors } else { |n| &n.exchange_denials };
    Denial { answer: Answer::Sts(refusal), step: "15", number: Some(number), evidence: Some("exchange_failed") }
}

/// A call that may go on. Only the exchange makes one, and only a permitted call is sent.
pub struct Permitted {
    pub(crate) inner: Arc<Inner>,
    pub(crate) parts: Parts,
    pub(crate) body: Option<Inbound>,
    pub(crate) forwarded: String,
    pub(crate) granted: Granted,
    pub(crate) record: Record,
    pub(crate) anchors: Anchors,
    pub(crate) running: Running,
    pub(crate) exchanged: Duration,
}

impl Permitted {
    /// Whether a trailer can reach the caller: HTTP/2, or chunks to one that asked for trailers.
    pub(crate) fn takes_trailers(&self) -> bool {
        let asked = || self.parts.headers.get_all("te").iter().filter_map(|v| v.to_str().ok()).any(|v| v.contains("trailers"));
        self.parts.version == Version::HTTP_2 || (self.parts.version == Version::HTTP_11 && asked())
    }

    /// What the caller addressed.
    pub(crate) fn host(&self) -> Option<String> {
        let header = self.parts.headers.get(http::header::HOST).and_then(|v: &HeaderValue| v.to_str().ok()).map(str::to_owned);
        header.or_else(|| self.parts.uri.authority().map(ToString::to_string))
    }
}

/// Writes the evidence of a denial, within the zone's bounds.
async fn tell(inner: &Inner, denial: &Denial, facts: &Facts) {
    let Some(status) = denial.evidence else { return };
    let event = facts
        .event(inner, Verdict::Deny, status)
        .with("gateway_status", denial.status())
        .with("error_code", denial.code())
        .with_some("refusal", denial.for_ledger());
    write(inner, facts, event).await;
}

/// Writes that a mandate came twice (`gateway.md` 14.3).
async fn tell_replay(inner: &Inner, facts: &Facts, first: Option<String>) {
    let claims = &facts.mandate.claims;
    let zone = claims.zone_id.to_string();
    let mut event = AuditEvent::new(inner.world.mint(), zone, "replay_detected", Verdict::Deny, "anomaly", inner.world.now());
    facts.id.as_str().clone_into(&mut event.request_id);
    let event = event
        .with("jti", claims.jti.to_string())
        .with("resource", facts.resource.as_str())
        .with("client_id", claims.client_id.to_string())
        .with("subject_fp", facts.fingerprint())
        .with("request_id", facts.id.as_str())
        .with_some("first_request_id", first);
    write(inner, facts, event).await;
}

async fn write(inner: &Inner, facts: &Facts, event: AuditEvent) {
    let zone = facts.mandate.claims.zone_id;
    if !inner.denials.admit(zone, inner.world.monotonic()) {
        inner.numbers.denials_suppressed.inc();
        return;
    }
    match inner.evidence.record(event).await {
        Ok(()) => inner.numbers.audit_persisted.inc(),
        Err(error) => {
            inner.numbers.audit_sink_errors.inc();
            tracing::error!(error = %error, "evidence of a denial could not be written");
        }
    }
}

/// One line a denial. What an unverified token says is not told.
fn log(denial: &Denial, id: &RequestId, peer: Option<Peer>, facts: Option<&Facts>) {
    let client = peer.map(|p| p.address.ip().to_string());
    let zone = facts.map(|f| f.mandate.claims.zone_id.to_string());
    let application = facts.map(|f| f.mandate.claims.client_id.to_string());
    let fingerprint = facts.map(Facts::fingerprint);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                request_id = id.as_str(),
                client_ip = client.as_deref(),
                zone_id = zone.as_deref(),
                application_id = application.as_deref(),
                resource = facts.map(|f| f.resource.as_str()),
                subject_fp = fingerprint.as_deref(),
                step = denial.step,
                status = denial.status(),
                code = denial.code(),
                cause = denial.cause_text(),
                "call refused"
            )
        };
    }
    match denial.step {
        "1" | "11b" | "14" | "15" => line!(warn),
        _ => line!(info),
    }
}
