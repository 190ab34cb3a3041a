//! Inbound HTTP, the same for every service: listeners with all their clocks, request ids, one rendering of a refusal per
//! envelope, strict readers of bodies, bearers, probes and numbers, and the verification of mandates.
//!
//! The path of a request: [`listener`] accepts it and watches its clocks; [`shell()`] gives it a request id, catches panics and
//! finishes every answer; a handler reads with [`read`], calls one domain function and returns an answer or a [`Problem`], which the
//! shell renders in the envelope of the service ([`envelope`]).
//!
//! What must never happen here: a status chosen by a handler, an answer without request id, a cause told to a caller, a secret
//! compared byte by byte, knowledge of a service's rules.

pub mod bearer;
pub mod envelope;
pub mod listener;
pub mod mandate;
pub mod peer;
pub mod probes;
pub mod problem;
pub mod read;
pub mod request_id;
pub mod shell;
pub mod tls;

pub use bearer::{OperatorToken, bearer};
pub use envelope::Face;
pub use listener::{Drained, Inbound, Limits, Listener};
pub use peer::Peer;
pub use problem::{Issue, Problem};
pub use request_id::RequestId;
pub use shell::shell;
