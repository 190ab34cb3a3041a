//! What is minted, for whom and how long (`sts.md` 3.1, 3.2, 3.4, 3.7, 5, 6, 7, 8.1, 9.2; acceptance 1 to 4, 27 to 42, 106 to 109).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use caracal_core::id::{DelegationId, SessionId};
use caracal_store::coordination::cascade::{self, Manner};
use caracal_store::management::{Object as _, Resource, Zone};
use serde_json::{Value, json};
use support::{ACCESS_TOKEN, ISSUER, LEDGER, NOTES, PAYROLL, Stack, VAULT, stacks, timed};

const EDGE: (u16, &str, &str) = (403, "access_denied", "delegation_not_usable");
const SESSION: (u16, &str, &str) = (403, "access_denied", "session_not_usable");
const RECORD: (u16, &str, &str) = (403, "access_denied", "authority_record_not_usable");
const LIFECYCLE: (&str, &str) = ("scope", "agent:lifecycle");

async fn end(stack: &Stack, session: SessionId) {
    let zone = stack.zone;
    stack
        .write(zone, move |door| {
            Box::pin(
                async move { cascade::end_sessions(door, zone, &[session], Manner::Terminated, "test", "r").await.map(|_| ()) },
            )
        })
        .await;
}

async fn revoke(stack: &Stack, edge: DelegationId) {
    let zone = stack.zone;
    stack.write(zone, move |door| Box::pin(async move { cascade::revoke_edge(door, zone, edge, "r").await.map(|_| ()) })).await;
}

#[tokio::test]
async fn a_bootstrap_is_a_session_mandate() {
    for stack in stacks().await {
        let answer = stack.bootstrap().await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!((answer.header("cache-control"), answer.header("pragma")), (Some("no-store"), Some("no-cache")));
        let members: Vec<&String> = answer.body.as_object().unwrap().keys().collect();
        assert_eq!(members, ["access_token", "expires_in", "issued_token_type", "scope", "target_resources", "token_type"]);
        let claims = answer.claims();
        let names: Vec<&String> = claims.as_object().unwrap().keys().collect();
        assert_eq!(
            names,
            [
                "aud",
                "client_id",
                "exp",
                "iat",
                "iss",
                "jti",
                "root_sid",
                "scope",
                "sid",
                "sub",
                "sub_type",
                "target",
                "use",
                "zone_id"
            ]
        );
        assert_eq!(claims["aud"], json!([ISSUER]));
        assert_eq!(
            (&claims["use"], &claims["sub_type"], &claims["scope"]),
            (&json!("session"), &json!("application"), &json!("agent:lifecycle"))
        );
        assert_eq!((&claims["sub"], &claims["client_id"]), (&json!(stack.app.id), &json!(stack.app.id)));
        assert_eq!((&claims["root_sid"], &claims["target"]), (&claims["sid"], &json!([LEDGER])));
        let header = jsonwebtoken::decode_header(answer.token()).unwrap();
        assert_eq!((header.alg, header.typ.as_deref()), (jsonwebtoken::Algorithm::ES256, Some("JWT")));
        let jwks = stack.get(&format!("/.well-known/jwks.json?zone_id={}", stack.zone)).await;
        assert_eq!(jwks.body["keys"][0]["kid"], header.kid.unwrap());
    }
}

#[tokio::test]
async fn a_bootstrap_names_what_is_owned_and_drops_the_rest() {
    for stack in stacks().await {
        let answer = stack.exchange(&[LIFECYCLE, ("resource", PAYROLL), ("resource", NOTES), ("resource", LEDGER)]).await;
        assert_eq!(answer.body["target_resources"], json!([LEDGER, NOTES]));
        let only = stack.exchange(&[LIFECYCLE, ("resource", PAYROLL)]).await;
        assert_eq!(only.refused(), (403, "access_denied", "no_rule_matched"));
        assert_eq!((only.description(), &only.body["refusal"]["ask"]), ("policy denied (no_rule_matched)", &json!("operator")));
        let vault = stack.exchange(&[LIFECYCLE, ("resource", VAULT)]).await;
        assert_eq!(vault.refused().2, "scope_mismatch", "the lifecycle scope goes with an upstream");
        for scope in ["agent:lifecycle ledger:read", "ledger:read", "", "agent:Lifecycle"] {
            let answer = stack.exchange(&[("scope", scope), ("resource", LEDGER)]).await;
            assert_eq!(answer.status, 403, "{scope}: {}", answer.text);
            answer.refused();
        }
    }
}

