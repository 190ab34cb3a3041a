//! Bodies, paths and methods that do not fit: a precise no, never a failure (`api.md` 2.2, 4.4, 5).

use axum::body::Body;
use http::Request;
use serde_json::json;

use super::support::{GRANTS, Stand, TOKEN, stands};

async fn send(stand: &Stand, method: &str, path: &str, media: Option<&str>, body: impl Into<Body>) -> super::support::Answer {
    let mut request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {TOKEN}"));
    if let Some(media) = media {
        request = request.header("content-type", media);
    }
    stand.send(request.body(body.into()).unwrap()).await
}

const JSON: Option<&str> = Some("application/json");

/// Every route that takes a body, on objects that exist, with the code of a body that does not fit.
async fn writes(stand: &Stand) -> Vec<(&'static str, String, &'static str)> {
    let zone = stand.zone().await;
    let application = stand.application(&zone, "a").await;
    let provider = stand.provider(&zone).await;
    let body = json!({"identifier": "resource://a", "upstream_url": "https://a.example", "scopes": ["a"], "credential_provider_id": provider});
    let resource = stand.made(&format!("{zone}/resources"), body).await.id();
    let policy = stand.made(&format!("{zone}/policies"), json!({"name": "p", "content": GRANTS})).await.id();
    let set = stand.made(&format!("{zone}/policy-sets"), json!({"name": "s"})).await.id();
    let set = format!("{zone}/policy-sets/{set}");
    vec![
        ("POST", "/v1/zones".to_owned(), "invalid_zone"),
        ("PATCH", zone.clone(), "invalid_zone"),
        ("POST", format!("{zone}/applications"), "invalid_application"),
        ("PATCH", format!("{zone}/applications/{application}"), "invalid_application"),
        ("POST", format!("{zone}/providers"), "invalid_provider"),
        ("PATCH", format!("{zone}/providers/{provider}"), "invalid_provider"),
        ("POST", format!("{zone}/resources"), "invalid_resource"),
        ("PATCH", format!("{zone}/resources/{resource}"), "invalid_resource"),
        ("POST", "/v1/policies/validate".to_owned(), "invalid_body"),
        ("POST", format!("{zone}/policies"), "invalid_body"),
        ("PATCH", format!("{zone}/policies/{policy}"), "invalid_body"),
        ("POST", format!("{zone}/policies/{policy}/versions"), "invalid_body"),
        ("POST", format!("{zone}/policy-sets"), "invalid_body"),
        ("PATCH", set.clone(), "invalid_body"),
        ("POST", format!("{set}/versions"), "invalid_body"),
        ("POST", format!("{set}/activate"), "invalid_body"),
    ]
}

