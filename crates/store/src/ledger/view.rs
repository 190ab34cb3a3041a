//! Entries as the product shows them (`audit.md` 10): rows with secrets masked, projections, and the explanation of a request.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::read::Entry;

/// Keys whose values are never shown, at any depth of the metadata.
const MASKED: &[&str] = &[
    "password",
    "passwd",
    "secret",
    "token",
    "access_token",
    "refresh_token",
    "id_token",
    "api_key",
    "apikey",
    "authorization",
    "cookie",
    "set_cookie",
    "client_secret",
    "private_key",
    "session",
    "assertion",
];

/// Columns of the row that an export may name, in order.
const ROW_FIELDS: &[&str] = &[
    "id",
    "occurred_at",
    "event_type",
    "decision",
    "evaluation_status",
    "request_id",
    "ingested_at",
    "policy_set_id",
    "policy_set_version_id",
    "manifest_sha",
    "determining_policies",
];

/// Members of the metadata that an export may name, in order.
const META_FIELDS: &[&str] = &[
    "application_id",
    "application_name",
    "resource",
    "requested_scopes",
    "agent_session_id",
    "agent_lifecycle",
    "agent_labels",
    "delegation_edge_id",
    "delegation_hop_count",
    "method",
    "latency_ms",
    "upstream_status",
    "result_class",
    "reason",
    "trace_id",
    "provider_id",
    "connection_id",
    "upstream_host",
    "gateway_status",
    "error_kind",
    "response_bytes",
    "auth_mode",
    "subject_fingerprint",
    "subject",
    "authorized_by",
    "command",
    "subcommand",
    "challenge_id",
    "tier",
    "approver_class",
    "privacy_mode",
    "approver_subject_id",
    "subject_anchor",
    "subject_kind",
    "federated_user_issuer",
];

/// Every name an export may ask for, in order.
pub fn csv_fields() -> impl Iterator<Item = &'static str> {
    ROW_FIELDS.iter().chain(META_FIELDS).copied()
}

/// The row of an entry.
pub fn row(entry: &Entry) -> Value {
    let event = &entry.event;
    let mut metadata = event.metadata.clone().unwrap_or(Value::Null);
    if let Value::Object(members) = &mut metadata {
        members.remove("policy_input");
    }
    json!({
        "id": event.id,
        "zone_id": event.zone_id,
        "event_type": event.event_type,
        "request_id": event.request_id,
        "decision": event.decision,
        "policy_set_id": event.policy_set_id,
        "policy_set_version_id": event.policy_set_version_id,
        "manifest_sha": event.manifest_sha,
        "evaluation_status": event.evaluation_status,
        "determining_policies_json": event.determining,
        "diagnostics_json": event.diagnostics,
        "metadata_json": masked(metadata),
        "occurred_at": event.occurred_at.rfc3339_millis(),
        "ingested_at": entry.ingested_at.rfc3339_millis(),
        "seq": entry.seq,
    })
}

fn masked(value: Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .map(|(key, value)| {
                    let hidden = MASKED.contains(&key.to_ascii_lowercase().as_str());
                    (key, if hidden { "[redacted]".into() } else { masked(value) })
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(masked).collect()),
        other => other,
    }
}

/// A row cut down to the named fields; columns come from the row or from its metadata.
pub fn project(row: &Value, fields: &[String]) -> Value {
    let field = |name: &str| match name {
        "determining_policies" => {
            let names = row["determining_policies_json"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|p| p.get("policy").or_else(|| p.get("name")).and_then(Value::as_str).or_else(|| p.as_str()));
            Value::from(names.collect::<Vec<_>>())
        }
        name if ROW_FIELDS.contains(&name) => row.get(name).cloned().unwrap_or(Value::Null),
        name => row["metadata_json"].get(name).cloned().unwrap_or(Value::Null),
    };
    Value::Object(fields.iter().map(|name| (name.clone(), field(name))).collect())
}

/// Why a request was decided as it was. `entries` are all of it, oldest first, and not empty.
pub fn explain(zone: &str, request_id: &str, entries: &[Entry]) -> Value {
    let denied: Vec<&Entry> = entries.iter().filter(|e| e.event.decision == "deny").collect();
    let last = entries.last().map(|e| e.event.decision.as_str()).filter(|d| !d.is_empty()).unwrap_or("unknown");
    let explained = |entry: &&Entry| {
        let row = row(entry);
        json!({
            "event_id": row["id"],
            "event_type": row["event_type"],
            "evaluation_status": row["evaluation_status"],
            "determining_policies": list(&row["determining_policies_json"]),
            "diagnostics": list(&row["diagnostics_json"]),
            "metadata": row["metadata_json"],
            "policy_input": policy_input(zone, entry),
            "summary": summary(entry),
            "proof": format!("/v1/zones/{zone}/audit/events/{}/proof", row["id"].as_str().unwrap_or_default()),
        })
    };
    json!({
        "request_id": request_id,
        "zone_id": zone,
        "final_decision": if denied.is_empty() { last } else { "deny" },
        "denied": denied.iter().map(explained).collect::<Vec<_>>(),
        "events": entries.iter().map(row).collect::<Vec<_>>(),
    })
}

fn list(value: &Value) -> Value {
    if value.is_array() { value.clone() } else { json!([]) }
}

