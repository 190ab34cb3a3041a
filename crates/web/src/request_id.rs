//! The id of a request (`sts.md` 1.2): the caller's if it has the common form, a new one otherwise. One form on every service, so that
//! an id kept here is never replaced further on and can always be looked up as evidence.

use std::fmt;
use std::sync::Arc;

use caracal_core::id::v7_bytes;
use caracal_host::World;
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The header.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Most bytes of an id.
const BYTES_MAX: usize = 128;

/// Whether a text is an id as path segments, request ids and claims may carry it: `[A-Za-z0-9._:-]{1,128}`.
pub fn is_id(text: &str) -> bool {
    (1..=BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
}

/// The id of one request; in the extensions of every request that passed the shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The caller's id, or a new one. Several headers count only if they agree.
    pub fn of(headers: &HeaderMap, world: &World) -> Self {
        let mut given = headers.get_all(X_REQUEST_ID).iter();
        let first = given.next().and_then(|v| v.to_str().ok()).filter(|text| is_id(text));
        match first {
            Some(text) if given.all(|other| other == text) => Self(text.into()),
            _ => Self::new(world),
        }
    }

    /// A new id.
    pub fn new(world: &World) -> Self {
        let id = Uuid::from_bytes(v7_bytes(world.now(), world.random()));
        Self(id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()).into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a header value.
    pub fn header(&self) -> HeaderValue {
        // The form admits only visible ASCII, so this cannot fail.
        HeaderValue::from_str(&self.0).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> String {
        let (world, _) = World::fixed(1);
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(X_REQUEST_ID, value.parse().unwrap());
        }
        RequestId::of(&headers, &world).to_string()
    }

    #[test]
    fn the_callers_id_is_kept_if_it_has_the_form() {
        assert_eq!(of(&["req-7"]), "req-7");
        assert_eq!(of(&["a.b_c:d-1", "a.b_c:d-1"]), "a.b_c:d-1");
        for bad in [vec![], vec![""], vec!["a b"], vec!["a/b"], vec!["a", "b"], vec!["é"]] {
            assert_eq!(of(&bad).len(), 36, "{bad:?}");
        }
        let longest = "x".repeat(128);
        assert_eq!(of(&[&longest]), longest);
        assert_eq!(of(&[&"x".repeat(129)]).len(), 36);
    }
}
