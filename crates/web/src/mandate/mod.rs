//! Whether a mandate is one: its signature by its zone's keys, once per process and token.
//!
//! What a service requires of the claims beyond that (use, audience, time) is [`Expect`]; who may do what with it is the service's.

mod http_keys;
mod keys;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use caracal_core::claims::{Claims, Use};
use caracal_core::id::ZoneId;
use caracal_crypto::jws::{JwsError, Parsed};
use caracal_crypto::verified::{VerifiedMandate, VerifiedMandates};
use caracal_host::World;
use serde::Deserialize;

pub use self::http_keys::{HttpKeys, KeySettings};
pub use self::keys::{FixedKeys, KeySet, KeySource, Keys, KeysError};

/// How far clocks may differ, in seconds, where a spec grants a leeway (`coordinator.md` 3.2).
pub const LEEWAY_SECS: i64 = 60;

/// Why a mandate is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a token, or claims that are no mandate's.
    #[error("the mandate is malformed")]
    Malformed,
    /// Its zone's keys did not sign it.
    #[error("the signature is not one of the zone's")]
    Signature,
    /// A claim is not what is expected; which one.
    #[error("the claim {0} does not fit")]
    Claim(&'static str),
    /// Its zone's keys cannot be had at the moment. Not the mandate's fault.
    #[error("the zone's keys cannot be had: {0}")]
    Unavailable(String),
}

/// What a service requires of the claims.
#[derive(Clone, Debug)]
pub struct Expect {
    /// The use.
    pub usage: Use,
    /// `iss`, and a member of `aud`; unchecked when the process does not know it.
    pub issuer: Option<String>,
    /// How far clocks may differ, in seconds.
    pub leeway: i64,
}

impl Expect {
    /// Checks claims at `now` (Unix seconds).
    pub fn check(&self, claims: &Claims, now: i64) -> Result<(), Refused> {
        if claims.usage != self.usage {
            return Err(Refused::Claim("use"));
        }
        if let Some(issuer) = &self.issuer {
            if claims.iss != *issuer {
                return Err(Refused::Claim("iss"));
            }
            if !claims.aud.contains(issuer) {
                return Err(Refused::Claim("aud"));
            }
        }
        if claims.exp.saturating_add(self.leeway) <= now {
            return Err(Refused::Claim("exp"));
        }
        // A mandate from the future is a clock that is wrong by more than the leeway that every verifier grants.
        if claims.iat > now.saturating_add(LEEWAY_SECS) {
            return Err(Refused::Claim("iat"));
        }
        Ok(())
    }
}

/// What a token says before anybody believes it. Good for choosing keys and for refusing early; never for anything else.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Unverified {
    /// The claim `exp`, a whole number.
    pub exp: i64,
    /// The claim `zone_id`.
    #[serde(default)]
    pub zone_id: Option<String>,
    /// The claim `client_id`.
    #[serde(default)]
    pub client_id: Option<String>,
}

impl Unverified {
    /// Reads the payload of a compact token; `None` when it is not three parts, the payload is no JSON object in unpadded base64url,
    /// a member read here occurs twice, or `exp` is no whole number but zero.
    pub fn of(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else { return None };
        let payload = B64.decode(payload).ok()?;
        // A list would deserialize too.
        if payload.trim_ascii_start().first() != Some(&b'{') {
            return None;
        }
        serde_json::from_slice::<Self>(&payload).ok().filter(|claims| claims.exp != 0)
    }
}

/// Verifies mandates. Cheap to clone.
#[derive(Clone)]
pub struct Verifier {
    keys: Arc<dyn KeySource>,
    verified: Arc<VerifiedMandates>,
    world: World,
}

impl Verifier {
    /// A verifier. `verified` is the process's one cache; who signs in the same process inserts there.
    pub fn new(keys: Arc<dyn KeySource>, verified: Arc<VerifiedMandates>, world: World) -> Self {
        Self { keys, verified, world }
    }

    /// A mandate this process has verified or signed, if its key is still its zone's and it has not ended.
    pub fn known(&self, token: &str) -> Option<Arc<VerifiedMandate>> {
        let digest = VerifiedMandates::digest(token);
        self.verified.get(&digest, self.world.now().as_secs(), |claims, kid| {
            self.keys.current(claims.zone_id).is_some_and(|keys| keys.has(kid))
        })
    }

    /// Verifies the signature and the form of the claims. Time and use are for [`Expect`].
    pub async fn verify(&self, token: &str) -> Result<Arc<VerifiedMandate>, Refused> {
        if let Some(known) = self.known(token) {
            return Ok(known);
        }
        let parsed = Parsed::of(token).map_err(|error| match error {
            JwsError::Malformed => Refused::Malformed,
            _ => Refused::Signature,
        })?;
        let Head { zone_id, nbf } = parsed.peek().ok_or(Refused::Signature)?;
        let zone: ZoneId = zone_id.parse().map_err(|_| Refused::Signature)?;
        let kid = parsed.kid().to_owned();
        let keys = match self.keys.current(zone) {
            Some(keys) if keys.has(&kid) => keys,
            _ => match self.keys.fetch(zone, &kid).await {
                Ok(keys) => keys,
                Err(KeysError::UnknownZone) => return Err(Refused::Signature),
                Err(KeysError::Unavailable(why)) => return Err(Refused::Unavailable(why)),
            },
        };
        let payload = parsed.verify(keys.iter()).map_err(|_| Refused::Signature)?;
        // Ours never say it; whoever does means it. Once past it stays past, so the cache need not keep it.
        if nbf.is_some_and(|from| from > self.world.now().as_secs().saturating_add(LEEWAY_SECS)) {
            return Err(Refused::Claim("nbf"));
        }
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| Refused::Malformed)?;
        Ok(self.verified.insert(VerifiedMandate { claims, kid, digest: VerifiedMandates::digest(token) }))
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}

