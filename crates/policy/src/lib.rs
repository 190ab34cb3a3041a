//! What may be done: a decision contract that is native, total and explains itself, over data documents written in Rego.
//!
//! The path through it: [`document`] (is this text a data document?) → [`bundle`] (documents become a [`bundle::Program`], once, when
//! they become active) → [`tables`] (what the contract reads) → [`decide`] (the contract: first line that applies) → [`approval`]
//! (several declarations become one hold). [`input`] is what a decision is about, in one normal form that evidence keeps; [`warning`]
//! what an author should know. The Rego engine is behind `engine`, its bounds in `guard`.
//!
//! What must never happen: IO, a clock, a document that decides by itself, an error that becomes an allow, a partial answer of a
//! bundle that ran over its bound.

pub mod approval;
pub mod bundle;
pub mod decide;
pub mod document;
mod engine;
mod guard;
pub mod input;
mod shape;
pub mod tables;
pub mod warning;

/// The version of the decision contract.
pub const CONTRACT_VERSION: &str = "2026-07-12";

/// What names the contract in evidence: the SHA-256 of its version, because the contract is code and not text.
pub fn contract_sha() -> String {
    caracal_core::digest::sha256_hex(format!("caracal.contract/{CONTRACT_VERSION}").as_bytes())
}
