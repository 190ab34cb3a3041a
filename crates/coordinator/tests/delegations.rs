//! Delegations: what may be handed on, and how it ends (`coordinator.md` 4.6, 6; acceptance 24 to 28, 30 to 32, 34 to 36, 40, 47).
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use caracal_store::coordination::delegations;
use serde_json::{Value, json};
use support::{App, OPERATOR, Stack, redacted, stacks, timed};

const EXCEEDS: (u16, &str) = (403, "delegation_exceeds_parent_authority");

/// A Session of `a` that holds an inbound edge, and the edge.
async fn narrowed(stack: &Stack, changes: Value) -> (String, String) {
    let (root, held) =
        (stack.session(&stack.a, json!({})).await, stack.session(&stack.a, json!({"parent_authority": "none"})).await);
    let edge = stack.edge((&stack.a, &root), (&stack.a, &held), changes).await;
    (held, edge)
}

#[tokio::test]
async fn an_edge_has_its_shape_wherever_it_is_read() {
    for stack in stacks().await {
        let (source, target) = (stack.session(&stack.a, json!({})).await, stack.session(&stack.b, json!({})).await);
        let changes = json!({"constraints": {"budget": 3, "max_hops": 2}});
        let created = stack.delegate((&stack.a, &source), (&stack.b, &target), changes).await;
        assert_eq!(created.status, 201, "{}", created.text);
        let id = created.body["delegation_edge_id"].as_str().unwrap();
        let read = |app: &App, path: String| {
            let (stack, bearer) = (&stack, app.bearer.clone());
            async move { stack.call(&bearer, "GET", &path, None).await.body }
        };
        let shapes = json!({
            "created": created.body,
            "inbound": read(&stack.b, format!("/delegations/inbound/{target}")).await,
            "outbound": read(&stack.a, format!("/delegations/outbound/{source}")).await,
            "active": read(&stack.a, "/delegations/active".into()).await,
            "inbound one": read(&stack.b, format!("/delegations/inbound/{target}/{id}")).await,
            "inbound, operator": stack.call(OPERATOR, "GET", &format!("/delegations/inbound/{target}"), None).await.body,
            "revoked": stack.call(&stack.a.bearer, "PATCH", &format!("/delegations/{id}/revoke"), None).await.body,
        });
        insta::assert_json_snapshot!("delegations", redacted(&shapes));
    }
}

