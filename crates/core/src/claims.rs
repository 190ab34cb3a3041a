//! What a mandate says (`sts.md` 9.2). Absent means the key is not there: never null, `""`, `[]` or `0`.

use serde::{Deserialize, Serialize};

use crate::id::{ApplicationId, AuthorityRecordId, DelegationId, Jti, SessionId, ZoneId};

/// What a mandate may be used for. The audiences of the first two and of the last are disjoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// Bearer of lifecycle calls; never accepted by the Gateway.
    Session,
    /// One governed call; accepted by the Gateway alone, once.
    Gateway,
    /// What an upstream or a resource server may receive.
    Resource,
}

impl Use {
    /// The word of the claim.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Gateway => "gateway",
            Self::Resource => "resource",
        }
    }
}

/// Whom `sub` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectType {
    /// A Federated user.
    User,
    /// An Application.
    Application,
}

impl SubjectType {
    /// The word of the claim and of the row.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Application => "application",
        }
    }
}

/// One hop of a delegated mandate: an edge and whom it left from; the last hop is the holder and names no edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The Application at this hop.
    pub application_id: ApplicationId,
    /// Its Session.
    pub agent_session_id: SessionId,
    /// The edge that leaves it; absent on the last hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegation_edge_id: Option<DelegationId>,
}

/// The delegation part of a mandate: all of it or none of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegated {
    /// The presented edge.
    pub delegation_edge_id: DelegationId,
    /// The Session the presented edge leaves from.
    pub source_session_id: SessionId,
    /// The Session it reaches: the one that acts.
    pub target_session_id: SessionId,
    /// Edge ids from the root to the presented edge.
    pub delegation_path: Vec<DelegationId>,
    /// The hops of that path.
    pub delegation_chain: Vec<Hop>,
    /// Its length.
    pub hop_count: u32,
    /// The zone's Delegation graph epoch when this was minted; 1 or more.
    pub delegation_graph_epoch: u64,
}

/// The digest of the one request a mandate is for (`sts.md` 28.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundRequest {
    /// Digest of method, resource, path and query.
    pub head: String,
    /// `sha256:` or `jcs:` and the digest of the body.
    pub body: String,
}

/// The claims of a mandate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The issuer, verbatim as configured.
    pub iss: String,
    /// The Application's id, or a Federated user's subject.
    pub sub: String,
    /// Always a list, also of one.
    pub aud: Vec<String>,
    /// End, Unix seconds.
    pub exp: i64,
    /// Issue, Unix seconds, on the database's clock.
    pub iat: i64,
    /// The mandate's id.
    pub jti: Jti,
    /// The zone.
    pub zone_id: ZoneId,
    /// The Application that asked.
    pub client_id: ApplicationId,
    /// Space-delimited scopes; absent on federation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The Authority record of this mint.
    pub sid: AuthorityRecordId,
    /// The Authority record at the root.
    pub root_sid: AuthorityRecordId,
    /// What it may be used for.
    #[serde(rename = "use")]
    pub usage: Use,
    /// Whom `sub` names.
    pub sub_type: SubjectType,
    /// The granted resources; absent on federation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target: Vec<String>,
    /// The Session that acts.
    #[serde(rename = "agent_session_id", default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The delegation part.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub delegated: Option<Delegated>,
    /// The one request it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_request: Option<BoundRequest>,
}

impl Claims {
    /// The presented edge, if there is one.
    pub fn edge(&self) -> Option<DelegationId> {
        self.delegated.as_ref().map(|d| d.delegation_edge_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bootstrap() -> Claims {
        let id = "0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10";
        Claims {
            iss: "http://localhost:8080".to_owned(),
            sub: id.to_owned(),
            aud: vec!["http://localhost:8080".to_owned()],
            exp: 1_790_000_900,
            iat: 1_790_000_000,
            jti: id.parse().unwrap(),
            zone_id: id.parse().unwrap(),
            client_id: id.parse().unwrap(),
            scope: Some("agent:lifecycle".to_owned()),
            sid: id.parse().unwrap(),
            root_sid: id.parse().unwrap(),
            usage: Use::Session,
            sub_type: SubjectType::Application,
            target: vec!["resource://ledger".to_owned()],
            session: None,
            delegated: None,
            bound_request: None,
        }
    }

    #[test]
    fn what_is_absent_has_no_key() {
        let json = serde_json::to_value(bootstrap()).unwrap();
        let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let wanted = [
            "aud",
            "client_id",
            "exp",
            "iat",
            "iss",
            "jti",
            "root_sid",
            "scope",
            "sid",
            "sub",
            "sub_type",
            "target",
            "use",
            "zone_id",
        ];
        assert_eq!(keys, wanted);
        assert!(json["aud"].is_array());
    }

    #[test]
    fn a_delegated_mandate_round_trips() {
        let id = "0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10";
        let hop = Hop { application_id: id.parse().unwrap(), agent_session_id: id.parse().unwrap(), delegation_edge_id: None };
        let claims = Claims {
            usage: Use::Gateway,
            session: Some(id.parse().unwrap()),
            delegated: Some(Delegated {
                delegation_edge_id: id.parse().unwrap(),
                source_session_id: id.parse().unwrap(),
                target_session_id: id.parse().unwrap(),
                delegation_path: vec![id.parse().unwrap()],
                delegation_chain: vec![Hop { delegation_edge_id: Some(id.parse().unwrap()), ..hop.clone() }, hop],
                hop_count: 1,
                delegation_graph_epoch: 1,
            }),
            ..bootstrap()
        };
        let text = serde_json::to_string(&claims).unwrap();
        assert_eq!(serde_json::from_str::<Claims>(&text).unwrap(), claims);
        assert_eq!(serde_json::from_str::<Claims>(&serde_json::to_string(&bootstrap()).unwrap()).unwrap(), bootstrap());
    }
}
