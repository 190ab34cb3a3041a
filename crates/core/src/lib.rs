//! The words of Caracal. Every other room speaks in them; this room depends on none.
//!
//! A newcomer reads in this order: [`id`] and [`time`] (what things are called and when they happened), [`name`] (resource and
//! provider identifiers), [`scope`] and [`label`], [`constraint`] (what narrows a Delegation), [`session`] and [`delegation`]
//! (state machines and the narrowing rules), [`claims`] (what a mandate says), [`request`] (operations and bound requests),
//! [`event`] and [`admin`] (what evidence says), [`message`] (what travels), [`refusal`] and [`error`] (how a no is told). [`digest`] and
//! [`jcs`] give things names that outsiders can recompute.
//!
//! What must never happen here: `async`, IO, a clock, a random number, a framework. Rules take values and return values.

pub mod admin;
pub mod claims;
pub mod constraint;
pub mod delegation;
pub mod digest;
pub mod directive;
pub mod error;
pub mod event;
pub mod id;
pub mod jcs;
pub mod label;
pub mod message;
pub mod name;
pub mod refusal;
pub mod request;
pub mod scope;
pub mod session;
pub mod time;