#[tokio::test]
async fn what_does_not_fit_says_where_and_which() {
    for stack in stacks().await {
        let (source, target) = (stack.session(&stack.a, json!({})).await, stack.session(&stack.a, json!({})).await);
        let with = |changes: Value| {
            let (stack, source, target) = (&stack, &source, &target);
            async move { stack.delegate((&stack.a, source), (&stack.a, target), changes).await }
        };
        for (changes, field) in [
            (json!({"scopes": null}), "scopes"),
            (json!({"scopes": [""]}), "scopes"),
            (json!({"scopes": ["a b"]}), "scopes"),
            (json!({"ttl_seconds": 0}), "ttl_seconds"),
            (json!({"ttl_seconds": null}), "ttl_seconds"),
            (json!({"ttl_seconds": 86_401}), "ttl_seconds"),
            (json!({"expires_at": "tomorrow"}), "expires_at"),
            (json!({"expires_at": "2030-01-01T00:00:00+01:00"}), "expires_at"),
            (json!({"parent_edge_id": ""}), "parent_edge_id"),
            (json!({"parent_edge_id": null}), "parent_edge_id"),
            (json!({"source_session_id": ""}), "source_session_id"),
            (json!({"target_session_id": "-"}), ""),
        ] {
            assert_eq!(with(changes.clone()).await.issue(), field, "{changes}");
        }
        for (constraints, code) in [
            (json!(null), "invalid_delegation_constraint"),
            (json!([]), "invalid_delegation_constraint"),
            (json!({"depth": 1}), "invalid_delegation_constraint"),
            (json!({"resources": ["x", ""]}), "invalid_resources"),
            (json!({"max_depth": 11}), "invalid_max_depth"),
            (json!({"max_hops": 0}), "invalid_max_hops"),
            (json!({"max_depth": 2, "max_hops": 3}), "invalid_max_hops"),
            (json!({"budget": 0}), "invalid_budget"),
            (json!({"budget": "3"}), "invalid_budget"),
            (json!({"budget": 2_147_483_648_i64}), "invalid_budget"),
            (json!({"ttl_seconds": 1.5}), "invalid_ttl_seconds"),
            (json!({"policy_approved": "yes"}), "invalid_policy_approved"),
            (json!({"expires_at": "x"}), "invalid_expires_at"),
            (json!({"broad_reason": ""}), "invalid_broad_reason"),
        ] {
            assert_eq!(with(json!({"constraints": constraints})).await.refused(), (400, code), "{constraints}");
        }
        assert_eq!(with(json!({"ttl_seconds": "-"})).await.refused(), (400, "delegation_expiry_required"));
        assert_eq!(with(json!({"target_session_id": source})).await.refused(), (400, "self_delegation_denied"));
        assert_eq!(with(json!({"resource_id": null})).await.refused(), (403, "broad_delegation_permission_required"));
        assert_eq!(with(json!({"resource_id": "resource://none"})).await.refused(), (404, "resource_not_found"));
        assert_eq!(with(json!({"constraints": {"resources": ["resource://none"]}})).await.refused(), (404, "resource_not_found"));
        let mismatch = json!({"constraints": {"resources": ["resource://notes"]}});
        assert_eq!(with(mismatch).await.refused(), (400, "delegation_resource_scope_mismatch"));
        assert_eq!(with(json!({"scopes": ["c"]})).await.refused(), (403, "delegation_scopes_exceed_resource"));
        let past = json!({"expires_at": "2020-01-01T00:00:00Z"});
        assert_eq!(with(past).await.refused(), (400, "delegation_expired"));
        let far = json!({"expires_at": stack.store.now().await.unwrap().plus_secs(86_500).rfc3339_secs()});
        assert_eq!(with(far).await.refused(), (400, "invalid_expires_at"));
    }
}

#[tokio::test]
async fn endpoints_are_live_sessions_of_the_applications_named() {
    for stack in stacks().await {
        let (mine, theirs) = (stack.session(&stack.a, json!({})).await, stack.session(&stack.b, json!({})).await);
        let nobody = stack.world.mint::<caracal_core::id::SessionId>().to_string();
        let with = |from: (&App, &str), to: (&App, &str)| {
            let body = (from.1.to_owned(), to.1.to_owned(), to.0.id);
            let stack = &stack;
            async move {
                let changes = json!({"source_session_id": body.0, "target_session_id": body.1, "receiver_application_id": body.2});
                stack.delegate((&stack.a, ""), (&stack.a, ""), changes).await
            }
        };
        for other in [nobody.as_str(), "nonsense"] {
            assert_eq!(with((&stack.a, &mine), (&stack.a, other)).await.refused(), (404, "delegation_endpoint_not_found"));
            assert_eq!(with((&stack.a, other), (&stack.b, &theirs)).await.refused(), (404, "delegation_endpoint_not_found"));
        }
        assert_eq!(with((&stack.a, &mine), (&stack.a, &theirs)).await.refused(), (409, "delegation_application_mismatch"));
        let foreign = stack.session(&stack.b, json!({})).await;
        assert_eq!(with((&stack.a, &theirs), (&stack.b, &foreign)).await.refused(), (404, "delegation_endpoint_not_found"));
        let changes = json!({"issuer_application_id": stack.b.id});
        assert_eq!(
            stack.delegate((&stack.a, &mine), (&stack.b, &theirs), changes).await.refused(),
            (403, "issuer_ownership_required")
        );
        let ended = stack.session(&stack.a, json!({})).await;
        stack.call(&stack.a.bearer, "DELETE", &format!("/agents/{ended}"), None).await;
        assert_eq!(with((&stack.a, &mine), (&stack.a, &ended)).await.refused(), (404, "delegation_endpoint_not_found"));
        assert_eq!(stack.delegate((&stack.a, &mine), (&stack.b, &theirs), json!({})).await.status, 201);
    }
}

