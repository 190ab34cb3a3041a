//! The Coordinator: Sessions and the Delegations between them. Authority moves only downwards here, and one call takes a tree down.
//!
//! The path through it: [`service`] (routes) → [`caller`] (who asks: an application by its lifecycle mandate, or the operator) →
//! [`start`], [`delegate`], [`sessions`], [`edges`] (each parses, decides inside the store's door, renders). The rules themselves are
//! `core`'s: narrowing, liveness, paths. Ending is the store's one cascade. [`receipts`] makes retries harmless; [`sweep`] ends what
//! time has ended already.
//!
//! What must never happen: a child wider than its parent in any dimension, a live thing below an ended one, an answer before its
//! change is durable, a decision on state older than the request.

mod caller;
mod config;
mod delegate;
mod edges;
mod receipts;
mod service;
mod sessions;
mod start;
mod sweep;

pub use config::{Config, KEYS};
pub use service::{Coordinator, service};
