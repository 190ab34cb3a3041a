//! Secrets at rest: envelope `CSS1` under a key-encryption key, bound to a purpose (`sts.md` 22).
//!
//! `"CSS1" | kekId(8) | dekNonce(12) | dekCt(48) | valNonce(12) | valCt(n+16)`, ChaCha20-Poly1305 twice: a fresh data key seals the
//! value under the caller's associated data, the KEK seals the data key.

use std::fmt;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use caracal_core::digest::sha256;
use zeroize::Zeroizing;

const MAGIC: &[u8; 4] = b"CSS1";
const DEK_PURPOSE: &[u8] = b"caracal.css1.dek";
const OVERHEAD: usize = 4 + 8 + 12 + 48 + 12 + 16;

/// A value could not be opened or sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not an envelope.
    #[error("not a sealed value")]
    Malformed,
    /// Sealed under a key that is not here.
    #[error("sealed under another key-encryption key; set SECRET_STORE_KEK, or SECRET_STORE_KEK_PREVIOUS during a rotation")]
    UnknownKek,
    /// Altered, or sealed for another purpose.
    #[error("the sealed value does not open")]
    Refused,
}

/// The key is not 64 hex digits, or has a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hex digits without a pattern; generate one with: openssl rand -hex 32")]
pub struct WeakKek;

/// A key-encryption key.
#[derive(Clone)]
pub struct Kek {
    key: Zeroizing<[u8; 32]>,
    id: [u8; 8],
}

impl Kek {
    /// From exactly 64 hex digits; all-equal, sequential and two-byte repeating patterns are refused.
    pub fn from_hex(text: &str) -> Result<Self, WeakKek> {
        let mut key = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text, key.as_mut_slice()).map_err(|_| WeakKek)?;
        let up = key.windows(2).all(|w| w[1] == w[0].wrapping_add(1));
        let down = key.windows(2).all(|w| w[1] == w[0].wrapping_sub(1));
        let alternating = key.windows(3).all(|w| w[0] == w[2]);
        if up || down || alternating { Err(WeakKek) } else { Ok(Self::new(key)) }
    }

    fn new(key: Zeroizing<[u8; 32]>) -> Self {
        let digest = sha256(&[key.as_slice()]);
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        Self { key, id }
    }

    /// Its fingerprint, in every envelope it seals.
    pub const fn id(&self) -> [u8; 8] {
        self.id
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kek({})", hex::encode(self.id))
    }
}

/// The key that seals, and the one before it that still opens.
#[derive(Clone, Debug)]
pub struct Keks {
    current: Kek,
    previous: Option<Kek>,
}

/// What sealing draws: a data key and two nonces.
pub struct SealRandom {
    /// Data key.
    pub dek: Zeroizing<[u8; 32]>,
    /// Nonce of the sealed data key.
    pub dek_nonce: [u8; 12],
    /// Nonce of the sealed value.
    pub value_nonce: [u8; 12],
}

impl Keks {
    /// A current key and, during a rotation, the previous one.
    pub const fn new(current: Kek, previous: Option<Kek>) -> Self {
        Self { current, previous }
    }

    /// The current key's fingerprint.
    pub const fn current_id(&self) -> [u8; 8] {
        self.current.id
    }

    /// Whether an envelope, whole or its first 12 bytes, is sealed under one of these keys.
    pub fn knows(&self, envelope: &[u8]) -> bool {
        Self::kek_id(envelope).is_ok_and(|id| self.by_id(id).is_some())
    }

