//! What the token route reads, rule by rule (`sts.md` 1.2, 2.1, 2.2; acceptance 5 to 18, 26).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use axum::body::Body;
use http::Request;
use support::{ACCESS_TOKEN, GRANT, LEDGER, NOTES, Stack, encode, stacks};

const MALFORMED: (u16, &str, &str) = (400, "invalid_token", "request_malformed");

async fn bootstrap_with(stack: &Stack, more: &[(&str, &str)]) -> support::Answer {
    let mut all = vec![("scope", "agent:lifecycle"), ("resource", LEDGER)];
    all.extend(more);
    stack.exchange(&all).await
}

#[tokio::test]
async fn only_post_is_served_and_only_without_a_query() {
    for stack in stacks().await {
        for method in ["GET", "PUT", "DELETE"] {
            let answer = stack.send(Request::builder().method(method).uri("/oauth/2/token").body(Body::empty()).unwrap()).await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{method}");
        }
        assert_eq!(stack.get("/oauth/2/tokens").await.status, 404);
        let form = encode(&stack.form(&[("scope", "agent:lifecycle"), ("resource", LEDGER)]));
        for (uri, wanted) in [("/oauth/2/token?zone_id=z1", 400), ("/oauth/2/token?", 200)] {
            let request = Request::post(uri).header("content-type", "application/x-www-form-urlencoded");
            let answer = stack.send(request.body(Body::from(form.clone())).unwrap()).await;
            assert_eq!(answer.status, wanted, "{uri}: {}", answer.text);
            if wanted == 400 {
                assert_eq!(answer.refused(), MALFORMED);
            }
        }
    }
}

#[tokio::test]
async fn only_forms_are_read_whatever_their_charset() {
    for stack in stacks().await {
        let form = encode(&stack.form(&[("scope", "agent:lifecycle"), ("resource", LEDGER)]));
        for kind in
            ["application/json", "multipart/form-data; boundary=x", "-", "text/plain", "application/x-www-form-urlencoded2", ""]
        {
            let answer = stack.raw(form.clone(), &[("content-type", kind)]).await;
            assert_eq!(answer.refused(), (415, "invalid_token", "request_malformed"), "{kind}");
        }
        for kind in ["application/x-www-form-urlencoded; charset=utf-8", "Application/X-WWW-Form-Urlencoded"] {
            assert_eq!(stack.raw(form.clone(), &[("content-type", kind)]).await.status, 200, "{kind}");
        }
    }
}

#[tokio::test]
async fn a_body_is_read_up_to_its_bound() {
    for stack in stacks().await {
        let mut form = encode(&stack.form(&[("scope", "agent:lifecycle"), ("resource", LEDGER)]));
        form.extend_from_slice(b"&x=");
        form.resize(65_536, b'a');
        assert_eq!(stack.raw(form.clone(), &[]).await.status, 200);
        form.push(b'a');
        assert_eq!(stack.raw(form, &[]).await.refused(), (413, "payload_too_large", "request_malformed"));
    }
}

#[tokio::test]
async fn decoding_is_strict_and_a_field_occurs_once() {
    for stack in stacks().await {
        let form = String::from_utf8(encode(&stack.form(&[("scope", "agent:lifecycle"), ("resource", LEDGER)]))).unwrap();
        for bad in ["&x=%zz", "&x=%4", "&a=1;b=2", "&x=%ff", "&%ff=x"] {
            assert_eq!(stack.raw(format!("{form}{bad}"), &[]).await.refused(), MALFORMED, "{bad}");
        }
        for (twice, field) in [("&scope=x", "scope"), ("&unknown=1&unknown=2", "unknown"), ("&zone_id=", "zone_id")] {
            let answer = stack.raw(format!("{form}{twice}"), &[]).await;
            assert_eq!(answer.refused(), MALFORMED, "{twice}");
            assert!(answer.description().contains(field), "{}", answer.text);
        }
        let answer = stack.raw(format!("{form}&resource=resource%3A%2F%2Fnotes&unknown=1"), &[]).await;
        assert_eq!(answer.body["target_resources"], serde_json::json!([LEDGER, NOTES]));
    }
}

#[tokio::test]
async fn resources_are_a_set_of_rows() {
    for stack in stacks().await {
        let id = stack.resource("resource://x", Some("http://x.test"), &[], None, &[]).await.to_string();
        stack.activate(&[support::policy(stack.app.id, stack.other.id).replace("resource://notes", "resource://x")]).await;
        let scope = ("scope", "agent:lifecycle");
        let answer =
            stack.exchange(&[scope, ("resource", " resource://x "), ("resource", "resource://x"), ("resource", &id)]).await;
        assert_eq!(answer.body["target_resources"], serde_json::json!(["resource://x"]), "{}", answer.text);
        assert_eq!(answer.claims()["target"], serde_json::json!(["resource://x"]));
        let answer = stack.exchange(&[scope, ("resource", "  ")]).await;
        assert_eq!(answer.refused(), MALFORMED);
        assert_eq!(answer.body["refusal"]["field"], "resource");
        assert_eq!(stack.exchange(&[scope]).await.refused(), MALFORMED, "no resource at all");
    }
}

