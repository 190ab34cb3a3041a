//! Audit: takes evidence in, keeps it so that a change shows, and answers operators about it.
//!
//! The path of an event: an emitter's spool or outbox ▸ the bus ([`ingest`]) ▸ signature, form, duplicates ([`judge`]) ▸ the zone's ledger, in one
//! transaction with its head ([`append`]) ▸ only then acknowledged, and let go at the emitter. [`recheck()`] reads a ledger again and says what differs;
//! [`search`] is what operators ask; [`service()`] puts it behind HTTP.
//!
//! What must never happen here: an event let go before it is committed; an entry changed or removed; a message dropped in silence;
//! a dead letter made by an outage of the database.

pub mod append;
pub mod config;
pub mod ingest;
pub mod judge;
pub mod metrics;
pub mod recheck;
pub mod search;
pub mod service;

pub use caracal_tlog::recheck::NamedKey;
pub use config::{Config, KEYS};
pub use ingest::Ingestor;
pub use recheck::{Recheck, recheck};
pub use service::{Audit, Parts, jobs, service};