#[tokio::test]
async fn a_body_that_does_not_fit_is_told_what_is_wrong() {
    for stand in stands().await {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let deep_member = format!(r#"{{"name":{}1{}}}"#, r#"{"a":"#.repeat(200), "}".repeat(200));
        for (method, path, invalid) in writes(&stand).await {
            let told = format!("{} {method} {path}", stand.name());
            for broken in ["{", "{\"name\":\"a\"} x", "nul", "{\"a\":1,}", "\"\u{1}\"", "{'name':1}", &deep, &deep_member] {
                assert_eq!(
                    send(&stand, method, &path, JSON, broken.to_owned()).await.no(),
                    (400, "invalid_json"),
                    "{told} {broken}"
                );
            }
            assert_eq!(
                send(&stand, method, &path, JSON, b"{\"name\":\"\xff\"}".to_vec()).await.no(),
                (400, "invalid_json"),
                "{told}"
            );
            for odd in ["[]", "\"x\"", "7", "", "null", r#"{"name":1,"description":1,"content":1,"manifest":1,"version_id":1}"#] {
                let answer = send(&stand, method, &path, JSON, odd.to_owned()).await;
                assert_eq!(answer.no(), (400, invalid), "{told} {odd}");
                assert!(answer.body["details"]["issues"][0]["path"].is_array(), "{answer:?}");
            }
            for twice in [r#"{"name":"a","name":"b"}"#, r#"{"config_json":{"x":1,"\u0078":2}}"#, r#"{"name":"a\u0000"}"#] {
                assert_eq!(send(&stand, method, &path, JSON, twice.to_owned()).await.no(), (400, invalid), "{told} {twice}");
            }
            assert_eq!(send(&stand, method, &path, None, "{}".to_owned()).await.no(), (415, "unsupported_media_type"), "{told}");
            let text = Some("text/plain");
            assert_eq!(send(&stand, method, &path, text, "{}".to_owned()).await.no(), (415, "unsupported_media_type"), "{told}");
            let large = format!("{{\"name\":\"{}\"}}", "x".repeat(1_048_577));
            assert_eq!(send(&stand, method, &path, JSON, large).await.no(), (413, "payload_too_large"), "{told}");
        }
    }
}

#[tokio::test]
async fn who_asks_is_asked_first() {
    for stand in stands().await {
        let zone = stand.zone().await;
        let paths = [
            "/v1/zones".to_owned(),
            zone.clone(),
            format!("{zone}/applications/a%20b"),
            "/v1/nothing".to_owned(),
            format!("{zone}/nothing/at/all"),
        ];
        let long = format!("Bearer {}", "x".repeat(4097));
        for path in &paths {
            for bearer in [
                None,
                Some("Bearer"),
                Some("Bearer "),
                Some("Basic x"),
                Some("bearer x"),
                Some("Bearer wrong"),
                Some(long.as_str()),
            ] {
                for method in ["GET", "POST", "PUT"] {
                    let mut request = Request::builder().method(method).uri(path);
                    if let Some(bearer) = bearer {
                        request = request.header("authorization", bearer);
                    }
                    let answer = stand.send(request.body(Body::from("{")).unwrap()).await;
                    assert_eq!(answer.no(), (401, "invalid_admin_token"), "{method} {path} {bearer:?}");
                }
            }
        }
        assert_eq!(stand.get("/v1/nothing").await.no(), (404, "not_found"));
        assert_eq!(stand.get(&format!("{zone}/applications/")).await.no(), (404, "not_found"), "a trailing slash is another path");
        assert_eq!(stand.get("/V1/zones").await.no(), (404, "not_found"));
        assert_eq!(stand.get("/v1/z%6fnes").await.no(), (404, "not_found"), "a letter spelled otherwise is another path");
        let put = stand.ask("PUT", &zone, None).await;
        assert_eq!(put.no(), (405, "method_not_allowed"));
        let mut allowed: Vec<&str> = put.headers["allow"].to_str().unwrap().split(',').collect();
        allowed.sort_unstable();
        assert_eq!(allowed, ["DELETE", "GET", "HEAD", "PATCH"]);
        let head = stand.ask("HEAD", "/v1/zones", None).await;
        assert_eq!((head.status, head.text.as_str()), (200, ""));
    }
}

#[tokio::test]
async fn ids_of_the_path_have_their_form() {
    for stand in stands().await {
        let zone = stand.zone().await;
        for bad in ["a%20b", "%C3%A9", &"x".repeat(129), "a%2Fb", "a%00", "%FF"] {
            for path in [format!("{zone}/applications/{bad}"), format!("/v1/zones/{bad}/applications")] {
                let answer = stand.get(&path).await;
                assert_eq!(answer.no(), (400, "invalid_params"), "{path}");
            }
        }
        for odd in ["A.b_c:d-1", &"x".repeat(128), "0195F2AA-7C31-7D4E-A01B-3F6C2D9E8B10"] {
            assert_eq!(stand.get(&format!("{zone}/applications/{odd}")).await.no(), (404, "application_not_found"), "{odd}");
        }
    }
}

#[tokio::test]
async fn an_object_of_another_zone_is_not_there() {
    for stand in stands().await {
        let (own, other) = (stand.zone().await, stand.zone().await);
        let application = stand.application(&other, "a").await;
        let provider = stand.provider(&other).await;
        let body = json!({"identifier": "resource://a", "upstream_url": "https://a.example", "scopes": ["a"], "credential_provider_id": provider});
        assert_eq!(stand.post(&format!("{own}/resources"), body.clone()).await.no(), (404, "provider_not_found"));
        let resource = stand.made(&format!("{other}/resources"), body).await.id();
        let policy = stand.made(&format!("{other}/policies"), json!({"name": "p", "content": GRANTS})).await.id();
        let (set, version) = stand.set(&other).await;
        let set = set.rsplit('/').next().unwrap().to_owned();
        let description = || Some(json!({"description": "x"}));
        for (method, path, body, code) in [
            ("GET", format!("applications/{application}"), None, "application_not_found"),
            ("PATCH", format!("applications/{application}"), Some(json!({"name": "x"})), "application_not_found"),
            ("DELETE", format!("applications/{application}"), None, "application_not_found"),
            ("POST", format!("applications/{application}/rotate-secret"), None, "application_not_found"),
            ("GET", format!("applications/{application}/client-secret"), None, "application_not_found"),
            ("GET", format!("providers/{provider}"), None, "provider_not_found"),
            ("PATCH", format!("providers/{provider}"), Some(json!({"name": "x"})), "provider_not_found"),
            ("DELETE", format!("providers/{provider}"), None, "provider_not_found"),
            ("GET", format!("resources/{resource}"), None, "resource_not_found"),
            ("PATCH", format!("resources/{resource}"), Some(json!({"name": "x"})), "resource_not_found"),
            ("DELETE", format!("resources/{resource}"), None, "resource_not_found"),
            ("GET", format!("policies/{policy}"), None, "policy_not_found"),
            ("PATCH", format!("policies/{policy}"), description(), "policy_not_found"),
            ("DELETE", format!("policies/{policy}"), None, "policy_not_found"),
            ("POST", format!("policies/{policy}/versions"), Some(json!({"content": GRANTS})), "policy_not_found"),
            ("GET", format!("policy-sets/{set}"), None, "policy_set_not_found"),
            ("PATCH", format!("policy-sets/{set}"), description(), "policy_set_not_found"),
            ("DELETE", format!("policy-sets/{set}"), None, "policy_set_not_found"),
            ("GET", format!("policy-sets/{set}/versions"), None, "policy_set_not_found"),
            ("POST", format!("policy-sets/{set}/versions"), Some(json!({"manifest": []})), "policy_set_not_found"),
            ("GET", format!("policy-sets/{set}/versions/{version}"), None, "policy_set_version_not_found"),
            ("POST", format!("policy-sets/{set}/activate"), Some(json!({"version_id": version})), "version_not_found"),
            ("GET", format!("policy-sets/{set}/activation-status"), None, "policy_set_binding_not_found"),
        ] {
            assert_eq!(stand.ask(method, &format!("{own}/{path}"), body).await.no(), (404, code), "{method} {path}");
        }
        for noun in ["applications", "providers", "resources", "policies", "policy-sets"] {
            assert_eq!(stand.get(&format!("{own}/{noun}")).await.items().len(), 0, "{noun}");
        }
    }
}