    /// Seals `value` for `purpose`.
    pub fn seal(&self, purpose: &[u8], value: &[u8], random: &SealRandom) -> Result<Vec<u8>, SealError> {
        let mut out = Vec::with_capacity(value.len() + OVERHEAD);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.current.id);
        out.extend_from_slice(&random.dek_nonce);
        out.extend(encrypt(&self.current.key, random.dek_nonce, DEK_PURPOSE, random.dek.as_slice())?);
        out.extend_from_slice(&random.value_nonce);
        out.extend(encrypt(&random.dek, random.value_nonce, purpose, value)?);
        Ok(out)
    }

    /// Opens an envelope that was sealed for `purpose`.
    pub fn open(&self, purpose: &[u8], envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        if envelope.len() < OVERHEAD {
            return Err(SealError::Malformed);
        }
        let kek = self.by_id(Self::kek_id(envelope)?).ok_or(SealError::UnknownKek)?;
        let rest = &envelope[12..];
        let (dek_nonce, rest) = rest.split_at(12);
        let (dek_ct, rest) = rest.split_at(48);
        let (value_nonce, value_ct) = rest.split_at(12);
        let dek = decrypt(&kek.key, dek_nonce, DEK_PURPOSE, dek_ct)?;
        let dek: &[u8; 32] = dek.as_slice().try_into().map_err(|_| SealError::Refused)?;
        decrypt(dek, value_nonce, purpose, value_ct)
    }

    fn kek_id(envelope: &[u8]) -> Result<[u8; 8], SealError> {
        let id = envelope.strip_prefix(MAGIC.as_slice()).and_then(|rest| rest.get(..8)).ok_or(SealError::Malformed)?;
        id.try_into().map_err(|_| SealError::Malformed)
    }

    fn by_id(&self, id: [u8; 8]) -> Option<&Kek> {
        [Some(&self.current), self.previous.as_ref()].into_iter().flatten().find(|kek| kek.id == id)
    }
}

fn cipher(key: &[u8; 32]) -> Result<LessSafeKey, SealError> {
    UnboundKey::new(&CHACHA20_POLY1305, key).map(LessSafeKey::new).map_err(|_| SealError::Refused)
}

fn encrypt(key: &[u8; 32], nonce: [u8; 12], purpose: &[u8], value: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut sealed = value.to_vec();
    cipher(key)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(purpose), &mut sealed)
        .map_err(|_| SealError::Refused)?;
    Ok(sealed)
}

fn decrypt(key: &[u8; 32], nonce: &[u8], purpose: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Malformed)?;
    let mut open = Zeroizing::new(sealed.to_vec());
    let length = cipher(key)?.open_in_place(nonce, Aad::from(purpose), &mut open).map_err(|_| SealError::Refused)?.len();
    open.truncate(length);
    Ok(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kek(last: &str) -> Kek {
        Kek::from_hex(&format!("101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e{last}")).unwrap()
    }

    fn random() -> SealRandom {
        let mut dek = Zeroizing::new([0xaa; 32]);
        dek[16..].fill(0x55);
        let mut dek_nonce = [0; 12];
        let mut value_nonce = [0; 12];
        for i in 0..12_u8 {
            dek_nonce[usize::from(i)] = i;
            value_nonce[usize::from(i)] = 0x64 + i;
        }
        SealRandom { dek, dek_nonce, value_nonce }
    }

    #[test]
    fn the_vector_holds_both_ways() {
        let keks = Keks::new(kek("30"), None);
        let purpose = b"zones/z-1/providers/p-1/secretConfig";
        let sealed = keks.seal(purpose, b"hello", &random()).unwrap();
        assert_eq!(
            hex::encode(&sealed),
            "43535331c423f68d2fd312f8000102030405060708090a0bda8d4033e6b9128a88c9869e7342581e6d29f547716b1b76e5817870155457fba954ab5f793834e0f30de609d79800806465666768696a6b6c6d6e6faf340fb14e0c332b7932fd050c999bfac128f5f8e1"
        );
        assert_eq!(keks.open(purpose, &sealed).unwrap().as_slice(), b"hello");
    }

    #[test]
    fn purpose_key_and_bytes_are_all_bound() {
        let keks = Keks::new(kek("30"), None);
        let sealed = keks.seal(b"a", b"hello", &random()).unwrap();
        assert_eq!(keks.open(b"b", &sealed).unwrap_err(), SealError::Refused);
        assert_eq!(Keks::new(kek("31"), None).open(b"a", &sealed).unwrap_err(), SealError::UnknownKek);
        assert_eq!(Keks::new(kek("31"), Some(kek("30"))).open(b"a", &sealed).unwrap().as_slice(), b"hello");
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(keks.open(b"a", &altered).is_err(), "byte {at}");
        }
        for length in 0..sealed.len() {
            assert!(keks.open(b"a", &sealed[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn patterned_keys_are_refused() {
        for weak in [
            "00".repeat(32),
            "ab".repeat(32),
            "abcd".repeat(16),
            hex::encode((0..32).collect::<Vec<u8>>()),
            hex::encode((0..32).rev().collect::<Vec<u8>>()),
            "zz".repeat(32),
            "00".repeat(31),
        ] {
            assert_eq!(Kek::from_hex(&weak).unwrap_err(), WeakKek, "{weak}");
        }
    }
}
