//! Events between services: what committed with a change becomes known elsewhere, and evidence finds its way to Audit.
//!
//! There is one [`Bus`], in this process or in Redis, and one suite that holds both to the same promises: messages are published, the
//! members of a group share them and acknowledge each ([`Member`]), whoever needs all of them follows ([`Follower`]).
//!
//! Two paths lead to it. A door leaves rows in the outbox ▸ the [`Dispatcher`] signs and publishes them. Evidence waits in a [`Spool`], a
//! table or a directory of segments ▸ [`delivery`] publishes it and lets go of it when Audit has acknowledged it, which it does when
//! it has committed it. Events make things quicker and serve verifiers outside; they are never what makes a decision correct.
//!
//! What must never happen here: a row marked that was not published, evidence let go that nobody has committed, a message without its
//! signature where there is a key, a stream cut that somebody must still read, a database connection held while Redis is asked.

pub mod bus;
pub mod delivery;
pub mod dispatcher;
pub mod message;
mod outbox;
pub mod spool;

pub use bus::{Bus, BusError, Delivered, EntryId, Follower, Member, Membership, Progress};
pub use delivery::{Delivery, EVIDENCE_GROUP};
pub use dispatcher::Dispatcher;
pub use message::{Keys, Published};
pub use outbox::OutboxEvidence;
pub use spool::{Spool, SpoolConfig};
