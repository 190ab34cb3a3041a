//! Golden shapes of every answer, and what is left out of a ledger by a bound (`sts.md` 1.3, 8, 18, 23, 27).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use support::{ACCESS_TOKEN, LEDGER, NOTES, PAYROLL, Shapes, Stack, stacks, timed};

#[tokio::test]
async fn every_shape_is_as_it_was() {
    for stack in stacks().await {
        let mut shapes = Shapes::default();
        let lifecycle = ("scope", "agent:lifecycle");
        let bootstrap = [lifecycle, ("resource", LEDGER)];
        shapes.add("200 bootstrap", &stack.bootstrap().await);
        let (session, edge) = stack.delegated("ledger:read").await;
        let mint = stack.mint(session, edge, "ledger:read").await;
        shapes.add("200 delegated mint", &mint);
        shapes.add("200 gateway exchange", &stack.gateway(&mint.token(), &[]).await);
        shapes.add("200 jwks", &stack.get(&format!("/.well-known/jwks.json?zone_id={}", stack.zone)).await);
        shapes.add("400 jwks without a zone", &stack.get("/.well-known/jwks.json").await);
        shapes.add("404 jwks of an unknown zone", &stack.get("/.well-known/jwks.json?zone_id=x").await);
        shapes.add("404 path", &stack.get("/nowhere").await);
        shapes.add("405 method", &stack.get("/oauth/2/token").await);
        shapes.add("400 field twice", &stack.raw("scope=a&scope=b", &[]).await);
        shapes.add("400 no resource", &stack.exchange(&[lifecycle]).await);
        shapes.add("400 lifetime", &stack.exchange(&[bootstrap[0], bootstrap[1], ("ttl_seconds", "3601")]).await);
        shapes.add("413", &stack.raw(vec![b'a'; 65_537], &[]).await);
        shapes.add("415", &stack.raw("{}", &[("content-type", "application/json")]).await);
        shapes.add("401 client", &stack.exchange(&[bootstrap[0], bootstrap[1], ("client_secret", "wrong")]).await);
        let zone = stack.elsewhere.to_string();
        shapes.add("403 zone", &stack.exchange(&[bootstrap[0], bootstrap[1], ("zone_id", &zone)]).await);
        let presented = [("subject_token", "x.y.z"), ("subject_token_type", ACCESS_TOKEN), ("resource", LEDGER)];
        shapes.add("401 subject token", &stack.exchange(&presented).await);
        let own = stack.bootstrap().await.token();
        let presented = [("subject_token", own.as_str()), ("subject_token_type", ACCESS_TOKEN), ("resource", LEDGER)];
        shapes.add("403 presented without the Gateway", &stack.exchange(&presented).await);
        let identity = [("subject_token", "x"), ("subject_token_type", support::ID_TOKEN)];
        shapes.add("401 federation", &stack.exchange(&identity).await);
        shapes.add("401 approval", &stack.exchange(&[bootstrap[0], bootstrap[1], ("approval_id", "x")]).await);
        shapes.add("401 gateway signature", &stack.raw("grant_type=x", &[("x-caracal-gateway-request", "1")]).await);
        shapes.add("403 record", &stack.exchange(&[bootstrap[0], bootstrap[1], ("session_id", "x")]).await);
        shapes.add("403 session", &stack.exchange(&[("scope", "a"), bootstrap[1], ("agent_session_id", "x")]).await);
        shapes.add("403 edge", &stack.exchange(&[("scope", "a"), bootstrap[1], ("delegation_edge_id", "x")]).await);
        let (over, over_edge) =
            stack.delegated_with("ledger:read", &["clerk"], |a| a.expires_at = a.expires_at.minus_secs(700)).await;
        shapes.add("403 edge that is over", &stack.mint(over, over_edge, "ledger:read").await);
        shapes.add("403 edge scopes", &stack.mint(session, edge, "ledger:read ledger:post").await);
        let (short, short_edge) = stack.delegated_with("ledger:read", &["clerk"], |a| a.constraints.ttl_seconds = Some(60)).await;
        let long = [("scope", "ledger:read"), ("resource", LEDGER), ("ttl_seconds", "61")];
        shapes.add("403 edge lifetime", &stack.mint_with(short, short_edge, &long).await);
        let (once, once_edge) = stack.delegated_with("ledger:read", &["clerk"], |a| a.constraints.budget = Some(1)).await;
        stack.mint(once, once_edge, "ledger:read").await;
        shapes.add("403 budget", &stack.mint(once, once_edge, "ledger:read").await);
        let (wide, wide_edge) = stack.delegated("ledger:read notes:read").await;
        let outside = [("scope", "notes:read"), ("resource", NOTES)];
        shapes.add("403 resource outside the edge", &stack.mint_with(wide, wide_edge, &outside).await);
        shapes.add("403 undeclared scope", &stack.exchange(&[("scope", "ledger:none"), bootstrap[1]]).await);
        shapes.add("403 bootstrap of a foreign resource", &stack.exchange(&[lifecycle, ("resource", PAYROLL)]).await);
        shapes.add("403 no shape of an exchange", &stack.exchange(&[("scope", "ledger:read"), bootstrap[1]]).await);
        let (auditor, auditor_edge) = stack.delegated_with("ledger:read ledger:post", &["auditor"], |_| {}).await;
        shapes.add("403 role", &stack.mint(auditor, auditor_edge, "ledger:post").await);
        let target = stack.gateway(&mint.token(), &[("resource", "resource://none")]).await;
        shapes.add("403 target", &target);
        let policy = support::policy(stack.app.id, stack.other.id);
        let after = |text: &str| vec![format!("{policy}{text}\n")];
        stack.activate(&after(r#"confinement := [{"label_prefix": "clerk", "scopes": []}]"#)).await;
        shapes.add("403 confinement", &stack.mint(session, edge, "ledger:read").await);
        stack.activate(&after("restrict := {1}")).await;
        shapes.add("403 restriction", &stack.bootstrap().await);
        stack.activate(&after("risk := 1")).await;
        shapes.add("403 malformed risk", &stack.mint(session, edge, "ledger:read").await);
        stack.activate(&after("approval_tiers := 1")).await;
        shapes.add("403 malformed approval", &stack.mint(session, edge, "ledger:read").await);
        stack.activate(&after("restrict contains x if { x := numbers.range(1, count(input.action.id) * 1000000000) }")).await;
        shapes.add("403 evaluation limit", &stack.bootstrap().await);
        stack.activate(&after("restrict contains x if { x := to_number(input.action.id) }")).await;
        shapes.add("503 policy", &stack.bootstrap().await);
        stack.quiet.announced("policy_eval_failed");
        let elsewhere = stack.elsewhere.to_string();
        let nothing = [("zone_id", elsewhere.as_str()), lifecycle, ("resource", LEDGER)];
        shapes.add("403 no active policy set", &stack.exchange_of(&stack.foreign, &nothing).await);
        insta::assert_json_snapshot!("shapes", shapes.all());
    }
}

#[tokio::test]
async fn limits_have_their_shape() {
    let stack = Stack::on(caracal_testkit::sqlite(), &[("STS_MINT_RATE_LIMIT_PER_MIN", "1")]).await;
    let mut shapes = Shapes::default();
    stack.bootstrap().await;
    shapes.add("429 mint budget", &stack.bootstrap().await);
    for _ in 0..60 {
        stack.exchange(&[("client_secret", "wrong")]).await;
    }
    shapes.add("429 throttled", &stack.bootstrap().await);
    insta::assert_json_snapshot!("limits", shapes.all());
}

#[tokio::test]
async fn refusals_beyond_the_bound_are_counted_and_summarised() {
    let stack = timed().await;
    for _ in 0..130 {
        stack.exchange(&[("ttl_seconds", "-5"), ("resource", LEDGER)]).await.refused();
    }
    assert_eq!(stack.evidence().await.len(), 100);
    stack.sts.summarise().await.unwrap();
    let told = stack.evidence().await;
    let summary = told.last().unwrap();
    assert_eq!((&summary["event_type"], &summary["decision"]), (&"denials_suppressed".into(), &"deny".into()));
    assert_eq!(summary["zone_id"], stack.zone.to_string());
    let metadata = &summary["metadata_json"];
    assert_eq!((&metadata["emitter"], &metadata["counts"]), (&"sts".into(), &serde_json::json!({"token_exchange": 30})));
    assert!(metadata["from"].is_string() && metadata["until"].is_string());
    stack.sts.summarise().await.unwrap();
    assert_eq!(stack.evidence().await.len(), told.len(), "told once");
}
