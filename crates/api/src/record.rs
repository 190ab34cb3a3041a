//! What is recorded of a call (`api.md` 21.2): names of what changed, never values.

use std::collections::BTreeSet;

use caracal_core::admin::AdminCall;
use caracal_core::id::Id;
use serde_json::{Map, Value, json};

use crate::call::Head;
use crate::routes::Does;

/// Names of secrets: not listed as changed, and told as a rotation.
const SECRETS: [&str; 10] = [
    "client_secret",
    "secret",
    "password",
    "token",
    "private_key",
    "api_key",
    "assertion",
    "bearer_token",
    "access_token",
    "refresh_token",
];
/// How deep names are told.
const DEPTH: usize = 4;
/// Most names.
const NAMES: usize = 64;

/// What a body touches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    fields: BTreeSet<String>,
    secret: bool,
}

impl Touched {
    /// By a body.
    pub(crate) fn by(body: &Value) -> Self {
        let mut touched = Self::default();
        touched.collect(body, "", 1);
        touched
    }

    fn collect(&mut self, value: &Value, path: &str, depth: usize) {
        for (name, member) in value.as_object().into_iter().flatten() {
            if SECRETS.contains(&name.to_ascii_lowercase().as_str()) {
                self.secret = true;
                continue;
            }
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if depth < DEPTH && member.as_object().is_some_and(|members| !members.is_empty()) {
                self.collect(member, &path, depth + 1);
            } else {
                self.fields.insert(path);
            }
        }
    }
}

/// What a handler adds to the record of what it did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note {
    /// The object that was made.
    pub(crate) made: Option<String>,
    /// Members of the payload.
    pub(crate) told: Map<String, Value>,
}

impl Note {
    /// What was made.
    pub(crate) fn made<I: Id>(&mut self, id: I) {
        self.made = Some(id.to_string());
    }

    /// A number for the record.
    pub(crate) fn tell(&mut self, name: &str, count: usize) {
        self.told.insert(name.to_owned(), count.into());
    }
}

/// The record of a call that was answered with this status.
pub(crate) fn record(head: &Head, status: u16, note: Note, touched: &Touched) -> AdminCall {
    let mut payload = note.told;
    let (mode, zone) = match head.actor.zone {
        Some(zone) => ("zone_scoped", zone.to_string()),
        None => ("control_plane_wildcard", "*".to_owned()),
    };
    payload.insert("rls_mode".to_owned(), mode.into());
    payload.insert("rls_zone_guc".to_owned(), zone.into());
    if status < 400 {
        let rotated = head.route.does == Does::Rotate || touched.secret;
        if let Some(kind) = kind(head.route.does, rotated, touched) {
            payload.insert("change_kind".to_owned(), kind.into());
        }
        if !touched.fields.is_empty() {
            payload.insert("changed_fields".to_owned(), json!(touched.fields.iter().take(NAMES).collect::<Vec<_>>()));
        }
        if rotated {
            payload.insert("secret_rotated".to_owned(), true.into());
        }
    }
    AdminCall {
        request_id: head.request_id.clone(),
        actor_id: Some(head.actor.id.clone()),
        actor_name: Some(head.actor.name.clone()),
        actor_scope: Some(head.actor.scope().to_owned()),
        method: head.method.to_string(),
        path: head.path.clone(),
        entity_type: Some(head.route.noun.to_owned()),
        entity_id: note.made.or_else(|| head.route.object.and_then(|name| head.param(name)).map(str::to_owned)),
        status,
        payload: Some(payload.into()),
    }
}

fn kind(does: Does, rotated: bool, touched: &Touched) -> Option<&'static str> {
    match does {
        Does::Delete => Some("delete"),
        Does::Create => Some("create"),
        Does::Rotate => Some("secret_rotation"),
        Does::Update | Does::Act if rotated => Some("secret_rotation"),
        Does::Act => Some("action"),
        Does::Update => (!touched.fields.is_empty()).then_some("update"),
        Does::Look | Does::Reveal => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_and_secrets_are_not() {
        let body = json!({"name": "n", "config_json": {"header_name": "x", "API_KEY": "k"}, "scopes": ["a"], "empty": {},
            "a": {"b": {"c": {"d": {"e": 1}}}}});
        let touched = Touched::by(&body);
        let names: Vec<&str> = touched.fields.iter().map(String::as_str).collect();
        assert_eq!(names, ["a.b.c.d", "config_json.header_name", "empty", "name", "scopes"]);
        assert!(touched.secret);
        assert!(!Touched::by(&json!({"name": "client_secret"})).secret, "a value is no name");
    }
}
