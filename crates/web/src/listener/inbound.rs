//! The body of a request, under the read clock.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

/// Most bytes of an unwanted body that are read to keep a connection.
const DRAIN_BYTES_MAX: usize = 256 * 1024;
/// How long its rest may take.
const DRAIN: Duration = Duration::from_millis(500);

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
    /// `None` only while it is dropped.
    inner: Option<Incoming>,
    until: Instant,
    clock: Option<Pin<Box<Sleep>>>,
    /// Where a body goes that nobody read to its end.
    unread: Option<oneshot::Sender<Incoming>>,
}

impl Inbound {
    /// A body under its clock, and where it comes back to when it is dropped before its end.
    pub(super) fn new(inner: Incoming, until: Instant) -> (Self, Option<oneshot::Receiver<Incoming>>) {
        let (unread, back) = if inner.is_end_stream() { (None, None) } else { Some(oneshot::channel()).unzip() };
        (Self { inner: Some(inner), until, clock: None, unread }, back)
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        if let (Some(inner), Some(unread)) = (self.inner.take(), self.unread.take())
            && !inner.is_end_stream()
        {
            let _ = unread.send(inner);
        }
    }
}

/// Reads the rest of a body that nobody wanted, within bounds, so that the connection can be used again; whether it came to its end.
pub(super) async fn drain(mut body: Incoming) -> bool {
    let mut left = DRAIN_BYTES_MAX;
    let all = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            let length = frame.data_ref().map_or(0, Bytes::len);
            if length > left {
                return false;
            }
            left -= length;
        }
        true
    };
    tokio::time::timeout(DRAIN, all).await.unwrap_or(false)
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = InboundError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, InboundError>>> {
        let Some(inner) = self.inner.as_mut() else { return Poll::Ready(None) };
        match Pin::new(inner).poll_frame(cx) {
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
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}
