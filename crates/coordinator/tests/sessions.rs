//! Who asks, Sessions and idempotency keys (`coordinator.md` 2, 3, 4, 7; acceptance 1 to 6, 8 to 10, 12 to 15, 17, 18, 39 to 42).
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{OPERATOR, Stack, redacted, stacks, timed};

#[tokio::test]
async fn a_start_has_its_shape_and_its_defaults() {
    for stack in stacks().await {
        let answer = stack.start(json!({})).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        assert!(answer.body.get("metadata").is_none());
        let service = stack.start(json!({"lifecycle": "service", "labels": [" x "], "metadata": {"k": [1]}})).await;
        let read = stack
            .call(&stack.a.bearer, "GET", &format!("/agents/{}", service.body["agent_session_id"].as_str().unwrap()), None)
            .await;
        let list = stack.call(&stack.a.bearer, "GET", "/agents?limit=1", None).await;
        insta::assert_json_snapshot!(
            "sessions",
            redacted(&json!({"task": answer.body, "service": service.body, "read": read.body, "list": list.body}))
        );
    }
}

#[tokio::test]
async fn a_start_that_does_not_fit_says_where() {
    for stack in stacks().await {
        let many: Vec<String> = (0..33).map(|i| format!("l{i}")).collect();
        for (more, field) in [
            (json!({"ttl_seconds": 0}), "ttl_seconds"),
            (json!({"ttl_seconds": 86_401}), "ttl_seconds"),
            (json!({"ttl_seconds": "60"}), "ttl_seconds"),
            (json!({"ttl_seconds": null}), "ttl_seconds"),
            (json!({"lifecycle": "service", "ttl_seconds": 60}), "ttl_seconds"),
            (json!({"lifecycle": "daemon"}), "lifecycle"),
            (json!({"labels": many}), "labels"),
            (json!({"labels": ["x".repeat(65)]}), "labels"),
            (json!({"labels": [" "]}), "labels"),
            (json!({"labels": null}), "labels"),
            (json!({"parent_id": ""}), "parent_id"),
            (json!({"subject_session_id": ""}), "subject_session_id"),
            (json!({"subject_session_id": null}), "subject_session_id"),
            (json!({"inherit_parent_edge_id": ""}), "inherit_parent_edge_id"),
            (json!({"metadata": []}), "metadata"),
            (json!({"application_id": 5}), "application_id"),
        ] {
            assert_eq!(stack.start(more.clone()).await.issue(), field, "{more}");
        }
        let unknown = stack.start(json!({"something": 1, "parent_id": null, "labels": ["x".repeat(64)]})).await;
        assert_eq!(unknown.status, 201, "unknown members are ignored: {}", unknown.text);
    }
}

#[tokio::test]
async fn bodies_are_json_within_their_bound() {
    for stack in stacks().await {
        let path = format!("/zones/{}/agents", stack.zone);
        let authorization = format!("Bearer {}", stack.a.bearer);
        let send = |kind: &'static str, body: String| {
            let (stack, path, authorization) = (&stack, &path, &authorization);
            async move { stack.send("POST", path, &[("authorization", authorization), ("content-type", kind)], body).await }
        };
        assert_eq!(send("application/json", "{".into()).await.refused(), (400, "invalid_body"));
        assert_eq!(send("application/json", "{}x".into()).await.refused(), (400, "invalid_body"));
        assert_eq!(send("application/json", String::new()).await.refused(), (400, "invalid_body"));
        assert_eq!(send("application/x-www-form-urlencoded", "a=b".into()).await.refused(), (415, "invalid_request"));
        assert_eq!(send("application/json", " ".repeat(262_145)).await.refused(), (413, "payload_too_large"));
        let nested = format!(
            "{{\"application_id\":\"{}\",\"metadata\":{{\"x\":{}{}}}}}",
            stack.a.id,
            "[".repeat(10_000),
            "]".repeat(10_000)
        );
        assert_eq!(send("application/json", nested).await.refused(), (400, "invalid_body"));
    }
}

