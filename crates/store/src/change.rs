//! What changed: the words of the change log, and what a decision depends on.

use caracal_core::id::{ApplicationId, AuthorityRecordId, DelegationId, HoldId, Id, SessionId};

/// The kind of entity that changed. Numbers are stored; never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Anything a zone's view is made of: zone, applications, resources, providers, policies, keys, settings.
    View = 1,
    /// A Session.
    Session = 2,
    /// A Delegation.
    Delegation = 3,
    /// An Authority record.
    Record = 4,
    /// A hold.
    Hold = 5,
    /// The zone's Delegation graph epoch.
    Graph = 6,
}

impl Kind {
    pub(crate) fn of(number: i64) -> Option<Self> {
        [Self::View, Self::Session, Self::Delegation, Self::Record, Self::Hold, Self::Graph]
            .into_iter()
            .find(|kind| i64::from(*kind as u8) == number)
    }
}

/// One entity that changed, or that a decision read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entity {
    /// What it is.
    pub kind: Kind,
    /// Which; all zeros for [`Kind::View`], which changes as a whole.
    pub id: [u8; 16],
}

impl Entity {
    /// The zone's view.
    pub const VIEW: Self = Self { kind: Kind::View, id: [0; 16] };

    /// The zone's Delegation graph epoch, which every delegated mandate carries.
    pub const GRAPH: Self = Self { kind: Kind::Graph, id: [0; 16] };

    /// A Session.
    pub fn session(id: SessionId) -> Self {
        Self { kind: Kind::Session, id: id.to_bytes() }
    }

    /// A Delegation.
    pub fn delegation(id: DelegationId) -> Self {
        Self { kind: Kind::Delegation, id: id.to_bytes() }
    }

    /// An Authority record.
    pub fn record(id: AuthorityRecordId) -> Self {
        Self { kind: Kind::Record, id: id.to_bytes() }
    }

    /// A hold.
    pub fn hold(id: HoldId) -> Self {
        Self { kind: Kind::Hold, id: id.to_bytes() }
    }
}

/// Which entity of the view a management write touched, for `caracal.zones.invalidate`.
#[derive(Clone, Debug)]
pub struct ViewChange {
    /// `application`, `resource`, `provider`, `zone`, …
    pub entity: &'static str,
    /// Its id.
    pub id: String,
    /// `create`, `update`, `archive`.
    pub change: &'static str,
}

impl ViewChange {
    /// A change of an application, as an example of all.
    pub fn application(id: ApplicationId, change: &'static str) -> Self {
        Self { entity: "application", id: id.to_string(), change }
    }
}
