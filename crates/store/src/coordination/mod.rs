//! Sessions, Delegations, receipts, and the one cascade that ends them.

pub mod cascade;
pub mod delegations;
pub mod receipts;
pub mod sessions;
