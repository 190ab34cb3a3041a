//! A provider's configuration, by kind (`sts.md` 14.1, `api.md` 11.2).

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use caracal_core::directive::{AuthLocation, AuthMode, Credential, Directive};

/// Values that are sealed beside the configuration.
pub type Secrets = BTreeMap<String, Zeroizing<String>>;

/// A kind of provider. Kinds that are known and not yet built cannot be configured or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No credential.
    None,
    /// The resource mandate.
    CaracalMandate,
    /// A static token.
    BearerToken,
    /// A static key.
    ApiKey,
}

impl Kind {
    /// The word of the row.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::CaracalMandate => "caracal_mandate",
            Self::BearerToken => "bearer_token",
            Self::ApiKey => "api_key",
        }
    }

    /// The kind of that word, if this build serves it.
    pub fn of(word: &str) -> Option<Self> {
        [Self::None, Self::CaracalMandate, Self::BearerToken, Self::ApiKey].into_iter().find(|k| k.as_str() == word)
    }

    const fn public_keys(self) -> &'static [&'static str] {
        match self {
            Self::None | Self::CaracalMandate => &[],
            Self::BearerToken => {
                &["auth_header", "auth_scheme", "allowed_token_hosts", "forward_caracal_identity", "allow_runtime_injection"]
            }
            Self::ApiKey => &[
                "auth_location",
                "header_name",
                "query_param_name",
                "auth_scheme",
                "allowed_token_hosts",
                "forward_caracal_identity",
                "allow_runtime_injection",
            ],
        }
    }

    /// The one secret of the kind.
    const fn secret(self) -> Option<&'static str> {
        match self {
            Self::None | Self::CaracalMandate => None,
            Self::BearerToken => Some("bearer_token"),
            Self::ApiKey => Some("api_key"),
        }
    }
}

/// Why a configuration is refused; names kind and field, never a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {field} {fault}")]
pub struct BadConfig {
    kind: &'static str,
    field: String,
    fault: String,
}

/// A configuration found good, in the form it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    kind: Kind,
    public: Map<String, Value>,
}

/// Headers the proxy sets or interprets itself, and so no credential may use.
const RESERVED: [&str; 20] = [
    "baggage",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-real-ip",
    "x-request-id",
];

impl Config {
    /// Reads what somebody configured: the public part, and the secrets in it. `has_secret`: one is stored already.
    ///
    /// Takes what was given, so that no second copy of a secret stays behind.
    pub fn read(kind: Kind, given: Map<String, Value>, has_secret: bool) -> Result<(Self, Secrets), BadConfig> {
        let bad = |field: &str, fault: &str| BadConfig { kind: kind.as_str(), field: field.to_owned(), fault: fault.to_owned() };
        let mut public = Map::new();
        let mut secrets = Secrets::new();
        for (key, value) in given {
            if kind.secret() == Some(&key) {
                let given = if let Value::String(text) = value { Zeroizing::new(text) } else { Zeroizing::default() };
                let text = given.trim();
                if text.is_empty() {
                    return Err(bad(&key, "must be a non-empty text"));
                }
                if text.chars().any(char::is_control) {
                    return Err(bad(&key, "holds a control character"));
                }
                secrets.insert(key, Zeroizing::new(text.to_owned()));
            } else if kind.public_keys().contains(&key.as_str()) {
                let value = public_value(&key, &value).map_err(|fault| bad(&key, fault))?;
                public.insert(key, value);
            } else {
                return Err(bad(&key, "is not a setting of this kind"));
            }
        }
        if let Some(secret) = kind.secret()
            && secrets.is_empty()
            && !has_secret
        {
            return Err(bad(secret, "is required"));
        }
        if kind == Kind::ApiKey {
            let location = public.entry("auth_location").or_insert_with(|| "header".into()).clone();
            let (wanted, other) =
                if location == "query" { ("query_param_name", "header_name") } else { ("header_name", "query_param_name") };
            if !public.contains_key(wanted) {
                return Err(bad(wanted, "is required"));
            }
            if public.contains_key(other) {
                return Err(bad(other, "does not go with this auth_location"));
            }
            if location == "query" && public.contains_key("auth_scheme") {
                return Err(bad("auth_scheme", "goes only with auth_location header"));
            }
        }
        let scheme = public.get("auth_scheme").and_then(Value::as_str).or((kind == Kind::BearerToken).then_some("Bearer"));
        for (key, value) in &secrets {
            let pasted = scheme.is_some_and(|s| {
                let (head, rest) = (value.get(..s.len()), value.get(s.len()..));
                head.is_some_and(|head| head.eq_ignore_ascii_case(s)) && rest.is_some_and(|rest| rest.starts_with(' '))
            });
            if pasted {
                return Err(bad(key, "starts with its scheme, which would then be sent twice"));
            }
        }
        Ok((Self { kind, public }, secrets))
    }

