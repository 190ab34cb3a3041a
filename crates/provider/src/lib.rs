//! Provider kinds: what a configuration may say, and what an upstream then receives. Stores nothing.
//!
//! The path through it: [`Config::read`] on write (precise refusals for whoever configures), [`Config::stored`] on use (fails closed),
//! [`Config::directive`] → what the Gateway injects.
//!
//! What must never happen: a secret in an error or a `Debug`, an unknown kind that passes, a credential header that the proxy needs
//! for itself.

mod config;

pub use caracal_core::directive::{AuthLocation, AuthMode, Directive};
pub use config::{BadConfig, Config, Kind, Secrets, caracal_jwt};
