//! Tokens that were verified, so that each is verified once per process.
//!
//! Keyed by the token's SHA-256; an entry holds the key that signed it, so that a rotation that removes the key removes its
//! entries, and is forgotten at `exp`. What this process signed enters when it is signed.

use std::sync::Arc;

use caracal_core::claims::Claims;
use caracal_core::digest::sha256;
use quick_cache::sync::Cache;

/// A mandate whose signature was checked, and what it says.
#[derive(Debug)]
pub struct VerifiedMandate {
    /// What it says.
    pub claims: Claims,
    /// The key that signed it.
    pub kid: String,
    /// SHA-256 of the token: names it in logs and evidence without being it.
    pub digest: [u8; 32],
}

/// A bounded cache of verified mandates.
pub struct VerifiedMandates(Cache<[u8; 32], Arc<VerifiedMandate>>);

impl VerifiedMandates {
    /// A cache of at most `capacity` mandates.
    pub fn new(capacity: usize) -> Self {
        Self(Cache::new(capacity))
    }

    /// The digest under which a token is known.
    pub fn digest(token: &str) -> [u8; 32] {
        sha256(&[token.as_bytes()])
    }

    /// What was verified under this digest, if `still_trusted` still trusts its key and it has not ended (Unix seconds).
    pub fn get(
        &self,
        digest: &[u8; 32],
        now: i64,
        still_trusted: impl FnOnce(&Claims, &str) -> bool,
    ) -> Option<Arc<VerifiedMandate>> {
        let found = self.0.get(digest)?;
        if found.claims.exp <= now || !still_trusted(&found.claims, &found.kid) {
            self.0.remove(digest);
            return None;
        }
        Some(found)
    }

    /// Remembers a mandate that was verified, or signed, here.
    pub fn insert(&self, mandate: VerifiedMandate) -> Arc<VerifiedMandate> {
        let mandate = Arc::new(mandate);
        self.0.insert(mandate.digest, Arc::clone(&mandate));
        mandate
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use caracal_core::claims::{SubjectType, Use};
    use caracal_core::id::{ApplicationId, AuthorityRecordId, Id as _, Jti, ZoneId};

    use super::*;

    fn mandate(exp: i64) -> VerifiedMandate {
        let claims = Claims {
            iss: "i".into(),
            sub: "s".into(),
            aud: vec!["i".into()],
            exp,
            iat: 0,
            jti: Jti::from_bytes([1; 16]),
            zone_id: ZoneId::from_bytes([2; 16]),
            client_id: ApplicationId::from_bytes([3; 16]),
            scope: None,
            sid: AuthorityRecordId::from_bytes([4; 16]),
            root_sid: AuthorityRecordId::from_bytes([4; 16]),
            usage: Use::Gateway,
            sub_type: SubjectType::Application,
            target: vec![],
            session: None,
            delegated: None,
            bound_request: None,
        };
        VerifiedMandate { claims, kid: "k1".into(), digest: VerifiedMandates::digest("t") }
    }

    #[test]
    fn it_ends_with_the_token_and_with_its_key() {
        let cache = VerifiedMandates::new(8);
        let digest = VerifiedMandates::digest("t");
        cache.insert(mandate(100));
        assert!(cache.get(&digest, 99, |_, kid| kid == "k1").is_some());
        assert!(cache.get(&digest, 100, |_, _| true).is_none(), "it has ended");
        cache.insert(mandate(100));
        assert!(cache.get(&digest, 99, |_, kid| kid == "k2").is_none(), "its key is gone");
        assert!(cache.get(&digest, 99, |_, _| true).is_none(), "and so is the entry");
    }
}
