//! What was revoked lately (`gateway.md` 6): sets of ids in memory, fed by a snapshot and by messages, asked at each call and before
//! each chunk of a running response.
//!
//! The steady path takes no lock: a generation says whether anything changed since the last look.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use caracal_core::claims::Claims;
use caracal_core::id::{AuthorityRecordId, DelegationId, Id, SessionId};
use caracal_core::message::Stream;
use caracal_host::World;
use tokio::sync::watch;

/// How long an id stays once it was announced.
const KEPT: Duration = Duration::from_hours(24);
/// How old the last snapshot may be: two periods and a little.
const FRESH: Duration = Duration::from_secs(70);

type Key = [u8; 16];

/// What a mandate stands on, taken from its claims once.
#[derive(Clone, Debug, Default)]
pub struct Anchors {
    records: Vec<Key>,
    sessions: Vec<Key>,
    edges: Vec<Key>,
}

impl Anchors {
    /// Everything a mandate names.
    pub fn of(claims: &Claims) -> Self {
        let mut anchors = Self {
            records: vec![claims.sid.to_bytes(), claims.root_sid.to_bytes()],
            sessions: claims.session.iter().map(|s| s.to_bytes()).collect(),
            edges: Vec::new(),
        };
        if let Some(delegated) = &claims.delegated {
            anchors.edges.push(delegated.delegation_edge_id.to_bytes());
            anchors.edges.extend(delegated.delegation_path.iter().map(|e| e.to_bytes()));
            anchors.sessions.push(delegated.source_session_id.to_bytes());
            anchors.sessions.push(delegated.target_session_id.to_bytes());
            anchors.sessions.extend(delegated.delegation_chain.iter().map(|hop| hop.agent_session_id.to_bytes()));
        }
        anchors
    }
}

/// What the database says now.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Authority records revoked within a day.
    pub records: Vec<AuthorityRecordId>,
    /// Sessions that ended within a day.
    pub sessions: Vec<SessionId>,
    /// Delegations that ended within a day.
    pub edges: Vec<DelegationId>,
    /// Sessions suspended now.
    pub suspended: Vec<SessionId>,
}

#[derive(Default)]
struct Sets {
    records: HashMap<Key, Duration>,
    sessions: HashMap<Key, Duration>,
    edges: HashMap<Key, Duration>,
    suspended: HashSet<Key>,
    /// Suspensions and resumptions by message, with the generation they came at.
    moved: HashMap<Key, (bool, u64)>,
}

/// The sets. Shared by all calls.
pub struct Revocations {
    world: World,
    sets: RwLock<Sets>,
    entries: AtomicUsize,
    suspended: AtomicUsize,
    generation: AtomicU64,
    changed: watch::Sender<u64>,
    taken: Mutex<Option<Duration>>,
}

/// Marks where the sets stood when a snapshot began to be read.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    generation: u64,
    began: Duration,
}

impl Revocations {
    /// Empty and stale: nothing passes before the first snapshot.
    pub fn new(world: World) -> Self {
        Self {
            world,
            sets: RwLock::default(),
            entries: AtomicUsize::new(0),
            suspended: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            changed: watch::Sender::new(0),
            taken: Mutex::default(),
        }
    }

    /// Whether the last snapshot is young enough for new calls.
    pub fn fresh(&self) -> bool {
        self.age().is_some_and(|age| age <= FRESH)
    }

    /// Age of the last snapshot.
    pub fn age(&self) -> Option<Duration> {
        let taken = *self.taken();
        taken.map(|at| self.world.monotonic().saturating_sub(at))
    }

