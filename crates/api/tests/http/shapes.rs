//! The wire's shapes, as golden files. After a wanted change: `INSTA_UPDATE=always cargo nextest run -p caracal-api shapes`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::support::{GRANTS, Stand, stands};

/// What differs from run to run gets a name: ids in the order they appear, times, secrets, hashes of what holds ids.
fn named(value: Value, ids: &mut BTreeMap<String, String>) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .map(|(key, value)| {
                    let value = match key.as_str() {
                        "manifest_sha256" => json!("<hash>"),
                        "client_secret" => json!("<secret>"),
                        "age_seconds" => json!("<seconds>"),
                        "next_cursor" if value.is_string() => json!("<cursor>"),
                        _ => named(value, ids),
                    };
                    (key, value)
                })
                .collect(),
        ),
        Value::Array(items) => items.into_iter().map(|item| named(item, ids)).collect(),
        Value::String(text) => json!(renamed(&text, ids)),
        other => other,
    }
}

fn renamed(text: &str, ids: &mut BTreeMap<String, String>) -> String {
    if text.len() >= 20 && text.as_bytes()[10] == b'T' && text.ends_with('Z') {
        return format!("<time of {} characters>", text.len());
    }
    let mut out = String::new();
    for piece in text.split_inclusive(['/', '=', '&', '?']) {
        match piece.split_at_checked(36) {
            Some((id, end)) if id.bytes().filter(|b| *b == b'-').count() == 4 => {
                let next = format!("<id {}>", ids.len() + 1);
                out.push_str(ids.entry(id.to_owned()).or_insert(next));
                out.push_str(end);
            }
            _ => out.push_str(piece),
        }
    }
    out
}

async fn exchange(stand: &Stand) -> Vec<(String, u16, Value)> {
    let mut seen = Vec::new();
    let mut keep = |told: &str, answer: super::support::Answer| {
        let body = answer.body.clone();
        seen.push((told.to_owned(), answer.status, body));
        answer
    };
    let zone = keep("create a zone", stand.post("/v1/zones", json!({"name": "Production", "dcr_enabled": false})).await).id();
    let zone = format!("/v1/zones/{zone}");
    keep("change a zone", stand.patch(&zone, json!({"name": "Renamed"})).await);
    let body = json!({"name": "ledger-agent", "registration_method": "managed", "traits": ["team:a"]});
    let application = keep("create an application", stand.post(&format!("{zone}/applications"), body).await).id();
    let one = format!("{zone}/applications/{application}");
    keep("get an application", stand.get(&one).await);
    keep("change an application", stand.patch(&one, json!({"name": "renamed"})).await);
    keep("rotate a secret", stand.ask("POST", &format!("{one}/rotate-secret"), None).await);
    keep("reveal a secret", stand.get(&format!("{one}/client-secret")).await);
    let body = json!({"name": "OpenAI key", "kind": "api_key", "config_json": {"header_name": "Authorization", "auth_scheme": "Bearer", "api_key": "k"}});
    let provider = keep("create a provider", stand.post(&format!("{zone}/providers"), body).await).id();
    let body = json!({"name": "Ledger", "identifier": "resource://ledger", "upstream_url": "https://ledger.example/api",
        "scopes": ["ledger:read", "ledger:pay"], "credential_provider_id": provider,
        "operations": [{"method": "GET", "path": "/accounts", "scope": "ledger:read"}]});
    keep("create a resource", stand.post(&format!("{zone}/resources"), body).await);
    keep("list resources", stand.get(&format!("{zone}/resources?limit=1")).await);
    let body = json!({"name": "books", "description": "who may", "content": GRANTS});
    let policy = keep("create a policy", stand.post(&format!("{zone}/policies"), body).await);
    keep("add a version", stand.post(&format!("{zone}/policies/{}/versions", policy.id()), json!({"content": GRANTS})).await);
    keep("get a policy", stand.get(&format!("{zone}/policies/{}", policy.id())).await);
    keep("list policies", stand.get(&format!("{zone}/policies")).await);
    let set = keep("create a set", stand.post(&format!("{zone}/policy-sets"), json!({"name": "main"})).await).id();
    let set = format!("{zone}/policy-sets/{set}");
    let manifest = json!({"manifest": [{"policy_version_id": policy.body["version_id"]}]});
    let version = keep("add a set's version", stand.post(&format!("{set}/versions"), manifest).await).id();
    keep("list a set's versions", stand.get(&format!("{set}/versions")).await);
    keep("get a set's version", stand.get(&format!("{set}/versions/{version}")).await);
    let done = keep("activate", stand.post(&format!("{set}/activate"), json!({"version_id": version})).await);
    keep("activation status", stand.get(&done.text("status_url")).await);
    keep("get a set", stand.get(&set).await);
    keep("archive a provider", stand.delete(&format!("{zone}/providers/{provider}")).await);
    keep("list archived providers", stand.get(&format!("{zone}/providers?status=archived")).await);
    keep("validate", stand.post("/v1/policies/validate", json!({"content": GRANTS})).await);
    keep("a body refused", stand.post(&format!("{zone}/policies"), json!({"name": 1})).await);
    keep(
        "a conflict",
        stand.post(&format!("{zone}/applications"), json!({"name": "Renamed", "registration_method": "managed"})).await,
    );
    keep("admin audit", stand.get(&format!("{zone}/admin-audit?limit=2")).await);
    keep("dcr status", stand.get(&format!("{zone}/dcr-status")).await);
    seen
}

#[tokio::test]
async fn shapes_are_those_of_the_golden_file() {
    for stand in stands().await {
        let mut ids = BTreeMap::new();
        let seen: Vec<Value> = exchange(&stand)
            .await
            .into_iter()
            .map(|(told, status, body)| json!({"what": told, "status": status, "body": named(body, &mut ids)}))
            .collect();
        insta::assert_json_snapshot!("wire", seen);
    }
}
