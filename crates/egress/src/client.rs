//! The pooled client. A request goes out once; an answer comes back with its head, its body still streaming.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::connect::Connector;
use crate::error::SendError;
use crate::guard::Guard;
use crate::resolve::{Resolve, SystemResolver};
use crate::trust::Trust;

/// How a client behaves.
#[derive(Clone)]
pub struct Settings {
    /// Which targets it may ask.
    pub guard: Guard,
    /// Whom TLS believes.
    pub trust: Trust,
    /// Names to addresses.
    pub resolver: Arc<dyn Resolve>,
    /// Requests at once to one host and port; more wait for `wait`.
    pub per_host: usize,
    /// How long a request may wait for its turn.
    pub wait: Duration,
    /// Idle connections kept for one host and port.
    pub idle_per_host: usize,
    /// How long an idle connection is kept.
    pub idle: Duration,
}

impl Settings {
    /// The values of `gateway.md` 11.5: 200 requests at once to a host, 100 connections kept for 90 s.
    pub fn new(guard: Guard, trust: Trust) -> Self {
        Self {
            guard,
            trust,
            resolver: Arc::new(SystemResolver),
            per_host: 200,
            wait: Duration::from_secs(30),
            idle_per_host: 100,
            idle: Duration::from_secs(90),
        }
    }
}

/// Most hosts whose counts are remembered before idle ones are swept out.
const HOSTS_MAX: usize = 4096;

/// A pooled client for requests with bodies of type `B`. Cheap to clone; clones share connections.
pub struct Client<B> {
    inner: legacy::Client<Connector, B>,
    guard: Guard,
    turns: Arc<Turns>,
}

impl<B> Clone for Client<B> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), guard: self.guard.clone(), turns: self.turns.clone() }
    }
}

impl<B> std::fmt::Debug for Client<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("guard", &self.guard).finish_non_exhaustive()
    }
}

impl<B> Client<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A client. Opens nothing yet.
    pub fn new(settings: Settings) -> Self {
        let connector = Connector::new(settings.guard.clone(), settings.resolver, settings.trust);
        let inner = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(settings.idle)
            .pool_max_idle_per_host(settings.idle_per_host)
            .build(connector);
        let turns = Arc::new(Turns { per_host: settings.per_host, wait: settings.wait, hosts: Mutex::default() });
        Self { inner, guard: settings.guard, turns }
    }

    /// The rules this client follows.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Sends a request to its absolute URI and waits for the head of the answer. `Host` is the URI's, unless the request has one.
    ///
    /// The caller bounds the time: dropping the future gives up.
    pub async fn send(&self, request: Request<B>) -> Result<Response<Answer>, SendError> {
        // Judged before a pooled connection is used, so that a rule binds also where a connection is open already.
        self.guard.target(request.uri()).map_err(SendError::Dial)?;
        let turn = self.turns.take(request.uri().authority().map_or("", |a| a.as_str())).await?;
        let response = self.inner.request(request).await.map_err(SendError::of)?;
        Ok(response.map(|body| Answer { body, _turn: turn }))
    }
}

/// The body of an answer; while it lives, its request counts for the host.
#[derive(Debug)]
pub struct Answer {
    body: Incoming,
    _turn: OwnedSemaphorePermit,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Requests at once, per host and port.
struct Turns {
    per_host: usize,
    wait: Duration,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Turns {
    async fn take(&self, host: &str) -> Result<OwnedSemaphorePermit, SendError> {
        let semaphore = {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = hosts.get(host) {
                known.clone()
            } else {
                if hosts.len() >= HOSTS_MAX {
                    // A semaphore nobody else holds has no permit out.
                    hosts.retain(|_, s| Arc::strong_count(s) > 1);
                }
                let new = Arc::new(Semaphore::new(self.per_host));
                hosts.insert(host.to_owned(), new.clone());
                new
            }
        };
        if let Ok(turn) = semaphore.clone().try_acquire_owned() {
            return Ok(turn);
        }
        match tokio::time::timeout(self.wait, semaphore.acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(SendError::Busy),
        }
    }
}