    /// Entries of the three sets that deny.
    pub fn len(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether anything a mandate stands on was revoked: new calls ask this.
    pub fn revoked(&self, anchors: &Anchors) -> bool {
        if self.is_empty() {
            return false;
        }
        let sets = self.sets.read().unwrap_or_else(PoisonError::into_inner);
        revoked(&sets, anchors)
    }

    /// Whether a running response must end: revoked, or a Session of its chain is suspended.
    pub fn interrupted(&self, anchors: &Anchors) -> bool {
        if self.is_empty() && self.suspended.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let sets = self.sets.read().unwrap_or_else(PoisonError::into_inner);
        revoked(&sets, anchors) || anchors.sessions.iter().any(|s| sets.suspended.contains(s))
    }

    /// Rises with every change, so that a running response knows whether to look again.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Wakes when the generation rises.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Applies a message that was verified; `false` when it names nothing we know how to apply.
    pub fn apply(&self, stream: Stream, field: impl Fn(&str) -> Option<String>) -> bool {
        let now = self.world.monotonic();
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        let next = self.generation.load(Ordering::Relaxed) + 1;
        let mut applied = false;
        match stream {
            Stream::SessionsRevoke => {
                if let Some(id) = field("session_id").and_then(|t| t.parse::<AuthorityRecordId>().ok()) {
                    sets.records.insert(id.to_bytes(), now);
                    applied = true;
                }
                if let Some(id) = field("agent_session_id").and_then(|t| t.parse::<SessionId>().ok()) {
                    sets.sessions.insert(id.to_bytes(), now);
                    applied = true;
                }
                let edge = field("delegation_edge_id").filter(|t| !t.is_empty()).or_else(|| field("edge_id"));
                if let Some(id) = edge.and_then(|t| t.parse::<DelegationId>().ok()) {
                    sets.edges.insert(id.to_bytes(), now);
                    applied = true;
                }
            }
            Stream::AgentsLifecycle => {
                let session = field("agent_session_id").and_then(|t| t.parse::<SessionId>().ok()).map(Id::to_bytes);
                let suspend = match field("event").as_deref() {
                    Some("suspend") => Some(true),
                    Some("resume" | "terminate") => Some(false),
                    _ => None,
                };
                if let (Some(session), Some(suspend)) = (session, suspend) {
                    if suspend {
                        sets.suspended.insert(session);
                    } else {
                        sets.suspended.remove(&session);
                    }
                    sets.moved.insert(session, (suspend, next));
                }
                // Events of the lifecycle that suspend nothing are not ours.
                applied = session.is_some();
            }
            _ => {}
        }
        if applied {
            self.settle(&sets, next);
        }
        applied
    }

    /// To be called before a snapshot begins to be read.
    pub fn mark(&self) -> Mark {
        Mark { generation: self.generation(), began: self.world.monotonic() }
    }

    /// Takes a snapshot in. What ended stays for a day whatever the snapshot says; suspensions are replaced, except those that moved by
    /// message after the snapshot began to be read.
    pub fn replace(&self, mark: Mark, snapshot: &Snapshot) {
        let now = self.world.monotonic();
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        take_in(&mut sets.records, snapshot.records.iter().map(|i| i.to_bytes()), now);
        take_in(&mut sets.sessions, snapshot.sessions.iter().map(|i| i.to_bytes()), now);
        take_in(&mut sets.edges, snapshot.edges.iter().map(|i| i.to_bytes()), now);
        sets.moved.retain(|_, (_, at)| *at > mark.generation);
        let mut suspended: HashSet<Key> = snapshot.suspended.iter().map(|i| i.to_bytes()).collect();
        for (session, (is, _)) in &sets.moved {
            if *is {
                suspended.insert(*session);
            } else {
                suspended.remove(session);
            }
        }
        sets.suspended = suspended;
        let next = self.generation.load(Ordering::Relaxed) + 1;
        self.settle(&sets, next);
        drop(sets);
        *self.taken() = Some(mark.began);
    }

    /// Publishes a change; the write lock is held.
    fn settle(&self, sets: &Sets, next: u64) {
        self.entries.store(sets.records.len() + sets.sessions.len() + sets.edges.len(), Ordering::Relaxed);
        self.suspended.store(sets.suspended.len(), Ordering::Relaxed);
        self.generation.store(next, Ordering::Release);
        self.changed.send_replace(next);
    }

    fn taken(&self) -> MutexGuard<'_, Option<Duration>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Revocations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Revocations({})", self.len())
    }
}

fn revoked(sets: &Sets, anchors: &Anchors) -> bool {
    anchors.records.iter().any(|id| sets.records.contains_key(id))
        || anchors.sessions.iter().any(|id| sets.sessions.contains_key(id))
        || anchors.edges.iter().any(|id| sets.edges.contains_key(id))
}

