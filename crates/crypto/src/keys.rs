//! A zone's signing keys: P-256, named by their row's id, published as JWKS (`sts.md` 10).

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use caracal_core::id::SigningKeyId;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A key could not be made, read or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(&'static str);

/// A private signing key and its name.
pub struct SigningKey {
    id: SigningKeyId,
    pair: EcdsaKeyPair,
}

impl SigningKey {
    /// A new key.
    pub fn generate(id: SigningKeyId) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| KeyError("no key could be generated"))?;
        Ok(Self { id, pair })
    }

    /// From PKCS#8 DER.
    pub fn from_pkcs8(id: SigningKeyId, der: &[u8]) -> Result<Self, KeyError> {
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map_err(|_| KeyError("not a P-256 private key"))?;
        Ok(Self { id, pair })
    }

    /// As PKCS#8 DER, to be sealed.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let der = self.pair.to_pkcs8v1().map_err(|_| KeyError("the key cannot be written"))?;
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }

    /// Its name, the header's `kid`.
    pub const fn id(&self) -> SigningKeyId {
        self.id
    }

    /// Its public half.
    pub fn public(&self) -> Result<PublicKey, KeyError> {
        PublicKey::from_point(self.id.to_string(), self.pair.public_key().as_ref())
    }

    /// The 64 bytes `r ‖ s` over a message.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(|_| KeyError("the key cannot sign"))?;
        Ok(signature.as_ref().to_vec())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

/// A public key, parsed once.
#[derive(Clone)]
pub struct PublicKey {
    kid: String,
    point: [u8; 65],
    parsed: std::sync::Arc<ParsedPublicKey>,
}

impl PublicKey {
    fn from_point(kid: String, point: &[u8]) -> Result<Self, KeyError> {
        let point: [u8; 65] = point.try_into().map_err(|_| KeyError("not an uncompressed P-256 point"))?;
        let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| KeyError("the point is not on P-256"))?;
        Ok(Self { kid, point, parsed: std::sync::Arc::new(parsed) })
    }

    /// Its name.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Whether `signature` (64 bytes) is this key's over `message`.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }

    /// Its JWKS form.
    pub fn to_jwk(&self) -> Jwk {
        Jwk {
            kty: "EC".into(),
            crv: Some("P-256".into()),
            usage: Some("sig".into()),
            alg: Some("ES256".into()),
            kid: Some(self.kid.clone()),
            x: Some(B64.encode(&self.point[1..33])),
            y: Some(B64.encode(&self.point[33..])),
            key_ops: None,
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.kid)
    }
}

/// One member of a JWKS document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    kty: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(rename = "use", default, skip_serializing_if = "Option::is_none")]
    usage: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_ops: Option<Vec<String>>,
}

/// A JWKS document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwks {
    /// The keys, the signing one first.
    pub keys: Vec<Jwk>,
}

impl Jwks {
    /// The document of these keys.
    pub fn of<'a>(keys: impl IntoIterator<Item = &'a PublicKey>) -> Self {
        Self { keys: keys.into_iter().map(PublicKey::to_jwk).collect() }
    }

    /// The keys that may verify a mandate; every other member is skipped (`gateway.md` 4.2).
    pub fn usable(&self) -> Vec<PublicKey> {
        self.keys.iter().filter_map(Jwk::usable).collect()
    }
}

impl Jwk {
    fn usable(&self) -> Option<PublicKey> {
        let is = |member: &Option<String>, value: &str| member.as_deref() == Some(value);
        let for_signatures = self.usage.as_deref().is_none_or(|usage| usage.is_empty() || usage == "sig");
        let may_verify = self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let kid = self.kid.clone().filter(|kid| !kid.is_empty())?;
        if self.kty != "EC" || !is(&self.crv, "P-256") || !is(&self.alg, "ES256") || !for_signatures || !may_verify {
            return None;
        }
        let coordinate = |text: &Option<String>| B64.decode(text.as_deref()?).ok().filter(|bytes| bytes.len() == 32);
        let mut point = vec![4];
        point.extend(coordinate(&self.x)?);
        point.extend(coordinate(&self.y)?);
        PublicKey::from_point(kid, &point).ok()
    }
}

#[cfg(test)]
mod tests {
    use caracal_core::id::Id as _;

    use super::*;

    #[test]
    fn a_key_survives_its_sealed_form() {
        let key = SigningKey::generate(SigningKeyId::from_bytes([1; 16])).unwrap();
        let again = SigningKey::from_pkcs8(key.id(), &key.to_pkcs8().unwrap()).unwrap();
        assert_eq!(key.public().unwrap().to_jwk(), again.public().unwrap().to_jwk());
    }

    #[test]
    fn the_document_has_exactly_its_members_and_reads_back() {
        let public = SigningKey::generate(SigningKeyId::from_bytes([1; 16])).unwrap().public().unwrap();
        let json = serde_json::to_value(Jwks::of([&public])).unwrap();
        let members: Vec<&str> = json["keys"][0].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
        let read: Jwks = serde_json::from_value(json).unwrap();
        assert_eq!(read.usable().len(), 1);
    }

    #[test]
    fn unusable_members_are_skipped() {
        let public = SigningKey::generate(SigningKeyId::from_bytes([1; 16])).unwrap().public().unwrap();
        let good = serde_json::to_value(public.to_jwk()).unwrap();
        for (member, value) in [
            ("kty", "RSA"),
            ("crv", "P-384"),
            ("alg", "ES384"),
            ("alg", "HS256"),
            ("use", "enc"),
            ("kid", ""),
            ("x", "AAAA"),
            ("y", "!"),
        ] {
            let mut bad = good.clone();
            bad[member] = value.into();
            let jwks: Jwks = serde_json::from_value(serde_json::json!({"keys": [bad]})).unwrap();
            assert!(jwks.usable().is_empty(), "{member}={value}");
        }
        let mut off_curve = good.clone();
        off_curve["x"] = B64.encode([7; 32]).into();
        let jwks: Jwks = serde_json::from_value(serde_json::json!({"keys": [off_curve]})).unwrap();
        assert!(jwks.usable().is_empty());
    }
}