#[tokio::test]
async fn only_a_lifecycle_mandate_of_the_zone_acts() {
    for stack in stacks().await {
        let path = format!("/zones/{}/agents", stack.zone);
        let with = |authorization: String| {
            let (stack, path) = (&stack, &path);
            async move { stack.send("GET", path, &[("authorization", &authorization)], "").await }
        };
        assert_eq!(stack.send("GET", &path, &[], "").await.refused(), (401, "missing_token"));
        for header in
            [format!("bearer {}", stack.a.bearer), "Bearer ".into(), format!("Bearer {}", "x".repeat(4097)), "Basic eDp5".into()]
        {
            assert_eq!(with(header.clone()).await.refused(), (401, "missing_token"), "{}", &header[..7]);
        }
        let now = stack.world.now().as_secs();
        let token = |changes: Value| format!("Bearer {}", stack.bearer(stack.zone, &stack.a, &changes));
        for changes in [
            json!({"use": "gateway"}),
            json!({"use": "resource", "aud": ["resource://ledger"]}),
            json!({"exp": now - 61, "iat": now - 900}),
            json!({"iat": now + 300}),
            json!({"nbf": now + 300}),
            json!({"iss": "http://other"}),
            json!({"aud": ["x"]}),
            json!({"sid": null}),
            json!({"client_id": null}),
            json!({"exp": null}),
        ] {
            assert_eq!(with(token(changes.clone())).await.refused(), (401, "invalid_token"), "{changes}");
        }
        for text in ["x", "a.b.c", OPERATOR] {
            let answer = stack.call(text, "POST", "/agents", Some(json!({}))).await;
            assert_eq!(answer.refused(), (401, "invalid_token"), "{text}");
        }
        assert_eq!(with(token(json!({"exp": now - 30, "iat": now - 900}))).await.status, 200, "a leeway of a minute");
        assert_eq!(with(token(json!({"scope": "a"}))).await.refused(), (403, "missing_scope"));
        assert_eq!(with(token(json!({"scope": null, "sub_type": "user"}))).await.refused(), (403, "missing_scope"));
        assert_eq!(with(format!("Bearer {}", stack.foreign.bearer)).await.refused(), (403, "zone_mismatch"));
        let strange =
            stack.send("GET", "/zones/a%20b/agents", &[("authorization", &format!("Bearer {}", stack.a.bearer))], "").await;
        assert_eq!(strange.refused(), (400, "invalid_params"));
        let mut stranger = support::App { id: stack.a.id, bearer: String::new(), record: stack.world.mint() };
        stranger.bearer = stack.bearer(stack.zone, &stranger, &json!({}));
        assert_eq!(
            with(format!("Bearer {}", stranger.bearer)).await.refused(),
            (401, "identity_revoked"),
            "a record that is not there"
        );
    }
}

#[tokio::test]
async fn an_application_sees_and_moves_its_own_alone() {
    for stack in stacks().await {
        let other = stack.start(json!({"application_id": stack.b.id})).await;
        assert_eq!(other.refused(), (403, "application_ownership_required"));
        let theirs = stack.session(&stack.b, json!({})).await;
        let missing = stack.world.mint::<caracal_core::id::SessionId>().to_string();
        for id in [&theirs, &missing, "nonsense"] {
            for (method, path) in [("GET", ""), ("GET", "/children"), ("DELETE", "")] {
                let answer = stack.call(&stack.a.bearer, method, &format!("/agents/{id}{path}"), None).await;
                assert_eq!(answer.refused(), (404, "session_not_found"), "{method} {id}{path}");
            }
            assert_eq!(stack.start(json!({"parent_id": id})).await.refused(), (404, "parent_not_found"));
        }
        assert_eq!(stack.call(&stack.a.bearer, "GET", "/agents/a%20b", None).await.refused(), (400, "invalid_params"));
        assert_eq!(stack.start(json!({"subject_session_id": stack.b.record})).await.refused(), (404, "session_not_found"));
        assert_eq!(stack.start(json!({"subject_session_id": stack.a.record})).await.status, 201);
        assert_eq!(stack.start(json!({"subject_token": "x"})).await.refused(), (401, "invalid_subject_proof"));
        let seen = stack.call(&stack.a.bearer, "GET", "/agents", None).await;
        assert_eq!(seen.body["items"].as_array().unwrap().len(), 1, "{}", seen.text);
        let all = stack.call(OPERATOR, "GET", "/agents", None).await;
        assert_eq!(all.body["items"].as_array().unwrap().len(), 2, "the operator sees all");
        assert_eq!(stack.call(OPERATOR, "DELETE", &format!("/agents/{theirs}"), None).await.status, 204);
    }
}

