//! The ledger: heads and entries of each zone's log, dead letters, alerts. What an entry commits to is for who appends to say; here it
//! is rows, in one transaction with the head they follow.
//!
//! The order that makes it durable: head read and locked ▸ entries made from it ▸ entries, alerts and dead letters written ▸ head
//! written ▸ commit. The commit is the point: before it nothing of a batch is there, after it all.

mod append;
mod read;
mod view;

pub use append::{Alert, Appending, DeadLetter, Head, Known, NewEntry, NewHead};
pub use read::{Entry, Filter, Order};
pub use view::{csv_fields, explain, project, row};
