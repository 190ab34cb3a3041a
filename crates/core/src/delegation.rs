//! A Delegation, and whether a whole path of them holds (`sts.md` 5.3, 5.5). Pure: the STS and the Coordinator ask the same rules.

use crate::claims::Hop;
use crate::constraint::{Authority, MAX_PATH};
use crate::id::{ApplicationId, DelegationId, ResourceId, SessionId};
use crate::scope::Scopes;
use crate::session::Session;
use crate::time::Time;

/// The recorded state of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It holds, as long as its time has not passed.
    Active,
    /// It was taken back.
    Revoked,
    /// Its time was over.
    Expired,
}

impl Status {
    /// The word of the row.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }

    /// The state of that word.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Active, Self::Revoked, Self::Expired].into_iter().find(|s| s.as_str() == word)
    }
}

/// An edge: authority that a source Session hands to a target Session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// Its id.
    pub id: DelegationId,
    /// The inbound edge of the source that it narrows.
    pub parent: Option<DelegationId>,
    /// Who hands.
    pub source: SessionId,
    /// Who receives.
    pub target: SessionId,
    /// The source's Application.
    pub issuer: ApplicationId,
    /// The target's Application.
    pub receiver: ApplicationId,
    /// The row of the one resource.
    pub resource_id: Option<ResourceId>,
    /// What it may.
    pub authority: Authority,
    /// Its recorded state.
    pub status: Status,
    /// Raised by each revocation.
    pub version: i64,
    /// Governed calls counted below it.
    pub budget_spent: i64,
    /// Whether its receiver has shown that it takes it.
    pub presented: bool,
    /// When it was made.
    pub created_at: Time,
    /// When it was taken back.
    pub revoked_at: Option<Time>,
}

impl Delegation {
    /// Whether it holds now.
    pub fn is_live(&self, now: Time) -> bool {
        self.status == Status::Active && self.authority.expires_at > now
    }

    /// How it is over, in a refusal's word; `None` while it holds.
    pub fn over(&self, now: Time) -> Option<&'static str> {
        match self.status {
            _ if self.is_live(now) => None,
            Status::Revoked => Some("revoked"),
            Status::Active | Status::Expired => Some("expired"),
        }
    }

    /// Whether its ceiling on governed calls is reached.
    pub fn is_exhausted(&self) -> bool {
        self.authority.constraints.budget.is_some_and(|budget| self.budget_spent >= budget)
    }
}

/// A path from a root to the presented edge, with the Sessions along it, found to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    edges: Vec<Delegation>,
    sessions: Vec<Session>,
}

/// Why a path does not hold. Callers that may not know are told none of it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// An edge is not live.
    Edge(DelegationId),
    /// A Session along the path is not live.
    Session(SessionId),
    /// Edges or Applications do not join.
    Discontinuous,
    /// Longer than a path may be.
    TooLong,
}

impl Path {
    /// Checks a path: `edges` from root to presented, `sessions` the source of each and, last, the target.
    pub fn check(edges: Vec<Delegation>, sessions: Vec<Session>, now: Time) -> Result<Self, Broken> {
        if edges.is_empty() || sessions.len() != edges.len() + 1 {
            return Err(Broken::Discontinuous);
        }
        if edges.len() > MAX_PATH {
            return Err(Broken::TooLong);
        }
        for (at, edge) in edges.iter().enumerate() {
            if !edge.is_live(now) {
                return Err(Broken::Edge(edge.id));
            }
            let (source, target) = (&sessions[at], &sessions[at + 1]);
            let joined = edge.source == source.id
                && edge.target == target.id
                && edge.issuer == source.application
                && edge.receiver == target.application
                && edge.parent == at.checked_sub(1).map(|before| edges[before].id)
                && !edges[..at].iter().any(|earlier| earlier.id == edge.id);
            if !joined {
                return Err(Broken::Discontinuous);
            }
        }
        match sessions.iter().find(|session| !session.is_live(now)) {
            Some(session) => Err(Broken::Session(session.id)),
            None => Ok(Self { edges, sessions }),
        }
    }

    /// Edges from root to presented.
    pub fn edges(&self) -> &[Delegation] {
        &self.edges
    }

    /// The Sessions along it, the target last.
    pub fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// The presented edge.
    pub fn presented(&self) -> &Delegation {
        // `check` refuses an empty path.
        &self.edges[self.edges.len() - 1]
    }

    /// The Session that acts.
    pub fn target(&self) -> &Session {
        &self.sessions[self.sessions.len() - 1]
    }

    /// Requested scopes that some edge does not carry.
    pub fn scopes_beyond(&self, requested: &Scopes) -> Scopes {
        requested.iter().filter(|s| !self.edges.iter().all(|e| e.authority.scopes.contains(s))).collect()
    }

    /// Whether every edge reaches this resource.
    pub fn reaches(&self, identifier: &str) -> bool {
        self.edges.iter().all(|e| e.authority.reaches(identifier))
    }

    /// The smallest cap on a mandate's lifetime that an edge sets, in seconds.
    pub fn ttl_cap(&self) -> Option<i64> {
        self.edges.iter().filter_map(|e| e.authority.constraints.ttl_seconds).min()
    }

