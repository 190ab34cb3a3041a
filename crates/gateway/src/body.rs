//! The body of an answer on its way to the caller (`gateway.md` 12): chunk by chunk as it comes, revocation asked before each, clocks
//! on silence and on authority, and the last of it held back until its evidence is durable.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use caracal_egress::client::Answer;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use crate::bounds::{OpenStream, Running};
use crate::evidence::NoEvidence;
use crate::record::{End, Record};
use crate::revocation::Anchors;
use crate::service::Inner;

/// The trailer that tells a caller why its answer ends here.
pub const X_CARACAL_REVOKED: HeaderName = HeaderName::from_static("x-caracal-revoked");

/// The body of any answer of the Gateway.
pub enum Body {
    /// Made here.
    Whole(Option<Bytes>),
    /// An upstream's.
    Proxied(Box<Proxied>),
}

impl Body {
    /// These bytes.
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|b| !b.is_empty()))
    }
}

/// The answer is cut; the connection closes so that the caller cannot take it for whole.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut")]
pub struct Cut;

/// What is left to say once evidence is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Nothing.
    End,
    /// The trailer.
    Trailer,
    /// Cut.
    Cut,
}

/// An upstream's answer under way.
pub struct Proxied {
    inner: Arc<Inner>,
    upstream: Option<Answer>,
    record: Record,
    anchors: Anchors,
    looked: Option<u64>,
    changed: Option<BoxFuture<'static, ()>>,
    idle: Option<Pin<Box<Sleep>>>,
    authority: Option<Pin<Box<Sleep>>>,
    /// Bytes still to come, where the length is known.
    left: Option<u64>,
    trailer: bool,
    held: Option<Bytes>,
    closing: Option<(BoxFuture<'static, Result<(), NoEvidence>>, After)>,
    over: bool,
    _running: Running,
    _stream: Option<OpenStream>,
}

/// What an answer needs to be passed on.
pub struct Passing {
    /// The upstream's body.
    pub upstream: Answer,
    /// The call.
    pub record: Record,
    /// What the mandate stands on.
    pub anchors: Anchors,
    /// `Content-Length`, where there is one.
    pub length: Option<u64>,
    /// Whether a trailer can reach the caller.
    pub trailer: bool,
    /// Until the authority ends by time.
    pub authority: Option<Duration>,
    /// Counts the call.
    pub running: Running,
    /// Counts the stream.
    pub stream: Option<OpenStream>,
}

impl Proxied {
    /// Passes an answer on.
    pub fn new(inner: Arc<Inner>, passing: Passing) -> Self {
        Self {
            inner,
            upstream: Some(passing.upstream),
            record: passing.record,
            anchors: passing.anchors,
            looked: None,
            changed: None,
            idle: None,
            authority: passing.authority.map(|left| Box::pin(tokio::time::sleep(left))),
            left: passing.length,
            trailer: passing.trailer,
            held: None,
            closing: None,
            over: false,
            _running: passing.running,
            _stream: passing.stream,
        }
    }

    /// Lets go of the upstream and begins to write what happened.
    fn close(&mut self, end: End, after: After) {
        self.upstream = None;
        if end.interrupted {
            self.inner.numbers.stream_revocations.inc();
        }
        if matches!(end.error, Some("response_copy_failed" | "idle_timeout")) {
            self.inner.numbers.upstream_errors.inc();
        }
        self.closing = Some((self.record.end(end), after));
    }

    fn interrupt(&mut self) {
        let after = if self.trailer { After::Trailer } else { After::Cut };
        self.close(End::INTERRUPTED, after);
    }

    /// Looks at the sets if they changed since the last look.
    fn interrupted(&mut self) -> bool {
        let generation = self.inner.revocations.generation();
        if self.looked == Some(generation) {
            return false;
        }
        self.looked = Some(generation);
        self.inner.revocations.interrupted(&self.anchors)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        loop {
            if self.over {
                return Poll::Ready(None);
            }
            if let Some((evidence, after)) = &mut self.closing {
                let written = std::task::ready!(evidence.as_mut().poll(cx));
                let after = *after;
                self.closing = None;
                self.over = true;
                if written.is_err() || after == After::Cut {
                    return Poll::Ready(Some(Err(Cut)));
                }
                if let Some(last) = self.held.take() {
                    return Poll::Ready(Some(Ok(Frame::data(last))));
                }
                if after == After::Trailer {
                    let mut trailers = HeaderMap::new();
                    trailers.insert(X_CARACAL_REVOKED, HeaderValue::from_static("true"));
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                return Poll::Ready(None);
            }
            if self.interrupted() {
                self.interrupt();
                continue;
            }
            if self.inner.streams_end.asked() {
                self.close(End::failed("response_copy_failed"), After::Cut);
                continue;
            }
            let Some(upstream) = &mut self.upstream else {
                self.over = true;
                return Poll::Ready(None);
            };
            match Pin::new(upstream).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.idle = None;
                    // Trailers of the upstream are dropped.
                    let Ok(data) = frame.into_data() else { continue };
                    if data.is_empty() {
                        continue;
                    }
                    self.record.response_bytes += data.len() as u64;
                    if let Some(left) = &mut self.left {
                        *left = left.saturating_sub(data.len() as u64);
                        if *left == 0 {
                            // With these bytes the caller has all of it, so they wait for the evidence.
                            self.held = Some(data);
                            self.close(End::EXECUTED, After::End);
                            continue;
                        }
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(Some(Err(_))) => self.close(End::failed("response_copy_failed"), After::Cut),
                Poll::Ready(None) if self.left.is_some_and(|left| left > 0) => {
                    self.close(End::failed("response_copy_failed"), After::Cut);
                }
                Poll::Ready(None) => self.close(End::EXECUTED, After::End),
                Poll::Pending => {
                    if self.wait(cx) {
                        continue;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Arms what may end the wait for the next chunk; `true` when something did.
    fn wait(&mut self, cx: &mut Context<'_>) -> bool {
        let limit = self.inner.config.stream_idle;
        let idle = self.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if idle.as_mut().poll(cx).is_ready() {
            self.close(End::failed("idle_timeout"), After::Cut);
            return true;
        }
        if self.authority.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready()) {
            self.authority = None;
            self.interrupt();
            return true;
        }
        if self.changed.is_none() {
            let mut generation = self.inner.revocations.watch();
            // What changed between the last look and now must wake us too.
            let stale = self.looked.is_some_and(|looked| looked != *generation.borrow_and_update());
            if stale {
                return true;
            }
            let end = self.inner.streams_end.clone();
            self.changed = Some(Box::pin(async move {
                tokio::select! {
                    _ = generation.changed() => {}
                    () = end.wait() => {}
                }
            }));
        }
        if self.changed.as_mut().is_some_and(|changed| changed.as_mut().poll(cx).is_ready()) {
            self.changed = None;
            return true;
        }
        false
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Proxied(proxied) => proxied.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Proxied(proxied) => proxied.over,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Proxied(_) => SizeHint::default(),
        }
    }
}
