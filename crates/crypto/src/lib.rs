//! What is signed, sealed and compared. No IO: keys come in as bytes, time as an argument, randomness from the caller or from the
//! cryptographic library itself.
//!
//! The path through it: [`keys`] (a zone's ES256 keys and their JWKS form) → [`jws`] (compact JWS, one strict form) →
//! [`verified`] (a token is verified once per process); beside it [`mac`] (every HMAC scheme of the wire), [`seal`] (secrets at
//! rest under a KEK, bound to their purpose) and [`secret`] (client secrets, generated and supplied).
//!
//! What must never happen: an algorithm chosen by a token, a comparison that leaks by time, key material in a `Debug`, a sealed
//! value that opens under another purpose, a second cryptographic library.

pub mod jws;
pub mod keys;
pub mod mac;
pub mod seal;
pub mod secret;
pub mod verified;
