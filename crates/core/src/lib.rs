//! The words of Caracal. Every other room speaks in them; this room depends on none.
//!
//! A newcomer reads in this order: [`id`] and [`time`] (what things are called and when they happened), [`name`] (resource and
//! provider identifiers), [`scope`] and [`label`], [`constraint`] (what narrows a Delegation), [`session`] and [`delegation`]
//! (state machines and the narrowing rules), [`claims`] (what a mandate says), [`event`] (what evidence says), [`refusal`] and
//! [`error`] (how a no is told).
//!
//! What must never happen here: `async`, IO, a clock, a random number, a framework. Rules take values and return values.

pub mod digest;
pub mod id;
pub mod time;
