//! The STS: the one place where authority is granted.
//!
//! The path through it is a pipeline of types, a file a step, in the spec's order:
//! [`request`] (a form becomes a `TokenRequest`) → [`authenticate`] (`Authenticated`) → [`resolve`] (`Resolved`: presented token,
//! Session and edges, all on one fresh view) → [`decide`] (`Decided`, a resource at a time) → [`mint`] (`Minted`: durable, then
//! signed) → [`reply`]. [`exchange`] runs it, and runs it again when what it read has changed; [`gateway`] is the Gateway's own
//! exchange. [`view`] is what a zone looks like; [`evidence`] what is told of it; [`service`] the routes.
//!
//! What must never happen: a mandate without evidence, a decision on a view older than the request, a refusal that tells a caller
//! of what it may not know, an identity taken from a parameter.
#![allow(clippy::result_large_err, reason = "a refusal is built once a request, to be told")]

mod authenticate;
mod config;
mod decide;
mod evidence;
mod exchange;
mod gateway;
mod limits;
mod mint;
mod numbers;
mod refusals;
mod reply;
mod request;
mod resolve;
mod service;
mod view;

pub use config::{Config, KEYS, issuer};
pub use exchange::Sts;
pub use gateway::{GatewayCall, GatewayGrant, GatewayRefusal};
pub use service::{GRACE, service};
