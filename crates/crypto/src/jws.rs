//! Compact JWS with ES256, one strict form (`sts.md` 4.1, 9.1; `gateway.md` 4.1).
//!
//! A token chooses nothing: the algorithm is fixed, embedded keys are never looked at, `crit` refuses, base64url has one spelling,
//! and a member that occurs twice refuses.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::keys::{KeyError, PublicKey, SigningKey};

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 8192;

/// Why a token is no token. Callers tell none of it apart; logs may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Not three base64url parts of JSON.
    #[error("malformed")]
    Malformed,
    /// `alg` is not ES256.
    #[error("algorithm")]
    Algorithm,
    /// `kid` is missing or empty.
    #[error("no key id")]
    NoKeyId,
    /// `crit` is present.
    #[error("critical header")]
    Critical,
    /// No key of that name.
    #[error("unknown key")]
    UnknownKey,
    /// The signature does not fit.
    #[error("signature")]
    Signature,
}

/// Signs `payload` (JSON text) and gives the compact token.
pub fn sign(key: &SigningKey, payload: &[u8]) -> Result<String, KeyError> {
    let mut token = B64.encode(format!(r#"{{"alg":"ES256","typ":"JWT","kid":"{}"}}"#, key.id()));
    token.push('.');
    B64.encode_string(payload, &mut token);
    let signature = key.sign(token.as_bytes())?;
    token.push('.');
    B64.encode_string(signature, &mut token);
    Ok(token)
}

/// A token taken apart, not yet believed.
pub struct Parsed<'a> {
    signed: &'a str,
    kid: String,
    payload: Vec<u8>,
    signature: [u8; 64],
}

impl<'a> Parsed<'a> {
    /// Takes a token apart and checks its header.
    pub fn of(token: &'a str) -> Result<Self, JwsError> {
        if token.len() > MAX_TOKEN {
            return Err(JwsError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwsError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwsError::Malformed)?;
        let decode = |part: &str| B64.decode(part).map_err(|_| JwsError::Malformed);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| JwsError::Malformed)?;
        if header.alg.as_deref() != Some("ES256") {
            return Err(JwsError::Algorithm);
        }
        if header.crit.is_some() {
            return Err(JwsError::Critical);
        }
        let kid = header.kid.filter(|kid| !kid.is_empty()).ok_or(JwsError::NoKeyId)?;
        let payload = decode(payload)?;
        serde_json::from_slice::<UniqueMembers>(&payload).map_err(|_| JwsError::Malformed)?;
        let signature = decode(signature)?.try_into().map_err(|_| JwsError::Malformed)?;
        Ok(Self { signed, kid, payload, signature })
    }

    /// The key it claims.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// A member of the payload before it is believed, to find out whose keys to ask.
    pub fn peek<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.payload).ok()
    }

    /// The payload, once one of the keys is found to have signed it.
    pub fn verify<'k>(self, keys: impl IntoIterator<Item = &'k PublicKey>) -> Result<Vec<u8>, JwsError> {
        let key = keys.into_iter().find(|key| key.kid() == self.kid).ok_or(JwsError::UnknownKey)?;
        if key.verify(self.signed.as_bytes(), &self.signature) { Ok(self.payload) } else { Err(JwsError::Signature) }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: Option<String>,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

/// A JSON object in which no member occurs twice.
struct UniqueMembers;

impl<'de> Deserialize<'de> for UniqueMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = UniqueMembers;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueMembers, A::Error> {
                let mut seen = std::collections::HashSet::new();
                while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    if !seen.insert(name) {
                        return Err(serde::de::Error::custom("a member occurs twice"));
                    }
                }
                Ok(UniqueMembers)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use caracal_core::id::{Id as _, SigningKeyId};
    use serde_json::json;

    use super::*;

    fn key(n: u8) -> SigningKey {
        SigningKey::generate(SigningKeyId::from_bytes([n; 16])).unwrap()
    }

    fn token(header: &serde_json::Value, payload: &str, key: &SigningKey) -> String {
        let signed = format!("{}.{}", B64.encode(header.to_string()), B64.encode(payload));
        let signature = key.sign(signed.as_bytes()).unwrap();
        format!("{signed}.{}", B64.encode(signature))
    }

    fn outcome(token: &str, keys: &[PublicKey]) -> Result<Vec<u8>, JwsError> {
        Parsed::of(token)?.verify(keys)
    }

    #[test]
    fn what_is_signed_is_read_and_another_library_agrees() {
        let key = key(1);
        let token = sign(&key, br#"{"sub":"a","exp":99999999999}"#).unwrap();
        assert_eq!(outcome(&token, &[key.public().unwrap()]).unwrap(), br#"{"sub":"a","exp":99999999999}"#);
        let jwk = serde_json::to_value(key.public().unwrap().to_jwk()).unwrap();
        let oracle = jsonwebtoken::DecodingKey::from_ec_components(jwk["x"].as_str().unwrap(), jwk["y"].as_str().unwrap()).unwrap();
        let read = jsonwebtoken::decode::<serde_json::Value>(
            &token,
            &oracle,
            &jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256),
        )
        .unwrap();
        assert_eq!(read.claims["sub"], "a");
        assert_eq!(read.header.typ.as_deref(), Some("JWT"));
    }

    #[test]
    fn a_token_chooses_nothing() {
        let key = key(1);
        let keys = [key.public().unwrap()];
        let kid = key.id().to_string();
        let refused = [
            (json!({"alg": "none", "kid": kid}), JwsError::Algorithm),
            (json!({"alg": "HS256", "kid": kid}), JwsError::Algorithm),
            (json!({"alg": "es256", "kid": kid}), JwsError::Algorithm),
            (json!({"kid": kid}), JwsError::Algorithm),
            (json!({"alg": "ES256"}), JwsError::NoKeyId),
            (json!({"alg": "ES256", "kid": ""}), JwsError::NoKeyId),
            (json!({"alg": "ES256", "kid": kid, "crit": ["exp"]}), JwsError::Critical),
            (json!({"alg": "ES256", "kid": "other"}), JwsError::UnknownKey),
        ];
        for (header, wanted) in refused {
            assert_eq!(outcome(&token(&header, "{}", &key), &keys), Err(wanted), "{header}");
        }
        let other = SigningKey::generate(SigningKeyId::from_bytes([2; 16])).unwrap();
        let embedded = serde_json::to_value(other.public().unwrap().to_jwk()).unwrap();
        let forged = token(&json!({"alg": "ES256", "kid": kid, "jwk": embedded}), "{}", &other);
        assert_eq!(outcome(&forged, &keys), Err(JwsError::Signature));
    }

    #[test]
    fn one_spelling_and_one_of_each_member() {
        let key = key(1);
        let keys = [key.public().unwrap()];
        let good = sign(&key, b"{}").unwrap();
        let header = json!({"alg": "ES256", "kid": key.id().to_string()});
        assert_eq!(outcome(&token(&header, r#"{"sub":"a","sub":"b"}"#, &key), &keys), Err(JwsError::Malformed));
        for bad in ["", "a", "a.b", "a.b.c.d", &format!("{good}="), &format!(" {good}"), &good.replace('.', "..")] {
            assert!(outcome(bad, &keys).is_err(), "{bad}");
        }
        // The last character of 64 bytes in base64url has four unused bits; only zeros are canonical.
        let mut twin = good.clone();
        let last = twin.pop().unwrap();
        twin.push(char::from(u8::try_from(u32::from(last) + 1).unwrap()));
        assert!(outcome(&twin, &keys).is_err());
        assert_eq!(outcome(&"x".repeat(MAX_TOKEN + 1), &keys), Err(JwsError::Malformed));
    }
}
