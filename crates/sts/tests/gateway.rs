//! The Gateway's own exchange, and the signature it stands on (`sts.md` 3.5, 6.1, 8.2, 11; acceptance 44 to 53, 55, 85, 106).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use caracal_core::id::DelegationId;
use caracal_store::coordination::cascade;
use caracal_store::management::{Object as _, Resource};
use serde_json::{Value, json};
use support::{ISSUER, LEDGER, NOTES, Stack, encode, stacks, timed};

const FAILED: (u16, &str, &str) = (401, "access_denied", "client_authentication_failed");

fn borrowed<'a>(headers: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    headers.iter().map(|(n, v)| (*n, v.as_str())).collect()
}

async fn ledger_with(
    stack: &Stack,
    kind: &'static str,
    config: Value,
    secrets: &[(&str, &str)],
    operations: &[(&str, &str, &str)],
) {
    let provider = stack.provider(kind, config, secrets).await;
    let zone = stack.zone;
    stack
        .write(zone, move |door| {
            Box::pin(async move {
                let row = Resource::by_identifier(door.tx(), zone, LEDGER).await?.expect("it is there");
                Resource::archive(door, zone, row.id, "t").await
            })
        })
        .await;
    stack.resource(LEDGER, Some("http://ledger.test/base"), &["ledger:read", "ledger:post"], Some(provider), operations).await;
}

