//! State, on SQLite and on PostgreSQL: what is true, and how it is changed.
//!
//! The path through it: [`Store::open`] → [`sql`] (one statement text for both backends) → [`door`] (the only way to write
//! authority: state, outbox, admin audit, change log and epoch commit together) → [`fence`] (no decision on a view older than the
//! request) → [`journal`] (the path's group commit, which looks again at what a decision read). Repositories stand on these:
//! [`management`], [`coordination`], [`path`], [`ledger`].
//!
//! What must never happen: a write to authority that forgets its epoch, a cached entity older than what was applied, a connection
//! handed back inside a transaction, a row read as something it is not, knowledge of HTTP.

pub mod change;
pub mod coordination;
pub mod door;
pub mod error;
pub mod fence;
pub mod journal;
pub mod lease;
pub mod ledger;
pub mod management;
pub mod outbox;
pub mod path;
pub mod retention;
pub mod spool;
pub mod sql;

mod migrate;
mod open;
mod postgres;
mod sqlite;
mod writer;

pub use door::{Door, DoorError};
pub use error::StoreError;
pub use open::{Store, StoreConfig, reachable};
pub use sql::{Dialect, Row, Tx, Value};
