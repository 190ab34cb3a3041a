//! A message as it travels: its fields, the outbox id that makes a second copy harmless, and its signature (`streams.md` 2, 3).

use caracal_core::message::{Stream, is_plain_field};
use caracal_crypto::mac::{MacKey, origin_signature};
use caracal_store::outbox::Waiting;

/// Keys of messages. Resource servers hold those of revocations and must not be able to forge anything else.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// `STREAMS_HMAC_KEY`, which signs, and what still verifies.
    pub streams: Vec<MacKey>,
    /// `REVOCATION_STREAMS_HMAC_KEY`, which signs, and what still verifies.
    pub revocations: Vec<MacKey>,
}

impl Keys {
    /// The key that signs a stream's messages.
    pub fn signing(&self, stream: Stream) -> Option<&MacKey> {
        self.verifying(stream).first()
    }

    /// The keys that a stream's messages may be signed with; none: nothing is checked.
    pub fn verifying(&self, stream: Stream) -> &[MacKey] {
        if stream.is_public() { &self.revocations } else { &self.streams }
    }
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where it goes.
    pub stream: Stream,
    /// Its fields, signed if there is a key.
    pub fields: Vec<(String, String)>,
}

impl Published {
    /// The message of an outbox row; the text says why it cannot be one.
    pub fn of(row: &Waiting, keys: &Keys) -> Result<Self, String> {
        let stream = Stream::of_name(&row.topic).ok_or_else(|| format!("{:?} is no stream", row.topic))?;
        let mut fields = row.fields.clone();
        if stream == Stream::AuditEvents {
            // Evidence was signed when it was made, and carries nothing else.
            return Ok(Self { stream, fields });
        }
        fields.push(("outbox_id".to_owned(), row.id.to_string()));
        if let Some(key) = &row.dedupe_key {
            fields.push(("dedupe_key".to_owned(), key.clone()));
        }
        if let Some((name, _)) = fields.iter().find(|(name, value)| !is_plain_field(name, value)) {
            return Err(format!("the field {name:?} cannot be signed without ambiguity"));
        }
        if let Some(key) = keys.signing(stream) {
            let signature = origin_signature(key, stream.name(), &fields);
            fields.push(("_sig".to_owned(), signature));
        }
        Ok(Self { stream, fields })
    }

    /// A field's value.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(topic: &str, dedupe: Option<&str>, fields: &[(&str, &str)], id: &str) -> Waiting {
        Waiting {
            id: id.parse().unwrap(),
            topic: topic.to_owned(),
            dedupe_key: dedupe.map(str::to_owned),
            fields: fields.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            attempts: 0,
        }
    }

    fn keys() -> Keys {
        let key = MacKey::from_hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f").unwrap();
        Keys { streams: vec![key.clone()], revocations: vec![key] }
    }

    /// The vectors of `streams.md` 3.
    #[test]
    fn messages_are_signed_as_resource_servers_check() {
        let edge = row(
            "caracal.delegations.invalidate",
            Some("edge_revoke:e-1"),
            &[("event", "edge_revoke"), ("zone_id", "z-1"), ("edge_id", "e-1"), ("affected_edges", "2"), ("epoch", "7")],
            "0195f2aa-0000-7000-8000-000000000002",
        );
        let signed = Published::of(&edge, &keys()).unwrap();
        assert_eq!(signed.field("_sig"), Some("158da97bf44936f8a45949a42f55103658be6e30483207f90041c236c202446c"));
        let spawn = row(
            "caracal.agents.lifecycle",
            Some("spawn:s-1"),
            &[("event", "spawn"), ("zone_id", "z-1"), ("agent_session_id", "s-1"), ("application_id", "app-1")],
            "0195f2aa-0000-7000-8000-000000000004",
        );
        let signed = Published::of(&spawn, &keys()).unwrap();
        assert_eq!(signed.field("_sig"), Some("34ca46268cc5660319605bc534b5596c1fda734a0c523dec1a01b3a9de070d25"));
    }

    #[test]
    fn evidence_travels_as_it_was_signed() {
        let fields = [("id", "e"), ("data", "{\n}"), ("sig", "00")];
        let evidence = row("caracal.audit.events", None, &fields, "0195f2aa-0000-7000-8000-000000000001");
        let published = Published::of(&evidence, &keys()).unwrap();
        assert_eq!(published.fields.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["id", "data", "sig"]);
    }

    #[test]
    fn what_cannot_be_signed_is_not_published() {
        let id = "0195f2aa-0000-7000-8000-000000000001";
        assert!(Published::of(&row("caracal.sessions.revoke", None, &[("reason", "a\nzone_id=b")], id), &keys()).is_err());
        assert!(Published::of(&row("caracal.sessions.revoke", None, &[("Bad", "a")], id), &keys()).is_err());
        assert!(Published::of(&row("nowhere", None, &[], id), &keys()).is_err());
        let unsigned = Published::of(&row("caracal.sessions.revoke", None, &[("reason", "x")], id), &Keys::default()).unwrap();
        assert_eq!(unsigned.field("_sig"), None);
    }
}
