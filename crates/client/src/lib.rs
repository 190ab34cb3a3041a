//! The Rust SDK: authority for an agent, from a secret to a governed call.
//!
//! The path through it: a [`Caracal`] knows where the services are and holds an application's secret; [`Caracal::bootstrap`] gives a
//! lifecycle mandate, with which Sessions start and Delegations are made; [`Caracal::mint`] gives a mandate for one governed call;
//! [`Caracal::call`] spends it at the Gateway. [`Admin`] provisions what all of it needs.
//!
//! What must never happen: a secret or a mandate in an error or a `Debug`, a redirect that is followed, a mandate sent anywhere but to
//! the Gateway.

mod admin;
mod agent;
mod http;

pub use admin::Admin;
pub use agent::{Caracal, Delegation, Mandate, Places, Session};
pub use http::{Answer, ClientError};
