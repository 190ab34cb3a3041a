//! What an attacker sends to the token route: no 5xx, no panic, no mint (`sts.md` acceptance 43, 62, 104, 105).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use support::{GRANT, ISSUER, LEDGER, Stack, encode, forged, stacks};

fn no_harm(answer: &support::Answer, what: &str) {
    assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text);
    answer.refused();
    assert!(answer.body.get("access_token").is_none(), "{what}");
}

/// Records that the store holds: a mint that nobody was told of would show.
async fn minted(stack: &Stack) -> usize {
    stack.evidence().await.iter().filter(|e| e["decision"] == "allow").count()
}

#[tokio::test]
async fn no_token_but_a_mandate_of_the_zone_is_believed() {
    for stack in stacks().await {
        let (good, claims) = stack.mandate("ledger:read").await;
        let before = minted(&stack).await;
        let now = stack.world.now().as_secs();
        let kid = json!(stack.key.id());
        let es = |kid: &Value| json!({"alg": "ES256", "typ": "JWT", "kid": kid});
        let with = |changes: Value| {
            let mut all = claims.clone();
            for (name, value) in changes.as_object().unwrap() {
                if value.is_null() {
                    all.as_object_mut().unwrap().remove(name);
                } else {
                    all[name] = value.clone();
                }
            }
            all
        };
        let parts: Vec<&str> = good.split('.').collect();
        let swap = |at: usize, text: String| {
            let mut all: Vec<String> = parts.iter().map(|p| (*p).to_owned()).collect();
            all[at] = text;
            all.join(".")
        };
        let header = |value: Value| swap(0, B64.encode(value.to_string()));
        let public = stack.get(&format!("/.well-known/jwks.json?zone_id={}", stack.zone)).await.text;
        let hs256 = {
            let signed = format!("{}.{}", B64.encode(json!({"alg": "HS256", "kid": kid}).to_string()), parts[1]);
            let secret = jsonwebtoken::EncodingKey::from_secret(public.as_bytes());
            let tag = jsonwebtoken::crypto::sign(signed.as_bytes(), &secret, jsonwebtoken::Algorithm::HS256).unwrap();
            format!("{signed}.{tag}")
        };
        let deep = format!("{}{}", "[".repeat(3000), "]".repeat(3000));
        let tokens = [
            ("alg none", header(json!({"alg": "none", "kid": kid}))),
            ("alg none and no signature", format!("{}.{}.", B64.encode(json!({"alg": "none", "kid": kid}).to_string()), parts[1])),
            ("HS256 with the public key", hs256),
            ("alg in other letters", forged(&json!({"alg": "es256", "kid": kid}), &claims.to_string(), &stack.key)),
            ("an unknown key", forged(&es(&json!("nobody")), &claims.to_string(), &stack.key)),
            ("no key", forged(&json!({"alg": "ES256", "typ": "JWT"}), &claims.to_string(), &stack.key)),
            ("an empty key", forged(&es(&json!("")), &claims.to_string(), &stack.key)),
            ("a key id that is no text", forged(&es(&json!(5)), &claims.to_string(), &stack.key)),
            (
                "another zone's key under its own name",
                forged(&es(&json!(stack.foreign_key.id())), &claims.to_string(), &stack.foreign_key),
            ),
            ("another zone's key under this one's name", forged(&es(&kid), &claims.to_string(), &stack.foreign_key)),
            (
                "an embedded key",
                forged(&json!({"alg": "ES256", "kid": kid, "jwk": {"kty": "EC"}}), &claims.to_string(), &stack.foreign_key),
            ),
            ("a critical header", forged(&json!({"alg": "ES256", "kid": kid, "crit": ["exp"]}), &claims.to_string(), &stack.key)),
            ("another zone", stack.signed_token(&with(json!({"zone_id": stack.elsewhere})))),
            ("expired", stack.signed_token(&with(json!({"exp": now - 61, "iat": now - 900})))),
            ("issued in the future", stack.signed_token(&with(json!({"iat": now + 300})))),
            ("not yet valid", stack.signed_token(&with(json!({"nbf": now + 300})))),
            ("without an end", stack.signed_token(&with(json!({"exp": null})))),
            ("an end that is no number", stack.signed_token(&with(json!({"exp": "tomorrow"})))),
            ("another issuer", stack.signed_token(&with(json!({"iss": format!("{ISSUER}/")})))),
            ("the audience of a resource", stack.signed_token(&with(json!({"aud": [LEDGER]})))),
            ("no audience", stack.signed_token(&with(json!({"aud": null})))),
            ("another use", stack.signed_token(&with(json!({"use": "session"})))),
            ("a use that is none", stack.signed_token(&with(json!({"use": "admin"})))),
            ("without a record", stack.signed_token(&with(json!({"sid": null})))),
            ("tampered scope", swap(1, B64.encode(with(json!({"scope": "ledger:read ledger:post"})).to_string()))),
            ("a claim twice", {
                let text = claims.to_string();
                let twice = format!("{},\"scope\":\"ledger:post\"}}", &text[..text.len() - 1]);
                forged(&es(&kid), &twice, &stack.key)
            }),
            ("nested deeply", forged(&es(&kid), &format!("{{\"x\":{deep}}}"), &stack.key)),
            ("a list for claims", forged(&es(&kid), "[]", &stack.key)),
            ("no JSON", forged(&es(&kid), "x", &stack.key)),
            ("padded", format!("{good}=")),
            ("four parts", format!("{good}.x")),
            ("two parts", parts[..2].join(".")),
            ("oversized", format!("{}.{}.{}", parts[0], "A".repeat(9000), parts[2])),
            ("a look-alike dot", good.replace('.', "\u{2024}")),
            ("spaces around", format!(" {good} ")),
            ("bytes", "\u{0}\u{1}\u{7f}".to_owned()),
        ];
        for (what, token) in &tokens {
            let answer = stack.gateway(token, &[]).await;
            no_harm(&answer, what);
            assert_eq!(answer.refused(), (401, "invalid_token", "subject_token_invalid"), "{what}");
            assert_eq!(answer.description(), "invalid subject token", "one text for all: {what}");
        }
        let direct = [("subject_token", good.as_str()), ("subject_token_type", support::ACCESS_TOKEN), ("resource", LEDGER)];
        no_harm(&stack.exchange(&direct).await, "a mandate that is the Gateway's to present");
        assert_eq!(minted(&stack).await, before, "nothing was granted to any of it");
        assert_eq!(stack.gateway(&good, &[]).await.status, 200, "and the real one is as good as before");
        let told = stack.evidence().await.iter().map(ToString::to_string).collect::<String>();
        assert!(tokens.iter().filter(|(_, t)| t.len() > 40).all(|(_, t)| !told.contains(t.as_str())), "no token in evidence");
    }
}

