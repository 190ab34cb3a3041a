//! What the path reads: a zone's view and the references of an exchange, each in one snapshot with its epoch.

mod references;
mod revoked;
mod view;

pub use references::{Asked, Record, RecordStatus, References, record};
pub use revoked::Revoked;
pub use view::{ApplicationRow, ProviderRow, ResourceRow, ZoneRows};
