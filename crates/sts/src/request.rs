//! Step one: a form becomes a `TokenRequest`, or is malformed (`sts.md` 2.1, 2.2).

use std::str::FromStr;

use caracal_core::id::{AuthorityRecordId, DelegationId, SessionId};
use caracal_core::refusal::Refusal;
use caracal_core::scope::Scopes;
use caracal_web::read::Form;
use zeroize::Zeroizing;

use crate::refusals::malformed;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";

/// The token somebody presents.
#[derive(Clone)]
pub(crate) enum Presented {
    /// None.
    Nothing,
    /// A mandate.
    Mandate(Zeroizing<String>),
    /// An identity token.
    Identity,
}

/// What was asked, well-formed and not yet believed.
#[derive(Clone)]
pub(crate) struct TokenRequest {
    pub(crate) zone: String,
    pub(crate) application: String,
    pub(crate) secret: Zeroizing<String>,
    /// As written: trimmed, once each, sorted by bytes.
    pub(crate) resources: Vec<String>,
    pub(crate) scopes: Scopes,
    pub(crate) presented: Presented,
    pub(crate) record: Reference<AuthorityRecordId>,
    pub(crate) session: Reference<SessionId>,
    pub(crate) edge: Reference<DelegationId>,
    pub(crate) ttl: Option<i64>,
    pub(crate) approval: Option<String>,
    pub(crate) bound: bool,
    /// What only a Gateway call may say.
    pub(crate) operation: Option<(String, String)>,
}

/// An id somebody names: absent, or one that may or may not exist. Text that is no id names nothing that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reference<I> {
    Absent,
    Named(I),
    Nonsense,
}

impl<I: FromStr> Reference<I> {
    fn of(text: Option<&str>) -> Self {
        match text.filter(|t| !t.is_empty()) {
            None => Self::Absent,
            Some(text) => text.parse().map_or(Self::Nonsense, Self::Named),
        }
    }
}

impl<I: Copy + PartialEq> Reference<I> {
    /// Whether something else than this is named.
    pub(crate) fn is_other_than(&self, id: Option<I>) -> bool {
        match self {
            Self::Absent => false,
            Self::Named(named) => Some(*named) != id,
            Self::Nonsense => true,
        }
    }

    pub(crate) const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    pub(crate) const fn id(self) -> Option<I> {
        match self {
            Self::Named(id) => Some(id),
            _ => None,
        }
    }
}

/// A form that passed rules 1 to 7: what is looked at before a Gateway's signature.
pub(crate) struct Plain<'a> {
    form: &'a Form,
    ttl: Option<i64>,
}

impl<'a> Plain<'a> {
    /// Reads a form that passed rules 1 to 5.
    pub(crate) fn of(form: &'a Form) -> Result<Self, Refusal> {
        for field in ["actor_token", "client_assertion", "client_assertion_type"] {
            if form.has(field) {
                return Err(malformed(field, format!("{field} is not accepted")));
            }
        }
        let ttl = match form.get("ttl_seconds").unwrap_or_default() {
            "" => None,
            digits => {
                let plain = digits.strip_prefix(['+', '-']).unwrap_or(digits);
                if plain.is_empty() || !plain.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(malformed("ttl_seconds", "ttl_seconds must be an integer"));
                }
                // What does not fit 64 bits is out of any range; the range check says so.
                Some(digits.parse().unwrap_or(if digits.starts_with('-') { i64::MIN } else { i64::MAX }))
            }
        };
        Ok(Self { form, ttl })
    }

    /// The request id a Gateway names.
    pub(crate) fn gateway_request_id(&self) -> &str {
        self.form.get("gateway_request_id").unwrap_or_default()
    }
}

impl TokenRequest {
    /// Rules 9 to 12.
    pub(crate) fn of(plain: &Plain<'_>) -> Result<Self, Refusal> {
        let Plain { form, ttl } = *plain;
        let text = |name: &str| form.get(name).unwrap_or_default();
        let mut resources: Vec<String> = form.all("resource").map(|r| r.trim().to_owned()).collect();
        if resources.iter().any(String::is_empty) {
            return Err(malformed("resource", "resource must not be empty"));
        }
        resources.sort_unstable();
        resources.dedup();
        if text("grant_type") != GRANT {
            return Err(malformed("grant_type", format!("grant_type must be {GRANT}")));
        }
        let (token, kind) = (text("subject_token"), text("subject_token_type"));
        if !matches!(kind, "" | ACCESS_TOKEN | ID_TOKEN) {
            return Err(malformed("subject_token_type", "subject_token_type is not supported"));
        }
        if token.is_empty() != kind.is_empty() {
            return Err(malformed("subject_token", "subject_token and subject_token_type go together"));
        }
        let presented = match kind {
            "" => Presented::Nothing,
            ID_TOKEN => Presented::Identity,
            _ => Presented::Mandate(Zeroizing::new(token.to_owned())),
        };
        let bound = ["bind_method", "bind_path", "bind_query", "bind_body"].iter().any(|name| form.has(name));
        let operation = (form.has("request_method") || form.has("request_path"))
            .then(|| (text("request_method").trim().to_ascii_uppercase(), text("request_path").trim().to_owned()));
        Ok(Self {
            zone: text("zone_id").trim().to_owned(),
            application: text("application_id").trim().to_owned(),
            secret: Zeroizing::new(text("client_secret").to_owned()),
            resources,
            scopes: Scopes::of_text(text("scope")),
            presented,
            record: Reference::of(form.get("session_id")),
            session: Reference::of(form.get("agent_session_id")),
            edge: Reference::of(form.get("delegation_edge_id")),
            ttl: ttl.filter(|ttl| *ttl != 0),
            approval: form.get("approval_id").filter(|a| !a.is_empty()).map(str::to_owned),
            bound,
            operation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TokenRequest, Refusal> {
        TokenRequest::of(&Plain::of(&Form::parse(format!("grant_type={GRANT}&{text}").as_bytes()).unwrap())?)
    }

    #[test]
    fn resources_are_a_set_in_byte_order() {
        let request = read("resource=+resource%3A%2F%2Fb+&resource=resource%3A%2F%2Fa&resource=resource%3A%2F%2Fb").unwrap();
        assert_eq!(request.resources, ["resource://a", "resource://b"]);
    }

    #[test]
    fn what_is_malformed_names_its_field() {
        for (text, field) in [
            ("actor_token=", "actor_token"),
            ("client_assertion=x", "client_assertion"),
            ("client_assertion_type=", "client_assertion_type"),
            ("ttl_seconds=abc", "ttl_seconds"),
            ("ttl_seconds=1.5", "ttl_seconds"),
            ("resource=+", "resource"),
            ("subject_token=x", "subject_token"),
            ("subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&subject_token=x", "subject_token_type"),
        ] {
            let refusal = read(text).err().unwrap_or_else(|| panic!("{text} passed"));
            assert_eq!(refusal.field.as_deref(), Some(field), "{text}");
        }
        let other = Form::parse(b"grant_type=client_credentials").unwrap();
        assert_eq!(TokenRequest::of(&Plain::of(&other).unwrap()).err().unwrap().field.as_deref(), Some("grant_type"));
        assert_eq!(read("ttl_seconds=99999999999999999999").unwrap().ttl, Some(i64::MAX));
        assert_eq!(read("ttl_seconds=0").unwrap().ttl, None);
    }
}
