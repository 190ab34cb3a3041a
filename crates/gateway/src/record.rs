//! What is known about one call, and the one event it becomes (`gateway.md` 14.1). Exactly one for every call that was granted; a
//! call whose caller goes away writes its event on its way out.

use std::sync::Arc;
use std::time::Duration;

use caracal_core::claims::SubjectType;
use caracal_core::digest::hex;
use caracal_core::directive::AuthMode;
use caracal_core::event::{AuditEvent, Verdict};
use caracal_crypto::verified::VerifiedMandate;
use caracal_web::RequestId;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::evidence::NoEvidence;
use crate::exchange::Granted;
use crate::service::Inner;
use crate::upload::Progress;

/// Longest path in evidence, in bytes.
const PATH_BYTES_MAX: usize = 512;

/// Who asked for what; true from the moment the mandate was verified.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The request id.
    pub id: RequestId,
    /// The mandate.
    pub mandate: Arc<VerifiedMandate>,
    /// The resource as the caller named it.
    pub resource: String,
    /// The method as received.
    pub method: String,
    /// The operation path.
    pub path: String,
    /// The caller's address.
    pub client: std::net::IpAddr,
    /// When the call began, on the monotonic clock.
    pub began: Duration,
}

impl Facts {
    /// The first 16 hex digits of the mandate's SHA-256.
    pub fn fingerprint(&self) -> String {
        hex(&self.mandate.digest[..8])
    }

    /// An event of this call with what every one carries.
    pub fn event(&self, inner: &Inner, decision: Verdict, status: &'static str) -> AuditEvent {
        let claims = &self.mandate.claims;
        let zone = claims.zone_id.to_string();
        let mut event = AuditEvent::new(inner.world.mint(), zone, "gateway_resource_request", decision, status, inner.world.now());
        self.id.as_str().clone_into(&mut event.request_id);
        let end = (0..=PATH_BYTES_MAX.min(self.path.len())).rev().find(|i| self.path.is_char_boundary(*i)).unwrap_or(0);
        event
            .with("application_id", claims.client_id.to_string())
            .with("resource", self.resource.as_str())
            .with("subject_fingerprint", self.fingerprint())
            .with("subject_kind", if claims.sub_type == SubjectType::User { "user" } else { "application" })
            .with("method", self.method.as_str())
            .with("path", &self.path[..end])
            .with("jti", claims.jti.to_string())
            .with("session_id", claims.sid.to_string())
            .with_some("agent_session_id", claims.session.map(|s| s.to_string()))
            .with_some("delegation_edge_id", claims.edge().map(|e| e.to_string()))
            .with_some("request_digest", claims.bound_request.as_ref().map(caracal_core::claims::BoundRequest::digest))
    }
}

/// How a granted call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// `evaluation_status`.
    pub status: &'static str,
    /// `error_kind`.
    pub error: Option<&'static str>,
    /// Whether a revocation ended it.
    pub interrupted: bool,
}

impl End {
    /// The whole answer was passed on.
    pub const EXECUTED: Self = Self { status: "executed", error: None, interrupted: false };
    /// A revocation ended the answer.
    pub const INTERRUPTED: Self = Self { status: "executed", error: None, interrupted: true };

    /// The upstream is one we do not ask.
    pub const fn rejected(kind: &'static str) -> Self {
        Self { status: "upstream_rejected", error: Some(kind), interrupted: false }
    }

    /// The request could not be built.
    pub const BUILD: Self = Self { status: "build_failed", error: Some("request_build_failed"), interrupted: false };

    /// The upstream, or the way to the caller, failed.
    pub const fn failed(kind: &'static str) -> Self {
        Self { status: "upstream_error", error: Some(kind), interrupted: false }
    }
}

/// A granted call. Dropped before it ended, it tells that the caller went away.
pub struct Record {
    inner: Arc<Inner>,
    facts: Arc<Facts>,
    auth_mode: AuthMode,
    provider_id: Option<String>,
    connection_id: Option<String>,
    /// `host[:port]` of the upstream, from step 17 on.
    pub upstream_host: Option<String>,
    /// From step 19 on.
    pub trace_id: Option<String>,
    /// From sending to the head of the answer.
    pub latency: Duration,
    /// What the caller is given.
    pub gateway_status: u16,
    /// What the upstream answered.
    pub upstream_status: Option<u16>,
    /// Body bytes given to the caller.
    pub response_bytes: u64,
    /// The upload.
    pub upload: Option<Arc<Progress>>,
    ended: bool,
}