#[tokio::test]
async fn a_delegated_mint_carries_its_path() {
    for stack in stacks().await {
        let (session, edge) = stack.delegated("ledger:read ledger:post").await;
        let answer = stack.mint(session, edge, "ledger:read").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(answer.body.get("upstreams").is_none());
        let claims = answer.claims();
        assert_eq!(
            (&claims["use"], &claims["aud"], &claims["scope"]),
            (&json!("gateway"), &json!([ISSUER]), &json!("ledger:read"))
        );
        assert_eq!((&claims["agent_session_id"], &claims["delegation_edge_id"]), (&json!(session), &json!(edge)));
        assert_eq!((&claims["target_session_id"], &claims["delegation_path"]), (&json!(session), &json!([edge])));
        assert_eq!((&claims["hop_count"], &claims["delegation_graph_epoch"]), (&json!(1), &json!(1)));
        let chain = claims["delegation_chain"].as_array().unwrap();
        assert_eq!(
            chain[0],
            json!({"application_id": stack.app.id, "agent_session_id": claims["source_session_id"], "delegation_edge_id": edge})
        );
        assert_eq!(chain[1], json!({"application_id": stack.app.id, "agent_session_id": session}));
        assert_eq!((chain.len(), &claims["root_sid"]), (2, &claims["sid"]));
    }
}

#[tokio::test]
async fn scopes_beyond_the_edge_are_refused_before_policy() {
    for stack in stacks().await {
        let (session, edge) = stack.delegated("ledger:read").await;
        let answer = stack.mint(session, edge, "ledger:read ledger:post").await;
        assert_eq!(answer.refused(), (403, "access_denied", "delegation_scope_exceeded"));
        let refusal = &answer.body["refusal"];
        assert_eq!((&refusal["scopes"], &refusal["ask"]), (&json!(["ledger:post"]), &json!("delegator")));
        assert!(refusal["enough"].as_array().unwrap().contains(&json!({"kind": "scope", "scopes": ["ledger:read"]})));
    }
}

#[tokio::test]
async fn edge_and_session_must_be_the_callers_and_belong_together() {
    for stack in stacks().await {
        let (session, edge) = stack.delegated("ledger:read").await;
        let stray = stack.session(&stack.app, &["clerk"]).await;
        assert_eq!(stack.mint(stray, edge, "ledger:read").await.refused(), EDGE, "another Session");
        let (s, e) = (session.to_string(), edge.to_string());
        let form = [("agent_session_id", s.as_str()), ("delegation_edge_id", &e), ("scope", "ledger:read"), ("resource", LEDGER)];
        assert_eq!(stack.exchange_of(&stack.other, &form).await.refused(), EDGE, "another application");
        assert_eq!(stack.exchange(&form[1..]).await.refused(), EDGE, "an edge without its Session");
        for nonsense in ["x", "00000000-0000-7000-8000-000000000000"] {
            assert_eq!(stack.exchange(&[form[0], ("delegation_edge_id", nonsense), form[2], form[3]]).await.refused(), EDGE);
            assert_eq!(stack.exchange(&[("agent_session_id", nonsense), form[1], form[2], form[3]]).await.refused(), EDGE);
            assert_eq!(stack.exchange(&[("agent_session_id", nonsense), form[2], form[3]]).await.refused(), SESSION);
            assert_eq!(stack.exchange(&[("session_id", nonsense), LIFECYCLE, form[3]]).await.refused(), RECORD);
        }
        let own = stack.exchange(&[form[0], form[2], form[3]]).await;
        assert_eq!(own.refused(), (403, "access_denied", "no_rule_matched"), "a Session without an edge grants nothing");
        assert_eq!(own.body["refusal"]["ask"], "self");
    }
}

