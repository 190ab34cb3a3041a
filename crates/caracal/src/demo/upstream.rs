//! The demo's upstream: answers, and remembers what it was sent.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::failure::Failure;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
}

/// A running upstream.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    /// Listens on a free port of this machine.
    pub(crate) async fn start() -> Result<Self, Failure> {
        let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listening.map_err(|e| Failure::start(format!("the demo's upstream cannot listen: {e}")))?;
        let port = listener.local_addr().map_err(|e| Failure::start(e.to_string()))?.port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let upstream = Self { url: format!("http://127.0.0.1:{port}"), seen: Arc::clone(&seen) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                let answer = service_fn(move |request: Request<Incoming>| {
                    let seen = Arc::clone(&seen);
                    async move {
                        let (head, body) = request.into_parts();
                        let _ = body.collect().await;
                        let path = head.uri.path().to_owned();
                        seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { path, headers: head.headers });
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(br#"{"balance":4711}"#))))
                    }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Ok(upstream)
    }

    /// Everything that arrived so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
