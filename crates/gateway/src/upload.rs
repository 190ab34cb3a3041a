//! The caller's body on its way to the upstream: streamed, counted, cut at the limit; trailers are dropped.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use caracal_web::Inbound;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// What is known about an upload while and after it runs.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    too_large: AtomicBool,
    broken: AtomicBool,
    ended: OnceLock<Instant>,
}

impl Progress {
    /// When the last byte went on.
    pub fn ended(&self) -> Option<Instant> {
        self.ended.get().copied()
    }

    /// Bytes sent on.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether it ended at the limit.
    pub fn too_large(&self) -> bool {
        self.too_large.load(Ordering::Acquire)
    }

    /// Whether the caller broke it off.
    pub fn broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }
}

/// Why an upload ended.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// More bytes than allowed.
    #[error("the request body is larger than allowed")]
    TooLarge,
    /// The caller broke it off, or was too slow.
    #[error("the request body broke off")]
    Broken,
}

/// The body of an upstream request.
#[derive(Debug)]
pub struct Upload {
    inner: Inbound,
    most: u64,
    progress: Arc<Progress>,
}

impl Upload {
    /// At most `most` bytes of a body.
    pub fn new(inner: Inbound, most: u64) -> (Self, Arc<Progress>) {
        let progress = Arc::new(Progress::default());
        if inner.is_end_stream() {
            let _ = progress.ended.set(Instant::now());
        }
        (Self { inner, most, progress: progress.clone() }, progress)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        loop {
            return match std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                None => {
                    let _ = self.progress.ended.set(Instant::now());
                    Poll::Ready(None)
                }
                Some(Err(_)) => {
                    self.progress.broken.store(true, Ordering::Release);
                    Poll::Ready(Some(Err(UploadError::Broken)))
                }
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let length = data.len() as u64;
                    let sent = self.progress.bytes.fetch_add(length, Ordering::Relaxed) + length;
                    if sent > self.most {
                        self.progress.too_large.store(true, Ordering::Release);
                        return Poll::Ready(Some(Err(UploadError::TooLarge)));
                    }
                    if self.inner.is_end_stream() {
                        let _ = self.progress.ended.set(Instant::now());
                    }
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