#[tokio::test]
async fn an_end_takes_the_subtree_and_every_edge_with_it() {
    for stack in stacks().await {
        let root = stack.session(&stack.a, json!({})).await;
        let child = stack.session(&stack.a, json!({"parent_id": root})).await;
        let leaf = stack.session(&stack.a, json!({"parent_id": child})).await;
        let receiver = stack.session(&stack.b, json!({})).await;
        let edge = stack.edge((&stack.a, &leaf), (&stack.b, &receiver), json!({})).await;
        let answer = stack.call(&stack.a.bearer, "DELETE", &format!("/agents/{root}?reason=done"), None).await;
        assert_eq!((answer.status, answer.text.as_str()), (204, ""));
        for (id, reason) in [(&root, "done"), (&child, "parent_terminated"), (&leaf, "parent_terminated")] {
            let read = stack.call(&stack.a.bearer, "GET", &format!("/agents/{id}"), None).await;
            assert_eq!((&read.body["status"], &read.body["termination_reason"]), (&json!("terminated"), &json!(reason)));
            assert!(read.body["terminated_at"].is_string());
        }
        let inbound = stack.call(&stack.b.bearer, "GET", &format!("/delegations/inbound/{receiver}"), None).await;
        assert_eq!((&inbound.body["items"][0]["id"], &inbound.body["items"][0]["status"]), (&json!(edge), &json!("revoked")));
        assert_eq!(
            stack.call(&stack.a.bearer, "DELETE", &format!("/agents/{root}"), None).await.refused(),
            (404, "session_not_found")
        );
        assert_eq!(stack.call(&stack.b.bearer, "GET", &format!("/agents/{receiver}"), None).await.body["status"], "active");
    }
}

#[tokio::test]
async fn an_end_is_asked_in_every_form_clients_use() {
    for stack in stacks().await {
        let json_type = ("content-type", "application/json");
        for (more, body) in [(vec![], ""), (vec![json_type], ""), (vec![json_type], "null"), (vec![json_type], "{}")] {
            let id = stack.session(&stack.a, json!({})).await;
            let authorization = format!("Bearer {}", stack.a.bearer);
            let mut headers = vec![("authorization", authorization.as_str())];
            headers.extend(&more);
            let answer = stack.send("DELETE", &format!("/zones/{}/agents/{id}", stack.zone), &headers, body).await;
            assert_eq!(answer.status, 204, "{body:?}: {}", answer.text);
        }
        let service = stack.session(&stack.a, json!({"lifecycle": "service"})).await;
        let end = |body: Option<Value>| {
            let (stack, service) = (&stack, &service);
            async move { stack.call(&stack.a.bearer, "DELETE", &format!("/agents/{service}"), body).await }
        };
        assert_eq!(end(None).await.refused(), (400, "lease_generation_required"));
        assert_eq!(end(Some(json!({"lease_generation": 0}))).await.refused(), (400, "invalid_body"));
        assert_eq!(end(Some(json!({"lease_generation": 2}))).await.refused(), (409, "session_lease_fenced"));
        let long = format!("/agents/{service}?reason={}", "x".repeat(257));
        assert_eq!(stack.call(&stack.a.bearer, "DELETE", &long, None).await.refused(), (400, "invalid_query"));
        assert_eq!(end(Some(json!({"lease_generation": 1}))).await.status, 204);
    }
}

#[tokio::test]
async fn trees_have_their_bounds() {
    for stack in stacks().await {
        let root = stack.session(&stack.a, json!({})).await;
        assert_eq!(
            stack.start(json!({"parent_id": root, "lifecycle": "service"})).await.refused(),
            (409, "task_session_cannot_start_service")
        );
        let mut first = String::new();
        for _ in 0..10 {
            first = stack.session(&stack.a, json!({"parent_id": root})).await;
        }
        assert_eq!(stack.start(json!({"parent_id": root})).await.refused(), (429, "session_children_limit_exceeded"));
        stack.call(&stack.a.bearer, "DELETE", &format!("/agents/{first}"), None).await;
        assert_eq!(stack.start(json!({"parent_id": root})).await.status, 201, "one has ended");
        let mut parent = stack.session(&stack.a, json!({})).await;
        for depth in 1..=10 {
            let answer = stack.start(json!({"parent_id": parent})).await;
            assert_eq!(answer.body["depth"], depth, "{}", answer.text);
            parent = answer.body["agent_session_id"].as_str().unwrap().to_owned();
        }
        assert_eq!(stack.start(json!({"parent_id": parent})).await.refused(), (429, "session_depth_limit_exceeded"));
    }
}

