//! Every row of the API's catalogue: what provokes it, and that nothing else is in it.

use axum::body::Body;
use caracal_core::error::api::ALL;
use caracal_core::id::{ApplicationId, ZoneId};
use caracal_core::message::Producer;
use caracal_custody::client_secret_ref;
use http::Request;
use serde_json::{Value, json};

use super::support::{GRANTS, Stand, TOKEN, with, zone_id};

/// Rows that a whole and unlimited deployment never answers, and where they are shown instead.
const ELSEWHERE: [(&str, &str); 8] = [
    ("READ_ONLY", "the API's own tests of its table of routes"),
    ("APPROVE_ONLY", "the API's own tests of its table of routes"),
    ("ZONE_MISMATCH", "the API's own tests of its table of routes"),
    ("SYSTEM_ZONE", "the API's own tests of its table of routes"),
    ("RESERVED_NAMESPACE", "the API's own tests of its table of routes"),
    ("TRAIT_FORBIDDEN", "the API's own tests of its table of routes"),
    ("INTERNAL", "a defect of ours"),
    ("STORE_UNAVAILABLE", "a database that does not answer"),
];

async fn provoked(stand: &Stand) -> Vec<(&'static str, super::support::Answer)> {
    let zone = stand.zone().await;
    let at = |rest: &str| format!("{zone}/{rest}");
    let provider = stand.provider(&zone).await;
    let application = stand.application(&zone, "a").await;
    let resource = |with: Value| {
        let mut body = json!({"identifier": "resource://a", "upstream_url": "https://a.example", "scopes": ["a"],
            "credential_provider_id": provider});
        if let (Some(all), Value::Object(with)) = (body.as_object_mut(), with) {
            all.extend(with);
        }
        body
    };
    let operation = |method: &str, path: &str, scope: &str| json!({"method": method, "path": path, "scope": scope});
    let operations = |all: Vec<Value>| resource(json!({"identifier": "resource://o", "operations": all}));
    stand.made(&at("resources"), resource(json!({}))).await;
    let (set, version) = stand.set(&zone).await;
    let raw = |media: &'static str, body: String| {
        Request::builder()
            .method("POST")
            .uri("/v1/zones")
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-type", media)
            .body(Body::from(body))
            .unwrap()
    };
    let app = |body: Value| stand.patch_owned(at(&format!("applications/{application}")), body);
    let many: Vec<String> = (0..65).map(|n| format!("t{n}")).collect();
    let duplicate = operations(vec![operation("GET", "/", "a"), operation("GET", "/", "a")]);
    let mut all = vec![
        ("INVALID_PARAMS", stand.get(&at("applications/a%20b")).await),
        ("INVALID_JSON", stand.send(raw("application/json", "{".into())).await),
        ("INVALID_BODY", stand.post(&at("policies"), json!({})).await),
        ("INVALID_QUERY", stand.get(&at("applications?limit=0")).await),
        ("INVALID_CURSOR", stand.get(&at("applications?cursor=x")).await),
        ("INVALID_FIELDS", stand.get(&at("audit?fields=x")).await),
        ("INVALID_ZONE", stand.post("/v1/zones", json!({})).await),
        ("INVALID_APPLICATION", stand.post(&at("applications"), json!({})).await),
        ("INVALID_PROVIDER", stand.post(&at("providers"), json!({})).await),
        ("INVALID_PROVIDER_IDENTIFIER", stand.post(&at("providers"), json!({"identifier": "x", "kind": "none"})).await),
        ("INVALID_PROVIDER_CONFIG", stand.post(&at("providers"), json!({"name": "x", "kind": "api_key"})).await),
        ("PROVIDER_CONFIG_REQUIRED", stand.patch(&at(&format!("providers/{provider}")), json!({"kind": "none"})).await),
        ("PROVIDER_CHECK_UNSUPPORTED", stand.post(&at("providers"), json!({"name": "x", "kind": "none", "check": true})).await),
        ("INVALID_RESOURCE", stand.post(&at("resources"), json!({})).await),
        ("INVALID_RESOURCE_IDENTIFIER", stand.post(&at("resources"), resource(json!({"identifier": "x"}))).await),
        ("CREDENTIAL_PROVIDER_REQUIRED", stand.post(&at("resources"), resource(json!({"credential_provider_id": null}))).await),
        ("UPSTREAM_URL_REQUIRED", stand.post(&at("resources"), resource(json!({"upstream_url": null}))).await),
        ("OPERATION_INCOMPLETE", stand.post(&at("resources"), operations(vec![operation(" ", "/", "a")])).await),
        ("OPERATION_PATH", stand.post(&at("resources"), operations(vec![operation("GET", "x", "a")])).await),
        ("OPERATION_SCOPE", stand.post(&at("resources"), operations(vec![operation("GET", "/", "b")])).await),
        ("OPERATION_DUPLICATE", stand.post(&at("resources"), duplicate).await),
        ("TRAIT_COUNT", app(json!({"traits": many})).await),
        ("TRAIT_INVALID", app(json!({"traits": [""]})).await),
        ("TRAIT_DUPLICATE", app(json!({"traits": ["a", "a"]})).await),
        ("DCR_SHUTDOWN_NOT_APPLICABLE", stand.patch(&zone, json!({"dcr_shutdown": "keep_live"})).await),
        ("NO_FIELDS", stand.patch(&zone, json!({})).await),
        ("INVALID_ADMIN_TOKEN", stand.send(Request::get("/v1/zones").body(Body::empty()).unwrap()).await),
        ("NOT_FOUND", stand.get("/v1/x").await),
        ("ZONE_NOT_FOUND", stand.get("/v1/zones/z-1").await),
        ("REQUEST_NOT_FOUND", stand.get(&at("audit/by-request/r-1")).await),
        ("APPLICATION_NOT_FOUND", stand.get(&at("applications/a-1")).await),
        ("PROVIDER_NOT_FOUND", stand.get(&at("providers/p-1")).await),
        ("RESOURCE_NOT_FOUND", stand.get(&at("resources/r-1")).await),
        ("POLICY_NOT_FOUND", stand.get(&at("policies/p-1")).await),
        ("POLICY_SET_NOT_FOUND", stand.get(&at("policy-sets/s-1")).await),
        ("POLICY_SET_BINDING_NOT_FOUND", stand.get(&at("policy-sets/s-1/activation-status")).await),
        ("POLICY_SET_VERSION_NOT_FOUND", stand.get(&format!("{set}/versions/v-1")).await),
        ("VERSION_NOT_FOUND", stand.post(&format!("{set}/activate"), json!({"version_id": "v-1"})).await),
        ("ACTIVE_VERSION_NOT_FOUND", stand.get(&format!("{set}/activation-status")).await),
        ("METHOD", stand.ask("PUT", "/v1/zones", None).await),
        ("ZONE_SLUG_CONFLICT", stand.post("/v1/zones", json!({"name": "x", "slug": "a-zone"})).await),
        ("APPLICATION_NAME_TAKEN", stand.post(&at("applications"), json!({"name": "A", "registration_method": "managed"})).await),
        (
            "PROVIDER_IDENTIFIER_CONFLICT",
            stand.post(&at("providers"), json!({"identifier": "provider://none", "kind": "none"})).await,
        ),
        ("RESOURCE_IDENTIFIER_CONFLICT", stand.post(&at("resources"), resource(json!({}))).await),
        ("POLICY_NAME_CONFLICT", stand.post(&at("policies"), json!({"name": "grants", "content": GRANTS})).await),
        ("POLICY_SET_NAME_CONFLICT", stand.post(&at("policy-sets"), json!({"name": "main"})).await),
        ("TOO_LARGE", stand.send(raw("application/json", "x".repeat(1_048_577))).await),
        ("MEDIA_TYPE", stand.send(raw("text/plain", "{}".into())).await),
        ("INVALID_REGO", stand.post(&at("policies"), json!({"name": "x", "content": "x"})).await),
        ("INVALID_POLICY_CONTRACT", stand.post(&format!("{set}/versions"), json!({"manifest": []})).await),
    ];
    let clash = "# caracal:data-document\npackage caracal.authz\ngrants := {\"a\": 1}\n";
    let clash = stand.made(&at("policies"), json!({"name": "clash", "content": clash})).await.body["version_id"].clone();
    let first = stand.get(&format!("{set}/versions/{version}")).await.body["policies"][0].clone();
    let manifest = json!({"manifest": [{"policy_version_id": first}, {"policy_version_id": clash}]});
    all.push(("INVALID_POLICY_BUNDLE", stand.post(&format!("{set}/versions"), manifest).await));
    let (in_zone, id): (ZoneId, ApplicationId) = (zone_id(&zone), application.parse().unwrap());
    let dropped = stand.store.door::<_, (), _>(Some(in_zone), Producer::Api, move |door| {
        Box::pin(async move { Ok(door.drop_document(&client_secret_ref(in_zone, id)).await?) })
    });
    dropped.await.unwrap();
    all.push(("CLIENT_SECRET_NOT_STORED", stand.get(&at(&format!("applications/{application}/client-secret"))).await));
    let broken = stand.store.door::<_, (), _>(Some(in_zone), Producer::Api, move |door| {
        Box::pin(async move { Ok(door.put_document(&client_secret_ref(in_zone, id), b"not sealed".to_vec()).await?) })
    });
    broken.await.unwrap();
    all.push(("SECRET_BACKEND", stand.get(&at(&format!("applications/{application}/client-secret"))).await));
    stand.made(&at("resources"), resource(json!({"identifier": "resource://two"}))).await;
    all.push(("RESOURCE_QUOTA", stand.post(&at("resources"), resource(json!({"identifier": "resource://three"}))).await));
    stand.refuse_records().await;
    all.push(("AUDIT_UNAVAILABLE", stand.post("/v1/zones", json!({"name": "x"})).await));
    all
}

#[tokio::test]
async fn every_row_is_answered_as_it_is_written() {
    for stand in with(&[("API_MAX_RESOURCES_PER_ZONE", "2")]).await {
        let mut shown: Vec<&str> = ELSEWHERE.iter().map(|(name, _)| *name).collect();
        for (name, answer) in provoked(&stand).await {
            let row = ALL.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{name} is not in the catalogue"));
            assert_eq!(answer.no(), (row.status, row.code), "{}: {name}: {answer:?}", stand.name());
            shown.push(name);
        }
        shown.sort_unstable();
        let mut all: Vec<&str> = ALL.iter().map(|row| row.name).collect();
        all.sort_unstable();
        assert_eq!(shown, all);
    }
}
