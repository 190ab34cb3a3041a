//! Bearers: out of the header, and operator tokens compared in constant time.

use caracal_core::digest::sha256;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

/// Whether the scheme's case matters; the services inherited different habits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Only `Bearer`.
    Exact,
    /// Any case.
    AnyCase,
}

/// Why there is no bearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBearer {
    /// No header, another scheme, or nothing after it.
    Missing,
    /// Several headers that differ, or text that no token consists of.
    Ambiguous,
}

/// The token of `Authorization: Bearer <token>`, trimmed, not empty.
pub fn bearer(headers: &HeaderMap, scheme: Scheme) -> Result<&str, NoBearer> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let Some(first) = all.next() else { return Err(NoBearer::Missing) };
    if all.any(|other| other != first) {
        return Err(NoBearer::Ambiguous);
    }
    let text = first.to_str().map_err(|_| NoBearer::Ambiguous)?.trim();
    let (word, token) = text.split_once(' ').ok_or(NoBearer::Missing)?;
    let fits = match scheme {
        Scheme::Exact => word == "Bearer",
        Scheme::AnyCase => word.eq_ignore_ascii_case("bearer"),
    };
    let token = token.trim();
    if !fits || token.is_empty() {
        return Err(NoBearer::Missing);
    }
    Ok(token)
}

/// Whether two secrets are equal, in time that depends on neither (their digests are compared, so not on lengths either).
pub fn same_secret(presented: &str, expected: &SecretString) -> bool {
    sha256(&[presented.as_bytes()]).ct_eq(&sha256(&[expected.expose_secret().as_bytes()])).into()
}

/// A token that opens operator routes; without one the routes do not exist.
#[derive(Clone, Debug)]
pub struct OperatorToken(Option<SecretString>);

/// What an operator route does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Serves it.
    Open,
    /// No or wrong token: 401, or 404 where the route hides.
    Refused,
    /// No token is configured: 404.
    Absent,
}

impl OperatorToken {
    /// As configured.
    pub fn new(token: Option<SecretString>) -> Self {
        Self(token)
    }

    /// Judges a request.
    pub fn check(&self, headers: &HeaderMap) -> Gate {
        let Some(expected) = &self.0 else { return Gate::Absent };
        match bearer(headers, Scheme::Exact) {
            Ok(presented) if same_secret(presented, expected) => Gate::Open,
            _ => Gate::Refused,
        }
    }

    /// Whether a presented token is this one.
    pub fn is(&self, presented: &str) -> bool {
        self.0.as_ref().is_some_and(|expected| same_secret(presented, expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn one_scheme_one_token() {
        assert_eq!(bearer(&headers(&["Bearer abc"]), Scheme::Exact), Ok("abc"));
        assert_eq!(bearer(&headers(&["bEARER   abc "]), Scheme::AnyCase), Ok("abc"));
        assert_eq!(bearer(&headers(&["bearer abc"]), Scheme::Exact), Err(NoBearer::Missing));
        for none in [&[][..], &["Bearer"], &["Bearer "], &["Basic abc"], &["abc"]] {
            assert_eq!(bearer(&headers(none), Scheme::AnyCase), Err(NoBearer::Missing), "{none:?}");
        }
        assert_eq!(bearer(&headers(&["Bearer a", "Bearer a"]), Scheme::Exact), Ok("a"));
        assert_eq!(bearer(&headers(&["Bearer a", "Bearer b"]), Scheme::Exact), Err(NoBearer::Ambiguous));
    }

    #[test]
    fn operator_routes_exist_only_with_a_token() {
        let token = OperatorToken::new(Some(SecretString::from("open sesame")));
        assert_eq!(token.check(&headers(&["Bearer open sesame"])), Gate::Open);
        assert_eq!(token.check(&headers(&["Bearer open"])), Gate::Refused);
        assert_eq!(token.check(&headers(&["open sesame"])), Gate::Refused);
        assert_eq!(OperatorToken::new(None).check(&headers(&["Bearer open sesame"])), Gate::Absent);
    }
}