#[tokio::test]
async fn slots_are_counted_by_what_is_live() {
    let stack = timed(&[("MAX_AGENTS_PER_ZONE", "2")]).await;
    let first = stack.session(&stack.a, json!({})).await;
    stack.session(&stack.b, json!({"ttl_seconds": 60})).await;
    assert_eq!(stack.start(json!({})).await.refused(), (429, "session_zone_limit_exceeded"));
    stack.call(&stack.a.bearer, "DELETE", &format!("/agents/{first}"), None).await;
    stack.session(&stack.a, json!({})).await;
    stack.clock.as_ref().unwrap().advance(Duration::from_secs(61));
    assert_eq!(stack.start(json!({})).await.status, 201, "a time that has passed frees its slot, nobody has to sweep");
    let stack = timed(&[("MAX_AGENTS_PER_APP", "1")]).await;
    stack.session(&stack.a, json!({})).await;
    assert_eq!(stack.start(json!({})).await.refused(), (429, "session_limit_exceeded"));
    stack.session(&stack.b, json!({})).await;
}

async fn keyed(stack: &Stack, key: &str, more: Value) -> support::Answer {
    let mut body = json!({"application_id": stack.a.id});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    stack.call_with(&stack.a.bearer, "POST", "/agents", Some(body), &[("idempotency-key", key)]).await
}

#[tokio::test]
async fn the_same_key_has_one_effect() {
    for stack in stacks().await {
        let first = keyed(&stack, "k-1", json!({"labels": ["x"]})).await;
        assert_eq!((first.status, first.header("idempotency-replayed")), (201, None));
        let again =
            keyed(&stack, "k-1", json!({"labels": [" x"], "ttl_seconds": 3600, "lifecycle": "task", "parent_id": null})).await;
        assert_eq!(
            (again.status, again.header("idempotency-replayed")),
            (201, Some("true")),
            "a default that is spelt out is the default"
        );
        assert_eq!(again.text, first.text);
        let renewed = support::App { id: stack.a.id, bearer: String::new(), record: stack.world.mint() };
        stack.record(stack.zone, stack.a.id, renewed.record).await;
        let bearer = stack.bearer(stack.zone, &renewed, &json!({}));
        let body = json!({"application_id": stack.a.id, "labels": ["x"]});
        let replay = stack.call_with(&bearer, "POST", "/agents", Some(body), &[("idempotency-key", "k-1")]).await;
        assert_eq!(replay.text, first.text, "a renewed bearer changes nothing");
        assert_eq!(keyed(&stack, "k-1", json!({"labels": ["y"]})).await.refused(), (409, "idempotency_key_conflict"));
        let id = first.body["agent_session_id"].as_str().unwrap();
        stack.call(&stack.a.bearer, "DELETE", &format!("/agents/{id}"), None).await;
        assert_eq!(keyed(&stack, "k-1", json!({"labels": ["x"]})).await.refused(), (409, "idempotency_result_inactive"));
        let all = futures::future::join_all((0..20).map(|_| keyed(&stack, "k-2", json!({})))).await;
        assert!(all.iter().all(|a| a.status == 201 && a.text == all[0].text));
        assert_eq!(all.iter().filter(|a| a.header("idempotency-replayed").is_none()).count(), 1, "one Session of twenty requests");
    }
}

