//! What a decision is about, in one normal form (`policy.md` 5): empty conditional fields are absent, unknown ones are gone.

use serde_json::{Map, Value, json};

/// The schema this contract reads.
pub const SCHEMA: &str = "2026-05-20";

/// A decision input in its normal form.
#[derive(Clone, Debug, PartialEq)]
pub struct Input(Value);

/// The input is of another schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema_version {0:?} is not {SCHEMA}")]
pub struct WrongSchema(String);

const EDGE: &[&str] = &[
    "source_session_id",
    "target_session_id",
    "issuer_application_id",
    "receiver_application_id",
    "resource_id",
    "scopes",
    "edge_version",
    "path",
    "graph_epoch",
    "constraints_json",
];

impl Input {
    /// Brings any document into normal form.
    pub fn normal(raw: &Value) -> Result<Self, WrongSchema> {
        let schema = raw["schema_version"].as_str().unwrap_or_default();
        if !schema.is_empty() && schema != SCHEMA || !raw["schema_version"].is_null() && !raw["schema_version"].is_string() {
            return Err(WrongSchema(raw["schema_version"].to_string()));
        }
        let mut out = Map::new();
        out.insert("schema_version".into(), SCHEMA.into());
        let kept = |from: &Value, keys: &[&str], optional: &[&str]| {
            let mut object = Map::new();
            for key in keys {
                object.insert((*key).into(), from[*key].clone());
            }
            for key in optional {
                if !is_empty(&from[*key]) {
                    object.insert((*key).into(), from[*key].clone());
                }
            }
            Value::Object(object)
        };
        let principal = ["registration_method", "agent_session_id", "lifecycle", "labels"];
        out.insert("principal".into(), kept(&raw["principal"], &["type", "id", "zone_id"], &principal));
        out.insert("resource".into(), kept(&raw["resource"], &["type", "id", "identifier", "scopes"], &[]));
        out.insert("action".into(), kept(&raw["action"], &["id"], &["method", "path"]));
        if !is_empty(&raw["session"]["id"]) {
            out.insert("session".into(), json!({"id": raw["session"]["id"]}));
        }
        if raw["delegation_edge"].is_object() {
            out.insert("delegation_edge".into(), kept(&raw["delegation_edge"], &["id"], EDGE));
        }
        let context = ["subject_claims", "trace_id", "session_id", "agent_session_id", "delegation_edge_id"];
        let mut kept_context = kept(&raw["context"], &["actor_claims", "challenge_resolved", "requested_scopes"], &context);
        if kept_context["challenge_resolved"].is_null() {
            kept_context["challenge_resolved"] = false.into();
        }
        out.insert("context".into(), kept_context);
        Ok(Self(Value::Object(out)))
    }

    /// As evidence keeps it.
    pub fn into_json(self) -> Value {
        self.0
    }

    /// As evidence keeps it, to look at.
    pub const fn as_json(&self) -> &Value {
        &self.0
    }

    pub(crate) fn text(&self, object: &str, key: &str) -> Option<&str> {
        self.0[object][key].as_str()
    }

    pub(crate) fn requested(&self) -> Vec<&str> {
        strings(&self.0["context"]["requested_scopes"])
    }

    pub(crate) fn labels(&self) -> Vec<&str> {
        strings(&self.0["principal"]["labels"])
    }

    pub(crate) fn subject(&self) -> Option<&Value> {
        self.0["context"].get("subject_claims")
    }

    pub(crate) fn edge(&self) -> Option<&Value> {
        self.0.get("delegation_edge")
    }

    pub(crate) fn has_session(&self) -> bool {
        self.0["context"].get("agent_session_id").is_some()
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) => false,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

/// Items of an array, members of a set, values of an object; nothing of any other type.
pub(crate) fn elements(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(members) => members.values().collect(),
        _ => Vec::new(),
    }
}

pub(crate) fn strings(value: &Value) -> Vec<&str> {
    elements(value).into_iter().filter_map(Value::as_str).collect()
}
