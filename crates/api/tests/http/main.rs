//! The Admin API over HTTP, on each backend.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod admin_audit;
mod applications;
mod archiving;
mod errors;
mod hang_up;
mod input;
mod lists;
mod policies;
mod providers;
mod resources;
mod shapes;
mod support;
mod zones;