    /// Reads a stored configuration again, on use.
    pub fn stored(kind: &str, public: &Value) -> Result<Self, BadConfig> {
        let unknown = || BadConfig { kind: "provider", field: "kind".to_owned(), fault: "is not one this build serves".to_owned() };
        let kind = Kind::of(kind).ok_or_else(unknown)?;
        let object = public.as_object().ok_or_else(unknown)?;
        Self::read(kind, object.clone(), true).map(|(config, _)| config)
    }

    /// The kind.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The public part, as stored.
    pub fn public(&self) -> Value {
        Value::Object(self.public.clone())
    }

    /// What the Gateway injects.
    pub fn directive(&self, secrets: &Secrets) -> Result<Directive, BadConfig> {
        let text = |key: &str| self.public.get(key).and_then(Value::as_str).map(str::to_owned);
        let secret = |key: &'static str| {
            let missing = BadConfig { kind: self.kind.as_str(), field: key.to_owned(), fault: "is not stored".to_owned() };
            secrets.get(key).filter(|v| !v.is_empty()).cloned().map(Credential::from).ok_or(missing)
        };
        let shared = |directive: Directive| Directive {
            allowed_token_hosts: self.hosts(),
            forward_caracal_identity: self.public.get("forward_caracal_identity").and_then(Value::as_bool).unwrap_or(false),
            ..directive
        };
        Ok(match self.kind {
            Kind::None => plain(AuthMode::None),
            Kind::CaracalMandate => caracal_jwt(),
            Kind::BearerToken => shared(Directive {
                auth_header: Some(text("auth_header").unwrap_or_else(|| "Authorization".to_owned())),
                auth_scheme: Some(text("auth_scheme").unwrap_or_else(|| "Bearer".to_owned())),
                provider_token: Some(secret("bearer_token")?),
                ..plain(AuthMode::ProviderOauth)
            }),
            Kind::ApiKey => {
                let query = self.public.get("auth_location").is_some_and(|l| l == "query");
                shared(Directive {
                    auth_location: Some(if query { AuthLocation::Query } else { AuthLocation::Header }),
                    auth_header: if query { None } else { text("header_name") },
                    query_param_name: if query { text("query_param_name") } else { None },
                    auth_scheme: text("auth_scheme"),
                    provider_token: Some(secret("api_key")?),
                    ..plain(AuthMode::ProviderApiKey)
                })
            }
        })
    }

    fn hosts(&self) -> Vec<String> {
        let list = self.public.get("allowed_token_hosts").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }
}

fn plain(mode: AuthMode) -> Directive {
    Directive::new(String::new(), mode)
}

/// The directive of a resource whose upstream receives the resource mandate.
pub fn caracal_jwt() -> Directive {
    Directive {
        auth_header: Some("Authorization".to_owned()),
        auth_scheme: Some("Bearer".to_owned()),
        ..plain(AuthMode::CaracalJwt)
    }
}

fn public_value(key: &str, value: &Value) -> Result<Value, &'static str> {
    let text = || value.as_str().map(str::trim).filter(|t| !t.is_empty()).ok_or("must be a non-empty text");
    Ok(match key {
        "header_name" | "auth_header" => {
            let name = text()?;
            if !is_header_name(name) {
                return Err("is not a header name");
            }
            if is_reserved(name) {
                return Err("is a header the Gateway keeps for itself");
            }
            name.into()
        }
        "query_param_name" => {
            let name = text()?;
            if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b)) {
                return Err("may hold only letters, digits and . _ ~ -");
            }
            name.into()
        }
        "auth_scheme" => {
            let scheme = text()?;
            let mut bytes = scheme.bytes();
            if !bytes.next().is_some_and(|b| b.is_ascii_alphabetic()) || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                return Err("is not an authentication scheme");
            }
            scheme.into()
        }
        "auth_location" => match text()? {
            location @ ("header" | "query") => location.into(),
            _ => return Err("must be header or query"),
        },
        "allowed_token_hosts" => {
            let list = value.as_array().ok_or("must be a list of host names")?;
            let host = |v: &Value| v.as_str().map(|h| h.trim().to_ascii_lowercase()).filter(|h| is_host(h)).map(Value::from);
            Value::Array(list.iter().map(host).collect::<Option<_>>().ok_or("must be a list of host names")?)
        }
        _ => value.as_bool().map(Value::from).ok_or("must be true or false")?,
    })
}

