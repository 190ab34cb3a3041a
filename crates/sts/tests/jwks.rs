//! The zone's public keys (`sts.md` 10; acceptance 82, 83), and the probes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use caracal_core::id::SigningKeyId;
use caracal_store::management::SigningKeyRow;
use support::{Stack, stacks, timed};

async fn rotate(stack: &Stack) -> SigningKeyId {
    let (kid, sealed) = stack.custody.new_signing_key().unwrap();
    let zone = stack.zone;
    stack.write(zone, move |door| Box::pin(async move { SigningKeyRow::insert(door, zone, kid, sealed).await })).await;
    kid
}

fn kids(answer: &support::Answer) -> Vec<String> {
    answer.body["keys"].as_array().unwrap().iter().map(|k| k["kid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_live_zone_has_keys_before_its_first_mint() {
    for stack in stacks().await {
        let answer = stack.get(&format!("/.well-known/jwks.json?zone_id={}", stack.zone)).await;
        assert_eq!(answer.status, 200);
        for (name, value) in [
            ("content-type", "application/json"),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "public, max-age=300, must-revalidate"),
        ] {
            assert_eq!(answer.header(name), Some(value));
        }
        let key = answer.body["keys"][0].as_object().unwrap();
        let members: Vec<&String> = key.keys().collect();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
        assert!(["x", "y"].iter().all(|c| key[*c].as_str().unwrap().len() == 43));
        let verified = jsonwebtoken::decode::<serde_json::Value>(
            stack.bootstrap().await.token(),
            &jsonwebtoken::DecodingKey::from_ec_components(key["x"].as_str().unwrap(), key["y"].as_str().unwrap()).unwrap(),
            &{
                let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
                rules.set_audience(&[support::ISSUER]);
                rules.validate_exp = false;
                rules
            },
        );
        assert!(verified.is_ok(), "another library agrees: {verified:?}");
    }
}

#[tokio::test]
async fn a_zone_is_named_and_known() {
    for stack in stacks().await {
        for query in ["", "?zone_id=", "?zone=x"] {
            let answer = stack.get(&format!("/.well-known/jwks.json{query}")).await;
            assert_eq!(answer.refused(), (400, "invalid_token", "request_malformed"), "{query}");
            assert_eq!(answer.body["refusal"]["field"], "zone_id");
        }
        let unknown = stack.world.mint::<caracal_core::id::ZoneId>();
        for zone in ["nonsense".to_owned(), unknown.to_string(), "%00".to_owned()] {
            let answer = stack.get(&format!("/.well-known/jwks.json?zone_id={zone}")).await;
            assert_eq!(answer.refused(), (404, "resource_not_found", "not_found"), "{zone}");
        }
    }
}

#[tokio::test]
async fn replaced_keys_verify_for_a_day_and_sign_no_more() {
    let stack = timed().await;
    let clock = stack.clock.clone().unwrap();
    let (old, _) = stack.mandate("ledger:read").await;
    let second = rotate(&stack).await;
    clock.advance(Duration::from_hours(1));
    let third = rotate(&stack).await;
    let path = format!("/.well-known/jwks.json?zone_id={}", stack.zone);
    let first = stack.key.id().to_string();
    let shown = kids(&stack.get(&path).await);
    assert_eq!(shown[0], third.to_string(), "the signing one first");
    assert!(shown.contains(&second.to_string()) && shown.contains(&first), "every one replaced within a day: {shown:?}");
    assert_eq!(jsonwebtoken::decode_header(stack.bootstrap().await.token()).unwrap().kid, Some(third.to_string()));
    clock.advance(Duration::from_secs(23 * 3600 - 1));
    assert_eq!(kids(&stack.get(&path).await).len(), 3, "the day is not over");
    assert_eq!(stack.gateway(&old, &[]).await.refused().1, "invalid_token", "the mandate is");
    clock.advance(Duration::from_secs(1));
    assert_eq!(kids(&stack.get(&path).await), [third.to_string(), second.to_string()], "a day after it was replaced");
}

#[tokio::test]
async fn a_key_that_cannot_be_opened_is_left_out_of_the_set_and_not_the_set() {
    for stack in stacks().await {
        let path = format!("/.well-known/jwks.json?zone_id={}", stack.zone);
        let broken: SigningKeyId = stack.world.mint();
        let zone = stack.zone;
        stack.write(zone, move |door| Box::pin(async move { SigningKeyRow::insert(door, zone, broken, vec![1; 200]).await })).await;
        assert_eq!(kids(&stack.get(&path).await), [stack.key.id().to_string()]);
        assert_eq!(stack.bootstrap().await.status, 500, "the signing key does not open, and no older one takes its place");
        stack.quiet.announced("signing key");
        let metrics = stack.send(
            http::Request::get("/metrics").header("authorization", "Bearer metrics").body(axum::body::Body::empty()).unwrap(),
        );
        assert!(metrics.await.text.contains("caracal_sts_jwks_invalid_keys_total"));
    }
}

#[tokio::test]
async fn probes_answer_and_metrics_are_for_who_may() {
    for stack in stacks().await {
        assert_eq!(stack.get("/health").await.status, 200);
        let ready = stack.get("/ready").await;
        assert_eq!((ready.status, ready.body), (200, serde_json::json!({"ok": true, "ready": true})));
        assert_eq!(stack.get("/metrics").await.status, 401);
    }
}

#[tokio::test]
async fn ids_of_no_zone_leave_nothing_behind() {
    for stack in stacks().await {
        stack.bootstrap().await;
        let before = stack.store.fence().zones();
        for _ in 0..20 {
            let made_up: caracal_core::id::ZoneId = stack.world.mint();
            let answer = stack.get(&format!("/.well-known/jwks.json?zone_id={made_up}")).await;
            assert_eq!(answer.status, 404);
        }
        assert_eq!(stack.store.fence().zones(), before);
    }
}
