//! What evidence says: one audit event, and the exact bytes that are signed and stored (`streams.md` 4).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::EventId;
use crate::time::Time;

/// The ledger of events that belong to no zone.
pub const PLATFORM: &str = "_platform";

/// The ledger of Control refusals before a zone is authenticated.
pub const UNKNOWN: &str = "unknown";

/// What was decided. There is no seventh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not.
    Deny,
    /// Somebody must approve.
    Pending,
    /// Somebody approved.
    Approved,
    /// Somebody rejected.
    Rejected,
    /// An approval was spent.
    Consumed,
}

impl Verdict {
    /// The word of the event.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Consumed => "consumed",
        }
    }
}

/// The policy that decided; only on events of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidedBy {
    /// The policy set.
    pub policy_set_id: String,
    /// Its version.
    pub policy_set_version_id: String,
    /// SHA-256 of its manifest.
    pub manifest_sha: String,
}

/// One audit event as its emitter knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEvent {
    /// Minted by the emitter, never taken from a caller.
    pub id: EventId,
    /// The ledger: a zone's id, [`PLATFORM`] or [`UNKNOWN`].
    pub zone_id: String,
    /// One of the catalogue of `streams.md` 4.3.
    pub event_type: &'static str,
    /// Correlation; may be empty.
    pub request_id: String,
    /// What was decided.
    pub decision: Verdict,
    /// The policy that decided.
    pub decided_by: Option<DecidedBy>,
    /// How the evaluation went.
    pub evaluation_status: &'static str,
    /// Determining policies.
    pub determining: Vec<Value>,
    /// Diagnostics.
    pub diagnostics: Vec<Value>,
    /// Metadata; key names are a contract.
    pub metadata: Map<String, Value>,
    /// When it happened.
    pub occurred_at: Time,
}

impl AuditEvent {
    /// An event with nothing but its frame.
    pub fn new(id: EventId, zone_id: String, event_type: &'static str, decision: Verdict, status: &'static str, at: Time) -> Self {
        Self {
            id,
            zone_id,
            event_type,
            request_id: String::new(),
            decision,
            decided_by: None,
            evaluation_status: status,
            determining: Vec::new(),
            diagnostics: Vec::new(),
            metadata: Map::new(),
            occurred_at: at,
        }
    }

    /// Adds a metadata member.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    /// Adds a metadata member when there is something to say.
    #[must_use]
    pub fn with_some(self, key: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// The exact JSON text that is signed and published. Nobody re-serialises it.
    pub fn to_data(&self) -> Vec<u8> {
        let by = self.decided_by.as_ref();
        data(&Data {
            id: self.id,
            zone_id: &self.zone_id,
            event_type: self.event_type,
            request_id: &self.request_id,
            decision: self.decision.as_str(),
            policy_set_id: by.map(|b| b.policy_set_id.as_str()),
            policy_set_version_id: by.map(|b| b.policy_set_version_id.as_str()),
            manifest_sha: by.map(|b| b.manifest_sha.as_str()),
            evaluation_status: self.evaluation_status,
            determining_policies_json: &self.determining,
            diagnostics_json: &self.diagnostics,
            metadata_json: Some(&self.metadata).filter(|m| !m.is_empty()),
            occurred_at: self.occurred_at.rfc3339_micros(),
        })
    }
}

/// An event as a ledger keeps it, whoever emitted it: normalised (`audit.md` 5.3), so that it has one canonical form.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// The ledger: a zone's id, [`PLATFORM`] or [`UNKNOWN`].
    pub zone_id: String,
    /// Its type.
    pub event_type: String,
    /// The request it belongs to.
    pub request_id: String,
    /// What was decided.
    pub decision: String,
    /// What became of the evaluation.
    pub evaluation_status: String,
    /// The policy set that decided.
    pub policy_set_id: Option<String>,
    /// Its version.
    pub policy_set_version_id: Option<String>,
    /// The digest of its manifest.
    pub manifest_sha: Option<String>,
    /// Policies that decided.
    pub determining: Value,
    /// What the evaluation said.
    pub diagnostics: Value,
    /// Everything else; never `null`.
    pub metadata: Option<Value>,
    /// When it happened.
    pub occurred_at: Time,
}