#[tokio::test]
async fn a_resource_is_named_by_id_or_identifier_and_several_unite_their_scopes() {
    for stack in stacks().await {
        let (source, target) = (stack.session(&stack.a, json!({})).await, stack.session(&stack.a, json!({})).await);
        let ledger = stack.ledger.to_string();
        let by_id = stack.delegate((&stack.a, &source), (&stack.a, &target), json!({"resource_id": ledger})).await;
        assert_eq!(
            (&by_id.body["resource_id"], &by_id.body["effective_authority"]["resources"]),
            (&json!(ledger), &json!(["resource://ledger"]))
        );
        let both = json!({"resource_id": "-", "scopes": ["a", "c"], "constraints": {"resources": [ledger, "resource://notes"]}});
        let united = stack.delegate((&stack.a, &source), (&stack.a, &target), both).await;
        assert_eq!(
            united.body["constraints_json"]["resources"],
            json!(["resource://ledger", "resource://notes"]),
            "{}",
            united.text
        );
        assert_eq!(united.body["warnings"], json!(["resource_null_delegation_broadens_resource_matching"]));
    }
}

#[tokio::test]
async fn a_child_is_never_wider_than_its_parent() {
    let stack = timed(&[]).await;
    let clock = stack.clock.clone().unwrap();
    let wide = json!({"scopes": ["a", "b"], "ttl_seconds": 600});
    let parent = |more: Value| {
        let mut all = wide.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let hops = |n: i64| json!({"constraints": {"max_hops": n}});
    let lists = json!({"resource_id": "-", "scopes": ["a"], "constraints": {"max_hops": 3, "resources": ["resource://ledger", "resource://notes"]}});
    let in_60 = json!({"ttl_seconds": "-", "expires_at": "in 60 s"});
    let rows: Vec<(Value, Value, u16)> = vec![
        (parent(hops(2)), json!({"ttl_seconds": 300}), 201),
        (parent(hops(2)), json!({"ttl_seconds": 300, "constraints": {"max_hops": 2}}), 403),
        (parent(json!({})), json!({"ttl_seconds": 300}), 403),
        (parent(hops(2)), json!({"ttl_seconds": 600}), 201),
        (parent(hops(2)), json!({"ttl_seconds": 601}), 403),
        (parent(hops(2)), in_60, 403),
        (parent(hops(2)), json!({"ttl_seconds": 300, "scopes": ["a", "b"]}), 201),
        (parent(json!({"scopes": ["a"], "constraints": {"max_hops": 2}})), json!({"ttl_seconds": 300, "scopes": ["a", "b"]}), 403),
        (parent(hops(2)), json!({"ttl_seconds": 300, "resource_id": "resource://notes", "scopes": []}), 403),
        (
            lists.clone(),
            json!({"resource_id": "-", "ttl_seconds": 300, "constraints": {"max_hops": 2, "resources": ["resource://ledger"]}}),
            201,
        ),
        (
            lists.clone(),
            json!({"resource_id": "-", "ttl_seconds": 300, "constraints": {"resources": ["resource://ledger", "resource://vault"]}}),
            404,
        ),
        (lists, json!({"resource_id": "-", "ttl_seconds": 300}), 403),
        (parent(json!({"constraints": {"max_hops": 2, "budget": 1}})), json!({"ttl_seconds": 300}), 201),
        (
            parent(json!({"constraints": {"max_hops": 2, "budget": 10}})),
            json!({"ttl_seconds": 300, "constraints": {"budget": 11}}),
            403,
        ),
        (
            parent(json!({"constraints": {"max_hops": 2, "budget": 10}})),
            json!({"ttl_seconds": 300, "constraints": {"budget": 10}}),
            201,
        ),
    ];
    for (at, (of, mut child, wanted)) in rows.into_iter().enumerate() {
        let (held, edge) = narrowed(&stack, of).await;
        clock.advance(Duration::from_secs(10));
        if child["expires_at"].is_string() {
            child["expires_at"] = json!(stack.world.now().plus_secs(60).rfc3339_secs());
        }
        let below = stack.session(&stack.a, json!({"parent_authority": "none"})).await;
        let answer = stack.delegate((&stack.a, &held), (&stack.a, &below), child).await;
        assert_eq!(answer.status, wanted, "row {at}: {}", answer.text);
        if wanted == 201 {
            assert_eq!(answer.body["parent_edge_id"], json!(edge), "row {at}");
            assert_eq!(answer.body["allow_reason"][2], "parent_authority_narrowed");
        }
    }
    let (held, _) = narrowed(&stack, parent(hops(2))).await;
    let ends =
        stack.call(&stack.a.bearer, "GET", &format!("/delegations/inbound/{held}"), None).await.body["items"][0]["expires_at"]
            .clone();
    clock.advance(Duration::from_secs(10));
    let below = stack.session(&stack.a, json!({"parent_authority": "none"})).await;
    let cut = stack.delegate((&stack.a, &held), (&stack.a, &below), json!({"ttl_seconds": 600})).await;
    assert_eq!(cut.body["expires_at"], ends, "cut to the parent's end");
    let late = json!({"constraints": {"ttl_seconds": 600}, "expires_at": stack.world.now().plus_secs(595).rfc3339_secs()});
    assert_eq!(stack.delegate((&stack.a, &held), (&stack.a, &below), late).await.refused(), EXCEEDS, "an explicit end is not cut");
}

#[tokio::test]
async fn the_parent_is_the_one_that_counts() {
    for stack in stacks().await {
        let two = json!({"constraints": {"max_hops": 2}});
        let (held, first) = narrowed(&stack, two.clone()).await;
        let root = stack.session(&stack.a, json!({})).await;
        let second = stack.edge((&stack.a, &root), (&stack.a, &held), two).await;
        let below = stack.session(&stack.a, json!({"parent_authority": "none"})).await;
        let with = |changes: Value| {
            let (stack, held, below) = (&stack, &held, &below);
            async move { stack.delegate((&stack.a, held), (&stack.a, below), changes).await }
        };
        let short = json!({"ttl_seconds": 100});
        assert_eq!(with(short.clone()).await.refused(), (409, "parent_delegation_ambiguous"));
        let named = with(json!({"ttl_seconds": 100, "parent_edge_id": second})).await;
        assert_eq!(named.body["parent_edge_id"], json!(second), "{}", named.text);
        for wrong in ["nonsense", named.body["delegation_edge_id"].as_str().unwrap()] {
            let answer = with(json!({"ttl_seconds": 100, "parent_edge_id": wrong})).await;
            assert_eq!(answer.refused(), (403, "parent_delegation_not_active"), "{wrong}");
        }
        let _ = first;
        let Some(clock) = &stack.clock else { continue };
        clock.advance(Duration::from_mins(10));
        assert_eq!(with(short).await.refused(), (403, "parent_delegation_not_active"), "a narrowing that lapsed does not widen");
    }
}

#[tokio::test]
async fn offers_nobody_took_change_nothing() {
    for stack in stacks().await {
        let mine = stack.session(&stack.a, json!({})).await;
        let theirs = stack.session(&stack.b, json!({})).await;
        for _ in 0..2 {
            stack.edge((&stack.b, &theirs), (&stack.a, &mine), json!({})).await;
        }
        let child = stack.start(json!({"parent_id": mine})).await;
        assert_eq!((child.status, &child.body["delegation_edge_id"]), (201, &Value::Null), "{}", child.text);
        let below = stack.session(&stack.a, json!({})).await;
        let edge = stack.delegate((&stack.a, &mine), (&stack.a, &below), json!({})).await;
        assert_eq!((edge.status, &edge.body["parent_edge_id"]), (201, &Value::Null), "{}", edge.text);
    }
}

#[tokio::test]
async fn a_child_inherits_the_narrowing_of_its_parent() {
    for stack in stacks().await {
        let (held, edge) = narrowed(&stack, json!({"constraints": {"budget": 5}})).await;
        let child = stack.start(json!({"parent_id": held})).await;
        let id = child.body["agent_session_id"].as_str().unwrap();
        let mirrored =
            stack.call(&stack.a.bearer, "GET", &format!("/delegations/inbound/{id}"), None).await.body["items"][0].clone();
        let own = stack.call(&stack.a.bearer, "GET", &format!("/delegations/inbound/{held}"), None).await.body["items"][0].clone();
        assert_eq!((&mirrored["id"], &mirrored["parent_edge_id"]), (&child.body["delegation_edge_id"], &json!(edge)));
        for kept in ["scopes", "constraints_json", "expires_at", "resource_id"] {
            assert_eq!(mirrored[kept], own[kept], "{kept}");
        }
        assert_eq!(mirrored["budget_spent"], 0);
        let none = stack.start(json!({"parent_id": held, "parent_authority": "none"})).await;
        assert_eq!(none.body["delegation_edge_id"], Value::Null);
        let root = stack.session(&stack.a, json!({})).await;
        let second = stack.edge((&stack.a, &root), (&stack.a, &held), json!({})).await;
        assert_eq!(stack.start(json!({"parent_id": held})).await.refused(), (409, "inherit_parent_edge_ambiguous"));
        assert_eq!(stack.start(json!({"parent_id": held, "inherit_parent_edge_id": second})).await.status, 201);
        let wrong = stack.start(json!({"parent_id": root, "inherit_parent_edge_id": second})).await;
        assert_eq!(wrong.refused(), (409, "inherit_parent_edge_not_active"));
        for edge in [edge, second] {
            stack.call(&stack.a.bearer, "PATCH", &format!("/delegations/{edge}/revoke"), None).await;
        }
    }
}

#[tokio::test]
async fn authority_does_not_go_in_circles() {
    for stack in stacks().await {
        let (one, two) = (stack.session(&stack.a, json!({})).await, stack.session(&stack.b, json!({})).await);
        stack.edge((&stack.a, &one), (&stack.b, &two), json!({})).await;
        assert_eq!(stack.delegate((&stack.b, &two), (&stack.a, &one), json!({})).await.refused(), (409, "delegation_cycle_denied"));
        let (s, t) = (stack.session(&stack.a, json!({})).await, stack.session(&stack.b, json!({})).await);
        let race = futures::future::join(
            stack.delegate((&stack.a, &s), (&stack.b, &t), json!({})),
            stack.delegate((&stack.b, &t), (&stack.a, &s), json!({})),
        );
        let (there, back) = race.await;
        assert_eq!([there.status, back.status].iter().filter(|status| **status == 201).count(), 1, "{there:?} {back:?}");
    }
}

#[tokio::test]
async fn a_receiver_confirms_and_cannot_drop_and_nobody_else_sees() {
    for stack in stacks().await {
        let (source, target) = (stack.session(&stack.a, json!({})).await, stack.session(&stack.b, json!({})).await);
        let edge = stack.edge((&stack.a, &source), (&stack.b, &target), json!({})).await;
        let path = format!("/delegations/inbound/{target}/{edge}");
        let confirmed = stack.call(&stack.b.bearer, "GET", &path, None).await;
        assert_eq!((&confirmed.body["id"], &confirmed.body["status"]), (&json!(edge), &json!("active")));
        assert!(confirmed.body["expires_at"].is_string());
        let gone = (404, "delegation_not_found");
        assert_eq!(stack.call(&stack.a.bearer, "GET", &path, None).await.refused(), gone, "the issuer");
        assert_eq!(
            stack.call(&stack.b.bearer, "GET", &format!("/delegations/inbound/{source}/{edge}"), None).await.refused(),
            gone
        );
        let revoke = format!("/delegations/{edge}/revoke");
        assert_eq!(stack.call(&stack.b.bearer, "PATCH", &revoke, None).await.refused(), (403, "issuer_ownership_required"));
        let own = stack.session(&stack.a, json!({})).await;
        let inner = stack.edge((&stack.a, &source), (&stack.a, &own), json!({})).await;
        assert_eq!(
            stack.call(&stack.b.bearer, "PATCH", &format!("/delegations/{inner}/revoke"), None).await.refused(),
            gone,
            "a stranger"
        );
        let answer = stack.call(&stack.a.bearer, "PATCH", &revoke, None).await;
        assert_eq!(
            answer.body,
            json!({"revoked_edges": 1, "affected_sessions": 1, "terminated_sessions": 0}),
            "another application's Session stays"
        );
        assert_eq!(stack.call(&stack.a.bearer, "PATCH", &revoke, None).await.refused(), gone);
        assert_eq!(stack.call(&stack.b.bearer, "GET", &path, None).await.refused(), gone);
        assert_eq!(stack.call(&stack.b.bearer, "GET", &format!("/agents/{target}"), None).await.body["status"], "active");
        let within = stack.call(OPERATOR, "PATCH", &format!("/delegations/{inner}/revoke"), None).await;
        assert_eq!(within.body["terminated_sessions"], 1, "within one application the target has lost what it acted by");
        for id in ["nonsense", "a%20b"] {
            let status = stack.call(&stack.a.bearer, "PATCH", &format!("/delegations/{id}/revoke"), None).await.status;
            assert_eq!(status, if id == "nonsense" { 404 } else { 400 });
        }
    }
}

#[tokio::test]
async fn only_a_revocation_raises_the_graph_epoch() {
    for stack in stacks().await {
        let zone = stack.zone;
        let epoch = || async {
            stack.store.read(move |tx| Box::pin(async move { delegations::graph_epoch(tx, zone).await })).await.unwrap()
        };
        let source = stack.session(&stack.a, json!({})).await;
        let mut last = String::new();
        for _ in 0..3 {
            let target = stack.session(&stack.b, json!({})).await;
            last = stack.edge((&stack.a, &source), (&stack.b, &target), json!({})).await;
            stack.call(&stack.b.bearer, "DELETE", &format!("/agents/{target}"), None).await;
        }
        assert_eq!(epoch().await, 1);
        assert_eq!(stack.call(&stack.a.bearer, "PATCH", &format!("/delegations/{last}/revoke"), None).await.status, 404);
        let target = stack.session(&stack.b, json!({})).await;
        let edge = stack.edge((&stack.a, &source), (&stack.b, &target), json!({})).await;
        stack.call(&stack.a.bearer, "PATCH", &format!("/delegations/{edge}/revoke"), None).await;
        assert_eq!(epoch().await, 2);
    }
}

#[tokio::test]
async fn an_edge_whose_time_has_passed_says_so_at_once() {
    let stack = timed(&[]).await;
    let (source, target) = (stack.session(&stack.a, json!({})).await, stack.session(&stack.b, json!({})).await);
    let edge = stack.edge((&stack.a, &source), (&stack.b, &target), json!({"ttl_seconds": 60})).await;
    stack.clock.as_ref().unwrap().advance(Duration::from_mins(1));
    let inbound = stack.call(&stack.b.bearer, "GET", &format!("/delegations/inbound/{target}"), None).await;
    assert_eq!(inbound.body["items"][0]["status"], "expired");
    assert_eq!(stack.call(&stack.a.bearer, "GET", "/delegations/active", None).await.body["items"], json!([]));
    assert_eq!(stack.call(&stack.a.bearer, "PATCH", &format!("/delegations/{edge}/revoke"), None).await.status, 404);
}

#[tokio::test]
async fn a_session_holds_so_many_offers_and_no_more() {
    let stack = timed(&[]).await;
    let (source, target) = (stack.session(&stack.a, json!({})).await, stack.session(&stack.b, json!({})).await);
    for _ in 0..64 {
        stack.edge((&stack.a, &source), (&stack.b, &target), json!({})).await;
    }
    let answer = stack.delegate((&stack.a, &source), (&stack.b, &target), json!({})).await;
    assert_eq!(answer.refused(), (429, "delegation_offer_limit_exceeded"));
}

#[tokio::test]
async fn the_same_key_makes_one_edge() {
    for stack in stacks().await {
        let (source, target) = (stack.session(&stack.a, json!({})).await, stack.session(&stack.b, json!({})).await);
        let send = |scopes: Value| {
            let body = json!({"source_session_id": source, "target_session_id": target, "issuer_application_id": stack.a.id,
                "receiver_application_id": stack.b.id, "resource_id": "resource://ledger", "scopes": scopes, "ttl_seconds": 600});
            let stack = &stack;
            async move { stack.call_with(&stack.a.bearer, "POST", "/delegations", Some(body), &[("idempotency-key", "k")]).await }
        };
        let first = send(json!(["b", "a"])).await;
        assert_eq!((first.status, first.header("idempotency-replayed")), (201, None), "{}", first.text);
        let again = send(json!(["a", "b"])).await;
        assert_eq!((again.header("idempotency-replayed"), &again.text), (Some("true"), &first.text), "scopes are a set");
        assert_eq!(send(json!(["a"])).await.refused(), (409, "idempotency_key_conflict"));
        let id = first.body["delegation_edge_id"].as_str().unwrap();
        stack.call(&stack.a.bearer, "PATCH", &format!("/delegations/{id}/revoke"), None).await;
        assert_eq!(send(json!(["a", "b"])).await.refused(), (409, "idempotency_result_inactive"));
    }
}

#[tokio::test]
async fn edge_lists_page_and_belong_to_who_sees_them() {
    for stack in stacks().await {
        let (source, target) = (stack.session(&stack.a, json!({})).await, stack.session(&stack.b, json!({})).await);
        let mut two = Vec::new();
        for _ in 0..2 {
            two.push(stack.edge((&stack.a, &source), (&stack.b, &target), json!({})).await);
        }
        // Where time stands still, ids of one moment are in no order.
        two.sort();
        let [first, second] = [&two[0], &two[1]];
        let page = stack.call(&stack.b.bearer, "GET", &format!("/delegations/inbound/{target}?limit=1"), None).await;
        assert_eq!((&page.body["items"][0]["id"], &page.body["next_cursor"]), (&json!(second), &json!(second)));
        let rest =
            stack.call(&stack.b.bearer, "GET", &format!("/delegations/inbound/{target}?limit=1&cursor={second}"), None).await;
        assert_eq!(rest.body["items"][0]["id"], json!(first));
        let bare = stack.call(OPERATOR, "GET", &format!("/delegations/outbound/{source}"), None).await;
        assert_eq!(bare.body.as_array().map(Vec::len), Some(2), "{}", bare.text);
        for path in [format!("/delegations/inbound/{source}"), format!("/delegations/outbound/{source}")] {
            assert_eq!(stack.call(&stack.b.bearer, "GET", &path, None).await.refused(), (404, "session_not_found"), "{path}");
        }
        let nobody = stack.world.mint::<caracal_core::id::DelegationId>();
        let own = stack.session(&stack.a, json!({})).await;
        let hidden = stack.edge((&stack.a, &source), (&stack.a, &own), json!({})).await;
        for cursor in ["x".to_owned(), nobody.to_string(), hidden] {
            let answer = stack.call(&stack.b.bearer, "GET", &format!("/delegations/inbound/{target}?cursor={cursor}"), None).await;
            assert_eq!(answer.refused(), (400, "invalid_cursor"), "{cursor}");
        }
    }
}
