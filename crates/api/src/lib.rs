//! The API: product state, and the reading of evidence. What operators and their automation manage.
//!
//! The path through it: [`routes`] (the table) → [`mod@service`] (the router made from it) → [`call`] (who asks, may they, what is
//! recorded; [`actor`] and [`record`] are its rules) → a noun's file, which parses, calls one repository inside the store's door,
//! and renders. What nouns share is in [`objects`], [`names`], [`lists`], [`document`] and [`export`].
//!
//! What must never happen: a change without its record, a secret in an answer that did not just make it, a document that is active
//! before it was compiled.

mod actor;
mod admin_audit;
mod applications;
mod call;
mod config;
mod document;
mod evidence;
mod export;
mod lists;
mod names;
mod objects;
#[cfg(test)]
mod permissions;
mod policies;
mod policy_sets;
mod providers;
mod record;
mod resources;
mod routes;
mod service;
mod traits;
mod zones;

pub use config::{Config, KEYS};
pub use service::{Api, service};
