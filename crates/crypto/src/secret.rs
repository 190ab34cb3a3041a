//! Client secrets: generated ones are compared by a keyed hash, supplied ones by Argon2id (`api.md` 4.1, 9.2; `sts.md` 2.4).

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::mac::{MacKey, constant_time_eq};

/// What a generated secret opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An administrator's token, `cat_`.
    AdminToken,
    /// An Application's secret, `cs_`.
    Client,
    /// A workload's secret, `ws_`.
    Workload,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::AdminToken => "cat_",
            Self::Client => "cs_",
            Self::Workload => "ws_",
        }
    }
}

/// A secret in the clear, for as long as it is shown.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// A secret that somebody chose or sent.
    pub fn of(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Of 256 random bits: prefix, base64url, checksum.
    pub fn generated(kind: Kind, random: &[u8; 32]) -> Self {
        let mut text = Zeroizing::new(format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(random)));
        let sum = checksum(text.as_bytes());
        text.push_str(&sum);
        Self(text)
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Whether a presented text has the form of a generated secret: prefix, length, checksum. Tells which comparison applies, for known
/// and unknown ids alike.
pub fn is_generated(kind: Kind, text: &str) -> bool {
    let Some(body) = text.strip_prefix(kind.prefix()) else { return false };
    if body.len() != 49 || !body.is_ascii() {
        return false;
    }
    let (signed, sum) = text.split_at(text.len() - 6);
    checksum(signed.as_bytes()) == sum
}

/// Six base62 digits of the CRC-32 (IEEE) of the characters before it.
fn checksum(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    let mut rest = !crc;
    let mut text = [b'0'; 6];
    for digit in text.iter_mut().rev() {
        *digit = DIGITS[(rest % 62) as usize];
        rest /= 62;
    }
    text.iter().map(|b| char::from(*b)).collect()
}

/// A stored verifier, parsed from its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verifier {
    /// HMAC-SHA256 under the deployment's verifier key: `hmac256$<hex>`.
    Keyed([u8; 32]),
    /// Argon2id with the fixed parameters: `argon2id$<salt>$<hash>`.
    Argon2 {
        /// 16 bytes.
        salt: Vec<u8>,
        /// As long as stored.
        hash: Vec<u8>,
    },
    /// A record with the Argon2 prefix that does not parse: costs a derivation, never matches.
    Broken,
}

impl Verifier {
    /// The verifier of a generated secret.
    pub fn keyed(key: &MacKey, secret: &Secret) -> Self {
        Self::Keyed(key.tag(&[secret.expose().as_bytes()]))
    }

    /// The verifier of a supplied secret. Slow: one derivation over 64 MiB.
    pub fn argon2(secret: &Secret, salt: [u8; 16]) -> Self {
        let hash = derive(secret.expose().as_bytes(), &salt, 32);
        Self::Argon2 { salt: salt.to_vec(), hash: hash.to_vec() }
    }

    /// From its stored text; `None` when it is of neither form.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(hex) = text.strip_prefix("hmac256$") {
            let mut tag = [0; 32];
            return hex::decode_to_slice(hex, &mut tag).ok().map(|()| Self::Keyed(tag));
        }
        let rest = text.strip_prefix("argon2id$")?;
        let parsed = rest.split_once('$').and_then(|(salt, hash)| {
            let salt = STANDARD_NO_PAD.decode(salt).ok().filter(|s| s.len() >= 8)?;
            let hash = STANDARD_NO_PAD.decode(hash).ok().filter(|h| (16..=64).contains(&h.len()))?;
            Some(Self::Argon2 { salt, hash })
        });
        Some(parsed.unwrap_or(Self::Broken))
    }

    /// Its stored text.
    pub fn to_text(&self) -> String {
        match self {
            Self::Keyed(tag) => format!("hmac256${}", hex::encode(tag)),
            Self::Argon2 { salt, hash } => format!("argon2id${}${}", STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash)),
            Self::Broken => "argon2id$".to_owned(),
        }
    }

    /// Whether checking takes a slow derivation.
    pub const fn is_slow(&self) -> bool {
        !matches!(self, Self::Keyed(_))
    }

    /// Whether `presented` is the secret; constant time. Slow for [`Self::is_slow`].
    pub fn matches(&self, key: &MacKey, presented: &Secret) -> bool {
        match self {
            Self::Keyed(tag) => key.verify(&[presented.expose().as_bytes()], tag),
            Self::Argon2 { salt, hash } => constant_time_eq(&derive(presented.expose().as_bytes(), salt, hash.len()), hash),
            Self::Broken => {
                dummy(presented);
                false
            }
        }
    }
}

/// The cost of a derivation without its result, for ids that do not exist.
pub fn dummy(presented: &Secret) {
    let _ = derive(presented.expose().as_bytes(), &[0; 16], 32);
}

/// Argon2id v1.3, t=3, m=64 MiB, p=2; parameters are fixed, not read from the record.
fn derive(secret: &[u8], salt: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(vec![0; length]);
    let done = Params::new(65_536, 3, 2, Some(length))
        .and_then(|params| Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(secret, salt, &mut out));
    if done.is_err() {
        out.clear();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes() -> [u8; 32] {
        std::array::from_fn(|i| u8::try_from(i).unwrap())
    }

    #[test]
    fn the_vectors_of_generated_secrets_hold() {
        let body = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
        for (kind, prefix, sum) in
            [(Kind::AdminToken, "cat_", "2Aozny"), (Kind::Client, "cs_", "3msUML"), (Kind::Workload, "ws_", "2GbodM")]
        {
            let secret = Secret::generated(kind, &bytes());
            assert_eq!(secret.expose(), format!("{prefix}{body}{sum}"));
            assert!(is_generated(kind, secret.expose()));
            assert!(!is_generated(kind, &secret.expose().replace('A', "B")));
        }
    }

    #[test]
    fn a_generated_secret_matches_itself_alone() {
        let key = MacKey::from_bytes(&[9; 32]);
        let secret = Secret::generated(Kind::Client, &bytes());
        let stored = Verifier::parse(&Verifier::keyed(&key, &secret).to_text()).unwrap();
        assert!(stored.matches(&key, &secret) && !stored.is_slow());
        assert!(!stored.matches(&key, &Secret::of("cs_other")));
        assert!(!stored.matches(&MacKey::from_bytes(&[8; 32]), &secret));
    }

    #[test]
    fn the_argon2_vector_holds() {
        let salt = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let made = Verifier::argon2(&Secret::of("cs_example"), salt);
        assert_eq!(made.to_text(), "argon2id$AAECAwQFBgcICQoLDA0ODw$cN8d+MA2MSpRadHc1LUI8rahALniJ9ZzUBgSih/Wovo");
        let key = MacKey::from_bytes(&[9; 32]);
        let stored = Verifier::parse(&made.to_text()).unwrap();
        assert!(stored.matches(&key, &Secret::of("cs_example")));
        assert!(!stored.matches(&key, &Secret::of("cs_examplf")));
    }

    #[test]
    fn a_broken_record_never_matches() {
        let key = MacKey::from_bytes(&[9; 32]);
        assert_eq!(Verifier::parse(""), None);
        assert_eq!(Verifier::parse("plain"), None);
        assert!(!Verifier::parse("argon2id$x").unwrap().matches(&key, &Secret::of("")));
        assert_eq!(format!("{:?}", Secret::of("cs_example")), "Secret(..)");
    }
}
