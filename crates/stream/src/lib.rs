//! Events between services: what committed with a change becomes known elsewhere.
//!
//! The path through it: a door leaves rows in the outbox ▸ [`dispatcher`] signs them ([`message`]) ▸ hands them to subscribers in this
//! process ▸ adds them to Redis Streams where there is one ([`redis`]) ▸ marks them published. Evidence of an emitter without a database
//! of its own waits in a spool of segments ([`segments`]) until Audit has committed it. Processes elsewhere read as members
//! of a group ([`consumer`]). Events make things quicker and serve verifiers outside; they are never what makes a decision correct.
//!
//! What must never happen here: a row marked that was not published, a message without its signature where there is a key, a stream
//! cut that somebody must still read, a database connection held while Redis is asked.

pub mod consumer;
pub mod dispatcher;
pub mod message;
pub mod redis;
pub mod segments;

pub use dispatcher::{Dispatcher, Subscriber};
pub use message::{Keys, Published};
pub use redis::{BusError, RedisBus};
pub use segments::Spool;