#[tokio::test]
async fn what_is_over_mints_nothing() {
    for stack in stacks().await {
        let (session, edge) = stack.delegated("ledger:read").await;
        assert_eq!(stack.mint(session, edge, "ledger:read").await.status, 200);
        revoke(&stack, edge).await;
        let answer = stack.mint(session, edge, "ledger:read").await;
        assert_eq!((answer.refused(), &answer.body["refusal"]["state"]), (EDGE, &json!("revoked")));
        let (session, edge) = stack.delegated("ledger:read").await;
        let source = { stack.mint(session, edge, "ledger:read").await.read_claims().delegated.unwrap().source_session_id };
        end(&stack, source).await;
        assert_eq!(stack.mint(session, edge, "ledger:read").await.refused(), EDGE, "its source has ended");
        let (session, edge) = stack.delegated("ledger:read").await;
        end(&stack, session).await;
        assert_eq!(stack.mint(session, edge, "ledger:read").await.refused(), EDGE, "its target has ended");
        let (session, edge) =
            stack.delegated_with("ledger:read", &["clerk"], |a| a.expires_at = a.expires_at.minus_secs(700)).await;
        assert_eq!(stack.mint(session, edge, "ledger:read").await.refused(), EDGE, "lapsed");
    }
}

#[tokio::test]
async fn a_record_that_is_named_must_be_the_callers_and_live() {
    for stack in stacks().await {
        let claims = stack.bootstrap().await.claims();
        let own = claims["sid"].as_str().unwrap().to_owned();
        assert_eq!(stack.exchange(&[LIFECYCLE, ("resource", LEDGER), ("session_id", &own)]).await.status, 200);
        let form = [LIFECYCLE, ("resource", PAYROLL), ("session_id", own.as_str())];
        assert_eq!(stack.exchange_of(&stack.other, &form).await.refused(), RECORD, "somebody else's");
    }
}

#[tokio::test]
async fn a_lifetime_is_cut_by_everything_it_stands_on() {
    let stack = timed().await;
    let clock = stack.clock.clone().unwrap();
    let (session, edge) = stack.delegated_with("ledger:read", &["clerk"], |a| a.expires_at = a.expires_at.minus_secs(500)).await;
    assert_eq!(stack.mint(session, edge, "ledger:read").await.body["expires_in"], 100, "the edge ends");
    let (session, edge) = stack.delegated_with("ledger:read", &["clerk"], |a| a.constraints.ttl_seconds = Some(120)).await;
    let ttl = |ttl: &'static str| [("scope", "ledger:read"), ("resource", LEDGER), ("ttl_seconds", ttl)];
    assert_eq!(stack.mint_with(session, edge, &ttl("121")).await.refused(), (403, "access_denied", "ttl_exceeds_delegation"));
    assert_eq!(stack.mint_with(session, edge, &ttl("120")).await.body["expires_in"], 120);
    assert_eq!(stack.mint(session, edge, "ledger:read").await.body["expires_in"], 120, "the default is cut");
    let source = stack.session(&stack.app, &[]).await;
    let target = stack.session_of(&stack.app, &["clerk"], 60).await;
    let edge = stack.edge((&stack.app, source), (&stack.app, target), stack.authority("ledger:read").await).await;
    assert_eq!(stack.mint(target, edge, "ledger:read").await.body["expires_in"], 60, "the Session ends");
    clock.advance(Duration::from_secs(59));
    assert_eq!(stack.mint(target, edge, "ledger:read").await.body["expires_in"], 1);
    clock.advance(Duration::from_secs(1));
    assert_eq!(stack.mint(target, edge, "ledger:read").await.refused(), EDGE, "nobody had to sweep");
    let above = stack.session_of(&stack.app, &[], 60).await;
    let target = stack.session(&stack.app, &["clerk"]).await;
    let edge = stack.edge((&stack.app, above), (&stack.app, target), stack.authority("ledger:read").await).await;
    assert_eq!(stack.mint(target, edge, "ledger:read").await.body["expires_in"], 60, "a Session above ends");
    let (session, edge) =
        stack.delegated_with("ledger:read", &["clerk"], |a| a.constraints.expires_at = Some("2026-09-21T14:14:50Z".into())).await;
    let answer = stack.mint(session, edge, "ledger:read").await;
    assert!(answer.body["expires_in"].as_i64().is_some_and(|n| (1..=90).contains(&n)), "{}", answer.text);
}

