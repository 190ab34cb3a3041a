//! What travels between services: streams by name, and messages as flat fields (`streams.md` 2, 5 to 8).

use crate::id::{
    ApplicationId, AuthorityRecordId, DelegationId, OutboxId, PolicySetId, PolicySetVersionId, SessionId, SigningKeyId, ZoneId,
};

/// A stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Evidence on its way to the ledger.
    AuditEvents,
    /// Evidence that could not be ingested.
    AuditDeadLetters,
    /// Anchors that kill mandates.
    SessionsRevoke,
    /// The Delegation graph epoch.
    DelegationsInvalidate,
    /// A zone's active policy changed.
    PolicyInvalidate,
    /// A zone's signing keys changed.
    KeysInvalidate,
    /// Any other entity of a zone changed.
    ZonesInvalidate,
    /// Sessions come and go.
    AgentsLifecycle,
}

impl Stream {
    /// Every stream.
    pub const ALL: [Self; 8] = [
        Self::AuditEvents,
        Self::AuditDeadLetters,
        Self::SessionsRevoke,
        Self::DelegationsInvalidate,
        Self::PolicyInvalidate,
        Self::KeysInvalidate,
        Self::ZonesInvalidate,
        Self::AgentsLifecycle,
    ];

    /// The key it lives under, which is part of every signature.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AuditEvents => "caracal.audit.events",
            Self::AuditDeadLetters => "caracal.audit.events.dlq",
            Self::SessionsRevoke => "caracal.sessions.revoke",
            Self::DelegationsInvalidate => "caracal.delegations.invalidate",
            Self::PolicyInvalidate => "caracal.policy.invalidate",
            Self::KeysInvalidate => "caracal.keys.invalidate",
            Self::ZonesInvalidate => "caracal.zones.invalidate",
            Self::AgentsLifecycle => "caracal.agents.lifecycle",
        }
    }

    /// The stream of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.name() == name)
    }

    /// Whether resource servers read it: those two are signed with a key of their own.
    pub const fn is_public(self) -> bool {
        matches!(self, Self::SessionsRevoke | Self::DelegationsInvalidate)
    }
}

/// Who wrote an outbox row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Producer {
    /// The API.
    Api,
    /// The Coordinator.
    Coordinator,
    /// The STS.
    Sts,
    /// Audit.
    Audit,
}

impl Producer {
    /// The word of the row.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Coordinator => "coordinator",
            Self::Sts => "sts",
            Self::Audit => "audit",
        }
    }
}

/// A message: where to, what it says, and under which key a second one is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub stream: Stream,
    /// What it says; names match `[a-z0-9_]{1,64}`, values hold no line break.
    pub fields: Vec<(String, String)>,
    /// A second message with this key is dropped.
    pub dedupe_key: Option<String>,
}

/// What kills a mandate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// An Authority record: `sid` or `root_sid`.
    Record(AuthorityRecordId),
    /// A Session.
    Session(SessionId),
    /// A Session together with the user record that ends with it.
    SessionAndRecord(SessionId, AuthorityRecordId),
    /// A Delegation.
    Delegation(DelegationId),
}

impl Message {
    fn new(stream: Stream, fields: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Self { stream, fields: fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(), dedupe_key: None }
    }

    fn once(mut self, key: String) -> Self {
        self.dedupe_key = Some(key);
        self
    }

    /// Something is final: mandates that carry the anchor are dead for good.
    pub fn revoked(zone: ZoneId, anchor: Anchor, reason: &str) -> Self {
        let mut fields = vec![("zone_id", zone.to_string())];
        let key = match anchor {
            Anchor::Record(record) => {
                fields.push(("session_id", record.to_string()));
                format!("authority:{record}")
            }
            Anchor::Session(session) => {
                fields.push(("agent_session_id", session.to_string()));
                format!("agent_terminate:{session}")
            }
            Anchor::SessionAndRecord(session, record) => {
                fields.push(("session_id", record.to_string()));
                fields.push(("agent_session_id", session.to_string()));
                format!("agent_terminate:{session}")
            }
            Anchor::Delegation(edge) => {
                fields.push(("delegation_edge_id", edge.to_string()));
                format!("delegation:{edge}")
            }
        };
        fields.push(("reason", one_line(reason)));
        Self::new(Stream::SessionsRevoke, fields).once(key)
    }

