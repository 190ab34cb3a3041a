//! Steps 16 to 20: the one place where something goes to an upstream.

use std::sync::Arc;
use std::time::Duration;

use caracal_core::error::Situation;
use caracal_core::error::gateway as rows;
use caracal_egress::client::Answer;
use caracal_egress::{DialError, SendError, Target};
use caracal_web::request_id::X_REQUEST_ID;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRAILER};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body::Body as _;
use tokio::time::Instant;

use crate::body::{Body, Passing, Proxied};
use crate::call::Permitted;
use crate::denial::{self, Denial};
use crate::record::End;
use crate::rules::credential::{host_may_have_it, injection};
use crate::rules::headers::{Caller, incoming, outgoing};
use crate::rules::path::{joined, merged_query};
use crate::upload::{Progress, Upload};

/// Why a permitted call came to nothing: what the caller sees and what evidence says.
struct Failed {
    denial: Denial,
    end: End,
    client_gone: bool,
}

impl Failed {
    fn new(denial: Denial, end: End) -> Self {
        Self { denial, end, client_gone: false }
    }
}

/// A request that is ready to go.
struct Ready {
    request: Request<Upload>,
    progress: Arc<Progress>,
    base: String,
}

impl Permitted {
    /// Sends the call and passes the answer on. Whatever happens, the record ends.
    pub(crate) async fn send(mut self) -> Response<Body> {
        let trailers = self.takes_trailers();
        let outcome = match self.judge() {
            Err(failed) => Err(failed),
            Ok((uri, target)) => match self.build(&uri, &target) {
                Err(failed) => Err(failed),
                Ok(ready) => {
                    let base = ready.base.clone();
                    self.ask(ready).await.map(|response| (response, base))
                }
            },
        };
        match outcome {
            Ok((response, base)) => self.pass_on(response, &base, trailers).await,
            Err(failed) => self.fail(failed).await,
        }
    }

    /// Steps 16 and 17.
    fn judge(&mut self) -> Result<(Uri, Target), Failed> {
        let refused = |why: &str| {
            let denial = denial::upstream_refused("16", "the upstream is not addressable").cause(why);
            Failed::new(denial, End::rejected("upstream_not_addressable"))
        };
        let uri: Uri = self.granted.directive.url.parse().map_err(|_| refused("the URL does not parse"))?;
        let target = self.inner.upstreams.guard().target(&uri).map_err(|e| refused(&e.to_string()))?;
        self.record.upstream_host = uri.authority().map(ToString::to_string);
        if self.granted.directive.auth_mode.is_provider() && !host_may_have_it(&self.granted.directive, &target.host) {
            let denial = denial::upstream_refused("17", "the credential may not go to the upstream's host");
            return Err(Failed::new(denial, End::rejected("provider_host_not_allowed")));
        }
        Ok((uri, target))
    }

