//! What stands beside the stack on threads of its own: the upstream, and a proxy that governs nothing.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use caracal_egress::{Client, Guard, Settings, Trust};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::failure::Failure;

/// What the upstream answers.
pub(super) const ANSWER: &[u8] = br#"{"balance":4711}"#;

/// A runtime whose threads bear a name, by which their CPU time is told from the rest.
pub(super) fn runtime(name: &str, threads: usize) -> Result<Runtime, Failure> {
    let made = Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build();
    made.map_err(|e| Failure::start(format!("cannot start the {name} threads: {e}")))
}

async fn listen() -> Result<(TcpListener, u16), Failure> {
    let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listening.map_err(|e| Failure::start(format!("cannot listen on loopback: {e}")))?;
    let port = listener.local_addr().map_err(|e| Failure::start(e.to_string()))?.port();
    Ok((listener, port))
}

/// Starts the upstream on `on`; gives its URL.
pub(super) async fn upstream(on: &Handle) -> Result<String, Failure> {
    let (listener, port) = on.spawn(listen()).await.map_err(|e| Failure::start(e.to_string()))??;
    on.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let answer = service_fn(|request: Request<Incoming>| async move {
                let _ = request.into_body().collect().await;
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(ANSWER))))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    Ok(format!("http://127.0.0.1:{port}"))
}

/// Starts a proxy on the threads of the stack, with the same server and client beneath; gives its URL.
pub(super) async fn proxy(upstream: &str) -> Result<String, Failure> {
    let (listener, port) = listen().await?;
    let client = Arc::new(Client::new(Settings::new(Guard::upstreams(Vec::new(), Vec::new()), Trust::new(None))));
    let to: Arc<str> = upstream.into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let (client, to) = (Arc::clone(&client), Arc::clone(&to));
            let pass = service_fn(move |mut request: Request<Incoming>| {
                let (client, to) = (Arc::clone(&client), Arc::clone(&to));
                async move {
                    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
                    let lost = |status| {
                        let mut response = Response::new(Either::Right(Full::new(Bytes::new())));
                        *response.status_mut() = status;
                        response
                    };
                    let Ok(uri) = format!("{to}{path}").parse::<Uri>() else { return Ok(lost(StatusCode::BAD_REQUEST)) };
                    *request.uri_mut() = uri;
                    Ok::<_, Infallible>(match client.send(request).await {
                        Ok(response) => response.map(Either::Left),
                        Err(_) => lost(StatusCode::BAD_GATEWAY),
                    })
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), pass));
        }
    });
    Ok(format!("http://127.0.0.1:{port}"))
}