#[tokio::test]
async fn a_leeway_of_a_minute_is_no_more() {
    for stack in stacks().await {
        let (_, claims) = stack.mandate("ledger:read").await;
        let now = stack.world.now().as_secs();
        let mut late = claims.clone();
        late["iat"] = json!(now + 30);
        assert_eq!(stack.gateway(&stack.signed_token(&late), &[]).await.status, 200, "half a minute fast");
    }
}

#[tokio::test]
async fn ids_that_look_alike_are_other_ids() {
    for stack in stacks().await {
        let (session, edge) = stack.delegated("ledger:read").await;
        let before = minted(&stack).await;
        let full_width = |text: &str| text.replace('0', "\u{ff10}").replace('a', "\u{430}");
        let (s, e) = (session.to_string(), edge.to_string());
        for (what, session, edge, scope, resource) in [
            ("session", full_width(&s), e.clone(), "ledger:read".to_owned(), LEDGER.to_owned()),
            ("edge", s.clone(), full_width(&e), "ledger:read".to_owned(), LEDGER.to_owned()),
            ("case of the edge", s.clone(), format!("{e}\u{200b}"), "ledger:read".to_owned(), LEDGER.to_owned()),
            ("scope", s.clone(), e.clone(), "ledger:re\u{430}d".to_owned(), LEDGER.to_owned()),
            ("case of a scope", s.clone(), e.clone(), "Ledger:read".to_owned(), LEDGER.to_owned()),
            ("resource", s.clone(), e.clone(), "ledger:read".to_owned(), "resource://l\u{435}dger".to_owned()),
            ("case of a resource", s.clone(), e.clone(), "ledger:read".to_owned(), "resource://Ledger".to_owned()),
            ("a resource below", s.clone(), e.clone(), "ledger:read".to_owned(), format!("{LEDGER}/x")),
        ] {
            let form =
                [("agent_session_id", session.as_str()), ("delegation_edge_id", &edge), ("scope", &scope), ("resource", &resource)];
            no_harm(&stack.exchange(&form).await, what);
        }
        let app = full_width(&stack.app.id.to_string());
        no_harm(
            &stack.exchange(&[("application_id", &app), ("scope", "agent:lifecycle"), ("resource", LEDGER)]).await,
            "application",
        );
        assert_eq!(minted(&stack).await, before);
    }
}