#[tokio::test]
async fn a_result_whose_time_has_passed_is_not_replayed_and_a_refusal_leaves_no_receipt() {
    let stack = timed(&[("MAX_AGENTS_PER_ZONE", "1")]).await;
    assert_eq!(keyed(&stack, "k-1", json!({"ttl_seconds": 60})).await.status, 201);
    assert_eq!(keyed(&stack, "k-2", json!({})).await.refused(), (429, "session_zone_limit_exceeded"));
    stack.clock.as_ref().unwrap().advance(Duration::from_secs(61));
    assert_eq!(keyed(&stack, "k-1", json!({"ttl_seconds": 60})).await.refused(), (409, "idempotency_result_inactive"));
    let second = keyed(&stack, "k-2", json!({})).await;
    assert_eq!((second.status, second.header("idempotency-replayed")), (201, None));
}

#[tokio::test]
async fn keys_have_their_syntax_and_their_number() {
    for stack in stacks().await {
        assert_eq!(keyed(&stack, &"k".repeat(255), json!({})).await.status, 201);
        for bad in ["k".repeat(256), " k".into(), "k ".into(), "a\tb".into(), String::new()] {
            assert_eq!(keyed(&stack, &bad, json!({})).await.refused(), (400, "idempotency_key_invalid"), "{bad:?}");
        }
        let body = Some(json!({"application_id": stack.a.id}));
        let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
        let answer = stack.call_with(&stack.a.bearer, "POST", "/agents", body, &twice).await;
        assert_eq!(answer.refused(), (400, "idempotency_key_multiple"));
    }
    let stack = timed(&[("IDEMPOTENCY_MAX_RECEIPTS_PER_SCOPE", "100")]).await;
    for i in 0..100 {
        assert_eq!(keyed(&stack, &format!("k-{i}"), json!({})).await.status, 201);
    }
    assert_eq!(keyed(&stack, "one more", json!({})).await.refused(), (429, "idempotency_receipt_limit_exceeded"));
}

#[tokio::test]
async fn lists_page_through_everything_once() {
    for stack in stacks().await {
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(stack.session(&stack.a, json!({"labels": ["x"]})).await);
        }
        let theirs = stack.session(&stack.b, json!({})).await;
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        for _ in 0..4 {
            let page = stack.call(&stack.a.bearer, "GET", &format!("/agents?limit=1{cursor}"), None).await;
            seen.extend(page.body["items"].as_array().unwrap().iter().map(|s| s["agent_session_id"].as_str().unwrap().to_owned()));
            match page.body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        // Where time stands still, ids of one moment are in no order.
        ids.sort();
        ids.reverse();
        assert_eq!(seen, ids);
        for query in ["limit=0", "limit=501", "limit=x", "limit=1&limit=2", "status=gone", "lifecycle=x"] {
            let answer = stack.call(&stack.a.bearer, "GET", &format!("/agents?{query}"), None).await;
            assert_eq!(answer.refused(), (400, "invalid_query"), "{query}");
        }
        let nobody = stack.world.mint::<caracal_core::id::SessionId>().to_string();
        for cursor in ["x", &nobody, &theirs] {
            let answer = stack.call(&stack.a.bearer, "GET", &format!("/agents?cursor={cursor}"), None).await;
            assert_eq!(answer.refused(), (400, "invalid_cursor"), "{cursor}");
        }
        let none = stack.call(&stack.a.bearer, "GET", "/agents?label=y", None).await;
        assert_eq!(none.body, json!({"items": [], "next_cursor": null}));
    }
}

#[tokio::test]
async fn every_answer_has_its_request_id_and_unknown_paths_say_so() {
    for stack in stacks().await {
        let answer = stack.call_with(&stack.a.bearer, "GET", "/agents/x", None, &[("x-request-id", "abc")]).await;
        assert_eq!((answer.header("x-request-id"), &answer.body["request_id"]), (Some("abc"), &json!("abc")));
        let spaced = stack.call_with(&stack.a.bearer, "GET", "/agents/x", None, &[("x-request-id", "a b")]).await;
        assert_ne!(spaced.header("x-request-id"), Some("a b"));
        assert_eq!(stack.send("GET", "/nowhere", &[], "").await.refused(), (404, "not_found"));
        assert_eq!(stack.call(&stack.a.bearer, "PUT", "/agents", None).await.status, 405);
        assert_eq!(stack.send("GET", "/health", &[], "").await.body, json!({"ok": true}));
        assert_eq!(stack.send("GET", "/ready", &[], "").await.body, json!({"ok": true}));
    }
}