/// The input a decision was made on: as recorded, or rebuilt from the metadata.
fn policy_input(zone: &str, entry: &Entry) -> Value {
    let meta = entry.event.metadata.clone().unwrap_or(Value::Null);
    if let Some(recorded) = meta.get("policy_input").filter(|v| v.is_object()) {
        return recorded.clone();
    }
    let text = |name: &str| meta.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let scopes = list(&meta["requested_scopes"]);
    let mut principal = Map::from_iter([
        ("type".to_owned(), "Application".into()),
        ("id".to_owned(), text("application_id").into()),
        ("zone_id".to_owned(), zone.into()),
    ]);
    let mut context = Map::from_iter([
        ("actor_claims".to_owned(), json!({})),
        ("requested_scopes".to_owned(), scopes.clone()),
        ("challenge_resolved".to_owned(), false.into()),
    ]);
    for (to, from) in [
        ("registration_method", "registration_method"),
        ("agent_session_id", "agent_session_id"),
        ("lifecycle", "agent_lifecycle"),
        ("labels", "agent_labels"),
    ] {
        if let Some(value) = meta.get(from).filter(|v| !v.is_null()) {
            principal.insert(to.to_owned(), value.clone());
        }
    }
    for name in ["session_id", "agent_session_id", "delegation_edge_id"] {
        if let Some(value) = meta.get(name).filter(|v| !v.is_null()) {
            context.insert(name.to_owned(), value.clone());
        }
    }
    let mut input = json!({
        "schema_version": text("schema_version"),
        "principal": principal,
        "resource": {"type": "Resource", "identifier": text("resource"), "scopes": scopes},
        "action": {"id": "TokenExchange"},
        "context": context,
    });
    for (to, from) in [("session", "session_id"), ("delegation_edge", "delegation_edge_id")] {
        if let Some(value) = meta.get(from).filter(|v| !v.is_null()) {
            input[to] = json!({"id": value});
        }
    }
    input
}

/// One plain sentence about a denial.
fn summary(entry: &Entry) -> String {
    let meta = entry.event.metadata.as_ref().unwrap_or(&Value::Null);
    let refusal = &meta["refusal"];
    let text = |value: &Value| value.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
    let reason = text(&refusal["reason"])
        .or_else(|| text(&meta["reason"]))
        .or_else(|| Some(entry.event.evaluation_status.clone()).filter(|t| !t.is_empty()));
    let mut sentence = format!("Denied: {}", reason.unwrap_or_else(|| "no reason was recorded".to_owned()));
    if let Some(rule) = text(&refusal["rule"]) {
        let _ = write!(sentence, ", by {rule}");
    }
    if let Some(document) = text(&refusal["document"]) {
        let _ = write!(sentence, " of document {document}");
    }
    if let Some(resource) = text(&refusal["resource"]).or_else(|| text(&meta["resource"])) {
        let _ = write!(sentence, ", for {resource}");
    }
    if let Some(detail) = text(&refusal["detail"]) {
        let _ = write!(sentence, " ({detail})");
    }
    sentence + "."
}

#[cfg(test)]
mod tests {
    use caracal_core::event::Event;
    use caracal_core::time::Time;

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "so that a test reads well")]
    fn entry(decision: &str, metadata: Value) -> Entry {
        let event = Event {
            id: "0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10".parse().unwrap(),
            zone_id: "z".into(),
            event_type: "token_exchange".into(),
            request_id: "r".into(),
            decision: decision.into(),
            evaluation_status: "complete".into(),
            policy_set_id: None,
            policy_set_version_id: None,
            manifest_sha: None,
            determining: json!([{"policy": "grants"}]),
            diagnostics: json!([]),
            metadata: Some(metadata),
            occurred_at: Time::from_micros(1_790_000_000_123_456),
        };
        Entry {
            seq: 1,
            ingested_at: Time::from_micros(1_790_000_001_000_000),
            event,
            secret: [0; 16],
            content: [0; 32],
            previous: None,
            hmac: None,
            signature: None,
            foreign: None,
        }
    }

    #[test]
    fn secrets_are_masked_at_every_depth_and_ids_are_not() {
        let row = row(&entry("allow", json!({"session_id":"s","a":[{"Client_Secret":"x"}],"policy_input":{"k":1}})));
        assert_eq!(row["metadata_json"], json!({"session_id":"s","a":[{"Client_Secret":"[redacted]"}]}));
        assert_eq!((&row["occurred_at"], &row["policy_set_id"]), (&"2026-09-21T14:13:20.123Z".into(), &Value::Null));
        let fields = ["determining_policies".to_owned(), "session_id".to_owned(), "resource".to_owned()];
        assert_eq!(project(&row, &fields), json!({"determining_policies":["grants"],"session_id":"s","resource":null}));
    }

    #[test]
    fn one_denial_decides() {
        let refusal =
            json!({"reason":"role_scope_mismatch","rule":"policy.role","document":"grants","resource":"resource://ledger"});
        let entries = [entry("deny", json!({"refusal":refusal,"policy_input":{"k":1}})), entry("allow", json!({}))];
        let told = explain("z", "r", &entries);
        assert_eq!(told["final_decision"], "deny");
        assert_eq!(
            told["denied"][0]["summary"],
            "Denied: role_scope_mismatch, by policy.role of document grants, for resource://ledger."
        );
        assert_eq!(told["denied"][0]["policy_input"], json!({"k":1}));
        assert_eq!(explain("z", "r", &entries[1..])["final_decision"], "allow");
    }
}