#[tokio::test]
async fn large_and_strange_values_are_refused_quickly() {
    for stack in stacks().await {
        let before = minted(&stack).await;
        let long = "x".repeat(60_000);
        let many = (0..10_000).map(|i| format!("s{i}")).collect::<Vec<_>>().join(" ");
        let resources: Vec<(&str, String)> = (0..500).map(|i| ("resource", format!("resource://r{i}"))).collect();
        for field in [
            "zone_id",
            "application_id",
            "client_secret",
            "scope",
            "session_id",
            "agent_session_id",
            "delegation_edge_id",
            "approval_id",
            "subject_token",
            "resource",
            "gateway_request_id",
            "request_path",
        ] {
            no_harm(&stack.exchange(&[("resource", "resource://none"), (field, &long)]).await, field);
        }
        no_harm(&stack.exchange(&[("scope", &many), ("resource", LEDGER)]).await, "ten thousand scopes");
        let mut form = stack.form(&[("scope", "agent:lifecycle")]);
        form.extend(resources);
        no_harm(&stack.raw(encode(&form), &[]).await, "five hundred resources");
        for control in ["\u{0}", "\n", "\u{202e}", "\u{fffd}", "\u{feff}"] {
            let text = format!("a{control}b");
            for field in ["scope", "resource", "zone_id", "application_id", "session_id", "agent_session_id"] {
                no_harm(&stack.exchange(&[("resource", "resource://none"), (field, &text)]).await, field);
            }
        }
        assert_eq!(minted(&stack).await, before);
    }
}

/// Bodies: pieces of a real one, broken, doubled, and anything at all.
fn bodies(pieces: Vec<String>) -> impl Strategy<Value = Vec<u8>> {
    use proptest::prelude::*;
    let piece = prop_oneof![
        6 => prop::sample::select(pieces).prop_map(String::into_bytes),
        1 => "[a-z_]{1,12}=[ -~]{0,40}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => Just(b"=".to_vec()),
        1 => Just(b"&&".to_vec()),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.join(&b'&'))
}

#[tokio::test]
async fn hundreds_of_bodies_do_no_harm() {
    for stack in stacks().await {
        let before = minted(&stack).await;
        let (session, edge) = stack.delegated("ledger:read").await;
        let (token, _) = stack.mandate("ledger:read").await;
        let mints = minted(&stack).await;
        assert!(mints > before);
        // The secret is never among the pieces: nothing that is put together from them may be granted.
        let pieces = [
            ("grant_type", GRANT.to_owned()),
            ("zone_id", stack.zone.to_string()),
            ("application_id", stack.app.id.to_string()),
            ("client_secret", "cs_wrong".to_owned()),
            ("scope", "ledger:read".to_owned()),
            ("resource", LEDGER.to_owned()),
            ("agent_session_id", session.to_string()),
            ("delegation_edge_id", edge.to_string()),
            ("subject_token", token),
            ("subject_token_type", support::ACCESS_TOKEN.to_owned()),
            ("ttl_seconds", "60".to_owned()),
            ("gateway_request_id", "req-7".to_owned()),
        ];
        let pieces = pieces.iter().map(|(n, v)| String::from_utf8(encode(&[(*n, v.as_str())])).unwrap()).collect();
        let strategy = bodies(pieces);
        let mut runner = TestRunner::deterministic();
        for i in 0..400_u32 {
            let body = strategy.new_tree(&mut runner).unwrap().current();
            let header: &[(&str, &str)] = match i % 4 {
                0 => &[("x-caracal-gateway-request", "n"), ("x-request-id", "req-7")],
                1 => &[("content-type", "application/x-www-form-urlencoded; charset=\"")],
                _ => &[],
            };
            // Every address for itself, so that what is looked at is the body and not the throttle.
            let address = format!("10.{}.{}.9", i / 200, i % 200);
            let answer = stack.post_from(&address, body.clone(), header).await;
            no_harm(&answer, &String::from_utf8_lossy(&body));
        }
        assert_eq!(minted(&stack).await, mints);
    }
}