    /// An edge was created; the epoch is the current one, so that verifiers change nothing.
    pub fn edge_created(zone: ZoneId, edge: DelegationId, source: SessionId, target: SessionId, epoch: u64) -> Self {
        let fields = [
            ("event", "edge_create".to_owned()),
            ("zone_id", zone.to_string()),
            ("edge_id", edge.to_string()),
            ("source_session_id", source.to_string()),
            ("target_session_id", target.to_string()),
            ("epoch", epoch.to_string()),
        ];
        Self::new(Stream::DelegationsInvalidate, fields).once(format!("edge_create:{edge}"))
    }

    /// An edge was revoked by name; `epoch` is the one after it.
    pub fn edge_revoked(zone: ZoneId, edge: DelegationId, affected: usize, epoch: u64) -> Self {
        let fields = [
            ("event", "edge_revoke".to_owned()),
            ("zone_id", zone.to_string()),
            ("edge_id", edge.to_string()),
            ("affected_edges", affected.to_string()),
            ("epoch", epoch.to_string()),
        ];
        Self::new(Stream::DelegationsInvalidate, fields).once(format!("edge_revoke:{edge}"))
    }

    /// A Session started.
    pub fn spawned(zone: ZoneId, session: SessionId, application: ApplicationId, parent: Option<SessionId>) -> Self {
        let mut fields = vec![
            ("event", "spawn".to_owned()),
            ("zone_id", zone.to_string()),
            ("agent_session_id", session.to_string()),
            ("application_id", application.to_string()),
        ];
        fields.extend(parent.map(|p| ("parent_id", p.to_string())));
        Self::new(Stream::AgentsLifecycle, fields).once(format!("spawn:{session}"))
    }

    /// A Session ended.
    pub fn terminated(zone: ZoneId, session: SessionId, parent: Option<SessionId>, reason: &str) -> Self {
        let mut fields =
            vec![("event", "terminate".to_owned()), ("zone_id", zone.to_string()), ("agent_session_id", session.to_string())];
        fields.extend(parent.map(|p| ("parent_id", p.to_string())));
        fields.push(("reason", one_line(reason)));
        Self::new(Stream::AgentsLifecycle, fields).once(format!("terminate:{session}"))
    }

    /// A policy-set version was activated, or (without one) none is active any more.
    pub fn policy_changed(zone: ZoneId, set: PolicySetId, version: Option<PolicySetVersionId>) -> Self {
        let mut fields = vec![("zone_id", zone.to_string()), ("policy_set_id", set.to_string())];
        fields.extend(version.map(|v| ("policy_set_version_id", v.to_string())));
        Self::new(Stream::PolicyInvalidate, fields)
    }

    /// A signing key was created or rotated.
    pub fn key_changed(zone: ZoneId, key: SigningKeyId) -> Self {
        Self::new(Stream::KeysInvalidate, [("zone_id", zone.to_string()), ("kid", key.to_string())])
    }

    /// Another entity of a zone changed; `epoch` is the zone's after the change.
    pub fn entity_changed(zone: ZoneId, entity: &str, id: &str, change: &str, epoch: u64) -> Self {
        let fields = [
            ("zone_id", zone.to_string()),
            ("entity", entity.to_owned()),
            ("entity_id", id.to_owned()),
            ("change", change.to_owned()),
            ("epoch", epoch.to_string()),
        ];
        Self::new(Stream::ZonesInvalidate, fields)
    }

    /// The message as published: its fields, its outbox id, and its dedupe key.
    pub fn published_fields(&self, id: OutboxId) -> Vec<(String, String)> {
        let mut fields = vec![("outbox_id".to_owned(), id.to_string())];
        fields.extend(self.dedupe_key.iter().map(|key| ("dedupe_key".to_owned(), key.clone())));
        fields
            .extend(self.fields.iter().filter(|(name, _)| !matches!(name.as_str(), "outbox_id" | "dedupe_key" | "_sig")).cloned());
        fields
    }
}

/// Free text on one line, at most 512 characters: the signature's canonical form knows no line break inside a value.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c == '\n' || c == '\r' { ' ' } else { c }).take(512).collect()
}

/// Whether a field may be published and believed: its name is plain and its value holds no line break.
pub fn is_plain_field(name: &str, value: &str) -> bool {
    let named = (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    named && !value.contains(['\n', '\r'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_text_loses_its_line_breaks() {
        let id = "0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10";
        let message = Message::revoked(id.parse().unwrap(), Anchor::Session(id.parse().unwrap()), "a\nb=c\r");
        assert!(message.fields.iter().all(|(name, value)| is_plain_field(name, value)));
        assert!(message.fields.iter().all(|(name, _)| name != "session_id"), "a Session's id is never an Authority record's");
    }
}
