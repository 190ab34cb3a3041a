//! Resources (`api.md` 13).

use serde_json::{Value, json};

use super::support::{Stand, nobody, stands, with};

fn body(provider: &str, with: Value) -> Value {
    let mut body = json!({"identifier": "resource://ledger", "upstream_url": "https://ledger.example/api", "scopes": ["read", "pay"],
        "credential_provider_id": provider});
    if let (Some(all), Value::Object(with)) = (body.as_object_mut(), with) {
        all.extend(with);
    }
    body
}

async fn place(stand: &Stand) -> (String, String) {
    let zone = stand.zone().await;
    let provider = stand.provider(&zone).await;
    (format!("{zone}/resources"), provider)
}

#[tokio::test]
async fn fields_have_their_rules() {
    for stand in stands().await {
        let (path, provider) = place(&stand).await;
        let long = |n: usize| "x".repeat(n);
        for (with, field) in [
            (json!({"name": ""}), "name"),
            (json!({"name": long(201)}), "name"),
            (json!({"scopes": []}), "scopes"),
            (json!({"scopes": null}), "scopes"),
            (json!({"scopes": ["a", "a"]}), "scopes"),
            (json!({"scopes": ["a b"]}), "scopes"),
            (json!({"scopes": ["a\"b"]}), "scopes"),
            (json!({"scopes": [long(201)]}), "scopes"),
            (json!({"scopes": (0..65).map(|n| format!("s{n}")).collect::<Vec<_>>()}), "scopes"),
            (json!({"upstream_url": "ftp://a.example"}), "upstream_url"),
            (json!({"upstream_url": "https://u:p@a.example"}), "upstream_url"),
            (json!({"upstream_url": "https://a.example#x"}), "upstream_url"),
            (json!({"upstream_url": "/a"}), "upstream_url"),
            (json!({"operations": [{"method": "GET", "path": "/", "scope": ""}]}), "operations"),
            (json!({"operations": [{"method": long(17), "path": "/", "scope": "read"}]}), "operations"),
            (json!({"operations": [{"method": "GET", "path": format!("/{}", long(512)), "scope": "read"}]}), "operations"),
            (json!({"operation_enforcement": "loose"}), "operation_enforcement"),
            (json!({"identifier": long(513)}), "identifier"),
        ] {
            let answer = stand.post(&path, body(&provider, with.clone())).await;
            assert_eq!(answer.no(), (400, "invalid_resource"), "{with}: {answer:?}");
            assert_eq!(answer.body["details"]["issues"][0]["path"][0], field, "{with}");
        }
        for bad in ["ledger", "provider://x", "https://u@x.example", "resource://a b"] {
            let answer = stand.post(&path, body(&provider, json!({"identifier": bad}))).await;
            assert_eq!(answer.no(), (400, "invalid_resource_identifier"), "{bad}");
        }
        let nameless = json!({"scopes": ["a"], "upstream_url": "https://a.example", "credential_provider_id": provider});
        assert_eq!(stand.post(&path, nameless).await.no(), (400, "invalid_resource"));
        let stranger = nobody::<caracal_core::id::ProviderId>(&stand).to_string();
        for (with, no) in [
            (json!({"credential_provider_id": stranger}), (404, "provider_not_found")),
            (json!({"credential_provider_id": "p-1"}), (404, "provider_not_found")),
            (json!({"credential_provider_id": null}), (400, "credential_provider_required")),
            (json!({"upstream_url": null}), (400, "upstream_url_required")),
        ] {
            assert_eq!(stand.post(&path, body(&provider, with.clone())).await.no(), no, "{with}");
        }
        assert_eq!(stand.get(&path).await.items().len(), 0);
    }
}

#[tokio::test]
async fn what_was_sent_is_what_comes_back() {
    for stand in stands().await {
        let (path, provider) = place(&stand).await;
        for url in ["https://a.example", "https://a.example/", "http://A.example:8080/x?y=%7e"] {
            let named = json!({"name": "Ledger API", "upstream_url": format!(" {url} "), "scopes": ["z", "a"], "credential_provider_id": provider});
            let made = stand.made(&path, named).await;
            assert_eq!((&made.body["upstream_url"], &made.body["scopes"]), (&json!(url), &json!(["z", "a"])));
            assert!(made.text("identifier").starts_with("resource://ledger-api"));
            assert_eq!(made.body["operation_enforcement"], "enforced");
        }
        let made = stand.made(&path, body(&provider, json!({}))).await;
        assert_eq!(made.body["name"], "resource://ledger");
        assert_eq!(stand.post(&path, body(&provider, json!({}))).await.no(), (409, "resource_identifier_conflict"));
        assert_eq!(stand.delete(&format!("{path}/{}", made.id())).await.status, 204);
        stand.made(&path, body(&provider, json!({}))).await;
        let generated =
            json!({"name": "Ledger API", "upstream_url": "https://a.example", "scopes": ["a"], "credential_provider_id": provider});
        let four = stand.made(&path, generated).await;
        assert_eq!(four.text("identifier"), "resource://ledger-api-4", "archived identifiers are not made again");
    }
}

