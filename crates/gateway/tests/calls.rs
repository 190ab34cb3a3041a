//! The Gateway from outside: rows of `gateway.md`'s acceptance table, by number.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use caracal_core::claims::Use;
use caracal_core::directive::{AuthMode, Directive};
use caracal_core::message::Stream;
use caracal_gateway::exchange::{Granted, StsRefusal};
use caracal_gateway::revocation::Snapshot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use support::{Script, Stack, granted};

fn it(status: u16) -> (u16, String) {
    (status, "invalid_token".to_owned())
}

/// Rows 1, 26 (what is asked), 61, 78: what the upstream received, byte for byte.
#[tokio::test]
async fn a_call_reaches_its_upstream_with_the_real_credential_and_leaves_evidence() {
    let stack = Stack::start(&[]).await;
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    let token = stack.mandate();
    let answer = stack.call("GET /v1/items?x=1", &token, &format!("X-Request-Id: req-7\r\n{trace}")).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok"), "{}", answer.head);
    assert_eq!(answer.header("x-request-id"), ["req-7"]);
    assert_eq!(answer.header("x-caracal-token-expires-in"), ["900"]);
    let received = stack.upstream.take();
    let mut lines: Vec<&str> = received[0].trim_end().split("\r\n").collect();
    assert_eq!(lines.remove(0), "GET /base/v1/items?x=1 HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: {}", stack.upstream.address);
    assert_eq!(
        lines,
        [
            "authorization: Bearer RT",
            &host,
            "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: gw",
            "x-forwarded-proto: http",
            "x-request-id: req-7",
        ]
    );
    assert_eq!(*stack.sts.operations.lock().unwrap(), ["GET /v1/items resource://ledger"]);
    let events = stack.take_events();
    let meta = |key: &str| events[0].metadata.get(key).cloned().unwrap_or_default();
    assert_eq!((events.len(), events[0].event_type, events[0].evaluation_status), (1, "gateway_resource_request", "executed"));
    assert_eq!((events[0].request_id.as_str(), meta("path")), ("req-7", "/v1/items".into()));
    assert_eq!((meta("gateway_status"), meta("upstream_status"), meta("response_bytes")), (200.into(), 200.into(), 2.into()));
    assert_eq!((meta("trace_id"), meta("result_class")), ("4bf92f3577b34da6a3ce929d0e0e4736".into(), "success".into()));
    assert!(!format!("{:?}", events[0].metadata).contains(&token[..40]));
}

/// Rows 2 and 3.
#[tokio::test]
async fn a_mandate_opens_one_call() {
    let stack = Stack::start(&[]).await;
    let token = stack.mandate();
    let (stack, token) = (&stack, &token);
    let calls = (0..50).map(|i| async move {
        let answer = stack.call("GET /a", token, &format!("X-Request-Id: r-{i}\r\n")).await;
        if answer.status == 200 { (200, String::new()) } else { answer.refused() }
    });
    let statuses = futures::future::join_all(calls).await;
    assert_eq!(statuses.iter().filter(|(s, _)| *s == 200).count(), 1);
    assert!(statuses.iter().all(|r| r.0 == 200 || *r == it(401)), "{statuses:?}");
    assert_eq!(stack.upstream.take().len(), 1);
    let events = stack.take_events();
    let replay = events.iter().find(|e| e.event_type == "replay_detected").unwrap();
    let keys: Vec<&str> = replay.metadata.keys().map(String::as_str).collect();
    assert_eq!(keys, ["client_id", "first_request_id", "jti", "request_id", "resource", "subject_fp"]);
    assert_eq!(replay.evaluation_status, "anomaly");
}

