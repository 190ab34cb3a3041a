//! Where a governed call goes and what it carries there (`sts.md` 8.2): what the STS tells the Gateway and nobody else.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// How the upstream is authenticated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// Not at all.
    None,
    /// With the resource mandate.
    CaracalJwt,
    /// With a token of a provider, in a header.
    ProviderOauth,
    /// With a key of a provider, in a header or the query.
    #[serde(rename = "provider_apikey")]
    ProviderApiKey,
}

impl AuthMode {
    /// The word on the wire and in evidence.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::CaracalJwt => "caracal_jwt",
            Self::ProviderOauth => "provider_oauth",
            Self::ProviderApiKey => "provider_apikey",
        }
    }

    /// Whether the upstream receives somebody's real credential.
    pub const fn is_provider(self) -> bool {
        matches!(self, Self::ProviderOauth | Self::ProviderApiKey)
    }
}

/// Where a key goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthLocation {
    /// Into a header.
    #[default]
    Header,
    /// Into the query.
    Query,
}

/// A provider's secret on its way to the upstream: shared, shown by nothing, wiped when the last holder is gone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Zeroizing<String>", into = "Zeroizing<String>")]
pub struct Credential(Arc<Zeroizing<String>>);

impl Credential {
    /// The secret itself, for the place it is sent from.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<Zeroizing<String>> for Credential {
    fn from(secret: Zeroizing<String>) -> Self {
        Self(Arc::new(secret))
    }
}

impl From<Credential> for Zeroizing<String> {
    fn from(credential: Credential) -> Self {
        Self::clone(&credential.0)
    }
}

impl From<&str> for Credential {
    fn from(secret: &str) -> Self {
        Zeroizing::new(secret.to_owned()).into()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

/// The directive for one resource. `Debug` shows no credential.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directive {
    /// The resource's upstream; empty when it has none.
    pub url: String,
    /// How to authenticate there.
    pub auth_mode: AuthMode,
    /// Where a key goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_location: Option<AuthLocation>,
    /// The header that carries the credential; `Authorization` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_header: Option<String>,
    /// The query parameter that carries the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_param_name: Option<String>,
    /// The word before the credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_scheme: Option<String>,
    /// Hosts that may receive a static credential; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_token_hosts: Vec<String>,
    /// The credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_token: Option<Credential>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// Through which connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<String>,
    /// Whether the upstream also receives the resource mandate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forward_caracal_identity: bool,
    /// End of the credential, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// The earliest end by time of what was validated, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_expires_at: Option<i64>,
}

impl Directive {
    /// A directive with nothing but a place and a mode.
    pub const fn new(url: String, auth_mode: AuthMode) -> Self {
        Self {
            url,
            auth_mode,
            auth_location: None,
            auth_header: None,
            query_param_name: None,
            auth_scheme: None,
            allowed_token_hosts: Vec::new(),
            provider_token: None,
            provider_id: None,
            connection_id: None,
            forward_caracal_identity: false,
            expires_at: None,
            authority_expires_at: None,
        }
    }

    /// Whether the upstream receives the resource mandate, so that one must be minted.
    pub const fn forwards_mandate(&self) -> bool {
        matches!(self.auth_mode, AuthMode::CaracalJwt) || (self.auth_mode.is_provider() && self.forward_caracal_identity)
    }
}

impl fmt::Debug for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directive")
            .field("auth_mode", &self.auth_mode)
            .field("provider_id", &self.provider_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_has_no_member_and_nothing_is_shown() {
        let mut directive = Directive::new("https://h/base".into(), AuthMode::ProviderApiKey);
        directive.auth_location = Some(AuthLocation::Query);
        directive.query_param_name = Some("key".into());
        directive.provider_token = Some("canary".into());
        let text = serde_json::to_string(&directive).unwrap();
        assert_eq!(
            text,
            r#"{"url":"https://h/base","auth_mode":"provider_apikey","auth_location":"query","query_param_name":"key","provider_token":"canary"}"#
        );
        assert_eq!(serde_json::from_str::<Directive>(&text).unwrap(), directive);
        assert!(!format!("{:?}", directive.provider_token).contains("canary"));
        assert!(!format!("{directive:?}").contains("canary") && !format!("{directive:?}").contains("https"));
    }

    #[test]
    fn a_mandate_is_forwarded_only_where_the_mode_says_so() {
        let forwards = |mode, flag| {
            let directive = Directive { forward_caracal_identity: flag, ..Directive::new(String::new(), mode) };
            directive.forwards_mandate()
        };
        assert!(forwards(AuthMode::CaracalJwt, false));
        assert!(forwards(AuthMode::ProviderOauth, true) && !forwards(AuthMode::ProviderOauth, false));
        assert!(!forwards(AuthMode::None, true));
    }
}