#[tokio::test]
async fn a_budget_counts_mints_along_the_whole_path() {
    for stack in stacks().await {
        let budget = |n: i64| move |a: &mut caracal_core::constraint::Authority| a.constraints.budget = Some(n);
        let (middle, parent) = stack.delegated_with("ledger:read", &["clerk"], budget(3)).await;
        let mut leaves = Vec::new();
        for _ in 0..2 {
            let leaf = stack.session(&stack.app, &["clerk"]).await;
            let mut authority = stack.authority("ledger:read").await;
            authority.constraints.budget = Some(2);
            authority.constraints.max_hops = None;
            leaves.push((leaf, stack.edge_below(Some(parent), (&stack.app, middle), (&stack.app, leaf), authority).await));
        }
        let refused = stack.mint_with(leaves[0].0, leaves[0].1, &[("scope", "notes:read"), ("resource", LEDGER)]).await;
        assert_eq!(refused.status, 403, "and counts nothing");
        let minted = futures_of(&stack, &leaves).await;
        assert_eq!(minted, 3, "{}", stack.backend);
        let answer = stack.mint(leaves[0].0, leaves[0].1, "ledger:read").await;
        assert_eq!(answer.refused(), (403, "access_denied", "delegation_budget_exhausted"));
        assert_eq!((answer.description(), answer.header("retry-after")), ("delegation budget exhausted", None));
        let told = stack.evidence().await;
        let event = told.iter().rfind(|e| e["evaluation_status"] == "delegation_budget_exhausted").expect("evidence of it");
        let metadata = &event["metadata_json"];
        assert_eq!(metadata["delegation_edge_id"], json!(parent), "the exhausted edge nearest the root: {metadata}");
        assert_eq!((&metadata["delegation_budget"], &metadata["delegation_budget_spent"]), (&json!(3), &json!(3)));
    }
}

#[tokio::test]
async fn a_mint_that_loses_the_last_budget_in_its_commit_is_evidenced() {
    for stack in stacks().await {
        let (session, edge) = stack.delegated_with("ledger:read", &["clerk"], |a| a.constraints.budget = Some(1)).await;
        assert_eq!(stack.mint(session, edge, "notes:read").await.status, 403, "the edge is remembered as it is: unspent");
        stack
            .write(stack.zone, move |door| {
                Box::pin(async move {
                    door.execute("UPDATE delegations SET budget_spent = 1 WHERE id = $1", vec![caracal_store::Value::id(edge)])
                        .await
                        .map(|_| ())
                })
            })
            .await;
        let answer = stack.mint(session, edge, "ledger:read").await;
        assert_eq!(answer.refused(), (403, "access_denied", "delegation_budget_exhausted"), "{}", stack.backend);
        let told = stack.evidence().await;
        let of_it: Vec<_> = told.iter().filter(|e| e["evaluation_status"] == "delegation_budget_exhausted").collect();
        assert_eq!(of_it.len(), 1, "{}: {told:?}", stack.backend);
        assert_eq!((&of_it[0]["event_type"], &of_it[0]["decision"]), (&json!("token_exchange"), &json!("deny")));
        let metadata = &of_it[0]["metadata_json"];
        assert_eq!(metadata["delegation_edge_id"], json!(edge));
        assert_eq!((&metadata["delegation_budget"], &metadata["delegation_budget_spent"]), (&json!(1), &json!(1)));
    }
}