#[tokio::test]
async fn fields_of_other_flows_are_refused_even_when_empty() {
    for stack in stacks().await {
        for (name, value) in [("actor_token", ""), ("client_assertion", "x"), ("client_assertion_type", "")] {
            let answer = bootstrap_with(&stack, &[(name, value)]).await;
            assert_eq!(answer.refused(), MALFORMED, "{name}");
            assert_eq!(answer.body["refusal"]["field"], name);
        }
        for grant in ["client_credentials", "", "-", "URN:ietf:params:oauth:grant-type:token-exchange"] {
            assert_eq!(bootstrap_with(&stack, &[("grant_type", grant)]).await.refused(), MALFORMED, "{grant}");
        }
    }
}

#[tokio::test]
async fn a_subject_token_and_its_type_go_together() {
    for stack in stacks().await {
        let jwt = "urn:ietf:params:oauth:token-type:jwt";
        for more in [
            vec![("subject_token", "x")],
            vec![("subject_token_type", ACCESS_TOKEN)],
            vec![("subject_token", "x"), ("subject_token_type", jwt)],
            vec![("subject_token", ""), ("subject_token_type", ACCESS_TOKEN)],
        ] {
            assert_eq!(bootstrap_with(&stack, &more).await.refused(), MALFORMED, "{more:?}");
        }
        assert_eq!(bootstrap_with(&stack, &[("subject_token", ""), ("subject_token_type", "")]).await.status, 200);
    }
}

#[tokio::test]
async fn a_lifetime_is_a_number_within_its_range() {
    for stack in stacks().await {
        for ttl in ["abc", "1.5", " 60", "0x10", "+", "-"] {
            // `-` alone would take the field out of the form.
            let ttl = if ttl == "-" { "--1" } else { ttl };
            let answer = bootstrap_with(&stack, &[("ttl_seconds", ttl)]).await;
            assert_eq!(answer.refused(), MALFORMED, "{ttl}");
            assert_eq!(answer.body["refusal"]["field"], "ttl_seconds");
        }
        for ttl in ["-1", "3601", "99999999999999999999", "18446744074", "-99999999999999999999"] {
            let answer = bootstrap_with(&stack, &[("ttl_seconds", ttl)]).await;
            assert_eq!(answer.refused(), (400, "invalid_token", "ttl_out_of_range"), "{ttl}");
            assert_eq!(answer.body["refusal"]["enough"], serde_json::json!([{"kind": "ttl", "max_seconds": 3600}]));
        }
        for (ttl, wanted) in [("0", 900), ("", 900), ("60", 60), ("+60", 60), ("3600", 3600)] {
            let answer = bootstrap_with(&stack, &[("ttl_seconds", ttl)]).await;
            assert_eq!(answer.body["expires_in"], wanted, "{ttl}: {}", answer.text);
            let claims = answer.claims();
            assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), wanted);
        }
    }
}

#[tokio::test]
async fn a_request_id_is_kept_if_it_can_be_looked_up() {
    for stack in stacks().await {
        let form = encode(&stack.form(&[("grant_type", "x")]));
        for (given, kept) in [("r-1", true), ("A.z_9:-", true), ("r 1", false), (&"x".repeat(128), true), (&"x".repeat(129), false)]
        {
            let answer = stack.raw(form.clone(), &[("x-request-id", given)]).await;
            assert_eq!(answer.header("x-request-id") == Some(given), kept, "{given}");
            answer.refused();
        }
        let answer = stack.raw(form, &[]).await;
        assert_eq!(answer.header("x-request-id").unwrap().len(), 36, "a UUID");
        let denied = encode(&stack.form(&[("scope", "agent:lifecycle"), ("resource", support::PAYROLL)]));
        stack.raw(denied, &[("x-request-id", "r-evidence")]).await.refused();
        assert!(stack.evidence().await.iter().all(|e| e["request_id"] != ""));
        assert!(stack.evidence().await.iter().any(|e| e["request_id"] == "r-evidence"));
    }
}

#[tokio::test]
async fn rules_are_looked_at_in_their_order() {
    for stack in stacks().await {
        // Each body breaks every rule from one on; the first broken one answers.
        let all = "grant_type=x&resource=&ttl_seconds=x&actor_token=&scope=a&scope=b";
        let steps = [
            (all, "scope"),
            ("grant_type=x&resource=&ttl_seconds=x&actor_token=", "actor_token"),
            ("grant_type=x&resource=&ttl_seconds=x", "ttl_seconds"),
            ("grant_type=x&resource=", "resource"),
            ("grant_type=x&subject_token_type=y", "grant_type"),
        ];
        for (body, field) in steps {
            let answer = stack.raw(body, &[]).await;
            assert_eq!(answer.refused(), MALFORMED);
            assert_eq!(answer.body["refusal"]["field"], field, "{body}");
        }
        let wrong_secret = [("client_secret", "wrong"), ("grant_type", GRANT)];
        let late = [("ttl_seconds", "9999"), ("resource", "-")];
        let mut form = stack.form(&wrong_secret);
        form.extend(late.iter().map(|(n, v)| (*n, (*v).to_owned())));
        assert_eq!(stack.raw(encode(&form), &[]).await.refused().2, "client_authentication_failed", "who asks comes before what");
    }
}
