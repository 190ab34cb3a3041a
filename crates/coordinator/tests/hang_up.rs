//! A client that hangs up at each await of a write: the write is whole or absent.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use axum::body::Body;
use axum::response::Response;
use caracal_testkit::{MOST_WRITES, hung_up};
use http::Request;
use serde_json::{Value, json};
use support::{Stack, stacks};
use tower::ServiceExt as _;

/// Calls as `a` and hangs up; each leaves one more of `rows`.
async fn called_or_hung_up(stack: &Stack, rows: &str, status: u16, call: impl Fn(usize) -> (&'static str, String, Option<Value>)) {
    let answer: Response = hung_up(stack.database(), rows, |n| {
        let (method, path, body) = call(n);
        let request = Request::builder()
            .method(method)
            .uri(format!("/zones/{}{path}", stack.zone))
            .header("authorization", format!("Bearer {}", stack.a.bearer))
            .header("content-type", "application/json")
            .header("idempotency-key", format!("{method}-{rows}-{n}").replace(' ', "-"))
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))
            .unwrap();
        let router = stack.router.clone();
        async move { router.oneshot(request).await.unwrap() }
    })
    .await;
    assert_eq!(answer.status().as_u16(), status, "{rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_start_and_of_an_end() {
    for stack in stacks().await {
        let start = json!({"application_id": stack.a.id});
        called_or_hung_up(&stack, "sessions", 201, |_| ("POST", "/agents".into(), Some(start.clone()))).await;
        let mut sessions = Vec::new();
        for _ in 0..=MOST_WRITES {
            sessions.push(stack.session(&stack.a, json!({})).await);
        }
        let end = |n: usize| ("DELETE", format!("/agents/{}", sessions[n]), None);
        called_or_hung_up(&stack, "sessions WHERE status = 'terminated'", 204, end).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_delegation_and_of_its_revocation() {
    for stack in stacks().await {
        let (source, target) = (stack.session(&stack.a, json!({})).await, stack.session(&stack.b, json!({})).await);
        let edge = json!({"source_session_id": source, "target_session_id": target, "issuer_application_id": stack.a.id,
            "receiver_application_id": stack.b.id, "resource_id": "resource://ledger", "scopes": ["a"], "ttl_seconds": 600});
        called_or_hung_up(&stack, "delegations", 201, |_| ("POST", "/delegations".into(), Some(edge.clone()))).await;
        let mut edges = Vec::new();
        for _ in 0..=MOST_WRITES {
            // A target for each: a Session holds only so many offers.
            let target = stack.session(&stack.b, json!({})).await;
            edges.push(stack.edge((&stack.a, &source), (&stack.b, &target), json!({})).await);
        }
        let revoke = |n: usize| ("PATCH", format!("/delegations/{}/revoke", edges[n]), None);
        called_or_hung_up(&stack, "delegations WHERE status = 'revoked'", 200, revoke).await;
    }
}