/// Eight mints at once over two edges; how many came through.
async fn futures_of(stack: &Stack, leaves: &[(SessionId, DelegationId)]) -> usize {
    let mints = (0..8).map(|i| {
        let (session, edge) = leaves[i % 2];
        async move { stack.mint(session, edge, "ledger:read").await.status }
    });
    let statuses = futures::future::join_all(mints).await;
    assert!(statuses.iter().all(|s| matches!(s, 200 | 403)), "{statuses:?}");
    statuses.into_iter().filter(|s| *s == 200).count()
}

#[tokio::test]
async fn every_edge_of_a_path_narrows() {
    for stack in stacks().await {
        let (root, middle, leaf) = (
            stack.session(&stack.app, &[]).await,
            stack.session(&stack.other, &[]).await,
            stack.session(&stack.app, &["clerk"]).await,
        );
        let first = stack.edge((&stack.app, root), (&stack.other, middle), stack.authority("ledger:read").await).await;
        let below = stack
            .edge_below(Some(first), (&stack.other, middle), (&stack.app, leaf), stack.authority("ledger:read ledger:post").await)
            .await;
        let answer = stack.mint(leaf, below, "ledger:read").await;
        assert_eq!(answer.claims()["hop_count"], 2, "{}", answer.text);
        assert_eq!(answer.claims()["delegation_path"], json!([first, below]));
        assert_eq!(
            stack.mint(leaf, below, "ledger:post").await.refused().2,
            "delegation_scope_exceeded",
            "the root has not got it"
        );
        revoke(&stack, first).await;
        assert_eq!(stack.mint(leaf, below, "ledger:read").await.refused(), EDGE, "a link above is gone");
    }
}

