//! What tests stand on: a database per test on each backend, a Redis database per test, scripted upstreams, the whole stack.
//!
//! A test that touches state is written once, generic over the backend:
//!
//! ```no_run
//! # async fn run() {
//! for database in caracal_testkit::backends().await {
//!     let (dir, url) = (database.dir(), database.url());
//!     // open the store on them …
//! }
//! # }
//! ```
//!
//! `TEST_DATABASE_URL` names a PostgreSQL server whose user may create databases, `TEST_REDIS_URL` a Redis server with many
//! databases. Where one is unset, the test runs its embedded form only; `scripts/test` always sets both.
//!
//! What must never happen here: being linked into the binary, or a sleep where a condition can be awaited ([`until`]).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot be set up should stop at once")]

mod database;
mod hang_up;
mod redis;
mod wait;
mod writes;

pub use database::{Database, backends, postgres, sqlite};
pub use hang_up::polled;
pub use redis::{redis, redis_forgets};
pub use wait::until;
pub use writes::{MOST_WRITES, hung_up};
