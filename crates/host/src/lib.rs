//! What a process is made of: time, chance, configuration, background work, logs and numbers, and how all of it ends.
//!
//! Read [`world`] first: the clock and the entropy every other room takes as an argument, and the minting of ids from both. Then
//! [`config`]: typed values with the place each came from, and errors that say which variable, what is wrong and what to do.
//! [`jobs`] runs background work with back-off under one shutdown; [`telemetry`] writes logs; [`metrics`] counts.
//!
//! What must never happen here: a secret in a log line, an error text or a `Debug` form; a value read twice from two places; a job
//! that dies in silence; knowledge of HTTP or SQL.

pub mod clock;
pub mod config;
pub mod entropy;
pub mod jobs;
pub mod metrics;
pub mod redact;
pub mod telemetry;
pub mod world;

pub use clock::{Clock, FixedClock, SystemClock};
pub use entropy::{Entropy, SeededEntropy, SystemEntropy};
pub use jobs::{Stop, Supervisor};
pub use metrics::Metrics;
pub use world::{World, mint, mint_random};
