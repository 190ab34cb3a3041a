//! The listener's clocks and its end, over real sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use caracal_host::jobs::Stop;
use caracal_web::{Drained, Inbound, Limits, Listener, Peer};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

const SHORT: Limits = Limits {
    header: Duration::from_millis(200),
    read: Duration::from_millis(400),
    write: Duration::from_millis(400),
    idle: Duration::from_millis(600),
    head_bytes: 16 * 1024,
};

struct Running {
    stop: Stop,
    address: std::net::SocketAddr,
    ended: JoinHandle<Drained>,
}

/// Answers with the length of the body, `late` when it did not come in time; `/slow` takes 300 ms, `/big` sends 64 MiB.
async fn answer(request: Request<Inbound>) -> Result<Response<Full<Bytes>>, Infallible> {
    assert!(request.extensions().get::<Peer>().is_some());
    let path = request.uri().path().to_owned();
    if path == "/no" {
        // Refused by its head alone.
        return Ok(Response::builder().status(401).body(Full::new(Bytes::from("no"))).unwrap());
    }
    let text = match request.into_body().collect().await {
        Ok(body) => body.to_bytes().len().to_string(),
        Err(_) => "late".to_owned(),
    };
    match path.as_str() {
        "/slow" => tokio::time::sleep(Duration::from_millis(300)).await,
        "/big" => return Ok(Response::new(Full::new(Bytes::from(vec![0; 64 << 20])))),
        _ => {}
    }
    Ok(Response::new(Full::new(Bytes::from(text))))
}

fn start(limits: Limits, grace: Duration) -> Running {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), limits, None).unwrap();
    let (address, stop) = (listener.address().unwrap(), Stop::new());
    let ended = tokio::spawn(listener.serve(tower::service_fn(answer), stop.clone(), grace));
    Running { stop, address, ended }
}

/// What comes until the connection ends, and how long that took.
async fn rest(stream: &mut TcpStream) -> (String, Duration) {
    let began = Instant::now();
    let mut bytes = Vec::new();
    let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await;
    assert!(read.is_ok(), "the connection stayed open");
    (String::from_utf8_lossy(&bytes).into_owned(), began.elapsed())
}

fn around(took: Duration, wanted: u64) {
    let millis = u64::try_from(took.as_millis()).unwrap();
    assert!((wanted.saturating_sub(60)..wanted + 300).contains(&millis), "{millis} ms, wanted {wanted}");
}

#[tokio::test]
async fn a_slow_head_is_cut() {
    let running = start(SHORT, Duration::ZERO);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let (text, took) = rest(&mut stream).await;
    around(took, 200);
    assert!(text.is_empty(), "{text}");
}

#[tokio::test]
async fn a_silent_connection_is_closed_after_the_idle_time_and_not_before() {
    let running = start(SHORT, Duration::ZERO);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    around(rest(&mut stream).await.1, 600);
    // The same between two requests, although the header clock is shorter.
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let (text, took) = rest(&mut stream).await;
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
    around(took, 600);
}

#[tokio::test]
async fn a_slow_body_is_late() {
    let running = start(SHORT, Duration::ZERO);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").await.unwrap();
    let (text, _) = rest(&mut stream).await;
    assert!(text.ends_with("late"), "{text}");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let running = start(SHORT, Duration::from_secs(20));
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.stop.ask();
    let ended = timeout(Duration::from_secs(5), running.ended).await.unwrap().unwrap();
    assert_eq!(ended, Drained::Clean, "the write clock ended it, not the grace");
    drop(stream);
}

#[tokio::test]
async fn a_slow_client_that_takes_something_is_not_idle() {
    let running = start(SHORT, Duration::ZERO);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let (mut taken, mut buffer) = (0, vec![0; 8 << 20]);
    loop {
        // Longer than the idle time in all, never longer than the write time between two reads.
        tokio::time::sleep(Duration::from_millis(150)).await;
        let wanted = buffer.len();
        let mut got = 0;
        while got < wanted {
            match stream.read(&mut buffer[got..]).await.unwrap() {
                0 => break,
                n => got += n,
            }
        }
        taken += got;
        if got < wanted {
            break;
        }
    }
    assert!(taken > 64 << 20, "{taken}");
}

#[tokio::test]
async fn a_head_over_the_limit_is_431() {
    let running = start(SHORT, Duration::ZERO);
    for (bytes, status) in [(15 * 1024, "200"), (21 * 1024, "431")] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {}\r\n\r\n", "x".repeat(bytes));
        stream.write_all(head.as_bytes()).await.unwrap();
        let (text, _) = rest(&mut stream).await;
        assert_eq!(text.get(9..12), Some(status), "{bytes}");
    }
}

#[tokio::test]
async fn what_runs_finishes_and_what_is_new_is_refused() {
    let running = start(SHORT, Duration::from_secs(5));
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.stop.ask();
    let (text, _) = rest(&mut stream).await;
    assert!(text.contains("200 OK") && text.to_ascii_lowercase().contains("connection: close"), "{text}");
    assert!(rest(&mut idle).await.1 < Duration::from_millis(500), "an idle connection ends at once");
    assert_eq!(running.ended.await.unwrap(), Drained::Clean);
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn what_outlives_the_grace_is_cut_and_counted() {
    let running = start(SHORT, Duration::from_millis(50));
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.stop.ask();
    assert_eq!(running.ended.await.unwrap(), Drained::Cut(1));
    assert_eq!(rest(&mut stream).await.0, "");
}

#[tokio::test]
async fn a_refusal_before_the_body_keeps_the_connection_or_says_that_it_ends() {
    let running = start(SHORT, Duration::ZERO);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let mut buffer = [0; 4096];
    for _ in 0..3 {
        stream.write_all(b"POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        stream.write_all(b"hello").await.unwrap();
        let n = stream.read(&mut buffer).await.unwrap();
        let text = String::from_utf8_lossy(&buffer[..n]).to_ascii_lowercase();
        assert!(text.starts_with("http/1.1 401") && !text.contains("connection: close"), "{text}");
    }
    // A body that does not come, and one that waits to be asked for.
    for more in ["Content-Length: 5\r\n", "Content-Length: 5\r\nExpect: 100-continue\r\n"] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(format!("POST /no HTTP/1.1\r\nHost: a\r\n{more}\r\n").as_bytes()).await.unwrap();
        let (text, _) = rest(&mut stream).await;
        assert!(text.to_ascii_lowercase().contains("connection: close"), "{text}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_told() {
    let running = start(SHORT, Duration::ZERO);
    let error = Listener::bind(running.address, SHORT, None).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}
