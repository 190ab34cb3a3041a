//! The client against scripted servers: what was dialled, what was sent, what was not followed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use caracal_egress::resolve::Resolving;
use caracal_egress::{Bounds, Client, DialError, FetchError, Guard, Resolve, SendError, Settings, Trust};
use http::Request;
use http_body_util::Full;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const BOUNDS: Bounds = Bounds { time: Duration::from_millis(500), bytes: 1024 };

/// A server that answers every connection's requests with the same bytes, and tells each head it saw.
struct Server {
    address: SocketAddr,
    heads: mpsc::UnboundedReceiver<String>,
    accepted: Arc<AtomicUsize>,
}

async fn serve(answer: &'static str, tls: Option<Arc<rustls::ServerConfig>>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, heads) = mpsc::unbounded_channel();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let (tell, tls) = (tell.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => talk(stream, answer, tell).await,
                    Some(config) => {
                        if let Ok(stream) = tokio_rustls::TlsAcceptor::from(config).accept(stream).await {
                            talk(stream, answer, tell).await;
                        }
                    }
                }
            });
        }
    });
    Server { address, heads, accepted }
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str, tell: mpsc::UnboundedSender<String>) {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        seen.extend_from_slice(&buffer[..n]);
        if let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
            let head: Vec<u8> = seen.drain(..end + 4).collect();
            let _ = tell.send(String::from_utf8(head).unwrap());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// Names to fixed addresses; counts how often it was asked.
struct Fixed(Vec<IpAddr>, AtomicUsize);

impl Resolve for Fixed {
    fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
        self.1.fetch_add(1, Ordering::SeqCst);
        let all = self.0.clone();
        Box::pin(async move { Ok(all) })
    }
}

fn client_with(guard: Guard, addresses: &[&str], trust: Trust) -> (Client<Full<Bytes>>, Arc<Fixed>) {
    let resolver = Arc::new(Fixed(addresses.iter().map(|a| a.parse().unwrap()).collect(), AtomicUsize::new(0)));
    let settings =
        Settings { resolver: resolver.clone(), per_host: 1, wait: Duration::from_millis(100), ..Settings::new(guard, trust) };
    (Client::new(settings), resolver)
}

fn client(addresses: &[&str]) -> (Client<Full<Bytes>>, Arc<Fixed>) {
    client_with(Guard::upstreams(Vec::new(), Vec::new()), addresses, Trust::new(None))
}

fn get(url: &str) -> Request<Full<Bytes>> {
    Request::builder().uri(url).body(Full::default()).unwrap()
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn the_judged_address_is_dialled_once_and_the_connection_is_kept() {
    let mut server = serve(OK, None).await;
    let (client, resolver) = client(&["127.0.0.1"]);
    for _ in 0..3 {
        let answer = client.fetch(get(&format!("http://name.example:{}/a?b", server.address.port())), BOUNDS).await.unwrap();
        assert_eq!(answer.body(), "ok");
    }
    let head = server.heads.recv().await.unwrap();
    assert_eq!(head, format!("GET /a?b HTTP/1.1\r\nhost: name.example:{}\r\n\r\n", server.address.port()));
    assert_eq!((resolver.1.load(Ordering::SeqCst), server.accepted.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn one_refused_address_refuses_the_name() {
    let server = serve(OK, None).await;
    for other in ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "0.0.0.0"] {
        let (client, _) = client(&["127.0.0.1", other]);
        let error = client.fetch(get(&format!("http://name.example:{}/", server.address.port())), BOUNDS).await.unwrap_err();
        assert!(matches!(error, FetchError::Send(SendError::Dial(DialError::Address(_)))), "{other}: {error:?}");
    }
    assert_eq!(server.accepted.load(Ordering::SeqCst), 0, "nothing was dialled");
}

#[tokio::test]
async fn a_name_without_address_and_a_closed_port_are_told_apart() {
    let (client, _) = client(&[]);
    let error = client.send(get("http://name.example/")).await.unwrap_err();
    assert!(matches!(&error, SendError::Dial(e @ DialError::Unknown(_)) if e.refused()), "{error:?}");
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = client.send(get(&format!("http://{gone}/"))).await.unwrap_err();
    assert!(matches!(&error, SendError::Dial(e @ DialError::Unreachable(_)) if !e.refused()), "{error:?}");
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let mut server = serve("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", None).await;
    let (client, _) = client(&["127.0.0.1"]);
    let answer = client.fetch(get(&format!("http://{}/", server.address)), BOUNDS).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["location"]), (302, &"/elsewhere".parse().unwrap()));
    server.heads.recv().await.unwrap();
    assert!(server.heads.try_recv().is_err(), "asked once");
}

#[tokio::test]
async fn answers_are_bounded_in_size_and_time() {
    let endless = serve("HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n", None).await;
    let (client, _) = client(&[]);
    let slow = client.fetch(get(&format!("http://{}/", endless.address)), BOUNDS).await.unwrap_err();
    assert!(matches!(slow, FetchError::Late), "{slow:?}");
    let mut text = "HTTP/1.1 200 OK\r\nContent-Length: 1025\r\n\r\n".to_owned();
    text.push_str(&"x".repeat(1025));
    let large = serve(text.leak(), None).await;
    let error = client.fetch(get(&format!("http://{}/", large.address)), BOUNDS).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge(1024)), "{error:?}");
}

#[tokio::test]
async fn a_host_takes_no_more_than_its_share() {
    let server = serve("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", None).await;
    let (client, _) = client(&[]);
    let url = format!("http://{}/", server.address);
    let held = client.send(get(&url)).await.unwrap();
    assert!(matches!(client.send(get(&url)).await.unwrap_err(), SendError::Busy), "an open body counts");
    drop(held);
    client.send(get(&url)).await.unwrap();
}

#[tokio::test]
async fn tls_believes_the_extra_file_and_nobody_else() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    let chain = CertificateDer::pem_file_iter(dir.join("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key.pem")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let server = serve(OK, Some(Arc::new(config))).await;
    let upstreams = || Guard::upstreams(Vec::new(), Vec::new());
    let ask = async |trust: Trust, host: &str| {
        let (client, _) = client_with(upstreams(), &["127.0.0.1"], trust);
        client.fetch(get(&format!("https://{host}:{}/", server.address.port())), BOUNDS).await
    };
    let ours = || Trust::new(Some(dir.join("authority.pem")));
    assert_eq!(ask(ours(), "localhost").await.unwrap().body(), "ok");
    assert_eq!(ask(ours(), "127.0.0.1").await.unwrap().body(), "ok");
    for (trust, host) in [(Trust::new(None), "localhost"), (ours(), "other.example")] {
        let error = ask(trust, host).await.unwrap_err();
        assert!(matches!(error, FetchError::Send(SendError::Dial(DialError::Tls(_)))), "{host}: {error:?}");
    }
}
