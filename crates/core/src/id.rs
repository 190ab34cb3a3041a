//! Typed ids: 16 bytes, one canonical text (lower-case hyphenated UUID). An id of one kind never passes for another.
//!
//! New ids are UUIDv7, except holds, whose ids are capabilities and carry no time (UUIDv4, `sts.md` 12.1). Minting needs a clock
//! and entropy, so it happens in `host`; this module only names, parses and prints.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::time::Time;

/// The text is not the canonical form of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected a lower-case hyphenated UUID")]
pub struct NotAnId;

/// What every typed id can do; lets `store` bind and read any of them, and `host` mint any of them.
pub trait Id:
    Copy + Eq + Ord + std::hash::Hash + fmt::Debug + fmt::Display + FromStr<Err = NotAnId> + Send + Sync + 'static
{
    /// The kind's name in logs and messages.
    const KIND: &'static str;
    /// From the 16 bytes as stored.
    fn from_bytes(bytes: [u8; 16]) -> Self;
    /// The 16 bytes as stored.
    fn to_bytes(self) -> [u8; 16];
}

/// The UUIDv7 (RFC 9562) of a moment and 80 random bits, of which 74 are kept.
pub fn v7_bytes(at: Time, random: [u8; 10]) -> [u8; 16] {
    let millis = u64::try_from(at.as_micros().div_euclid(1000)).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().into_bytes()
}

/// The UUIDv4 of 128 random bits, of which 122 are kept.
pub fn v4_bytes(random: [u8; 16]) -> [u8; 16] {
    uuid::Builder::from_random_bytes(random).into_uuid().into_bytes()
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident => $kind:literal),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl Id for $name {
            const KIND: &'static str = $kind;
            fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }
            fn to_bytes(self) -> [u8; 16] {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Uuid::from_bytes(self.0).as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", $kind, self)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                parse(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

// Append only, alphabetical: a kind that is gone keeps its line and says so.
ids! {
    /// An administrator's token (the row, never the secret).
    AdminTokenId => "admin_token",
    /// A record of an administrative change.
    AdminAuditId => "admin_audit",
    /// An Application: the program that holds a client secret.
    ApplicationId => "application",
    /// An Authority record: one per signed mandate (wire `session_id`, claim `sid`).
    AuthorityRecordId => "authority_record",
    /// A stored connection of a subject to a provider.
    ConnectionId => "connection",
    /// A Delegation, an edge between two Sessions (wire `delegation_edge_id`).
    DelegationId => "delegation",
    /// An audit event.
    EventId => "event",
    /// A grant.
    GrantId => "grant",
    /// A hold: an approval that is asked for. Random, because it is a capability.
    HoldId => "hold",
    /// This deployment, fixed at first start.
    InstallationId => "installation",
    /// An invocation of an agent service.
    InvocationId => "invocation",
    /// The id of one mandate (claim `jti`).
    Jti => "jti",
    /// A message that waits in the outbox.
    OutboxId => "outbox",
    /// A policy.
    PolicyId => "policy",
    /// A policy set.
    PolicySetId => "policy_set",
    /// An immutable version of a policy set.
    PolicySetVersionId => "policy_set_version",
    /// An immutable version of a policy.
    PolicyVersionId => "policy_version",
    /// A provider.
    ProviderId => "provider",
    /// A resource.
    ResourceId => "resource",
    /// An agent service registered at the Coordinator.
    ServiceId => "service",
    /// A governed Session (wire `agent_session_id`).
    SessionId => "session",
    /// A signing key (header `kid`).
    SigningKeyId => "signing_key",
    /// A notification sink.
    SinkId => "sink",
    /// A registered subject issuer.
    SubjectIssuerId => "subject_issuer",
    /// A workload of `caracal run`.
    WorkloadId => "workload",
    /// A zone: the wall between tenants.
    ZoneId => "zone",
}

/// Only the canonical text is an id; a second spelling would be a second name for one thing.
fn parse(text: &str) -> Result<[u8; 16], NotAnId> {
    if text.len() != 36 || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(NotAnId);
    }
    Uuid::try_parse(text).map(Uuid::into_bytes).map_err(|_| NotAnId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_canonical_text() {
        let id: ZoneId = "0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10".parse().unwrap();
        assert_eq!(id.to_string(), "0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10");
        for other in [
            "0195F2AA-7c31-7d4e-a01b-3f6c2d9e8b10",
            "0195f2aa7c317d4ea01b3f6c2d9e8b10",
            "{0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10}",
            "",
        ] {
            assert_eq!(other.parse::<ZoneId>(), Err(NotAnId), "{other}");
        }
    }

    #[test]
    fn v7_sorts_by_time() {
        let early = v7_bytes(Time::from_secs(1_790_000_000), [0xff; 10]);
        let late = v7_bytes(Time::from_micros(1_790_000_000_001_000), [0; 10]);
        assert!(early < late);
        assert_eq!(early[6] >> 4, 7);
        assert_eq!(v4_bytes([0xff; 16])[6] >> 4, 4);
    }
}