impl Event {
    /// The event in its wire form, as it is shown.
    pub fn to_value(&self) -> Value {
        let text = |name: &str, text: &str| (name.to_owned(), Value::from(text));
        let mut members = Map::from_iter([
            text("id", &self.id.to_string()),
            text("zone_id", &self.zone_id),
            text("event_type", &self.event_type),
            text("request_id", &self.request_id),
            text("decision", &self.decision),
            text("evaluation_status", &self.evaluation_status),
            text("occurred_at", &self.occurred_at.rfc3339_micros()),
            ("determining_policies_json".to_owned(), self.determining.clone()),
            ("diagnostics_json".to_owned(), self.diagnostics.clone()),
        ]);
        for (name, value) in [
            ("policy_set_id", &self.policy_set_id),
            ("policy_set_version_id", &self.policy_set_version_id),
            ("manifest_sha", &self.manifest_sha),
        ] {
            members.extend(value.as_deref().map(|value| text(name, value)));
        }
        members.extend(self.metadata.clone().map(|metadata| ("metadata_json".to_owned(), metadata)));
        Value::Object(members)
    }

    /// The bytes that an emitter of ours signed for this event; those of others may have been spelt otherwise.
    pub fn to_data(&self) -> Vec<u8> {
        data(&Data {
            id: self.id,
            zone_id: &self.zone_id,
            event_type: &self.event_type,
            request_id: &self.request_id,
            decision: &self.decision,
            policy_set_id: self.policy_set_id.as_deref(),
            policy_set_version_id: self.policy_set_version_id.as_deref(),
            manifest_sha: self.manifest_sha.as_deref(),
            evaluation_status: &self.evaluation_status,
            determining_policies_json: &self.determining,
            diagnostics_json: &self.diagnostics,
            metadata_json: self.metadata.as_ref(),
            occurred_at: self.occurred_at.rfc3339_micros(),
        })
    }

    /// A member of the metadata.
    pub fn meta(&self, key: &str) -> Option<&Value> {
        self.metadata.as_ref()?.get(key)
    }

    /// A member of the metadata, when it is text that says something.
    pub fn meta_text(&self, key: &str) -> Option<&str> {
        self.meta(key)?.as_str().filter(|text| !text.is_empty())
    }
}

/// The form of `data`: these members in this order.
#[derive(Serialize)]
struct Data<'a, L, M> {
    id: EventId,
    zone_id: &'a str,
    event_type: &'a str,
    request_id: &'a str,
    decision: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_set_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_set_version_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest_sha: Option<&'a str>,
    evaluation_status: &'a str,
    determining_policies_json: &'a L,
    diagnostics_json: &'a L,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_json: Option<&'a M>,
    occurred_at: String,
}

fn data<L: Serialize, M: Serialize>(data: &Data<'_, L, M>) -> Vec<u8> {
    // Maps with text keys and finite numbers always serialise.
    serde_json::to_vec(data).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_policy_fields_have_no_key_and_lists_are_lists() {
        let id = "0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10".parse().unwrap();
        let at = Time::from_micros(1_790_000_000_123_456);
        let event = AuditEvent::new(id, "z-1".into(), "token_exchange", Verdict::Deny, "exchange_denied", at)
            .with("resource", "resource://l");
        assert_eq!(
            String::from_utf8(event.to_data()).unwrap(),
            r#"{"id":"0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10","zone_id":"z-1","event_type":"token_exchange","request_id":"","decision":"deny","evaluation_status":"exchange_denied","determining_policies_json":[],"diagnostics_json":[],"metadata_json":{"resource":"resource://l"},"occurred_at":"2026-09-21T14:13:20.123456Z"}"#
        );
    }
}
