//! The Gateway: a protected reverse proxy. Nothing reaches an upstream that was not verified, consumed and decided.
//!
//! The path of a call: [`service`] looks whether a request names a resource; [`call`] takes it through its phases, each a type that
//! only the one before makes; [`exchange`] asks the STS where it goes and with what; [`send`] builds and sends it; [`body`] passes
//! the answer on, asking [`revocation`] before each chunk; [`record`] writes what happened ([`evidence`]). [`rules`] holds what needs
//! neither time nor network.
//!
//! What must never happen here: a mandate that opens two calls; a credential of the caller at the upstream, or of the upstream at the
//! caller; a request sent twice; an answer that is cut and looks whole; an effect without evidence; a database on the path of a
//! request except through [`evidence`] and [`consumed`].

pub mod body;
pub mod bounds;
pub mod call;
pub mod config;
pub mod consumed;
pub mod denial;
pub mod evidence;
pub mod exchange;
pub mod metrics;
pub mod record;
pub mod revocation;
pub mod rules;
pub mod send;
pub mod service;
pub mod upload;

pub use config::{Config, KEYS};
pub use service::{DRAIN, Gateway, Parts, RevocationSource};