#[tokio::test]
async fn a_path_has_at_most_ten_edges() {
    for stack in stacks().await {
        let (mut session, mut parent) = (stack.session(&stack.app, &["clerk"]).await, None);
        for length in 1..=11 {
            let next = stack.session(&stack.app, &["clerk"]).await;
            let edge =
                stack.edge_below(parent, (&stack.app, session), (&stack.app, next), stack.authority("ledger:read").await).await;
            (session, parent) = (next, Some(edge));
            if length >= 10 {
                let answer = stack.mint(session, edge, "ledger:read").await;
                if length == 10 {
                    assert_eq!(answer.status, 200, "{}", answer.text);
                    assert!((4096..8192).contains(&answer.token().len()));
                    assert_eq!(stack.gateway(&answer.token(), &[]).await.status, 200);
                } else {
                    assert_eq!(answer.refused(), EDGE);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_resource_outside_the_edge_is_refused_and_one_of_many_is_dropped() {
    for stack in stacks().await {
        let (session, edge) = stack.delegated("ledger:read notes:read").await;
        let answer = stack.mint_with(session, edge, &[("scope", "notes:read"), ("resource", NOTES)]).await;
        assert_eq!(answer.refused(), (403, "access_denied", "resource_outside_delegation"));
        let mixed = stack.mint_with(session, edge, &[("scope", "ledger:read"), ("resource", NOTES), ("resource", LEDGER)]).await;
        assert_eq!(mixed.body["target_resources"], json!([LEDGER]), "{}", mixed.text);
    }
}

#[tokio::test]
async fn roles_confinement_restriction_and_classes_decide() {
    for stack in stacks().await {
        let policy = support::policy(stack.app.id, stack.other.id);
        let (auditor, edge) = stack.delegated_with("ledger:read ledger:post", &["auditor"], |_| {}).await;
        let answer = stack.mint(auditor, edge, "ledger:post").await;
        assert_eq!(answer.refused(), (403, "access_denied", "role_scope_mismatch"));
        assert_eq!(answer.body["refusal"]["document"], "grants");
        assert_eq!(answer.body["refusal"]["enough"], json!([{"kind": "role", "labels": ["clerk"]}]));
        let more = |text: &str| vec![format!("{policy}{text}\n")];
        let (clerk, edge) = stack.delegated_with("ledger:read ledger:post", &["clerk", "customer:x"], |_| {}).await;
        let steps = [
            (r#"confinement := [{"label_prefix": "customer:", "scopes": ["ledger:read"]}]"#, "confinement_violation"),
            (r#"restrict := {"frozen"}"#, "restriction_active"),
            ("risk := {}", "malformed_risk_data"),
            ("approval_tiers := 5", "malformed_approval_data"),
            (r#"restrict contains "x" if input.principal.lifecycle == "task""#, "restriction_active"),
        ];
        for (text, reason) in steps {
            stack.activate(&more(text)).await;
            let answer = stack.mint(clerk, edge, "ledger:post").await;
            assert_eq!(answer.refused(), (403, "access_denied", reason), "{text}");
            assert_eq!(answer.description(), format!("policy denied ({reason})"));
        }
        stack.activate(&more(r#"risk := [{"scope": "ledger:post", "tier": "a"}, {"scope": "ledger:post", "tier": "b"}]"#)).await;
        assert_eq!(stack.mint(clerk, edge, "ledger:post").await.refused(), (503, "policy_eval_failed", "unavailable"));
        stack.quiet.announced("classified two ways");
        stack.activate(&more(r#"risk := [{"scope": "ledger:post", "tier": "money"}]"#)).await;
        assert_eq!(stack.mint(clerk, edge, "ledger:post").await.status, 200, "classified and not gated");
        stack
            .activate(&more(
                r#"risk := [{"scope": "ledger:post", "tier": "m"}]
approval_tiers := [{"tier": "m"}]"#,
            ))
            .await;
        assert_eq!(stack.mint(clerk, edge, "ledger:post").await.refused().2, "approval_required", "a gate is no allow");
        stack.activate(&[policy]).await;
        assert_eq!(stack.mint(clerk, edge, "ledger:post").await.status, 200, "the next request follows the next policy");
    }
}

#[tokio::test]
async fn a_mint_budget_skips_a_resource_and_answers_when_all_are_skipped() {
    let stack = Stack::on(caracal_testkit::sqlite(), &[("STS_MINT_RATE_LIMIT_PER_MIN", "2")]).await;
    let both = [("resource", LEDGER), ("resource", NOTES)];
    for _ in 0..2 {
        assert_eq!(stack.bootstrap().await.status, 200);
    }
    let answer = stack.bootstrap().await;
    assert_eq!(answer.refused(), (429, "provider_rate_limited", "rate_limited"));
    assert_eq!(answer.header("retry-after"), Some("60"));
    let mixed = stack.exchange(&[LIFECYCLE, both[0], both[1]]).await;
    assert_eq!(mixed.body["target_resources"], json!([NOTES]), "another resource has its own: {}", mixed.text);
    assert!(stack.evidence().await.iter().any(|e| e["evaluation_status"] == "rate_limited"));
    for _ in 0..3 {
        assert_eq!(stack.exchange(&[LIFECYCLE, ("resource", PAYROLL)]).await.status, 403, "what it may not know counts nothing");
    }
    stack.clock.as_ref().unwrap().advance(Duration::from_mins(1));
    assert_eq!(stack.bootstrap().await.status, 200);
}

#[tokio::test]
async fn a_mandate_is_not_presented_here() {
    for stack in stacks().await {
        let session = stack.bootstrap().await.token();
        let present = |token: String| {
            let stack = &stack;
            async move {
                let more = [
                    ("subject_token", token.as_str()),
                    ("subject_token_type", ACCESS_TOKEN),
                    ("resource", LEDGER),
                    ("scope", "ledger:read"),
                ];
                stack.exchange(&more).await
            }
        };
        assert_eq!(present(session).await.refused(), (403, "access_denied", "gateway_required"));
        let (gateway, _) = stack.mandate("ledger:read").await;
        assert_eq!(present(gateway.clone()).await.refused(), (401, "invalid_token", "subject_token_invalid"));
        let resource = stack.gateway(&gateway, &[]).await.token();
        assert_eq!(present(resource).await.refused(), (401, "invalid_token", "subject_token_invalid"));
    }
}

#[tokio::test]
async fn what_a_later_release_brings_is_refused_and_never_half_done() {
    for stack in stacks().await {
        let federate = |more: &[(&'static str, &'static str)]| {
            let mut all = vec![("subject_token", "x.y.z"), ("subject_token_type", support::ID_TOKEN)];
            all.extend(more);
            all
        };
        assert_eq!(stack.exchange(&federate(&[])).await.refused(), (401, "invalid_token", "subject_federation_rejected"));
        for extra in [("resource", LEDGER), ("scope", "a"), ("approval_id", "x"), ("session_id", "x"), ("bind_method", "GET")] {
            assert_eq!(
                stack.exchange(&federate(&[extra])).await.refused(),
                (400, "invalid_token", "request_malformed"),
                "{extra:?}"
            );
        }
        let approval = stack.exchange(&[LIFECYCLE, ("resource", LEDGER), ("approval_id", "x")]).await;
        assert_eq!(approval.refused(), (401, "access_denied", "approval_invalid"));
        let bound = stack.exchange(&[LIFECYCLE, ("resource", LEDGER), ("bind_method", "GET")]).await;
        assert_eq!(bound.refused(), (400, "invalid_token", "request_malformed"));
    }
}

#[tokio::test]
async fn a_caller_cannot_tell_what_it_may_not_know_from_what_does_not_exist() {
    for stack in stacks().await {
        let (session, edge) = stack.delegated("ledger:read payroll:read").await;
        let (foreign, foreign_edge) = {
            let (source, target) = (stack.session(&stack.other, &[]).await, stack.session(&stack.other, &["clerk"]).await);
            (target, stack.edge((&stack.other, source), (&stack.other, target), stack.authority("payroll:read").await).await)
        };
        let nobody = (stack.world.mint::<SessionId>(), stack.world.mint::<DelegationId>());
        let same = |a: &support::Answer, b: &support::Answer, from: &str, to: &str| {
            let plain = |answer: &support::Answer| {
                let mut headers = answer.headers.clone();
                headers.remove("x-request-id");
                headers.remove("content-length");
                let mut body = answer.body.clone();
                body["requestId"] = Value::Null;
                (answer.status, headers, body.to_string().replace(from, "X").replace(to, "X"))
            };
            assert_eq!(plain(a), plain(b));
        };
        for scope in ["agent:lifecycle", "payroll:read", "undeclared:scope"] {
            let (known, missing) = (PAYROLL, "resource://no-such");
            let direct = [
                stack.exchange(&[("scope", scope), ("resource", known)]).await,
                stack.exchange(&[("scope", scope), ("resource", missing)]).await,
            ];
            same(&direct[0], &direct[1], known, missing);
            let delegated = [
                stack.mint_with(session, edge, &[("scope", "payroll:read"), ("resource", known)]).await,
                stack.mint_with(session, edge, &[("scope", "payroll:read"), ("resource", missing)]).await,
            ];
            same(&delegated[0], &delegated[1], known, missing);
        }
        let pair = [stack.mint(foreign, foreign_edge, "payroll:read").await, stack.mint(nobody.0, nobody.1, "payroll:read").await];
        same(&pair[0], &pair[1], "-", "-");
        let session = |id: String| {
            let stack = &stack;
            async move { stack.exchange(&[("agent_session_id", id.as_str()), ("scope", "ledger:read"), ("resource", LEDGER)]).await }
        };
        same(&session(foreign.to_string()).await, &session(nobody.0.to_string()).await, "-", "-");
        let bootstrap = stack.exchange_of(&stack.other, &[LIFECYCLE, ("resource", PAYROLL)]).await.claims();
        let record = |id: String| {
            let stack = &stack;
            async move { stack.exchange(&[("session_id", id.as_str()), LIFECYCLE, ("resource", LEDGER)]).await }
        };
        same(&record(bootstrap["sid"].as_str().unwrap().to_owned()).await, &record("no-such".to_owned()).await, "-", "-");
    }
}

#[tokio::test]
async fn an_archived_resource_is_like_none_at_once() {
    for stack in stacks().await {
        let (session, edge) = stack.delegated("ledger:read").await;
        assert_eq!(stack.mint(session, edge, "ledger:read").await.status, 200);
        let zone = stack.zone;
        stack
            .write(zone, move |door| {
                Box::pin(async move {
                    let row = Resource::by_identifier(door.tx(), zone, LEDGER).await?.expect("it is there");
                    Resource::archive(door, zone, row.id, "t").await
                })
            })
            .await;
        assert_eq!(stack.mint(session, edge, "ledger:read").await.status, 403);
        assert_eq!(stack.bootstrap().await.refused().2, "no_rule_matched");
    }
}

#[tokio::test]
async fn a_zone_without_policy_or_key_mints_nothing() {
    for stack in stacks().await {
        let (zone, foreign) = (stack.elsewhere.to_string(), &stack.foreign);
        let answer = stack.exchange_of(foreign, &[("zone_id", &zone), LIFECYCLE, ("resource", LEDGER)]).await;
        assert_eq!(answer.refused(), (403, "access_denied", "no_active_policy_set"));
        assert_eq!(answer.description(), "policy denied (no_active_policy_set)");
        let elsewhere = stack.elsewhere;
        stack.write(elsewhere, move |door| Box::pin(async move { Zone::archive(door, elsewhere, "t").await })).await;
        assert_eq!(stack.exchange_of(foreign, &[("zone_id", &zone), LIFECYCLE, ("resource", LEDGER)]).await.status, 401);
    }
}

#[tokio::test]
async fn a_grant_leaves_evidence_that_can_be_evaluated_again() {
    for stack in stacks().await {
        let (session, edge) = stack.delegated("ledger:read").await;
        stack.mint(session, edge, "ledger:read").await;
        let told = stack.evidence().await;
        let event = told.iter().find(|e| e["decision"] == "allow").expect("evidence of the mint");
        assert_eq!((&event["event_type"], &event["evaluation_status"]), (&json!("token_exchange"), &json!("complete")));
        assert_eq!(event["determining_policies_json"], json!([{"policy": "caracal-app-mint"}]));
        let metadata = &event["metadata_json"];
        for key in [
            "application_id",
            "application_name",
            "application_registration_method",
            "resource",
            "requested_scopes",
            "session_id",
            "agent_session_id",
            "delegation_edge_id",
            "subject_kind",
            "agent_lifecycle",
            "agent_labels",
            "agent_depth",
            "delegation_chain",
            "delegation_hop_count",
            "delegation_graph_epoch",
            "policy_input",
            "policy_input_sha256",
            "decision_contract_version",
            "decision_contract_sha",
        ] {
            assert!(metadata.get(key).is_some(), "{key}: {metadata}");
        }
        assert_eq!(metadata["policy_input"]["context"]["requested_scopes"], json!(["ledger:read"]));
        let text = told.iter().map(ToString::to_string).collect::<String>();
        assert!(!text.contains(&stack.app.secret) && !text.contains("eyJ"), "no secret and no token in evidence");
    }
}