fn take_in(set: &mut HashMap<Key, Duration>, ids: impl Iterator<Item = Key>, now: Duration) {
    set.retain(|_, entered| now.saturating_sub(*entered) < KEPT);
    for id in ids {
        set.insert(id, now);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn fixture() -> (Revocations, World, Arc<caracal_host::FixedClock>) {
        let (world, clock) = World::fixed(1);
        (Revocations::new(world.clone()), world, clock)
    }

    fn anchors(session: SessionId) -> Anchors {
        Anchors { sessions: vec![session.to_bytes()], ..Anchors::default() }
    }

    fn message<'a>(fields: &'a [(&'a str, String)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| fields.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone())
    }

    #[test]
    fn freshness_runs_on_the_monotonic_clock() {
        let (revocations, _, clock) = fixture();
        assert!(!revocations.fresh(), "nothing passes before the first snapshot");
        revocations.replace(revocations.mark(), &Snapshot::default());
        clock.advance(Duration::from_secs(70));
        clock.set(caracal_core::time::Time::EPOCH);
        assert!(revocations.fresh(), "acceptance row 24: a stepped wall clock changes nothing");
        clock.advance(Duration::from_secs(1));
        assert!(!revocations.fresh(), "acceptance row 23");
    }

    /// Acceptance row 22, the part after the signature.
    #[test]
    fn messages_name_anchors() {
        let (revocations, world, _) = fixture();
        let (session, edge): (SessionId, DelegationId) = (world.mint(), world.mint());
        assert!(!revocations.apply(Stream::SessionsRevoke, message(&[("reason", "x".into())])), "names nothing");
        assert_eq!(revocations.generation(), 0);
        assert!(revocations.apply(Stream::SessionsRevoke, message(&[("edge_id", edge.to_string())])));
        assert!(revocations.revoked(&Anchors { edges: vec![edge.to_bytes()], ..Anchors::default() }));
        assert!(!revocations.revoked(&anchors(session)));
        assert!(revocations.apply(Stream::SessionsRevoke, message(&[("agent_session_id", session.to_string())])));
        assert!(revocations.revoked(&anchors(session)) && revocations.len() == 2);
    }

    #[test]
    fn suspension_ends_running_responses_and_denies_no_new_call() {
        let (revocations, world, _) = fixture();
        let session: SessionId = world.mint();
        let event = |event: &str| [("event", event.to_owned()), ("agent_session_id", session.to_string())];
        revocations.apply(Stream::AgentsLifecycle, message(&event("suspend")));
        assert!(revocations.interrupted(&anchors(session)) && !revocations.revoked(&anchors(session)));
        revocations.apply(Stream::AgentsLifecycle, message(&event("resume")));
        assert!(!revocations.interrupted(&anchors(session)));
    }

    #[test]
    fn a_snapshot_does_not_undo_what_came_while_it_was_read() {
        let (revocations, world, clock) = fixture();
        let (ended, suspended, resumed): (SessionId, SessionId, SessionId) = (world.mint(), world.mint(), world.mint());
        let lifecycle = |id: SessionId, event: &str| {
            let fields = [("event", event.to_owned()), ("agent_session_id", id.to_string())];
            revocations.apply(Stream::AgentsLifecycle, message(&fields));
        };
        lifecycle(resumed, "suspend");
        let mark = revocations.mark();
        revocations.apply(Stream::SessionsRevoke, message(&[("agent_session_id", ended.to_string())]));
        lifecycle(suspended, "suspend");
        lifecycle(resumed, "resume");
        revocations.replace(mark, &Snapshot { suspended: vec![resumed], ..Snapshot::default() });
        assert!(revocations.revoked(&anchors(ended)));
        assert!(revocations.interrupted(&anchors(suspended)));
        assert!(!revocations.interrupted(&anchors(resumed)));
        // The next snapshot began after them and has the word on suspensions; endings stay for a day.
        revocations.replace(revocations.mark(), &Snapshot::default());
        assert!(!revocations.interrupted(&anchors(suspended)));
        assert!(revocations.revoked(&anchors(ended)));
        clock.advance(KEPT);
        revocations.replace(revocations.mark(), &Snapshot::default());
        assert!(!revocations.revoked(&anchors(ended)));
    }
}
