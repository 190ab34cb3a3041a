//! Providers of the kinds none, caracal_mandate, bearer_token and api_key (`api.md` 11).

use serde_json::{Value, json};

use super::support::stands;

#[tokio::test]
async fn an_identifier_is_given_or_made_of_the_name() {
    for stand in stands().await {
        let path = format!("{}/providers", stand.zone().await);
        let made = stand.made(&path, json!({"name": "Open AI key", "kind": "none"})).await;
        assert_eq!(made.body["identifier"], "provider://open-ai-key");
        let again = stand.made(&path, json!({"name": "provider://open-ai-key", "identifier": " ", "kind": "none"})).await;
        assert_eq!(again.body["identifier"], "provider://open-ai-key-2", "blank counts as absent");
        let unnamed = stand.made(&path, json!({"identifier": "provider://x-1", "kind": "caracal_mandate"})).await;
        assert_eq!(unnamed.body["name"], "provider://x-1");
        for bad in ["x", "provider://", "provider://A", "provider://a--b", "provider://a-", "resource://a"] {
            let answer = stand.post(&path, json!({"identifier": bad, "kind": "none"})).await;
            assert_eq!(answer.no(), (400, "invalid_provider_identifier"), "{bad}");
        }
        let taken = stand.post(&path, json!({"identifier": "provider://x-1", "kind": "none"})).await;
        assert_eq!(taken.no(), (409, "provider_identifier_conflict"));
        assert_eq!(stand.delete(&format!("{path}/{}", unnamed.id())).await.status, 204);
        stand.made(&path, json!({"identifier": "provider://x-1", "kind": "none"})).await;
    }
}

#[tokio::test]
async fn configuration_is_that_of_the_kind() {
    for stand in stands().await {
        let path = format!("{}/providers", stand.zone().await);
        let config = |kind: &'static str, config: Value| {
            let (stand, path) = (&stand, &path);
            async move { stand.post(path, json!({"name": "p", "kind": kind, "config_json": config})).await }
        };
        for (kind, bad, field) in [
            ("none", json!({"x": 1}), "x"),
            ("caracal_mandate", json!({"api_key": "k"}), "api_key"),
            ("bearer_token", json!({}), "bearer_token"),
            ("bearer_token", json!({"bearer_token": ""}), "bearer_token"),
            ("bearer_token", json!({"bearer_token": "Bearer abc"}), "bearer_token"),
            ("bearer_token", json!({"bearer_token": "a", "auth_header": "Content-Length"}), "auth_header"),
            ("api_key", json!({"api_key": "k"}), "header_name"),
            ("api_key", json!({"api_key": "k", "auth_location": "query"}), "query_param_name"),
            ("api_key", json!({"api_key": "k", "header_name": "X-Forwarded-For"}), "header_name"),
            ("api_key", json!({"api_key": "Token k", "header_name": "X", "auth_scheme": "token"}), "api_key"),
        ] {
            let answer = config(kind, bad.clone()).await;
            assert_eq!(answer.no(), (400, "invalid_provider_config"), "{bad}");
            let told = answer.text("error_description");
            assert!(told.contains(kind) && told.contains(field), "{told}");
        }
        assert_eq!(config("api_key", json!([])).await.no(), (400, "invalid_provider"));
        for (body, field) in [
            (json!({"name": "p"}), "kind"),
            (json!({"kind": "none"}), "name"),
            (json!({"name": "p", "kind": "http_basic"}), "kind"),
            (json!({"name": "p", "kind": null}), "kind"),
            (json!({"name": "x".repeat(201), "kind": "none"}), "name"),
        ] {
            let answer = stand.post(&path, body.clone()).await;
            assert_eq!(
                (answer.no(), &answer.body["details"]["issues"][0]["path"][0]),
                ((400, "invalid_provider"), &json!(field)),
                "{body}"
            );
        }
        let checked = stand.post(&path, json!({"name": "p", "kind": "none", "check": true})).await;
        assert_eq!(checked.no(), (400, "provider_check_unsupported"));
        assert_eq!(stand.get(&path).await.items().len(), 0, "nothing of it was made");
    }
}

#[tokio::test]
async fn a_secret_is_sealed_named_and_never_shown() {
    for stand in stands().await {
        let path = format!("{}/providers", stand.zone().await);
        let body =
            json!({"name": "Key", "kind": "api_key", "config_json": {"header_name": " X-Key ", "api_key": " very-secret-1 "}});
        let made = stand.made(&path, body).await;
        assert_eq!(made.body["config_json"], json!({"auth_location": "header", "header_name": "X-Key"}));
        assert_eq!(made.body["secret_config_keys"], json!(["api_key"]));
        let one = format!("{path}/{}", made.id());
        // Public configuration alone: what is sealed stays.
        let public = stand.patch(&one, json!({"config_json": {"header_name": "X-Other"}})).await;
        assert_eq!((public.status, &public.body["secret_config_keys"]), (200, &json!(["api_key"])), "{public:?}");
        assert_eq!(public.body["config_json"]["header_name"], "X-Other");
        // A kind asks for everything, even when it is the same one.
        let kind = stand.patch(&one, json!({"kind": "api_key", "config_json": {"header_name": "X-Other"}})).await;
        assert_eq!(kind.no(), (400, "invalid_provider_config"));
        assert_eq!(stand.patch(&one, json!({"kind": "api_key"})).await.no(), (400, "provider_config_required"));
        let renewed = stand
            .patch(&one, json!({"kind": "api_key", "config_json": {"header_name": "X-Key", "api_key": "very-secret-2"}}))
            .await;
        assert_eq!(renewed.status, 200);
        let plain = stand.patch(&one, json!({"kind": "none", "config_json": {}})).await;
        assert_eq!((&plain.body["kind"], &plain.body["secret_config_keys"]), (&json!("none"), &json!([])));
        for shown in [&made, &public, &renewed, &stand.get(&one).await, &stand.get(&path).await] {
            assert!(!shown.text.contains("very-secret"), "{shown:?}");
        }
        assert_eq!(stand.patch(&one, json!({})).await.no(), (400, "no_fields"));
        assert_eq!(stand.patch(&one, json!({"identifier": "x"})).await.no(), (400, "invalid_provider_identifier"));
        let other = stand.made(&path, json!({"name": "Other", "kind": "none"})).await.text("identifier");
        assert_eq!(stand.patch(&one, json!({"identifier": other})).await.no(), (409, "provider_identifier_conflict"));
        assert_eq!(stand.patch(&format!("{path}/p-1"), json!({"name": "x"})).await.no(), (404, "provider_not_found"));
    }
}