    /// The earliest end by the clock of anything along the path; leases and mandates apart. `Err` when a stored bound is no time.
    pub fn ends_at(&self) -> Result<Time, Broken> {
        let mut ends = self.presented().authority.expires_at;
        for edge in &self.edges {
            let kept = edge.authority.constraints.ends().map_err(|_| Broken::Edge(edge.id))?;
            ends = kept.into_iter().chain([edge.authority.expires_at, ends]).min().unwrap_or(ends);
        }
        Ok(self.sessions.iter().filter_map(Session::ends_at).chain([ends]).min().unwrap_or(ends))
    }

    /// The earliest lapse of a lease along the path.
    pub fn lease_ends_at(&self) -> Option<Time> {
        self.sessions.iter().filter_map(Session::lease_ends_at).min()
    }

    /// The exhausted edge nearest the root.
    pub fn exhausted(&self) -> Option<&Delegation> {
        self.edges.iter().find(|e| e.is_exhausted())
    }

    /// Edges whose budget a mint counts against.
    pub fn budgets(&self) -> Vec<DelegationId> {
        self.edges.iter().filter(|e| e.authority.constraints.budget.is_some()).map(|e| e.id).collect()
    }

    /// The hops, as the mandate tells them.
    pub fn chain(&self) -> Vec<Hop> {
        let hops =
            self.edges.iter().map(|e| Hop { application_id: e.issuer, agent_session_id: e.source, delegation_edge_id: Some(e.id) });
        let last = self.presented();
        hops.chain([Hop { application_id: last.receiver, agent_session_id: last.target, delegation_edge_id: None }]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraint::Constraints;
    use crate::id::Id as _;
    use crate::session::tests::task;

    fn edge(n: u8, parent: Option<u8>, from: u8, to: u8) -> Delegation {
        Delegation {
            id: DelegationId::from_bytes([n; 16]),
            parent: parent.map(|p| DelegationId::from_bytes([p; 16])),
            source: SessionId::from_bytes([from; 16]),
            target: SessionId::from_bytes([to; 16]),
            issuer: ApplicationId::from_bytes([1; 16]),
            receiver: ApplicationId::from_bytes([1; 16]),
            resource_id: None,
            authority: Authority {
                scopes: Scopes::of_text("a b"),
                resource: None,
                expires_at: Time::from_secs(1000),
                constraints: Constraints::default(),
            },
            status: Status::Active,
            version: 0,
            budget_spent: 0,
            presented: false,
            created_at: Time::EPOCH,
            revoked_at: None,
        }
    }

    fn sessions() -> Vec<Session> {
        vec![task(1, 0, 500), task(2, 0, 500), task(3, 0, 400)]
    }

    #[test]
    fn a_path_holds_as_a_whole_or_not_at_all() {
        let now = Time::from_secs(10);
        let good = vec![edge(1, None, 1, 2), edge(2, Some(1), 2, 3)];
        let path = Path::check(good.clone(), sessions(), now).unwrap();
        assert_eq!((path.chain().len(), path.presented().id), (3, good[1].id));
        assert_eq!(path.ends_at(), Ok(Time::from_secs(400)), "the shortest Session bounds it");
        let broken = |change: &dyn Fn(&mut Vec<Delegation>, &mut Vec<Session>)| {
            let (mut edges, mut along) = (good.clone(), sessions());
            change(&mut edges, &mut along);
            Path::check(edges, along, now).unwrap_err()
        };
        assert_eq!(broken(&|e, _| e[0].status = Status::Revoked), Broken::Edge(good[0].id));
        assert_eq!(broken(&|e, _| e[0].authority.expires_at = now), Broken::Edge(good[0].id));
        assert_eq!(broken(&|_, s| s[0].status = crate::session::Status::Suspended), Broken::Session(sessions()[0].id));
        assert_eq!(broken(&|e, _| e[1].parent = None), Broken::Discontinuous);
        assert_eq!(broken(&|e, _| e[1].issuer = ApplicationId::from_bytes([9; 16])), Broken::Discontinuous);
        assert_eq!(broken(&|e, _| e[1].source = SessionId::from_bytes([1; 16])), Broken::Discontinuous);
        assert_eq!(
            broken(&|e, s| {
                e.remove(0);
                s.remove(0);
            }),
            Broken::Discontinuous
        );
    }

    #[test]
    fn every_edge_bounds_the_mint() {
        let mut edges = vec![edge(1, None, 1, 2), edge(2, Some(1), 2, 3)];
        edges[0].authority.scopes = Scopes::of_text("a");
        edges[0].authority.constraints.ttl_seconds = Some(60);
        edges[0].authority.constraints.budget = Some(1);
        edges[0].authority.resource = Some("resource://x".into());
        let path = Path::check(edges.clone(), sessions(), Time::from_secs(1)).unwrap();
        assert_eq!(path.scopes_beyond(&Scopes::of_text("a b")).to_string(), "b");
        assert_eq!((path.ttl_cap(), path.budgets()), (Some(60), vec![edges[0].id]));
        assert!(path.reaches("resource://x") && !path.reaches("resource://y"));
        assert!(path.exhausted().is_none());
        edges[0].budget_spent = 1;
        assert_eq!(Path::check(edges.clone(), sessions(), Time::from_secs(1)).unwrap().exhausted().unwrap().id, edges[0].id);
    }
}
