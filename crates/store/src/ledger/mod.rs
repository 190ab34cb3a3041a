//! The ledger: heads and entries of each zone's log, dead letters, alerts. What an entry commits to is for who appends to say; here it
//! is rows, in one transaction with the head they follow.
//!
//! What columns do not hold of an event is its body, in a packed form ([`packed`], [`words`]): nothing is stored that can be made again.
//!
//! The order that makes it durable: head read and locked ▸ entries made from it ▸ entries, alerts and dead letters written ▸ head
//! written ▸ commit. The commit is the point: before it nothing of a batch is there, after it all.

mod append;
mod packed;
mod read;
mod view;
mod words;

pub use append::{Alert, Appending, DeadLetter, Head, NewEntry, NewHead};
pub use read::{Entry, Filter, Order};
pub use view::{csv_fields, explain, project, row};
