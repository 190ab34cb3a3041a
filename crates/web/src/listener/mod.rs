//! Accepting connections and watching over them.
//!
//! A connection is in one of three states, each with its clock: waiting (idle clock), receiving a head (header clock), serving. While it
//! serves, the body is under the read clock and the answer under the write clock. Whatever runs out closes the connection.

mod connection;
mod inbound;
mod io;

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use caracal_host::jobs::Stop;
use http::{Request, Response};
use http_body::Body;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower::Service;

use self::connection::Connection;
pub use self::inbound::{Inbound, InboundError};

use crate::peer::Peer;

/// Clocks and limits of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first byte of a head to its last.
    pub header: Duration,
    /// From the first byte of a head to the last of its body.
    pub read: Duration,
    /// How long a byte of an answer may wait for the client to take it.
    pub write: Duration,
    /// How long a connection may wait for its next request.
    pub idle: Duration,
    /// Bytes of a head.
    pub head_bytes: usize,
}

/// Bytes beyond [`Limits::head_bytes`] that are still read, so that the refusal is an answer and not a reset.
const HEAD_SLACK_BYTES: usize = 4096;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Connections that may wait for being accepted.
const BACKLOG: i32 = 1024;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;

impl Default for Limits {
    /// The STS's and Audit's: 5 s for a head, 10 s for reading and for a stalled write, 60 s idle, 16 KiB of head.
    fn default() -> Self {
        Self {
            header: Duration::from_secs(5),
            read: Duration::from_secs(10),
            write: Duration::from_secs(10),
            idle: Duration::from_mins(1),
            head_bytes: 16 * 1024,
        }
    }
}

/// How a listener ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every connection finished by itself.
    Clean,
    /// This many connections were cut.
    Cut(usize),
}

/// An open port.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    limits: Limits,
}

impl Listener {
    /// Opens the port. Needs a runtime.
    pub fn bind(address: SocketAddr, limits: Limits, tls: Option<Arc<ServerConfig>>) -> std::io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        // A port in TIME_WAIT after a restart is free; one that somebody listens on is not.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self { tcp: TcpListener::from_std(socket.into())?, tls, limits })
    }

    /// The same port under other clocks and limits: a port is opened before the configuration of its service is read.
    #[must_use]
    pub const fn under(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The address, with the port the system chose if 0 was asked for.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until asked to stop; then lets running requests finish for `grace` and cuts the rest. A forced stop cuts at once.
    pub async fn serve<S, B>(self, service: S, stop: Stop, grace: Duration) -> Drained
    where
        S: Service<Request<Inbound>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let connections = TaskTracker::new();
        let open = Arc::new(AtomicUsize::new(0));
        let cut = Stop::new();
        loop {
            let (stream, address) = tokio::select! {
                biased;
                () = stop.wait() => break,
                accepted = self.tcp.accept() => match accepted {
                    Ok(pair) => pair,
                    Err(error) => {
                        // Out of descriptors: give those that exist a moment to end.
                        if !matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted) {
                            tracing::warn!(error = %error, "cannot accept a connection");
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                        continue;
                    }
                },
            };
            let _ = stream.set_nodelay(true);
            let (service, limits, tls) = (service.clone(), self.limits, self.tls.clone());
            let (stop, cut, open) = (stop.clone(), cut.clone(), open.clone());
            open.fetch_add(1, Ordering::Relaxed);
            connections.spawn(async move {
                let serving = async {
                    match tls {
                        None => Connection::new(Peer { address, tls: false }, limits).serve_http1(stream, service, &stop).await,
                        Some(config) => {
                            let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await
                            else {
                                return;
                            };
                            let connection = Connection::new(Peer { address, tls: true }, limits);
                            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                                connection.serve_http2(stream, service, &stop).await;
                            } else {
                                connection.serve_http1(stream, service, &stop).await;
                            }
                        }
                    }
                };
                tokio::select! {
                    () = serving => {}
                    () = cut.wait_forced() => {}
                }
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
        drop(self.tcp);
        connections.close();
        let clean = tokio::select! {
            ended = tokio::time::timeout(grace, connections.wait()) => ended.is_ok(),
            () = stop.wait_forced() => connections.is_empty(),
        };
        if clean {
            return Drained::Clean;
        }
        let left = open.load(Ordering::Relaxed);
        cut.force();
        connections.wait().await;
        Drained::Cut(left)
    }
}
