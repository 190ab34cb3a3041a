//! Who may ask (`sts.md` 2.4, 2.5; acceptance 19 to 25).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use caracal_crypto::secret::{Secret, Verifier};
use caracal_store::management::{Application, ApplicationPatch, Object as _, Zone};
use support::{LEDGER, Stack, encode, stacks, timed};

const REFUSED: (u16, &str, &str) = (401, "access_denied", "client_authentication_failed");

fn bootstrap<'a>() -> Vec<(&'a str, &'a str)> {
    vec![("scope", "agent:lifecycle"), ("resource", LEDGER)]
}

async fn with(stack: &Stack, more: &[(&str, &str)]) -> support::Answer {
    let mut all = bootstrap();
    all.extend(more);
    stack.exchange(&all).await
}

#[tokio::test]
async fn whoever_is_not_known_hears_one_answer() {
    for stack in stacks().await {
        let unknown = stack.world.mint::<caracal_core::id::ApplicationId>().to_string();
        let mut answers = Vec::new();
        for more in [
            vec![("client_secret", "wrong")],
            vec![("client_secret", "")],
            vec![("client_secret", "-")],
            vec![("client_secret", "cs_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh83msUML")],
            vec![("application_id", unknown.as_str())],
            vec![("application_id", "")],
            vec![("application_id", "-")],
            vec![("application_id", "no id at all")],
            vec![("zone_id", "-")],
            vec![("zone_id", "nonsense"), ("client_secret", "wrong")],
        ] {
            let mut answer = with(&stack, &more).await;
            assert_eq!(answer.refused(), REFUSED, "{more:?}");
            answer.body["requestId"] = "".into();
            answers.push(answer.body);
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
        let id = stack.app.id;
        let zone = stack.zone;
        stack.write(zone, move |door| Box::pin(async move { Application::archive(door, zone, id, "t").await })).await;
        let mut archived = with(&stack, &[]).await;
        assert_eq!(archived.refused(), REFUSED);
        archived.body["requestId"] = "".into();
        assert_eq!(archived.body, answers[0], "an archived application is like none");
    }
}

#[tokio::test]
async fn an_archived_zone_has_no_applications() {
    for stack in stacks().await {
        assert_eq!(stack.bootstrap().await.status, 200);
        let zone = stack.zone;
        stack.write(zone, move |door| Box::pin(async move { Zone::archive(door, zone, "t").await })).await;
        assert_eq!(stack.bootstrap().await.refused(), REFUSED);
    }
}

#[tokio::test]
async fn only_the_secret_tells_which_zone_is_right() {
    for stack in stacks().await {
        let elsewhere = stack.elsewhere.to_string();
        let answer = with(&stack, &[("zone_id", &elsewhere)]).await;
        assert_eq!(answer.refused(), (403, "zone_invalid", "zone_mismatch"));
        assert!(answer.description().contains(&elsewhere) && answer.description().contains(&stack.zone.to_string()));
        assert_eq!(with(&stack, &[("zone_id", &elsewhere), ("client_secret", "wrong")]).await.refused(), REFUSED);
        assert_eq!(with(&stack, &[("zone_id", "no-such-zone")]).await.refused().1, "zone_invalid", "the secret proves who asks");
    }
}

#[tokio::test]
async fn an_address_that_guesses_is_not_listened_to_and_an_application_passes_with_its_secret() {
    let stack = timed().await;
    let (wrong, right) = {
        let form = |secret: &str| {
            let mut all = bootstrap();
            all.push(("client_secret", secret));
            encode(&stack.form(&all))
        };
        (form("wrong"), form(&stack.app.secret))
    };
    for _ in 0..60 {
        assert_eq!(stack.post_from("192.0.2.1", wrong.clone(), &[]).await.refused(), REFUSED);
    }
    let throttled = (429, "provider_rate_limited", "throttled");
    assert_eq!(stack.post_from("192.0.2.1", wrong.clone(), &[]).await.refused(), throttled);
    assert_eq!(stack.post_from("192.0.2.1", right.clone(), &[]).await.refused(), throttled, "not looked at");
    assert_eq!(stack.post_from("192.0.2.2", right.clone(), &[]).await.status, 200, "another address, the right secret");
    assert_eq!(
        stack.post_from("192.0.2.2", wrong.clone(), &[]).await.refused(),
        throttled,
        "a wrong one is throttled by application"
    );
    stack.clock.as_ref().unwrap().advance(Duration::from_secs(61));
    assert_eq!(stack.post_from("192.0.2.1", right, &[]).await.status, 200);
    assert_eq!(stack.post_from("192.0.2.1", wrong, &[]).await.refused(), REFUSED, "a new window");
}

#[tokio::test]
async fn a_supplied_secret_works_and_a_rotated_one_ends_at_once() {
    for stack in stacks().await {
        let set = |text: &str| {
            let verifier = Verifier::argon2(&Secret::of(text), [7; 16]).to_text();
            let (zone, id) = (stack.zone, stack.app.id);
            stack.write(zone, move |door| {
                Box::pin(async move {
                    let patch = ApplicationPatch { verifier: Some(verifier), ..ApplicationPatch::default() };
                    Application::update(door, zone, id, patch, "t").await.map(|_| ())
                })
            })
        };
        set("chosen by somebody").await;
        for _ in 0..2 {
            assert_eq!(with(&stack, &[("client_secret", "chosen by somebody")]).await.status, 200);
        }
        assert_eq!(with(&stack, &[("client_secret", " chosen by somebody")]).await.refused(), REFUSED, "secrets are not trimmed");
        assert_eq!(with(&stack, &[]).await.refused(), REFUSED, "the generated one is gone");
        set("another").await;
        assert_eq!(with(&stack, &[("client_secret", "chosen by somebody")]).await.refused(), REFUSED, "whatever was remembered");
        assert_eq!(with(&stack, &[("client_secret", "another")]).await.status, 200);
    }
}

#[tokio::test]
async fn other_ways_of_showing_a_secret_are_not_looked_at() {
    for stack in stacks().await {
        let mut all = bootstrap();
        all.push(("client_secret", "-"));
        let form = encode(&stack.form(&all));
        let answer = stack.raw(form, &[("authorization", "Basic YTpi")]).await;
        assert_eq!(answer.refused(), REFUSED);
        let padded = format!(" {} ", stack.app.id);
        let zone = format!(" {} ", stack.zone);
        let answer = with(&stack, &[("application_id", &padded), ("zone_id", &zone)]).await;
        assert_eq!(answer.status, 200, "ids of zone and application are trimmed");
    }
}

#[tokio::test]
async fn a_refusal_before_the_loop_leaves_evidence_of_its_ledger() {
    for stack in stacks().await {
        with(&stack, &[("client_secret", "wrong")]).await.refused();
        with(&stack, &[("application_id", "nobody")]).await.refused();
        with(&stack, &[("ttl_seconds", "9999")]).await.refused();
        let told: Vec<(String, String)> = stack
            .evidence()
            .await
            .iter()
            .map(|e| (e["zone_id"].as_str().unwrap().to_owned(), e["evaluation_status"].as_str().unwrap().to_owned()))
            .collect();
        let zone = stack.zone.to_string();
        let wanted = [
            (&zone[..], "client_authentication_failed"),
            ("_platform", "client_authentication_failed"),
            (&zone, "request_invalid"),
        ];
        assert_eq!(told, wanted.map(|(z, s)| (z.to_owned(), s.to_owned())));
    }
}