#[derive(Deserialize)]
struct Head {
    zone_id: String,
    #[serde(default)]
    nbf: Option<i64>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use caracal_core::claims::SubjectType;
    use caracal_core::id::SigningKeyId;
    use caracal_crypto::jws::sign;
    use caracal_crypto::keys::SigningKey;

    use super::*;

    struct Fixture {
        world: World,
        clock: Arc<caracal_host::FixedClock>,
        keys: Arc<FixedKeys>,
        key: SigningKey,
        verifier: Verifier,
    }

    fn fixture() -> Fixture {
        let (world, clock) = World::fixed(1);
        let key = SigningKey::generate(world.mint::<SigningKeyId>()).unwrap();
        let keys = Arc::new(FixedKeys::default());
        let verifier = Verifier::new(keys.clone(), Arc::new(VerifiedMandates::new(8)), world.clone());
        Fixture { world, clock, keys, key, verifier }
    }

    fn claims(world: &World) -> Claims {
        let now = world.now().as_secs();
        Claims {
            iss: "http://sts".into(),
            sub: "a".into(),
            aud: vec!["http://sts".into()],
            exp: now + 900,
            iat: now,
            jti: world.mint(),
            zone_id: world.mint(),
            client_id: world.mint(),
            scope: None,
            sid: world.mint(),
            root_sid: world.mint(),
            usage: Use::Gateway,
            sub_type: SubjectType::Application,
            target: vec!["resource://a".into()],
            session: None,
            delegated: None,
            bound_request: None,
        }
    }

    fn token(key: &SigningKey, claims: &Claims) -> String {
        sign(key, &serde_json::to_vec(claims).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_zones_keys_open_only_that_zones_mandates() {
        let f = fixture();
        let claims = claims(&f.world);
        let token = token(&f.key, &claims);
        assert_eq!(f.verifier.verify(&token).await.unwrap_err(), Refused::Signature, "no keys");
        f.keys.set(f.world.mint(), vec![f.key.public().unwrap()]);
        assert_eq!(f.verifier.verify(&token).await.unwrap_err(), Refused::Signature, "another zone's");
        f.keys.set(claims.zone_id, vec![f.key.public().unwrap()]);
        assert_eq!(f.verifier.verify(&token).await.unwrap().claims, claims);
        assert!(f.verifier.known(&token).is_some());
        let mut tampered = token.clone();
        tampered.replace_range(60..61, if &token[60..61] == "A" { "B" } else { "A" });
        assert!(f.verifier.verify(&tampered).await.is_err());
    }

    #[tokio::test]
    async fn what_was_verified_falls_with_its_key_and_its_end() {
        let f = fixture();
        let claims = claims(&f.world);
        let token = token(&f.key, &claims);
        f.keys.set(claims.zone_id, vec![f.key.public().unwrap()]);
        f.verifier.verify(&token).await.unwrap();
        f.keys.set(claims.zone_id, vec![]);
        assert!(f.verifier.known(&token).is_none());
        assert_eq!(f.verifier.verify(&token).await.unwrap_err(), Refused::Signature);
        f.keys.set(claims.zone_id, vec![f.key.public().unwrap()]);
        f.verifier.verify(&token).await.unwrap();
        f.clock.advance(Duration::from_mins(15));
        assert!(f.verifier.known(&token).is_none());
    }

    #[test]
    fn expectations() {
        let (world, _) = World::fixed(1);
        let (good, now) = (claims(&world), world.now().as_secs());
        let expect = Expect { usage: Use::Gateway, issuer: Some("http://sts".into()), leeway: 0 };
        assert_eq!(expect.check(&good, now), Ok(()));
        assert_eq!(expect.check(&good, good.exp), Err(Refused::Claim("exp")));
        assert_eq!(Expect { leeway: 60, ..expect.clone() }.check(&good, good.exp + 59), Ok(()));
        assert_eq!(expect.check(&good, now - 61), Err(Refused::Claim("iat")));
        assert_eq!(Expect { usage: Use::Session, ..expect.clone() }.check(&good, now), Err(Refused::Claim("use")));
        assert_eq!(Expect { issuer: Some("x".into()), ..expect.clone() }.check(&good, now), Err(Refused::Claim("iss")));
        let other = Claims { aud: vec!["resource://a".into()], ..good };
        assert_eq!(expect.check(&other, now), Err(Refused::Claim("aud")));
    }

    #[test]
    fn a_peek_is_exact() {
        let of = |payload: &str| Unverified::of(&format!("h.{}.s", B64.encode(payload)));
        let id = Some("z".to_owned());
        assert_eq!(of(r#"{"exp":5,"zone_id":"z","x":1}"#), Some(Unverified { exp: 5, zone_id: id, client_id: None }));
        for none in
            ["{}", r#"{"exp":"1"}"#, r#"{"exp":1.9e9}"#, r#"{"exp":5.0}"#, r#"{"exp":0}"#, "[5]", "5", r#"{"exp":1,"exp":2}"#]
        {
            assert_eq!(of(none), None, "{none}");
        }
        for none in ["a.b", "a.b.c.d", "h.e30=.s", "h.!.s", ""] {
            assert_eq!(Unverified::of(none), None, "{none}");
        }
    }
}
