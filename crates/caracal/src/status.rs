//! `caracal status`: five probes at once, 1.5 s each, without authentication (`cli.md` 2.3).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use url::Url;

use crate::cli::{ServiceName, Status};
use crate::failure::Failure;
use crate::output::{Mark, Style, table};

const PATIENCE: Duration = Duration::from_millis(1500);

/// What one probe saw.
pub(crate) struct Seen {
    service: ServiceName,
    url: Url,
    /// Whether it answered 2xx.
    pub(crate) ok: bool,
    detail: String,
}

/// Probes, prints, and tells whether all answered.
pub(crate) async fn run(args: &Status) -> Result<bool, Failure> {
    let bases = bases(args)?;
    let seen = probe_all(&bases, args.ready).await;
    let all = seen.iter().all(|s| s.ok);
    let mode = if args.ready { "ready" } else { "health" };
    if args.json {
        let services: Vec<_> = seen
            .iter()
            .map(|s| {
                let port = s.url.port_or_known_default();
                json!({"name": s.service.name(), "port": port, "url": s.url.as_str(), "ok": s.ok, "detail": s.detail})
            })
            .collect();
        println!("{:#}", json!({"mode": mode, "services": services}));
    } else {
        let style = Style::stdout();
        let rows: Vec<Vec<String>> = seen
            .iter()
            .map(|s| {
                let (mark, word) = if s.ok { (Mark::Done, "ok") } else { (Mark::Failed, "down") };
                let port = s.url.port_or_known_default().map_or_else(|| "-".to_owned(), |p| p.to_string());
                vec![s.service.name().to_owned(), port, mode.to_owned(), format!("{} {word}", style.mark(mark)), s.detail.clone()]
            })
            .collect();
        print!("{}", table(&["service", "port", "mode", "status", "detail"], &rows));
    }
    Ok(all)
}

/// Where each service is: `--url`, else its variable, else this machine and its port.
fn bases(args: &Status) -> Result<Vec<(ServiceName, Url)>, Failure> {
    let mut named = Vec::new();
    for pair in &args.url {
        let (name, url) = pair.split_once('=').ok_or_else(|| Failure::usage(format!("--url {pair}: expected NAME=URL")))?;
        let service = ServiceName::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| {
            Failure::usage(format!("--url {pair}: no service {name:?}; there are api, sts, gateway, audit, coordinator"))
        })?;
        named.push((service, base(url, &format!("--url {name}"))?));
    }
    ServiceName::ALL
        .into_iter()
        .map(|service| {
            if let Some((_, url)) = named.iter().rev().find(|(named, _)| *named == service) {
                return Ok((service, url.clone()));
            }
            let variable = format!("CARACAL_{}_URL", service.name().to_ascii_uppercase());
            if let Some(url) = crate::env::non_empty(&variable) {
                return Ok((service, base(&url, &variable)?));
            }
            Ok((service, local(service.port() + args.port_offset)))
        })
        .collect()
}

/// A service on this machine.
pub(crate) fn local(port: u16) -> Url {
    let mut url = Url::parse("http://localhost/").unwrap_or_else(|_| unreachable!("a constant URL"));
    let _ = url.set_port(Some(port));
    url
}

fn base(text: &str, source: &str) -> Result<Url, Failure> {
    let url = Url::parse(text).map_err(|e| Failure::usage(format!("{source}: {text:?} is not a URL: {e}")))?;
    if url.scheme() != "http" || url.host().is_none() {
        return Err(Failure::usage(format!("{source}: {text:?}: status probes http:// addresses")));
    }
    Ok(url)
}

/// Probes every service at once.
pub(crate) async fn probe_all(bases: &[(ServiceName, Url)], ready: bool) -> Vec<Seen> {
    let probes = bases.iter().map(|(service, base)| async move {
        let mut url = base.clone();
        url.set_path(if ready { "/ready" } else { "/health" });
        let (ok, detail) = match tokio::time::timeout(PATIENCE, probe(&url)).await {
            Ok(Ok((status, body))) => describe(status, &body),
            Ok(Err(_)) => (false, "unreachable".to_owned()),
            Err(_) => (false, "timeout".to_owned()),
        };
        Seen { service: *service, url, ok, detail }
    });
    futures::future::join_all(probes).await
}

async fn probe(url: &Url) -> Result<(http::StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let host = url.host_str().ok_or("no host")?;
    let port = url.port_or_known_default().ok_or("no port")?;
    let stream = TcpStream::connect((host, port)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = http::Request::get(url.path()).header(http::header::HOST, format!("{host}:{port}")).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), 64 * 1024).collect().await?.to_bytes();
    connection.abort();
    Ok((status, body))
}

/// The status code; on failure with the reason found in the body.
fn describe(status: http::StatusCode, body: &[u8]) -> (bool, String) {
    if status.is_success() {
        return (true, status.as_u16().to_string());
    }
    let reason = if let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) {
        ["reason", "error", "detail"].into_iter().find_map(|key| value[key].as_str().map(str::to_owned))
    } else {
        let text = String::from_utf8_lossy(body);
        text.lines().next().map(|line| line.chars().take(120).collect()).filter(|line: &String| !line.is_empty())
    };
    let code = status.as_u16();
    (false, reason.map_or_else(|| code.to_string(), |reason| format!("{code} {reason}")))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn the_reason_comes_from_the_body() {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(describe(StatusCode::OK, b""), (true, "200".to_owned()));
        assert_eq!(
            describe(unavailable, br#"{"ok":false,"reason":"postgres_unreachable"}"#),
            (false, "503 postgres_unreachable".to_owned())
        );
        assert_eq!(describe(unavailable, b"no luck\nmore"), (false, "503 no luck".to_owned()));
        assert_eq!(describe(unavailable, b""), (false, "503".to_owned()));
    }
}