#[tokio::test]
async fn a_gateway_mandate_becomes_a_resource_mandate_and_a_directive() {
    for stack in stacks().await {
        let (token, subject) = stack.mandate("ledger:read").await;
        let answer = stack.gateway(&token, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!((answer.header("cache-control"), answer.header("x-caracal-gateway-auth")), (Some("no-store"), None));
        let claims = answer.claims();
        assert_eq!((&claims["use"], &claims["aud"], &claims["target"]), (&json!("resource"), &json!([LEDGER]), &json!([LEDGER])));
        for kept in ["sub", "sub_type", "scope", "client_id", "zone_id", "agent_session_id", "delegation_edge_id", "root_sid"] {
            assert_eq!(claims[kept], subject[kept], "{kept}");
        }
        assert_ne!(claims["sid"], subject["sid"]);
        assert_ne!(claims["jti"], subject["jti"]);
        assert!(answer.body["expires_in"].as_i64().unwrap() <= 900);
        let directive = &answer.body["upstreams"][LEDGER];
        assert_eq!((&directive["url"], &directive["auth_mode"]), (&json!("http://ledger.test/base"), &json!("caracal_jwt")));
        assert_eq!((&directive["auth_header"], &directive["auth_scheme"]), (&json!("Authorization"), &json!("Bearer")));
        let ends = directive["authority_expires_at"].as_i64().unwrap();
        assert!(ends > claims["iat"].as_i64().unwrap(), "what was validated ends with the edge");
        assert!(!claims["aud"].as_array().unwrap().contains(&json!(ISSUER)), "the audiences are disjoint");
    }
}

#[tokio::test]
async fn a_nonce_is_used_once_and_only_by_who_can_sign() {
    for stack in stacks().await {
        let (token, _) = stack.mandate("ledger:read").await;
        let body = stack.gateway_form(&token, &[]);
        let headers = stack.signed(&body, "POST", "/oauth/2/token", 0);
        let mut forged = headers.clone();
        forged[3].1 = "00".repeat(32);
        assert_eq!(stack.raw(body.clone(), &borrowed(&forged)).await.refused(), FAILED);
        assert_eq!(stack.raw(body.clone(), &borrowed(&headers)).await.status, 200, "an attacker burns no nonce");
        let again = stack.raw(body, &borrowed(&headers)).await;
        assert_eq!(again.refused(), FAILED);
        assert_eq!(again.header("x-caracal-gateway-auth"), Some("failed"));
    }
}

#[tokio::test]
async fn a_signature_holds_for_a_minute_and_for_these_bytes() {
    for stack in stacks().await {
        let (token, _) = stack.mandate("ledger:read").await;
        let body = stack.gateway_form(&token, &[]);
        for (skew, good) in [(57, true), (-57, true), (62, false), (-62, false)] {
            let headers = stack.signed(&body, "POST", "/oauth/2/token", skew);
            assert_eq!(stack.raw(body.clone(), &borrowed(&headers)).await.status == 200, good, "{skew} s");
        }
        let upper = {
            let mut headers = stack.signed(&body, "POST", "/oauth/2/token", 0);
            headers[3].1 = headers[3].1.to_uppercase();
            headers
        };
        assert_eq!(stack.raw(body.clone(), &borrowed(&upper)).await.status, 200, "hex of either case");
        let mut changed = body.clone();
        changed.extend_from_slice(b"&x=1");
        let whole = stack.signed(&body, "POST", "/oauth/2/token", 0);
        let mut cases = vec![("another body", changed, whole.clone())];
        for (name, method, path) in [("another method", "GET", "/oauth/2/token"), ("another path", "POST", "/oauth/2/tokens")] {
            cases.push((name, body.clone(), stack.signed(&body, method, path, 0)));
        }
        for missing in 0..4 {
            let mut headers = stack.signed(&body, "POST", "/oauth/2/token", 0);
            headers.remove(missing);
            cases.push(("a header is missing", body.clone(), headers));
        }
        for (at, value) in [(1, "soon"), (1, ""), (2, ""), (3, "zz"), (3, "")] {
            let mut headers = stack.signed(&body, "POST", "/oauth/2/token", 0);
            headers[at].1 = value.to_owned();
            cases.push(("a header is nonsense", body.clone(), headers));
        }
        for id in ["another", "-", ""] {
            let body = stack.gateway_form(&token, &[("gateway_request_id", id)]);
            let headers = stack.signed(&body, "POST", "/oauth/2/token", 0);
            cases.push(("another request id", body, headers));
        }
        for (name, body, headers) in cases {
            let answer = stack.raw(body, &borrowed(&headers)).await;
            assert_eq!(answer.refused(), FAILED, "{name}");
            assert_eq!(answer.header("x-caracal-gateway-auth"), Some("failed"), "{name}");
        }
    }
}

#[tokio::test]
async fn one_stray_header_of_the_gateway_is_no_fall_back_to_a_secret() {
    for stack in stacks().await {
        let form = encode(&stack.form(&[("scope", "agent:lifecycle"), ("resource", LEDGER)]));
        for name in ["x-caracal-gateway-timestamp", "x-caracal-gateway-request", "x-caracal-gateway-signature"] {
            assert_eq!(stack.raw(form.clone(), &[(name, "1")]).await.refused(), FAILED, "{name}");
            assert_eq!(
                stack.raw("grant_type=x", &[(name, "1")]).await.refused(),
                FAILED,
                "before the rest of the form is looked at"
            );
            assert_eq!(stack.raw("ttl_seconds=x", &[(name, "1")]).await.refused().0, 400, "after what comes before it");
        }
    }
}

#[tokio::test]
async fn a_signed_call_presents_a_gateway_mandate_and_nothing_else() {
    for stack in stacks().await {
        let session = stack.bootstrap().await.token();
        let (token, _) = stack.mandate("ledger:read").await;
        let resource = stack.gateway(&token, &[]).await.token();
        for (name, more) in [
            ("nothing", vec![("subject_token", "-"), ("subject_token_type", "-")]),
            ("an identity token", vec![("subject_token_type", support::ID_TOKEN)]),
        ] {
            let answer = stack.gateway(&token, &more).await;
            assert_eq!(answer.refused(), FAILED, "{name}");
            assert_eq!(answer.header("x-caracal-gateway-auth"), None, "the signature was good: {name}");
        }
        for (name, other) in [("a session mandate", &session), ("a resource mandate", &resource)] {
            assert_eq!(stack.gateway(other, &[]).await.refused(), (401, "invalid_token", "subject_token_invalid"), "{name}");
        }
        let two = {
            let mut body = stack.gateway_form(&token, &[]);
            body.extend_from_slice(b"&resource=resource%3A%2F%2Fnotes");
            let headers = stack.signed(&body, "POST", "/oauth/2/token", 0);
            stack.raw(body, &borrowed(&headers)).await
        };
        assert_eq!(two.refused(), (400, "invalid_token", "request_malformed"));
    }
}

#[tokio::test]
async fn what_the_form_names_must_be_what_the_mandate_names() {
    for stack in stacks().await {
        let (token, claims) = stack.mandate("ledger:read").await;
        let text = |claim: &str| claims[claim].as_str().unwrap().to_owned();
        let (sid, session, edge) = (text("sid"), text("agent_session_id"), text("delegation_edge_id"));
        for (field, own) in [("session_id", &sid), ("agent_session_id", &session), ("delegation_edge_id", &edge)] {
            assert_eq!(stack.gateway(&token, &[(field, own)]).await.status, 200, "{field}");
            for other in [&stack.world.mint::<DelegationId>().to_string(), "nonsense"] {
                let answer = stack.gateway(&token, &[(field, other)]).await;
                assert_eq!((answer.status, answer.refused().1), (403, "access_denied"), "{field} {other}");
            }
        }
        let (zone, app) = (stack.elsewhere.to_string(), stack.other.id.to_string());
        assert_eq!(stack.gateway(&token, &[("zone_id", &zone)]).await.refused().0, 401, "another zone");
        assert_eq!(stack.gateway(&token, &[("application_id", &app)]).await.refused().0, 403, "another application");
    }
}

#[tokio::test]
async fn a_revocation_stops_the_next_exchange() {
    for stack in stacks().await {
        let (token, claims) = stack.mandate("ledger:read").await;
        assert_eq!(stack.gateway(&token, &[]).await.status, 200);
        let (zone, edge): (_, DelegationId) = (stack.zone, claims["delegation_edge_id"].as_str().unwrap().parse().unwrap());
        stack.write(zone, move |door| Box::pin(async move { cascade::revoke_edge(door, zone, edge, "r").await.map(|_| ()) })).await;
        assert_eq!(stack.gateway(&token, &[]).await.refused(), (403, "access_denied", "delegation_not_usable"));
    }
}

#[tokio::test]
async fn policy_is_asked_again_with_what_the_mandate_carries() {
    for stack in stacks().await {
        let (token, _) = stack.mandate("ledger:read ledger:post").await;
        let policy = support::policy(stack.app.id, stack.other.id);
        let steps = [
            (policy.replace(r#"["ledger:read","ledger:post"]"#, r#"["ledger:read"]"#), "role_scope_mismatch"),
            (policy.replace("resource://ledger", "resource://elsewhere"), "resource_not_granted"),
            (format!("{policy}restrict := {{1}}\n"), "restriction_active"),
        ];
        for (text, reason) in steps {
            stack.activate(&[text]).await;
            assert_eq!(stack.gateway(&token, &[]).await.refused(), (403, "access_denied", reason));
        }
        stack.activate(&[policy]).await;
        assert_eq!(stack.gateway(&token, &[]).await.status, 200);
        let other = stack.gateway(&token, &[("resource", NOTES)]).await;
        assert_eq!(other.status, 403);
        assert_ne!(other.refused().2, "no_rule_matched", "it knows the resource, and not for this mandate");
        let unknown = stack.gateway(&token, &[("resource", "resource://no-such")]).await;
        assert_eq!(unknown.refused(), (403, "access_denied", "mandate_target_mismatch"));
    }
}

#[tokio::test]
async fn declared_operations_are_a_floor() {
    for stack in stacks().await {
        let operations = [("GET", "/items", "ledger:read"), ("POST", "/items", "ledger:post")];
        ledger_with(&stack, "none", json!({}), &[], &operations).await;
        let (token, _) = stack.mandate("ledger:read").await;
        let call = |method: &'static str, path: &'static str| {
            let (stack, token) = (&stack, &token);
            async move { stack.gateway(token, &[("request_method", method), ("request_path", path)]).await }
        };
        for method in ["GET", "get", " get "] {
            assert_eq!(call(method, "/items").await.status, 200, "{method}");
        }
        for (method, path, ask) in
            [("POST", "/items", "self"), ("GET", "/items/", "operator"), ("GET", "/ITEMS", "operator"), ("", "", "operator")]
        {
            let answer = call(method, path).await;
            assert_eq!(answer.refused(), (403, "operation_not_permitted", "operation_not_permitted"), "{method} {path}");
            assert_eq!(answer.body["refusal"]["ask"], ask);
        }
        let (session, edge) = stack.delegated("ledger:post").await;
        let mint = stack.mint_with(session, edge, &[("scope", "ledger:post"), ("resource", LEDGER), ("request_method", "X")]).await;
        assert_eq!(mint.status, 200, "operations are not read from anybody else: {}", mint.text);
    }
}

#[tokio::test]
async fn each_kind_of_provider_has_its_directive() {
    for stack in stacks().await {
        let rows = [
            ("none", json!({}), vec![], json!({"auth_mode": "none"})),
            (
                "caracal_mandate",
                json!({}),
                vec![],
                json!({"auth_mode": "caracal_jwt", "auth_header": "Authorization", "auth_scheme": "Bearer"}),
            ),
            (
                "api_key",
                json!({"header_name": "X-Api-Key", "allowed_token_hosts": ["ledger.test"]}),
                vec![("api_key", "canary")],
                json!({"auth_mode": "provider_apikey", "auth_location": "header", "auth_header": "X-Api-Key",
                    "allowed_token_hosts": ["ledger.test"], "provider_token": "canary"}),
            ),
            (
                "api_key",
                json!({"auth_location": "query", "query_param_name": "key"}),
                vec![("api_key", "canary")],
                json!({"auth_mode": "provider_apikey", "auth_location": "query", "query_param_name": "key", "provider_token": "canary"}),
            ),
            (
                "bearer_token",
                json!({"forward_caracal_identity": true}),
                vec![("bearer_token", "canary")],
                json!({"auth_mode": "provider_oauth", "auth_header": "Authorization", "auth_scheme": "Bearer", "provider_token": "canary",
                    "forward_caracal_identity": true}),
            ),
        ];
        for (kind, config, secrets, wanted) in rows {
            ledger_with(&stack, kind, config, &secrets, &[]).await;
            let (token, _) = stack.mandate("ledger:read").await;
            let answer = stack.gateway(&token, &[]).await;
            let mut directive = answer.body["upstreams"][LEDGER].clone();
            let members = directive.as_object_mut().unwrap_or_else(|| panic!("{kind}: {}", answer.text));
            assert!(members.remove("provider_id").unwrap().is_string());
            assert!(members.remove("authority_expires_at").unwrap().is_i64());
            assert_eq!(members.remove("url").unwrap(), "http://ledger.test/base");
            assert_eq!(directive, wanted, "{kind}");
            let told = stack.evidence().await.iter().map(ToString::to_string).collect::<String>();
            assert!(!told.contains("canary"), "no credential in evidence");
        }
        let (session, edge) = stack.delegated("ledger:read").await;
        assert!(stack.mint(session, edge, "ledger:read").await.body.get("upstreams").is_none(), "only the Gateway is told");
    }
}

#[tokio::test]
async fn a_provider_that_cannot_be_used_says_so_without_its_secret() {
    for stack in stacks().await {
        ledger_with(&stack, "api_key", json!({"header_name": "X-Api-Key"}), &[], &[]).await;
        let (token, _) = stack.mandate("ledger:read").await;
        let answer = stack.gateway(&token, &[]).await;
        assert_eq!(answer.refused(), (502, "http_request_failed", "provider_credential_unavailable"));
        stack.quiet.announced("is not stored");
        let told = stack.evidence().await;
        assert!(told.iter().any(|e| e["evaluation_status"] == "provider_credential_unavailable"));
    }
}

#[tokio::test]
async fn a_resource_by_its_row_id_is_known_by_its_identifier() {
    for stack in stacks().await {
        let zone = stack.zone;
        let id = stack
            .write(zone, move |door| {
                Box::pin(
                    async move { Ok(Resource::by_identifier(door.tx(), zone, LEDGER).await?.expect("it is there").id.to_string()) },
                )
            })
            .await;
        let (token, _) = stack.mandate("ledger:read").await;
        let answer = stack.gateway(&token, &[("resource", &id)]).await;
        assert_eq!(answer.claims()["aud"], json!([LEDGER]), "{}", answer.text);
        assert!(answer.body["upstreams"].get(LEDGER).is_some() && answer.body["upstreams"].get(&id).is_none());
    }
}

#[tokio::test]
async fn a_resource_mandate_ends_with_what_it_came_from() {
    let stack = timed().await;
    let clock = stack.clock.clone().unwrap();
    let (session, edge) = stack.delegated("ledger:read").await;
    let mint = stack.mint_with(session, edge, &[("scope", "ledger:read"), ("resource", LEDGER), ("ttl_seconds", "100")]).await;
    clock.advance(Duration::from_mins(1));
    assert_eq!(stack.gateway(&mint.token(), &[]).await.body["expires_in"], 40);
    clock.advance(Duration::from_secs(40));
    assert_eq!(
        stack.gateway(&mint.token(), &[]).await.status,
        403,
        "within the leeway the token verifies, and nothing is left of it"
    );
    clock.advance(Duration::from_secs(61));
    assert_eq!(stack.gateway(&mint.token(), &[]).await.refused(), (401, "invalid_token", "subject_token_invalid"));
}

#[tokio::test]
async fn exchanges_do_not_count_against_the_mint_budget() {
    let stack = Stack::on(caracal_testkit::sqlite(), &[("STS_MINT_RATE_LIMIT_PER_MIN", "2")]).await;
    let (session, edge) = stack.delegated("ledger:read").await;
    for _ in 0..2 {
        let token = stack.mint(session, edge, "ledger:read").await.token();
        assert_eq!(stack.gateway(&token, &[]).await.status, 200);
    }
    assert_eq!(stack.mint(session, edge, "ledger:read").await.refused(), (429, "provider_rate_limited", "rate_limited"));
}
