//! A governed Session: its states, and when it is live. State is read by time, so that a stopped sweeper allows nothing.

use serde::{Deserialize, Serialize};

use crate::id::{ApplicationId, AuthorityRecordId, SessionId};
use crate::time::Time;

/// What a Session's life depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// A task: ends when its time is over.
    Task {
        /// Seconds from its start.
        ttl_seconds: i64,
    },
    /// A service: lives by a lease.
    Service {
        /// When the lease lapses.
        deadline: Time,
    },
}

impl Lifecycle {
    /// The word of the row.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Task { .. } => "task",
            Self::Service { .. } => "service",
        }
    }
}

/// The recorded state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It may act, as long as its time has not passed.
    Active,
    /// It may not act, and may be resumed.
    Suspended,
    /// It was ended.
    Terminated,
    /// Its time was over.
    Expired,
}

impl Status {
    /// The word of the row.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Terminated => "terminated",
            Self::Expired => "expired",
        }
    }

    /// The state of that word.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Active, Self::Suspended, Self::Terminated, Self::Expired].into_iter().find(|s| s.as_str() == word)
    }

    /// Whether nothing follows.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Terminated | Self::Expired)
    }
}

/// The record a Session stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The record.
    pub record: AuthorityRecordId,
    /// Whether it is a Federated user's: then the Session lives no longer than it.
    pub user: Option<UserRecord>,
}

/// The life of a user's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// Whether it is active.
    pub active: bool,
    /// When it ends.
    pub expires_at: Time,
}

/// What the rules need to know of a Session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub application: ApplicationId,
    /// What it stands on.
    pub subject: Subject,
    /// Its recorded state.
    pub status: Status,
    /// What its life depends on.
    pub lifecycle: Lifecycle,
    /// When it started.
    pub started_at: Time,
    /// Its labels, as stored.
    pub labels: Vec<String>,
    /// Edges from its root.
    pub depth: u32,
    /// Its parent.
    pub parent: Option<SessionId>,
}

impl Session {
    /// Whether it may act now.
    pub fn is_live(&self, now: Time) -> bool {
        let in_time = match self.lifecycle {
            Lifecycle::Task { ttl_seconds } => ttl_seconds > 0 && self.started_at.plus_secs(ttl_seconds) > now,
            Lifecycle::Service { deadline } => deadline > now,
        };
        self.status == Status::Active && in_time && self.subject.user.is_none_or(|user| user.active && user.expires_at > now)
    }

    /// How it is over, in a refusal's word; `None` while it may act.
    pub fn over(&self, now: Time) -> Option<&'static str> {
        match (self.status, self.lifecycle) {
            _ if self.is_live(now) => None,
            (Status::Suspended, _) => Some("suspended"),
            (Status::Terminated, _) => Some("terminated"),
            (Status::Active, _) if self.subject.user.is_some_and(|user| !user.active) => Some("revoked"),
            (Status::Active, Lifecycle::Service { deadline }) if deadline <= now => Some("lapsed"),
            (Status::Active | Status::Expired, _) => Some("expired"),
        }
    }

    /// Whether it takes up a place: an ended one does not, nor one whose time has passed before anybody swept.
    pub fn holds_slot(&self, now: Time) -> bool {
        match (self.status, self.lifecycle) {
            (Status::Terminated | Status::Expired, _) => false,
            (_, Lifecycle::Task { ttl_seconds }) => self.started_at.plus_secs(ttl_seconds) > now,
            (Status::Suspended, Lifecycle::Service { .. }) => true,
            (Status::Active, Lifecycle::Service { deadline }) => deadline > now,
        }
    }

    /// When it ends by the clock, a lease apart.
    pub fn ends_at(&self) -> Option<Time> {
        let task = match self.lifecycle {
            Lifecycle::Task { ttl_seconds } => Some(self.started_at.plus_secs(ttl_seconds)),
            Lifecycle::Service { .. } => None,
        };
        task.into_iter().chain(self.subject.user.map(|u| u.expires_at)).min()
    }

    /// The lease's end, for what a renewed lease does not reach.
    pub const fn lease_ends_at(&self) -> Option<Time> {
        match self.lifecycle {
            Lifecycle::Service { deadline } => Some(deadline),
            Lifecycle::Task { .. } => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::id::Id as _;

    pub(crate) fn task(n: u8, started: i64, ttl: i64) -> Session {
        Session {
            id: SessionId::from_bytes([n; 16]),
            application: ApplicationId::from_bytes([1; 16]),
            subject: Subject { record: AuthorityRecordId::from_bytes([1; 16]), user: None },
            status: Status::Active,
            lifecycle: Lifecycle::Task { ttl_seconds: ttl },
            started_at: Time::from_secs(started),
            labels: vec![],
            depth: 0,
            parent: None,
        }
    }

    #[test]
    fn time_decides_without_a_sweeper() {
        let session = task(1, 100, 10);
        assert!(session.is_live(Time::from_micros(109_999_999)));
        assert!(!session.is_live(Time::from_secs(110)));
        let suspended = Session { status: Status::Suspended, ..session.clone() };
        assert!(!suspended.is_live(Time::from_secs(101)));
        let leased = Session { lifecycle: Lifecycle::Service { deadline: Time::from_secs(105) }, ..session.clone() };
        assert!(leased.is_live(Time::from_secs(104)) && !leased.is_live(Time::from_secs(105)));
        let user = UserRecord { active: true, expires_at: Time::from_secs(103) };
        let attached = Session { subject: Subject { user: Some(user), ..session.subject }, ..session };
        assert!(attached.is_live(Time::from_secs(102)) && !attached.is_live(Time::from_secs(103)));
        assert_eq!(attached.ends_at(), Some(Time::from_secs(103)));
    }
}
