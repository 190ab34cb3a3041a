//! The body of a request, under the read clock.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum InboundError {
    /// It did not arrive in time.
    #[error("the request did not arrive in time")]
    Late,
    /// The connection broke, or its framing was wrong.
    #[error("the request broke off")]
    Broken(#[source] hyper::Error),
}

/// The body of a request as a listener hands it on.
#[derive(Debug)]
pub struct Inbound {
    inner: Incoming,
    until: Instant,
    clock: Option<Pin<Box<Sleep>>>,
}

impl Inbound {
    pub(super) const fn new(inner: Incoming, until: Instant) -> Self {
        Self { inner, until, clock: None }
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = InboundError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, InboundError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame.map(|f| f.map_err(InboundError::Broken))),
            Poll::Pending => {
                // Only a body that keeps us waiting costs a timer.
                let until = self.until;
                let clock = self.clock.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
                clock.as_mut().poll(cx).map(|()| Some(Err(InboundError::Late)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