impl Record {
    /// Begins with the grant.
    pub fn new(inner: Arc<Inner>, facts: Arc<Facts>, granted: &Granted) -> Self {
        let directive = &granted.directive;
        Self {
            inner,
            facts,
            auth_mode: directive.auth_mode,
            provider_id: directive.provider_id.clone().filter(|t| !t.is_empty()),
            connection_id: directive.connection_id.clone().filter(|t| !t.is_empty()),
            upstream_host: None,
            trace_id: None,
            latency: Duration::ZERO,
            gateway_status: 0,
            upstream_status: None,
            response_bytes: 0,
            upload: None,
            ended: false,
        }
    }

    /// Whose call this is.
    pub fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// Ends the call: one event, one log line. The event is durable when the future is done.
    pub fn end(&mut self, end: End) -> BoxFuture<'static, Result<(), NoEvidence>> {
        self.ended = true;
        self.log(end);
        let event = self.event(end);
        let written = self.inner.evidence.record(event);
        let inner = self.inner.clone();
        Box::pin(async move {
            let result = written.await;
            match &result {
                Ok(()) => inner.numbers.audit_persisted.inc(),
                Err(error) => {
                    inner.numbers.audit_sink_errors.inc();
                    tracing::error!(error = %error, "evidence of a call could not be written");
                }
            }
            result
        })
    }

    fn event(&self, end: End) -> AuditEvent {
        let duration = self.inner.world.monotonic().saturating_sub(self.facts.began);
        let event = self.facts.event(&self.inner, Verdict::Allow, end.status);
        event
            .with("gateway_status", self.gateway_status)
            .with("latency_ms", millis(self.latency))
            .with("duration_ms", millis(duration))
            .with("response_bytes", self.response_bytes)
            .with("request_bytes", self.upload.as_ref().map_or(0, |u| u.bytes()))
            .with("auth_mode", self.auth_mode.as_str())
            .with_some("provider_id", self.provider_id.clone())
            .with_some("connection_id", self.connection_id.clone())
            .with_some("upstream_host", self.upstream_host.clone())
            .with_some("trace_id", self.trace_id.clone())
            .with_some("upstream_status", self.upstream_status)
            .with_some("result_class", self.upstream_status.map(result_class))
            .with_some("error_kind", end.error)
            .with_some("revocation_interrupted", end.interrupted.then_some(Value::Bool(true)))
    }

    fn log(&self, end: End) {
        let facts = &self.facts;
        let claims = &facts.mandate.claims;
        let micros = u64::try_from(self.inner.world.monotonic().saturating_sub(facts.began).as_micros()).unwrap_or(u64::MAX);
        macro_rules! line {
            ($level:ident, $text:literal) => {
                tracing::$level!(
                    request_id = facts.id.as_str(),
                    client_ip = %facts.client,
                    zone_id = %claims.zone_id,
                    application_id = %claims.client_id,
                    resource = facts.resource.as_str(),
                    subject_fp = facts.fingerprint(),
                    upstream_host = self.upstream_host.as_deref(),
                    auth_mode = self.auth_mode.as_str(),
                    trace_id = self.trace_id.as_deref(),
                    upstream_latency_ms = millis(self.latency),
                    status = self.gateway_status,
                    error_kind = end.error,
                    interrupted = end.interrupted,
                    micros,
                    $text
                )
            };
        }
        match (end.status, end.error) {
            ("executed", _) => line!(info, "call"),
            (_, Some("provider_host_not_allowed" | "response_copy_failed" | "client_disconnected" | "idle_timeout")) => {
                line!(warn, "call broke off");
            }
            _ => line!(error, "call failed"),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if self.gateway_status == 0 {
            self.gateway_status = 499;
        }
        let written = self.end(End::failed("client_disconnected"));
        self.inner.supervisor.once(async move {
            // A failure is logged and counted where it happens.
            let _ = written.await;
        });
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn result_class(status: u16) -> &'static str {
    match status {
        200..300 => "success",
        300..400 => "redirect",
        400..500 => "client_error",
        500..600 => "server_error",
        _ => "unknown",
    }
}
