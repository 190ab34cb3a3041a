//! Evidence formats that anyone can check, without us.
//!
//! The path through it: [`event`] (an audit event as it was sent, normalised) → [`canonical`] (its one text, written once) → [`leaf`]
//! (what an entry commits to: salted digests, so that a value can be erased and everything else still proved) → [`chain`] (content hash, link, HMAC) → [`tree`] (the Merkle
//! tree over leaves, and its proofs) → [`recheck`] (all of it again, from what is stored).
//!
//! What must never happen here: IO, a clock, knowledge of who writes the ledger; two texts for one value; a value in a leaf that a
//! redaction could not take out again.

pub mod canonical;
pub mod chain;
pub mod event;
pub mod leaf;
pub mod recheck;
pub mod tree;