#[tokio::test]
async fn operations_are_exact_declared_and_judged_with_the_scopes_that_result() {
    for stand in stands().await {
        let (path, provider) = place(&stand).await;
        let op = |method: &str, at: &str, scope: &str| json!({"method": method, "path": at, "scope": scope});
        for (operations, code) in [
            (json!([op(" ", "/a", "read")]), "operation_method_and_path_required"),
            (json!([op("GET", "a", "read")]), "operation_path_must_be_absolute"),
            (json!([op("GET", "/a", "write")]), "operation_scope_not_in_resource_scopes"),
            (json!([op("GET", "/a", "read"), op(" get ", " /a ", "pay")]), "operation_duplicate"),
        ] {
            let answer = stand.post(&path, body(&provider, json!({"operations": operations}))).await;
            assert_eq!(answer.no(), (400, code));
        }
        let made = stand.made(&path, body(&provider, json!({"operations": [op(" get ", " /a ", "read")]}))).await;
        assert_eq!(made.body["operations"], json!([op("GET", "/a", "read")]));
        let one = format!("{path}/{}", made.id());
        let fewer = stand.patch(&one, json!({"scopes": ["pay"]})).await;
        assert_eq!(fewer.no(), (400, "operation_scope_not_in_resource_scopes"));
        let both = stand.patch(&one, json!({"scopes": ["pay"], "operations": []})).await;
        assert_eq!((both.status, &both.body["scopes"], &both.body["operations"]), (200, &json!(["pay"]), &json!([])));
    }
}

#[tokio::test]
async fn a_patch_leaves_a_whole_resource() {
    for stand in stands().await {
        let (path, provider) = place(&stand).await;
        let one = format!("{path}/{}", stand.made(&path, body(&provider, json!({}))).await.id());
        let before = stand.get(&one).await.body;
        for (with, no) in [
            (json!({}), (400, "no_fields")),
            (json!({"unknown": 1}), (400, "no_fields")),
            (json!({"name": null}), (400, "invalid_resource")),
            (json!({"upstream_url": null}), (400, "upstream_url_required")),
            (json!({"credential_provider_id": null}), (400, "credential_provider_required")),
            (json!({"credential_provider_id": "p-1"}), (404, "provider_not_found")),
            (json!({"identifier": "x"}), (400, "invalid_resource_identifier")),
        ] {
            assert_eq!(stand.patch(&one, with.clone()).await.no(), no, "{with}");
        }
        assert_eq!(stand.get(&one).await.body, before);
        let changed = stand.patch(&one, json!({"name": "L", "operation_enforcement": "transport_uniform"})).await;
        assert_eq!((&changed.body["name"], &changed.body["scopes"]), (&json!("L"), &before["scopes"]));
        stand.made(&path, body(&provider, json!({"identifier": "resource://other"}))).await;
        let taken = stand.patch(&one, json!({"identifier": "resource://other"})).await;
        assert_eq!(taken.no(), (409, "resource_identifier_conflict"));
        assert_eq!(stand.patch(&format!("{path}/r-1"), json!({"name": "x"})).await.no(), (404, "resource_not_found"));
    }
}

#[tokio::test]
async fn a_zone_has_as_many_resources_as_it_may() {
    for stand in with(&[("API_MAX_RESOURCES_PER_ZONE", "1")]).await {
        let (path, provider) = place(&stand).await;
        let first = stand.made(&path, body(&provider, json!({}))).await;
        let second = body(&provider, json!({"identifier": "resource://b"}));
        assert_eq!(stand.post(&path, second.clone()).await.no(), (409, "resource_quota_exceeded"));
        stand.delete(&format!("{path}/{}", first.id())).await;
        stand.made(&path, second).await;
    }
}