    /// Step 18.
    fn build(&mut self, uri: &Uri, _: &Target) -> Result<Ready, Failed> {
        let broken =
            |why: &str| Failed::new(denial::upstream_refused("18", "the upstream request cannot be built").cause(why), End::BUILD);
        let directive = &self.granted.directive;
        if directive.expires_at.is_some_and(|end| end <= self.inner.world.now().as_secs()) {
            return Err(broken("the credential has ended"));
        }
        let injected = injection(directive, self.granted.resource_token.as_deref()).map_err(broken)?;
        let base = uri.path().to_owned();
        let mut target = joined(&base, &self.forwarded);
        let credential = injected.query.as_ref().map(|(name, value)| (name.as_str(), value.as_str()));
        if let Some(query) = merged_query(uri.query(), self.parts.uri.query(), credential) {
            target.push('?');
            target.push_str(&query);
        }
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(target).map_err(|_| broken("the joined path is no path"))?);
        let uri = Uri::from_parts(parts).map_err(|_| broken("the joined URL is no URL"))?;
        let id = self.record.facts().id.header();
        let host = self.host();
        let peer = self.parts.extensions.get::<caracal_web::Peer>().copied();
        let caller = Caller {
            peer: self.record.facts().client,
            tls: peer.is_some_and(|p| p.tls),
            trust_proxy: self.inner.config.common.trust_proxy,
            host: host.as_deref(),
            request_id: &id,
            bound: self.record.facts().mandate.claims.bound_request.is_some(),
        };
        let headers = outgoing(std::mem::take(&mut self.parts.headers), &caller, &injected, self.inner.world.random());
        self.record.trace_id = Some(headers.trace_id);
        let body = self.body.take().ok_or_else(|| broken("the body is gone"))?;
        let (upload, progress) = Upload::new(body, self.inner.config.body_bytes_max);
        self.record.upload = Some(progress.clone());
        let mut request = Request::new(upload);
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers.headers;
        Ok(Ready { request, progress, base })
    }

    /// Step 19.
    async fn ask(&mut self, ready: Ready) -> Result<Response<Answer>, Failed> {
        let Ready { request, progress, .. } = ready;
        let began = self.inner.world.monotonic();
        let sending = self.inner.upstreams.send(request);
        let outcome = tokio::select! {
            outcome = sending => outcome.map_err(|error| failure(&error, &progress)),
            () = silence(&progress, self.inner.config.upstream_timeout) => Err(late("the upstream did not answer in time")),
        };
        self.record.latency = self.inner.world.monotonic().saturating_sub(began);
        let response = outcome?;
        self.record.upstream_status = Some(response.status().as_u16());
        if response.status().is_informational() {
            let denial = denial::upstream_failed(rows::UPSTREAM_FAILED, "the upstream's answer is no answer");
            return Err(Failed::new(denial, End::failed("transport_error")));
        }
        let numbers = &self.inner.numbers;
        let total = self.inner.world.monotonic().saturating_sub(self.record.facts().began);
        numbers.request_duration_seconds.observe(total.as_secs_f64());
        numbers.overhead_seconds.observe(total.saturating_sub(self.record.latency).as_secs_f64());
        tracing::debug!(
            request_id = self.record.facts().id.as_str(),
            sts_latency_us = micros(self.exchanged),
            "answered by the upstream"
        );
        Ok(response)
    }

    /// Step 20.
    async fn pass_on(mut self, response: Response<Answer>, base: &str, trailers: bool) -> Response<Body> {
        let (parts, upstream) = response.into_parts();
        if self.inner.revocations.interrupted(&self.anchors) {
            self.inner.numbers.stream_revocations.inc();
            let denial = denial::revoked();
            return self.answer(denial, End::INTERRUPTED).await;
        }
        let mut headers = parts.headers;
        let length = length(&headers);
        incoming(&mut headers, base, self.granted.directive.auth_mode.is_provider());
        let facts = self.record.facts().clone();
        headers.insert(X_REQUEST_ID, facts.id.header());
        let now = self.inner.world.now().as_secs();
        let left = facts.mandate.claims.exp - now;
        if left > 0 {
            headers.insert("x-caracal-token-expires-in", HeaderValue::from(left));
        }
        self.record.gateway_status = parts.status.as_u16();
        self.inner.numbers.requests_allowed.inc();
        let mut answer = Response::new(Body::whole(bytes::Bytes::new()));
        *answer.status_mut() = parts.status;
        if upstream.is_end_stream() {
            // Nothing follows the head, so the head waits for the evidence.
            if self.record.end(End::EXECUTED).await.is_err() {
                return denial::unavailable("20", "platform.evidence", "evidence cannot be written")
                    .render(&facts.id)
                    .map(Body::whole);
            }
            *answer.headers_mut() = headers;
            return answer;
        }
        let streaming = length.is_none() || is_event_stream(&headers);
        let trailer = trailers && length.is_none();
        if trailer {
            headers.insert(TRAILER, HeaderValue::from_static("X-Caracal-Revoked"));
        }
        let claims = &facts.mandate.claims;
        let stream = streaming.then(|| self.inner.bounds.stream((claims.zone_id, claims.client_id)));
        let authority = self.granted.directive.authority_expires_at.map(|end| {
            let left = end.saturating_mul(1_000_000).saturating_sub(self.inner.world.now().as_micros());
            Duration::from_micros(u64::try_from(left).unwrap_or(0))
        });
        *answer.headers_mut() = headers;
        let (record, anchors, running) = (self.record, self.anchors, self.running);
        let passing = Passing { upstream, record, anchors, length, trailer, authority, running, stream };
        *answer.body_mut() = Body::Proxied(Box::new(Proxied::new(self.inner, passing)));
        answer
    }

    async fn fail(mut self, failed: Failed) -> Response<Body> {
        if failed.client_gone {
            // Nobody is left to answer; the record tells the rest.
            self.record.gateway_status = 499;
            let id = self.record.facts().id.clone();
            drop(self);
            return failed.denial.render(&id).map(Body::whole);
        }
        self.inner.numbers.upstream_errors.inc();
        self.answer(failed.denial, failed.end).await
    }

    /// Answers with a refusal once its evidence is durable.
    async fn answer(mut self, denial: Denial, end: End) -> Response<Body> {
        let id = self.record.facts().id.clone();
        self.record.gateway_status = denial.status();
        if let Some(cause) = denial.cause_text() {
            tracing::warn!(request_id = id.as_str(), step = denial.step, cause, "the upstream was not reached");
        }
        if self.record.end(end).await.is_err() {
            return denial::unavailable("20", "platform.evidence", "evidence cannot be written").render(&id).map(Body::whole);
        }
        denial.render(&id).map(Body::whole)
    }
}

/// Waits until the upstream has been silent for too long after the request was written.
async fn silence(progress: &Progress, limit: Duration) {
    let mut since = Instant::now();
    loop {
        tokio::time::sleep_until(since + limit).await;
        match progress.ended() {
            Some(ended) if ended + limit <= Instant::now() => return,
            Some(ended) => since = ended,
            // The upload is under its own clock.
            None => since = Instant::now(),
        }
    }
}

fn failure(error: &SendError, progress: &Progress) -> Failed {
    let failed = |row: &'static Situation, text| {
        Failed::new(denial::upstream_failed(row, text).cause(error), End::failed("transport_error"))
    };
    match error {
        SendError::Dial(dial) if dial.refused() => {
            let denial = denial::upstream_refused("16", "the upstream is not addressable").cause(error);
            Failed::new(denial, End::rejected("upstream_not_addressable"))
        }
        SendError::Dial(DialError::Late | DialError::TlsLate) => {
            failed(rows::UPSTREAM_LATE, "the upstream cannot be reached in time")
        }
        SendError::Busy => failed(rows::UPSTREAM_LATE, "the upstream is busy"),
        SendError::Broken(_) if progress.too_large() => Failed::new(denial::too_large("19"), End::failed("transport_error")),
        SendError::Broken(_) if progress.broken() => {
            let mut gone = failed(rows::UPSTREAM_FAILED, "the request broke off");
            gone.client_gone = true;
            gone
        }
        _ => failed(rows::UPSTREAM_FAILED, "the upstream cannot be reached"),
    }
}

fn late(text: &'static str) -> Failed {
    Failed::new(denial::upstream_failed(rows::UPSTREAM_LATE, text), End::failed("transport_error"))
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|t| t.parse().ok())
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let text = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
