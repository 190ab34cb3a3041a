//! The record of an administrative call: its form and the bytes its content hash is made of (`api.md` 21.3, `audit.md` 11).
//!
//! Records of a zone are a chain: each is stored with the content hash of the one before it, and with an HMAC over both.

use serde_json::Value;

use crate::digest::sha256;
use crate::jcs;
use crate::time::Time;

/// What was called, by whom, and how it ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdminCall {
    /// Correlation.
    pub request_id: String,
    /// Who: the id of a token or an application.
    pub actor_id: Option<String>,
    /// The actor's name at that time.
    pub actor_name: Option<String>,
    /// `global` or `zone`; for an application its scopes.
    pub actor_scope: Option<String>,
    /// Upper case.
    pub method: String,
    /// Without query.
    pub path: String,
    /// The collection of the object.
    pub entity_type: Option<String>,
    /// The object.
    pub entity_id: Option<String>,
    /// How it was answered.
    pub status: u16,
    /// What kind of change, and the names of what changed; never values.
    pub payload: Option<Value>,
}

impl AdminCall {
    /// What was done: method and path.
    pub fn action(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The same call as it is hashed and stored: no text holds U+0000, which one of the databases cannot keep.
    #[must_use]
    pub fn plain(self) -> Self {
        Self {
            request_id: without_nul(self.request_id),
            actor_id: self.actor_id.map(without_nul),
            actor_name: self.actor_name.map(without_nul),
            actor_scope: self.actor_scope.map(without_nul),
            method: without_nul(self.method),
            path: without_nul(self.path),
            entity_type: self.entity_type.map(without_nul),
            entity_id: self.entity_id.map(without_nul),
            status: self.status,
            payload: self.payload.map(plain_value),
        }
    }

    /// The payload's one text; empty without one.
    pub fn payload_text(&self) -> Option<String> {
        self.payload.as_ref().map(|payload| String::from_utf8_lossy(&jcs::canonical(payload)).into_owned())
    }

    /// SHA-256 over everything the record says, each part ended by a separator that no text of ours holds.
    ///
    /// The call is [`Self::plain`]; `occurred_at` counts in milliseconds.
    pub fn content(&self, id: &str, zone: Option<&str>, occurred_at: Time) -> [u8; 32] {
        let (action, status) = (self.action(), self.status.to_string());
        let (payload, occurred_at) = (self.payload_text(), occurred_at.rfc3339_millis());
        let parts = [
            Some(id),
            Some(&self.request_id),
            self.actor_id.as_deref(),
            self.actor_name.as_deref(),
            self.actor_scope.as_deref(),
            Some(&action),
            Some(&self.method),
            Some(&self.path),
            zone,
            self.entity_type.as_deref(),
            self.entity_id.as_deref(),
            Some(&status),
            payload.as_deref(),
            Some(&occurred_at),
        ];
        let ended: Vec<&[u8]> = parts.iter().flat_map(|part| [part.unwrap_or_default().as_bytes(), b"\x1f".as_slice()]).collect();
        sha256(&ended)
    }
}

fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "") } else { text }
}

fn plain_value(value: Value) -> Value {
    match value {
        Value::String(text) => without_nul(text).into(),
        Value::Array(items) => items.into_iter().map(plain_value).collect(),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(key, value)| (without_nul(key), plain_value(value))).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::digest::hex;

    fn call(method: &str, status: u16, payload: Option<Value>) -> AdminCall {
        AdminCall {
            request_id: "req-1".to_owned(),
            actor_id: Some("tok-1".to_owned()),
            actor_name: Some("ci".to_owned()),
            actor_scope: Some("global".to_owned()),
            method: method.to_owned(),
            path: "/v1/zones/z-1/applications/app-1".to_owned(),
            entity_type: Some("applications".to_owned()),
            entity_id: Some("app-1".to_owned()),
            status,
            payload,
        }
    }

    fn at(text: &str) -> Time {
        Time::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn the_content_vectors_hold() {
        let payload =
            json!({"rls_mode":"control_plane_wildcard","rls_zone_guc":"*","change_kind":"update","changed_fields":["name"]});
        let first = call("PATCH", 200, Some(payload));
        assert_eq!(
            first.payload_text().unwrap(),
            r#"{"change_kind":"update","changed_fields":["name"],"rls_mode":"control_plane_wildcard","rls_zone_guc":"*"}"#
        );
        assert_eq!(
            hex(&first.content("aa-1", Some("z-1"), at("2026-01-01T00:00:00Z"))),
            "03f8c21c1ece3ec3cf54043e57c0f5016e8ae01aa9875b3dcdde3943a2b2c6ed"
        );
        let second = AdminCall { request_id: "req-2".to_owned(), ..call("DELETE", 204, None) };
        assert_eq!(
            hex(&second.content("aa-2", Some("z-1"), at("2026-01-01T00:00:01Z"))),
            "1ed13e236a63889e4aa4cd7bc57859bac759db2f1dda52350fe92c6c6170e73f"
        );
        let create = AdminCall {
            request_id: "req-9".to_owned(),
            path: "/v1/zones/z-1/applications".to_owned(),
            ..call(
                "POST",
                201,
                Some(
                    json!({"rls_mode":"control_plane_wildcard","rls_zone_guc":"*","change_kind":"create","changed_fields":["name"]}),
                ),
            )
        };
        assert_eq!(
            hex(&create.content("0195f2aa-9000-7000-8000-000000000001", Some("z-1"), at("2026-11-23T10:00:00Z"))),
            "4eea8b04fbf220a6d840285a59ae08f81104739b96514d8f5aad126ac9be04c6"
        );
    }

    #[test]
    fn nul_leaves_every_text() {
        let dirty = AdminCall { request_id: "a\0b".to_owned(), ..call("POST", 200, Some(json!({"k\0": ["v\0"]}))) }.plain();
        assert_eq!((dirty.request_id.as_str(), dirty.payload_text().unwrap().as_str()), ("ab", r#"{"k":["v"]}"#));
    }

    #[test]
    fn every_part_counts() {
        let base = call("PATCH", 200, None);
        let (id, zone, time) = ("aa-1", Some("z-1"), at("2026-01-01T00:00:00Z"));
        let digest = base.content(id, zone, time);
        let others = [
            AdminCall { request_id: "x".to_owned(), ..base.clone() },
            AdminCall { actor_id: None, ..base.clone() },
            AdminCall { actor_name: None, ..base.clone() },
            AdminCall { actor_scope: None, ..base.clone() },
            AdminCall { method: "PUT".to_owned(), ..base.clone() },
            AdminCall { path: "/".to_owned(), ..base.clone() },
            AdminCall { entity_type: None, ..base.clone() },
            AdminCall { entity_id: None, ..base.clone() },
            AdminCall { status: 201, ..base.clone() },
            AdminCall { payload: Some(json!({})), ..base.clone() },
        ];
        for other in others {
            assert_ne!(other.content(id, zone, time), digest, "{other:?}");
        }
        assert_ne!(base.content("aa-2", zone, time), digest);
        assert_ne!(base.content(id, None, time), digest);
        assert_ne!(base.content(id, zone, at("2026-01-01T00:00:00.001Z")), digest);
    }
}