fn is_header_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    RESERVED.contains(&name.as_str()) || ["x-caracal-", "x-forwarded-", "proxy-"].iter().any(|p| name.starts_with(p))
}

fn is_host(host: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = host.as_bytes();
    (1..=253).contains(&bytes.len())
        && edge(bytes.first())
        && edge(bytes.last())
        && !host.contains("..")
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b".-".contains(b))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "tests hand a literal over")]
    fn read(kind: Kind, value: Value) -> Result<(Config, Secrets), BadConfig> {
        Config::read(kind, value.as_object().unwrap().clone(), false)
    }

    #[test]
    fn directives_are_those_of_the_table() {
        let shown = |kind, value| {
            let (config, secrets) = read(kind, value).unwrap();
            serde_json::to_value(config.directive(&secrets).unwrap()).unwrap()
        };
        assert_eq!(shown(Kind::None, json!({})), json!({"url":"","auth_mode":"none"}));
        assert_eq!(
            shown(Kind::CaracalMandate, json!({})),
            json!({"url":"","auth_mode":"caracal_jwt","auth_header":"Authorization","auth_scheme":"Bearer"})
        );
        assert_eq!(
            shown(Kind::BearerToken, json!({"bearer_token":" t-1 ","allowed_token_hosts":["API.example"]})),
            json!({"url":"","auth_mode":"provider_oauth","auth_header":"Authorization","auth_scheme":"Bearer","allowed_token_hosts":["api.example"],"provider_token":"t-1"})
        );
        assert_eq!(
            shown(Kind::ApiKey, json!({"header_name":"X-Api-Key","api_key":"k"})),
            json!({"url":"","auth_mode":"provider_apikey","auth_location":"header","auth_header":"X-Api-Key","provider_token":"k"})
        );
        assert_eq!(
            shown(
                Kind::ApiKey,
                json!({"auth_location":"query","query_param_name":"key","api_key":"k","forward_caracal_identity":true})
            ),
            json!({"url":"","auth_mode":"provider_apikey","auth_location":"query","query_param_name":"key","provider_token":"k","forward_caracal_identity":true})
        );
    }

    #[test]
    fn a_secret_is_text_of_any_language() {
        for secret in ["aééé", "ééé", "b", "日本語です"] {
            assert!(read(Kind::BearerToken, json!({"bearer_token": secret})).is_ok(), "{secret}");
        }
    }

    #[test]
    fn what_would_not_work_is_refused_by_name() {
        for (kind, value, field) in [
            (Kind::None, json!({"x": 1}), "x"),
            (Kind::ApiKey, json!({"api_key": "k"}), "header_name"),
            (Kind::ApiKey, json!({"header_name": "X-Key"}), "api_key"),
            (Kind::ApiKey, json!({"header_name": "X Key", "api_key": "k"}), "header_name"),
            (Kind::ApiKey, json!({"header_name": "Host", "api_key": "k"}), "header_name"),
            (Kind::ApiKey, json!({"header_name": "X-Forwarded-For", "api_key": "k"}), "header_name"),
            (Kind::ApiKey, json!({"auth_location": "cookie", "api_key": "k"}), "auth_location"),
            (Kind::BearerToken, json!({"bearer_token": "bearer abc"}), "bearer_token"),
            (Kind::BearerToken, json!({"bearer_token": "a\nb"}), "bearer_token"),
            (Kind::BearerToken, json!({"bearer_token": "a", "auth_scheme": "Bad Scheme"}), "auth_scheme"),
            (Kind::BearerToken, json!({"bearer_token": "a", "allowed_token_hosts": ["a..b"]}), "allowed_token_hosts"),
        ] {
            let error = read(kind, value).unwrap_err();
            assert_eq!(error.field, field, "{error}");
        }
        assert!(Config::stored("oauth2_client_credentials", &json!({})).is_err());
    }
}
