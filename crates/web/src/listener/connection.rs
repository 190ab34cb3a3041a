//! One connection: its state, its clocks, and serving it in HTTP/1.1 or HTTP/2.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use caracal_host::jobs::Stop;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use tower::Service;

use super::inbound::{Inbound, drain};
use super::io::Watched;
use super::{HEAD_SLACK_BYTES, Limits, STREAMS_MAX};
use crate::peer::Peer;

/// What the clocks look at. Moments are microseconds since the connection began; 0 means "not".
pub(super) struct State {
    began: Instant,
    /// Requests being served.
    serving: AtomicUsize,
    /// Since when the connection waits for a request.
    waiting: AtomicU64,
    /// When the first byte of the head being received came.
    head: AtomicU64,
    /// Whether bytes of an answer wait for the client, which is the write clock's business.
    stalled: AtomicBool,
}

impl State {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            serving: AtomicUsize::new(0),
            waiting: AtomicU64::new(1),
            head: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// Bytes came; between two requests they begin a head.
    pub(super) fn received(&self) {
        if self.serving.load(Ordering::Relaxed) == 0 && self.head.load(Ordering::Relaxed) == 0 {
            self.head.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Bytes of an answer went out, or wait to: an answer that was handed over whole is still being taken.
    pub(super) fn wrote(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Relaxed);
        if !stalled && self.serving.load(Ordering::Relaxed) == 0 {
            self.waiting.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A head is complete; gives the moment its first byte came.
    fn begun(&self) -> Instant {
        self.serving.fetch_add(1, Ordering::Relaxed);
        match self.head.swap(0, Ordering::Relaxed) {
            // Further requests of a busy HTTP/2 connection, or one that came with the one before.
            0 => Instant::now(),
            micros => self.began + Duration::from_micros(micros),
        }
    }

    /// An answer has left, or nobody waits for it any more.
    fn ended(&self) {
        if self.serving.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.waiting.store(self.now(), Ordering::Relaxed);
        }
    }

    /// When the connection has waited long enough; `None` while it serves.
    fn deadline(&self, limits: &Limits) -> Option<Instant> {
        if self.serving.load(Ordering::Relaxed) > 0 || self.stalled.load(Ordering::Relaxed) {
            return None;
        }
        let at = |micros: u64, limit: Duration| self.began + Duration::from_micros(micros) + limit;
        Some(match self.head.load(Ordering::Relaxed) {
            0 => at(self.waiting.load(Ordering::Relaxed), limits.idle),
            head => at(head, limits.header),
        })
    }
}

/// A connection that is about to be served.
pub(super) struct Connection {
    peer: Peer,
    limits: Limits,
    state: Arc<State>,
}

impl Connection {
    pub(super) fn new(peer: Peer, limits: Limits) -> Self {
        Self { peer, limits, state: Arc::new(State::new()) }
    }

    pub(super) async fn serve_http1<T, S, B>(self, stream: T, service: S, stop: &Stop)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Inbound>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let io = TokioIo::new(Watched::new(stream, self.state.clone(), self.limits.write));
        let mut connection = pin!(
            hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                // The header clock is ours, because hyper's also runs while a connection waits.
                .header_read_timeout(None)
                .max_buf_size(self.limits.head_bytes + HEAD_SLACK_BYTES)
                .serve_connection(io, self.handler(service))
        );
        let mut clock = Clock { sleep: pin!(tokio::time::sleep(self.limits.header)), state: &self.state, limits: &self.limits };
        let mut asked = pin!(stop.wait());
        let mut ending = false;
        std::future::poll_fn(|cx| {
            if !ending && asked.as_mut().poll(cx).is_ready() {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            clock.poll(cx)
        })
        .await;
    }

    pub(super) async fn serve_http2<T, S, B>(self, stream: T, service: S, stop: &Stop)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Inbound>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let io = TokioIo::new(Watched::new(stream, self.state.clone(), self.limits.write));
        let mut connection = pin!(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .max_header_list_size(u32::try_from(self.limits.head_bytes).unwrap_or(u32::MAX))
                .serve_connection(io, self.handler(service))
        );
        let mut clock = Clock { sleep: pin!(tokio::time::sleep(self.limits.header)), state: &self.state, limits: &self.limits };
        let mut asked = pin!(stop.wait());
        let mut ending = false;
        std::future::poll_fn(|cx| {
            if !ending && asked.as_mut().poll(cx).is_ready() {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            clock.poll(cx)
        })
        .await;
    }

    fn handler<S, B>(&self, service: S) -> Handler<S>
    where
        S: Service<Request<Inbound>, Response = Response<B>, Error = Infallible> + Clone,
    {
        Handler { service, peer: self.peer, read: self.limits.read, state: self.state.clone() }
    }
}

/// Fires when the connection has waited long enough. The timer is only moved when it fires or must fire earlier, so that a busy
/// connection does not touch it at each request.
struct Clock<'a> {
    sleep: Pin<&'a mut Sleep>,
    state: &'a State,
    limits: &'a Limits,
}

impl Clock<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let deadline = self.state.deadline(self.limits);
            if let Some(at) = deadline
                && at < self.sleep.deadline()
            {
                self.sleep.as_mut().reset(at);
            }
            std::task::ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            match deadline {
                Some(at) if at <= now => return Poll::Ready(()),
                Some(at) => self.sleep.as_mut().reset(at),
                // Nothing to wait for while it serves; the end of the answer wakes this task, and then the deadline is set anew.
                None => self.sleep.as_mut().reset(now + self.limits.header.max(Duration::from_secs(1))),
            }
        }
    }
}

/// Hands requests to the service with their peer, their clock and a mark that they are being served.
struct Handler<S> {
    service: S,
    peer: Peer,
    read: Duration,
    state: Arc<State>,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Handler<S>
where
    S: Service<Request<Inbound>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<Outbound<B>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let serving = Serving::begin(&self.state);
        let until = serving.since + self.read;
        let waits = request.headers().contains_key(EXPECT);
        let closes = request.version() < Version::HTTP_2;
        let mut unread = None;
        let mut request = request.map(|body| {
            let (body, back) = Inbound::new(body, until);
            unread = back;
            body
        });
        request.extensions_mut().insert(self.peer);
        let mut service = self.service.clone();
        Box::pin(async move {
            // Services of this house are always ready; a router says so by its type, others keep their bounds inside.
            let _ = std::future::poll_fn(|cx| service.poll_ready(cx)).await;
            let mut response = match service.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            // A refusal that did not want the body: read its rest, or say that the connection ends, so that no client writes its next
            // request into a connection that is closing. Who waits for a 100 has sent nothing.
            if let Some(body) = unread.and_then(|mut back| back.try_recv().ok())
                && closes
                && (waits || !drain(body).await)
            {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| Outbound { body, serving }))
        })
    }
}

/// Marks the connection as serving until dropped.
struct Serving {
    state: Arc<State>,
    since: Instant,
}

impl Serving {
    fn begin(state: &Arc<State>) -> Self {
        Self { since: state.begun(), state: state.clone() }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.state.ended();
    }
}

pin_project! {
    /// The body of an answer; the request counts as served until it is gone.
    pub(super) struct Outbound<B> {
        #[pin]
        body: B,
        serving: Serving,
    }
}

impl<B: Body> Body for Outbound<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
