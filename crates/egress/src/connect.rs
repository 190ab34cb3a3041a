//! Dialling: resolve once, judge every address, dial only those; one that is refused refuses the name.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::DialError;
use crate::guard::{Guard, Target};
use crate::resolve::Resolve;
use crate::trust::Trust;

/// How long a name may take to resolve.
const RESOLVE: Duration = Duration::from_secs(2);
/// How long connecting may take, over all addresses.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Silence after which the other end is probed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Makes connections under a guard.
#[derive(Clone)]
pub struct Connector {
    guard: Guard,
    resolver: Arc<dyn Resolve>,
    trust: Trust,
}

impl Connector {
    /// A connector.
    pub fn new(guard: Guard, resolver: Arc<dyn Resolve>, trust: Trust) -> Self {
        Self { guard, resolver, trust }
    }

    async fn connect(self, url: Uri) -> Result<Conn, DialError> {
        let target = self.guard.target(&url)?;
        let addresses = self.addresses(&target).await?;
        let stream = dial(&addresses, target.port).await?;
        if !target.https {
            return Ok(Conn::Plain(TokioIo::new(stream)));
        }
        let config = self.trust.config()?;
        let name = match target.literal {
            Some(address) => ServerName::IpAddress(address.into()),
            None => ServerName::try_from(target.host.trim_end_matches('.').to_owned()).map_err(|_| DialError::Url("host"))?,
        };
        let stream = tokio::time::timeout(HANDSHAKE, TlsConnector::from(config).connect(name, stream))
            .await
            .map_err(|_| DialError::TlsLate)?
            .map_err(DialError::Tls)?;
        Ok(Conn::Tls(Box::new(TokioIo::new(stream))))
    }

    /// Every address of the target, all judged.
    async fn addresses(&self, target: &Target) -> Result<Vec<IpAddr>, DialError> {
        if let Some(address) = target.literal {
            return Ok(vec![address]);
        }
        let found = tokio::time::timeout(RESOLVE, self.resolver.resolve(&target.host))
            .await
            .map_err(|_| DialError::Unknown(None))?
            .map_err(|e| DialError::Unknown(Some(e)))?;
        if found.is_empty() {
            return Err(DialError::Unknown(None));
        }
        for address in &found {
            self.guard.judge(target, *address)?;
        }
        Ok(found)
    }
}

async fn dial(addresses: &[IpAddr], port: u16) -> Result<TcpStream, DialError> {
    let attempt = async {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match TcpStream::connect(SocketAddr::new(*address, port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(DialError::Unreachable(last))
    };
    let stream = tokio::time::timeout(CONNECT, attempt).await.map_err(|_| DialError::Late)??;
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEP_ALIVE));
    Ok(stream)
}

impl tower::Service<Uri> for Connector {
    type Response = Conn;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Conn, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        Box::pin(self.clone().connect(url))
    }
}

/// A connection to a judged address.
pub enum Conn {
    /// Without TLS.
    Plain(TokioIo<TcpStream>),
    /// With TLS.
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Conn {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(stream) if stream.inner().get_ref().1.alpn_protocol() == Some(b"h2") => Connected::new().negotiated_h2(),
            _ => Connected::new(),
        }
    }
}

impl Read for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl Write for Conn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }
}
