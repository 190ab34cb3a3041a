//! The real credential: where it goes, and what may carry it (`gateway.md` 11.3, 10.4).

use caracal_core::directive::{AuthLocation, AuthMode, Credential, Directive};
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

/// Headers that carry no credential, whatever a provider's configuration says.
const RESERVED: &[&str] = &[
    "baggage",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "set-cookie",
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
/// The header that carries the resource mandate beside a provider's credential.
pub const IDENTITY: HeaderName = HeaderName::from_static("x-caracal-identity");

/// What is added to the upstream request. `Debug` shows no value.
#[derive(Default)]
pub struct Injection {
    /// The header named by the directive; removed from the caller's headers whether or not it is set.
    pub header: Option<HeaderName>,
    /// Headers to set.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// The query parameter to set.
    pub query: Option<(String, String)>,
}

impl std::fmt::Debug for Injection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Injection").field("header", &self.header).finish_non_exhaustive()
    }
}

/// What a directive injects; the text says what is wrong with it and holds no value.
pub fn injection(directive: &Directive, resource_token: Option<&str>) -> Result<Injection, &'static str> {
    let header = header_name(directive)?;
    let mut injection = Injection { header: Some(header.clone()), ..Injection::default() };
    let mandate = || resource_token.filter(|t| !t.is_empty()).ok_or("the resource mandate is missing");
    match directive.auth_mode {
        AuthMode::None => return Ok(injection),
        AuthMode::CaracalJwt => {
            let scheme = directive.auth_scheme.as_deref().filter(|s| !s.is_empty()).unwrap_or("Bearer");
            injection.set.push((header, value(Some(scheme), mandate()?)?));
            return Ok(injection);
        }
        AuthMode::ProviderOauth | AuthMode::ProviderApiKey => {}
    }
    let token = directive
        .provider_token
        .as_ref()
        .map(Credential::expose)
        .filter(|t| !t.is_empty())
        .ok_or("the provider's token is missing")?;
    if directive.auth_mode == AuthMode::ProviderApiKey && directive.auth_location == Some(AuthLocation::Query) {
        let name = directive.query_param_name.as_deref().map(str::trim).filter(|n| !n.is_empty());
        sendable(token)?;
        injection.query = Some((name.ok_or("the query parameter has no name")?.to_owned(), token.to_owned()));
    } else {
        injection.set.push((header, value(directive.auth_scheme.as_deref().filter(|s| !s.is_empty()), token)?));
    }
    if directive.forward_caracal_identity {
        injection.set.push((IDENTITY, value(None, mandate()?)?));
    }
    Ok(injection)
}

/// Whether a static credential may go to this host.
pub fn host_may_have_it(directive: &Directive, host: &str) -> bool {
    directive.allowed_token_hosts.is_empty() || directive.allowed_token_hosts.iter().any(|h| h.trim().eq_ignore_ascii_case(host))
}

fn header_name(directive: &Directive) -> Result<HeaderName, &'static str> {
    let Some(name) = directive.auth_header.as_deref().filter(|n| !n.is_empty()) else { return Ok(AUTHORIZATION) };
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "the credential's header is no header name")?;
    let text = name.as_str();
    let reserved = RESERVED.contains(&text) || ["x-caracal-", "x-forwarded-", "proxy-"].iter().any(|p| text.starts_with(p));
    if reserved { Err("the credential's header is reserved") } else { Ok(name) }
}

fn sendable(token: &str) -> Result<(), &'static str> {
    // A tab is fine in a header and never part of a token.
    if token.bytes().any(|b| b < 0x20 || b == 0x7f) { Err("the token has a byte that no header carries") } else { Ok(()) }
}

fn value(scheme: Option<&str>, token: &str) -> Result<HeaderValue, &'static str> {
    sendable(token)?;
    let text = scheme.map_or_else(|| token.to_owned(), |scheme| format!("{scheme} {token}"));
    let mut value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| "the token has a byte that no header carries")?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directive(mode: AuthMode) -> Directive {
        Directive { provider_token: Some("k1".into()), ..Directive::new("http://h/".into(), mode) }
    }

    fn seen(directive: &Directive) -> Result<String, &'static str> {
        let injection = injection(directive, Some("RT"))?;
        let mut parts: Vec<String> = injection.set.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        parts.extend(injection.query.map(|(n, v)| format!("?{n}={v}")));
        Ok(parts.join("; "))
    }

    /// Acceptance rows 50 and 58.
    #[test]
    fn what_each_mode_sends() {
        assert_eq!(seen(&directive(AuthMode::None)), Ok(String::new()));
        assert_eq!(seen(&directive(AuthMode::CaracalJwt)), Ok("authorization: Bearer RT".into()));
        let mut d = directive(AuthMode::ProviderApiKey);
        d.auth_header = Some("X-Api-Key".into());
        assert_eq!(seen(&d), Ok("x-api-key: k1".into()));
        d.auth_scheme = Some("Token".into());
        d.forward_caracal_identity = true;
        assert_eq!(seen(&d), Ok("x-api-key: Token k1; x-caracal-identity: RT".into()));
        let mut d = directive(AuthMode::ProviderApiKey);
        d.auth_location = Some(AuthLocation::Query);
        assert!(seen(&d).is_err(), "no name");
        d.query_param_name = Some("key".into());
        assert_eq!(seen(&d), Ok("?key=k1".into()));
        let mut d = directive(AuthMode::ProviderOauth);
        d.auth_scheme = Some("Basic".into());
        assert_eq!(seen(&d), Ok("authorization: Basic k1".into()));
        let mut none = directive(AuthMode::None);
        none.forward_caracal_identity = true;
        assert_eq!(seen(&none), Ok(String::new()), "identity goes with providers only");
    }

    /// Acceptance row 59.
    #[test]
    fn what_no_directive_may_do() {
        for header in ["Host", "X-Caracal-X", "Proxy-A", "Bad Name", "Cookie", "x-request-id", "X-Forwarded-For", "Content-Type"] {
            for mode in [AuthMode::None, AuthMode::CaracalJwt, AuthMode::ProviderOauth] {
                let d = Directive { auth_header: Some(header.into()), ..directive(mode) };
                assert!(seen(&d).is_err(), "{header} {mode:?}");
            }
        }
        for token in ["", "a\nb", "a\r", "a\0", "a\u{7f}"] {
            for location in [AuthLocation::Header, AuthLocation::Query] {
                let mut d = directive(AuthMode::ProviderApiKey);
                (d.provider_token, d.auth_location, d.query_param_name) = (Some(token.into()), Some(location), Some("k".into()));
                let error = injection(&d, None).unwrap_err();
                assert!(token.is_empty() || !error.contains(token));
            }
        }
        assert!(injection(&directive(AuthMode::CaracalJwt), None).is_err(), "nothing to send");
    }

    /// Acceptance row 48.
    #[test]
    fn hosts_for_static_credentials() {
        let mut d = directive(AuthMode::ProviderApiKey);
        assert!(host_may_have_it(&d, "any.example"));
        d.allowed_token_hosts = vec![" API.books.example ".into()];
        assert!(host_may_have_it(&d, "api.books.example"));
        assert!(!host_may_have_it(&d, "x.api.books.example") && !host_may_have_it(&d, "books.example"));
    }
}