/// Rows 4 to 12: none of these asks the STS, and none consumes.
#[tokio::test]
async fn what_is_refused_before_anybody_is_asked() {
    let stack = Stack::start(&[]).await;
    let good = stack.mandate();
    let raw = |lines: String| format!("GET /a HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n{lines}\r\n");
    let resource = "X-Caracal-Resource: resource://ledger\r\n";
    for (lines, wanted) in [
        (resource.to_owned(), it(401)),
        (format!("{resource}Authorization: Basic x\r\n"), it(401)),
        (format!("{resource}Authorization: Bearer \r\n"), it(401)),
        (format!("{resource}Authorization: Bearer {}\r\n", "x".repeat(8193)), it(401)),
        (format!("{resource}Authorization: Bearer a.b\r\n"), it(401)),
        (format!("{resource}Authorization: Bearer a.!.c\r\n"), it(401)),
        (format!("{resource}Authorization: Bearer {good}\r\nX-Caracal-Client-ID: app-a\r\n"), it(400)),
        (format!("Authorization: Bearer {good}\r\nX-Caracal-Resource:  \r\n"), it(400)),
        (format!("{resource}Authorization: Bearer {good}\r\nX-Caracal-Resource: resource://other\r\n"), it(400)),
        (format!("{resource}Authorization: Bearer {good}\r\nContent-Length: 10485761\r\n"), (413, "payload_too_large".into())),
    ] {
        assert_eq!(stack.raw(&raw(lines.clone())).await.refused(), wanted, "{lines}");
    }
    for path in ["/v1/../admin", "/v1/%2e%2e/admin", "/a%255cb", "/admin%20", "/a?%zz=1"] {
        assert_eq!(stack.call(&format!("GET {path}"), &good, "").await.refused(), it(400), "{path}");
    }
    assert_eq!(stack.call(&format!("GET /{}", "x".repeat(8192)), &good, "").await.refused(), it(414));
    for method in ["TRACE", "CONNECT"] {
        let answer = stack.raw(&format!("{method} gw:1 HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.status == 405 || answer.status == 400, "{method}: {}", answer.head);
    }
    assert_eq!((stack.asked(), stack.take_events().len()), (0, 0));
    let call = stack
        .raw(&raw(format!(
            "{resource}Authorization: bEARER {good}\r\nX-Caracal-Client-ID:\r\nX-Caracal-Resource: resource://ledger\r\n"
        )))
        .await;
    assert_eq!(call.status, 200, "the mandate is still good: {}", call.head);
}

/// Rows 5, 6, 10, 11, 12.
#[tokio::test]
async fn mandates_that_are_none() {
    let stack = Stack::start(&[]).await;
    let claims = stack.claims();
    let now = stack.world.now().as_secs();
    for left in [34, 0, -5] {
        let token = stack.token(&caracal_core::claims::Claims { exp: now + left, ..claims.clone() });
        let refused = stack.call("GET /a", &token, "").await;
        assert_eq!(refused.refused(), (401, "credential_expired_not_renewable".into()), "{left}");
        assert!(refused.header("www-authenticate")[0].contains("expired_token"));
    }
    let mut wrong = vec![
        caracal_core::claims::Claims { usage: Use::Session, ..claims.clone() },
        caracal_core::claims::Claims { usage: Use::Resource, ..claims.clone() },
        caracal_core::claims::Claims { iss: "http://other".into(), ..claims.clone() },
        caracal_core::claims::Claims { aud: vec!["resource://ledger".into()], ..claims.clone() },
        caracal_core::claims::Claims { zone_id: stack.world.mint(), ..claims.clone() },
    ];
    for bad in wrong.drain(..) {
        assert_eq!(stack.call("GET /a", &stack.token(&bad), "").await.refused(), it(401), "{bad:?}");
    }
    let fine = caracal_core::claims::Claims { exp: now + 35, ..claims };
    assert_eq!(stack.call("GET /a", &stack.token(&fine), "").await.status, 200);
    let mut value = serde_json::to_value(stack.claims()).unwrap();
    value.as_object_mut().unwrap().remove("jti");
    let no_jti = caracal_crypto::jws::sign(&stack.key, value.to_string().as_bytes()).unwrap();
    assert_eq!(stack.call("GET /a", &no_jti, "").await.refused(), it(401));
    value["exp"] = serde_json::json!(1.9e9);
    let float = caracal_crypto::jws::sign(&stack.key, value.to_string().as_bytes()).unwrap();
    assert_eq!(stack.call("GET /a", &float, "").await.refused(), it(401));
    assert_eq!(stack.upstream.take().len(), 1);
}

/// Rows 19, 20, 23, 75.
#[tokio::test]
async fn what_was_revoked_and_what_is_not_known() {
    let stack = Stack::start(&[]).await;
    let claims = stack.claims();
    let snapshot = Snapshot { sessions: vec![claims.session.unwrap()], ..Snapshot::default() };
    *stack.source.0.lock().unwrap() = Some(snapshot);
    stack.gateway.reload().await.unwrap();
    assert_eq!(stack.call("GET /a", &stack.token(&claims), "").await.refused(), it(401));
    assert_eq!(stack.take_events()[0].evaluation_status, "session_revoked");
    stack.clock.advance(Duration::from_secs(71));
    for lines in ["", "X-Caracal-Resource: r\r\n"] {
        let answer = stack.raw(&format!("GET /a HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n{lines}\r\n")).await;
        assert_eq!(answer.refused(), (503, "sts_unavailable".into()), "even without bearer");
        assert_eq!(answer.header("retry-after"), ["1"]);
    }
    let ready = stack.raw("GET /ready HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n").await;
    assert_eq!((ready.status, ready.json()["reason"].as_str()), (503, Some("revocation_snapshot_stale")));
    stack.gateway.reload().await.unwrap();
    assert_eq!(stack.call("GET /a", &stack.mandate(), "").await.status, 200, "recovers without restart");
}

/// Rows 29, 34, 77.
#[tokio::test]
async fn what_the_sts_refuses_passes_on() {
    let stack = Stack::start(&[]).await;
    for (status, code) in
        [(403, "access_denied"), (403, "operation_not_permitted"), (502, "http_request_failed"), (503, "policy_eval_failed")]
    {
        stack.refuses(StsRefusal::new(status, code, "no"));
        let answer = stack.call("GET /a", &stack.mandate(), "X-Request-Id: mine\r\n").await;
        assert_eq!(answer.refused(), (status, code.into()));
        assert_eq!(answer.json()["requestId"], "mine");
    }
    assert!(stack.take_events().iter().all(|e| e.evaluation_status == "exchange_failed" && e.decision.as_str() == "deny"));
    stack.grants(granted("", AuthMode::None));
    assert_eq!(stack.call("GET /a", &stack.mandate(), "").await.refused(), (403, "access_denied".into()));
    let metrics =
        stack.raw("GET /metrics HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nAuthorization: Bearer metrics\r\n\r\n").await;
    assert!(metrics.body.contains("caracal_gateway_exchange_denials_total 5\n"), "{}", metrics.body);
    assert!(metrics.body.contains("caracal_gateway_sts_exchange_errors_total 0\n"));
    assert!(metrics.body.contains("caracal_gateway_requests_denied_total 5\n"));
    assert!(stack.upstream.take().is_empty());
}

/// Rows 43 and 46 to 48, 59.
#[tokio::test]
async fn upstreams_that_are_not_asked() {
    let stack = Stack::start(&[]).await;
    for url in [
        "http://169.254.169.254/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://user@h/",
        "ftp://h/",
    ] {
        stack.grants(granted(url, AuthMode::None));
        let answer = stack.call("GET /a", &stack.mandate(), "").await;
        assert_eq!(answer.refused(), (502, "internal_error".into()), "{url}");
        assert!(!answer.body.contains("169"), "the answer names no address");
        let events = stack.take_events();
        assert_eq!(
            (events[0].evaluation_status, &events[0].metadata["error_kind"]),
            ("upstream_rejected", &"upstream_not_addressable".into())
        );
        assert_eq!(events[0].decision.as_str(), "allow");
    }
    let url = format!("http://{}/", stack.upstream.address);
    let mut hosts = Directive::new(url.clone(), AuthMode::ProviderApiKey);
    hosts.provider_token = Some("canary".into());
    hosts.allowed_token_hosts = vec!["api.example".into()];
    let mut ended = Directive::new(url.clone(), AuthMode::None);
    ended.expires_at = Some(stack.world.now().as_secs());
    let mut header = Directive::new(url, AuthMode::CaracalJwt);
    header.auth_header = Some("Host".into());
    for (directive, kind) in
        [(hosts, "provider_host_not_allowed"), (ended, "request_build_failed"), (header, "request_build_failed")]
    {
        stack.grants(Granted { resource_token: Some("RT".into()), directive });
        assert_eq!(stack.call("GET /a", &stack.mandate(), "").await.refused(), (502, "internal_error".into()));
        let events = stack.take_events();
        assert_eq!(events[0].metadata["error_kind"], kind);
        assert!(!format!("{events:?}").contains("canary"));
    }
    assert!(stack.upstream.take().is_empty());
}

/// Rows 60, 61, 71.
#[tokio::test]
async fn bodies_pass_as_they_are() {
    let stack = Stack::start(&[("MAX_REQUEST_BYTES", "8")]).await;
    let send = async |more: &str, body: &str| {
        let token = stack.mandate();
        stack
            .raw(&format!(
                "POST /a HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nX-Caracal-Resource: resource://ledger\r\n{more}\r\n\r\n{body}"
            ))
            .await
    };
    stack.upstream.take();
    assert_eq!(send("Content-Length: 5", "hello").await.status, 200);
    let fixed = stack.upstream.take().remove(0);
    assert!(fixed.contains("content-length: 5\r\n") && fixed.ends_with("\r\n\r\nhello"), "{fixed}");
    assert_eq!(send("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n").await.status, 200);
    let chunked = stack.upstream.take().remove(0);
    assert!(chunked.contains("transfer-encoding: chunked") && chunked.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{chunked}");
    let large = send("Transfer-Encoding: chunked", "9\r\n123456789\r\n0\r\n\r\n").await;
    assert_eq!(large.refused(), (413, "payload_too_large".into()));
    stack.upstream.take();
    assert_eq!(send("Content-Length: 50\r\nTransfer-Encoding: chunked", "2\r\nhi\r\n0\r\n\r\n").await.status, 200);
    let both = stack.upstream.take().remove(0);
    assert!(!both.contains("content-length") && both.ends_with("2\r\nhi\r\n0\r\n\r\n"), "one framing leaves us: {both}");
    stack.upstream.says(Script::Answer("HTTP/1.1 204 No Content\r\n\r\n"));
    assert_eq!(stack.call("DELETE /a", &stack.mandate(), "").await.status, 204);
    stack.upstream.says(Script::Answer("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"));
    let head = stack.call("HEAD /a", &stack.mandate(), "").await;
    assert_eq!((head.status, head.header("content-length"), head.body.as_str()), (200, vec!["7".to_owned()], ""));
    assert!(stack.take_events().iter().filter(|e| e.evaluation_status == "executed").count() >= 4);
}

/// Rows 49, 56, 70.
#[tokio::test]
async fn answers_are_cleaned_and_failures_say_nothing() {
    let stack = Stack::start(&[("UPSTREAM_TIMEOUT", "300ms")]).await;
    stack.upstream.says(Script::Answer(
        "HTTP/1.1 302 Found\r\nLocation: http://other/\r\nServer: x\r\nX-Request-Id: theirs\r\nX-Caracal-Revoked: true\r\nContent-Length: 0\r\n\r\n",
    ));
    let answer = stack.call("GET /a", &stack.mandate(), "X-Request-Id: mine\r\n").await;
    assert_eq!((answer.status, answer.header("x-request-id")), (302, vec!["mine".to_owned()]));
    for gone in ["location", "server", "x-caracal-revoked"] {
        assert!(answer.header(gone).is_empty(), "{gone}");
    }
    stack.take_events();
    for (script, status) in [
        (Script::Silent, 504),
        (Script::Close, 502),
        (Script::Answer("garbage\r\n\r\n"), 502),
        (Script::Answer("HTTP/1.1 101 X\r\n\r\n"), 502),
    ] {
        stack.upstream.says(script);
        let answer = stack.call("GET /a", &stack.mandate(), "").await;
        assert_eq!(answer.refused(), (status, "internal_error".into()));
        assert!(!answer.body.contains("127.0.0.1"));
        assert_eq!(stack.take_events()[0].metadata["error_kind"], "transport_error");
    }
}

/// Rows 63, 65, 66, 92: a running response ends with its authority, and never looks whole.
#[tokio::test]
async fn a_revocation_ends_a_running_response() {
    let stack = Stack::start(&[]).await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    for (trailers, stream) in [(true, Stream::SessionsRevoke), (false, Stream::SessionsRevoke), (true, Stream::AgentsLifecycle)] {
        stack.upstream.says(Script::Parts(head, vec![(0, "data: 1\n\n"), (20_000, "data: 2\n\n")]));
        let claims = stack.claims();
        let token = stack.token(&claims);
        let te = if trailers { "TE: trailers\r\nConnection: te\r\n" } else { "" };
        let mut caller = TcpStream::connect(stack.address).await.unwrap();
        let request = format!(
            "GET /s HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer {token}\r\nX-Caracal-Resource: resource://ledger\r\n{te}\r\n"
        );
        caller.write_all(request.as_bytes()).await.unwrap();
        let mut seen = String::new();
        let mut buffer = [0; 4096];
        while !seen.contains("data: 1") {
            let n = caller.read(&mut buffer).await.unwrap();
            seen.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        }
        let session = claims.session.unwrap().to_string();
        stack.gateway.revocations().apply(stream, |name| match name {
            "agent_session_id" => Some(session.clone()),
            "event" => Some("suspend".into()),
            _ => None,
        });
        let mut rest = Vec::new();
        let read = async {
            loop {
                let n = caller.read(&mut buffer).await.unwrap_or(0);
                rest.extend_from_slice(&buffer[..n]);
                if n == 0 || rest.ends_with(b"\r\n\r\n") {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(1), read).await.expect("an idle stream is woken");
        let rest = String::from_utf8(rest).unwrap();
        if trailers {
            assert_eq!(rest, "0\r\nx-caracal-revoked: true\r\n\r\n");
            assert!(seen.to_ascii_lowercase().contains("trailer: x-caracal-revoked"));
        } else {
            assert_eq!(rest, "", "cut short of its last chunk");
        }
        let events = stack.take_events();
        assert_eq!((events[0].evaluation_status, &events[0].metadata["revocation_interrupted"]), ("executed", &true.into()));
    }
}

/// Row 93: authority that ends by time ends the response, whoever sweeps.
#[tokio::test]
async fn authority_that_ends_by_time_ends_the_response() {
    let stack = Stack::start(&[]).await;
    stack.upstream.says(Script::Parts("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", vec![(0, "12345"), (20_000, "67890")]));
    let mut directive = Directive::new(format!("http://{}/", stack.upstream.address), AuthMode::None);
    directive.authority_expires_at = Some(stack.world.now().as_secs() + 1);
    stack.grants(Granted { resource_token: None, directive });
    let answer = stack.call("GET /a", &stack.mandate(), "").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "12345"), "closed short of its length");
    assert_eq!(stack.take_events()[0].metadata["revocation_interrupted"], true);
}

/// Rows 64 (second half) and 68.
#[tokio::test]
async fn what_breaks_off_does_not_look_whole() {
    let stack = Stack::start(&[("STREAM_IDLE_TIMEOUT", "300ms")]).await;
    for (head, parts, kind) in [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", vec![(0, "5\r\nhello\r\n")], "response_copy_failed"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", vec![(0, "hello")], "response_copy_failed"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", vec![(0, "hello"), (2000, "world")], "idle_timeout"),
    ] {
        stack.upstream.says(Script::Parts(head, parts));
        let answer = stack.call("GET /a", &stack.mandate(), "").await;
        assert!(answer.body.contains("hello") && !answer.body.ends_with("0\r\n\r\n"), "{}", answer.body);
        let events = stack.take_events();
        assert_eq!((events[0].evaluation_status, &events[0].metadata["error_kind"]), ("upstream_error", &kind.into()));
    }
}

/// Row 69, the download; the upstream is let go.
#[tokio::test]
async fn a_caller_that_goes_away_leaves_evidence() {
    let stack = Stack::start(&[]).await;
    stack.upstream.says(Script::Parts("HTTP/1.1 200 OK\r\n\r\n", vec![(0, "hello"), (20_000, "world")]));
    let mut caller = TcpStream::connect(stack.address).await.unwrap();
    let request = format!(
        "GET /s HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer {}\r\nX-Caracal-Resource: resource://ledger\r\n\r\n",
        stack.mandate()
    );
    caller.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = [0; 4096];
    let mut seen = String::new();
    while !seen.contains("hello") {
        let n = caller.read(&mut buffer).await.unwrap();
        seen.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
    drop(caller);
    for _ in 0..100 {
        if !stack.events.all.lock().unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(stack.take_events()[0].metadata["error_kind"], "client_disconnected");
}

/// Row 82: no effect without evidence; the caller never has the last of an answer whose evidence is not durable.
#[tokio::test]
async fn without_evidence_no_answer_is_whole() {
    let stack = Stack::start(&[]).await;
    stack.events.broken.store(true, Ordering::SeqCst);
    let answer = stack.call("GET /a", &stack.mandate(), "").await;
    assert_eq!(answer.body, "", "the last bytes are held back: {}", answer.head);
    stack.upstream.says(Script::Answer("HTTP/1.1 204 No Content\r\n\r\n"));
    assert_eq!(stack.call("DELETE /a", &stack.mandate(), "").await.refused(), (503, "sts_unavailable".into()));
    let ready = stack.raw("GET /ready HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n").await;
    assert_eq!(ready.json()["reason"], "audit_replay_unavailable");
}

/// Rows 25, 74, 76.
#[tokio::test]
async fn operators_routes() {
    let stack = Stack::start(&[]).await;
    let get = async |path: &str, more: &str| {
        stack.raw(&format!("GET {path} HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n{more}\r\n")).await
    };
    let health = get("/health", "").await;
    assert_eq!((health.status, health.body.as_str(), health.header("x-request-id").len()), (200, "", 1));
    assert_eq!(get("/ready", "").await.json(), serde_json::json!({"ok": true, "ready": true}));
    for path in ["/metrics", "/metrics.json"] {
        assert_eq!(get(path, "").await.status, 401);
        assert_eq!(get(path, "Authorization: Bearer wrong\r\n").await.body, "unauthorized");
        assert_eq!(get(path, "Authorization: Bearer metrics\r\n").await.status, 200);
    }
    let flat = get("/metrics.json", "Authorization: Bearer metrics\r\n").await.json();
    assert_eq!((&flat["requests_total"], &flat["revocation_snapshot_fresh"]), (&0.into(), &1.into()));
    let governed = stack.call("GET /health", &stack.mandate(), "").await;
    assert_eq!((governed.status, governed.body.as_str()), (200, "ok"), "a call that names a resource is governed");
    let reload = async |token: &str| {
        let request = format!("POST /internal/revocations/reload HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n{token}\r\n");
        let answer = stack.raw(&request).await;
        (answer.status, answer.json())
    };
    assert_eq!(reload("").await.0, 404);
    assert_eq!(reload("Authorization: Bearer wrong\r\n").await.0, 404);
    assert_eq!(reload("Authorization: Bearer admin\r\n").await, (200, serde_json::json!({"ok": true, "revocations": 0})));
    *stack.source.0.lock().unwrap() = None;
    assert_eq!(reload("Authorization: Bearer admin\r\n").await.1["reason"], "revocation_reload_failed");
}
