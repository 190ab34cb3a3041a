//! The API: product state, and the reading of evidence. What operators and their automation manage.
//!
//! The path through it: [`service`] (routes) → [`admin`] (who asks, what is recorded) → a noun's file, which parses, calls one
//! repository inside the store's door, and renders. Every change commits with its admin-audit record, its outbox rows and its epoch.
//!
//! What must never happen: a change without its record, a secret in an answer that did not just make it, a document that is active
//! before it was compiled.

mod admin;
mod applications;
mod config;
mod evidence;
mod lists;
mod policies;
mod policy_sets;
mod providers;
mod resources;
mod service;
mod zones;

pub use config::{Config, KEYS};
pub use service::{Api, service};
