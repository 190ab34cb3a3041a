//! Product state: zones, applications, providers, resources, policies, keys, sealed documents.
//!
//! A row is a struct in the form its readers see. What all objects of a zone share is [`Object`]; a noun's file says what is its
//! own. Every write takes a [`crate::Door`].

mod admin_audit;
mod applications;
mod keys;
mod object;
pub mod policies;
mod providers;
mod resources;
pub mod secrets;
mod zones;

pub use admin_audit::{AdminChains, AdminFilter, AdminRecord};
pub use applications::{Application, ApplicationPatch, NewApplication};
pub use keys::SigningKeyRow;
pub use object::{Fields, Object, Slice, Stamps};
pub use policies::{ActiveSet, Announcement, Governing, Policy, PolicySet, PolicySetVersion, PolicyVersion};
pub use providers::{NewProvider, Provider};
pub use resources::{Resource, ResourceSpec};
pub use zones::{NewZone, Zone, ZonePatch};

use caracal_core::id::Id;
use caracal_core::time::Time;
use serde::Serializer;

use crate::sql::Value;

/// Milliseconds and `Z`, as published clients read it.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(crate) fn millis<S: Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.rfc3339_millis())
}

#[allow(clippy::trivially_copy_pass_by_ref, clippy::ref_option, reason = "serde's signature")]
pub(crate) fn opt_millis<S: Serializer>(time: &Option<Time>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => millis(time, serializer),
        None => serializer.serialize_none(),
    }
}

/// Which page of a list that goes by id, newest first.
#[derive(Clone, Copy, Debug)]
pub struct Page<I> {
    /// Only rows before this one.
    pub before: Option<I>,
    /// At most this many.
    pub limit: usize,
}

impl<I: Id> Page<I> {
    /// The largest id when there is no cursor, so that one statement serves both.
    pub(crate) fn bound(self) -> Value {
        Value::Bytes(Some(self.before.map_or_else(|| vec![0xff; 16], |id| id.to_bytes().to_vec())))
    }
}
