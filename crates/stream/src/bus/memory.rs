//! The bus of one process. It forgets with the process, which loses nothing: what must outlive it waits in its source (outbox, spool)
//! until it is acknowledged, and is published again at the next start.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caracal_core::message::Stream;
use caracal_host::World;
use tokio::sync::{Notify, mpsc};

use super::{Delivered, EntryId, Membership, Progress};
use crate::message::Published;

/// Most messages kept for groups that are still to come; evidence is never cut, its sources bound it.
const KEPT: usize = 1024;
/// How often a waiting member looks for what another left idle.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub(super) struct Streams {
    shared: Arc<Shared>,
}

struct Shared {
    world: World,
    streams: Mutex<HashMap<Stream, Log>>,
    published: Notify,
    acknowledged: Notify,
}

#[derive(Default)]
struct Log {
    last: EntryId,
    /// What some group has not been given yet.
    entries: VecDeque<Delivered>,
    groups: HashMap<&'static str, Group>,
    followers: Vec<mpsc::UnboundedSender<Arc<Published>>>,
}

#[derive(Default)]
struct Group {
    /// Everything up to here was given to a member.
    given: EntryId,
    pending: BTreeMap<EntryId, Pending>,
}

struct Pending {
    member: String,
    since: Duration,
    message: Arc<Published>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<Stream, Log>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn add(&mut self, millis: u64, message: Published) -> EntryId {
        let id =
            if millis > self.last.millis { EntryId { millis, seq: 0 } } else { EntryId { seq: self.last.seq + 1, ..self.last } };
        self.last = id;
        let message = Arc::new(message);
        self.followers.retain(|follower| follower.send(Arc::clone(&message)).is_ok());
        if self.entries.len() >= KEPT && message.stream != Stream::AuditEvents {
            self.entries.pop_front();
        }
        self.entries.push_back(Delivered { id, message });
        id
    }

    /// Lets go of what every group was given. Without a group everything waits for one.
    fn forget_given(&mut self) {
        let Some(given) = self.groups.values().map(|group| group.given).min() else { return };
        while self.entries.front().is_some_and(|entry| entry.id <= given) {
            self.entries.pop_front();
        }
    }
}

impl Streams {
    pub(super) fn new(world: World) -> Self {
        let shared = Shared { world, streams: Mutex::default(), published: Notify::new(), acknowledged: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    pub(super) fn publish(&self, messages: Vec<Published>) -> Vec<EntryId> {
        let millis = u64::try_from(self.shared.world.now().as_micros() / 1000).unwrap_or(0);
        let mut streams = self.shared.lock();
        let ids = messages.into_iter().map(|message| streams.entry(message.stream).or_default().add(millis, message)).collect();
        drop(streams);
        self.shared.published.notify_waiters();
        ids
    }

    pub(super) fn join(&self, membership: &Membership) -> Member {
        self.shared.lock().entry(membership.stream).or_default().groups.entry(membership.group).or_default();
        Member {
            shared: Arc::clone(&self.shared),
            stream: membership.stream,
            group: membership.group,
            name: membership.name.clone(),
            idle: membership.idle,
            own: Some(EntryId::default()),
        }
    }

    pub(super) fn follow(&self, streams: &[Stream]) -> Follower {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut logs = self.shared.lock();
        for stream in streams {
            logs.entry(*stream).or_default().followers.push(sender.clone());
        }
        Follower { receiver }
    }

    pub(super) fn progress(&self, stream: Stream, group: &str) -> Progress {
        let streams = self.shared.lock();
        let log = streams.get(&stream);
        let (mut through, mut behind) = (EntryId::default(), 0);
        let length = log.map_or(0, |log| log.entries.len());
        if let Some(group) = log.and_then(|log| log.groups.get(group)) {
            through = group.pending.keys().next().map_or(group.given, |first| first.before());
            behind = group.pending.len();
        }
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Progress { memory: "this process".into(), through, behind: count(behind + length), length: count(length) }
    }

    pub(super) async fn acknowledged(&self) {
        self.shared.acknowledged.notified().await;
    }
}

pub(super) struct Member {
    shared: Arc<Shared>,
    stream: Stream,
    group: &'static str,
    name: String,
    idle: Duration,
    /// Where to go on with what is this member's and unacknowledged.
    own: Option<EntryId>,
}

impl Member {
    pub(super) async fn read(&mut self, most: usize, wait: Duration) -> Vec<Delivered> {
        let shared = Arc::clone(&self.shared);
        let reading = async {
            loop {
                // Registered before the look, so that nothing published in between is slept over.
                let published = shared.published.notified();
                let found = self.look(most);
                if !found.is_empty() {
                    return found;
                }
                let _ = tokio::time::timeout(self.idle.min(LOOK).max(Duration::from_millis(1)), published).await;
            }
        };
        tokio::time::timeout(wait, reading).await.unwrap_or_default()
    }

    fn look(&mut self, most: usize) -> Vec<Delivered> {
        let now = self.shared.world.monotonic();
        let mut streams = self.shared.lock();
        let log = streams.entry(self.stream).or_default();
        let group = log.groups.entry(self.group).or_default();
        if let Some(after) = self.own {
            let own = group.pending.range_mut(after..).filter(|(id, pending)| **id > after && pending.member == self.name);
            let found: Vec<Delivered> = own.take(most).map(|(id, pending)| pending.given(*id, now)).collect();
            self.own = found.last().map(|last| last.id);
            if !found.is_empty() {
                return found;
            }
        }
        let idle = |pending: &Pending| pending.member != self.name && now.saturating_sub(pending.since) >= self.idle;
        let left = group.pending.iter_mut().filter(|(_, pending)| idle(pending)).take(most);
        let mut found: Vec<Delivered> = left
            .map(|(id, pending)| {
                pending.member.clone_from(&self.name);
                pending.given(*id, now)
            })
            .collect();
        let new = log.entries.iter().filter(|entry| entry.id > group.given).take(most - found.len());
        let new: Vec<Delivered> = new.cloned().collect();
        for entry in &new {
            let pending = Pending { member: self.name.clone(), since: now, message: Arc::clone(&entry.message) };
            group.pending.insert(entry.id, pending);
            group.given = entry.id;
        }
        found.extend(new);
        log.forget_given();
        found
    }

    pub(super) fn acknowledge(&self, ids: &[EntryId]) {
        let mut streams = self.shared.lock();
        if let Some(group) = streams.get_mut(&self.stream).and_then(|log| log.groups.get_mut(self.group)) {
            for id in ids {
                group.pending.remove(id);
            }
        }
        drop(streams);
        // Kept for whoever is about to wait: there is one, the delivery of evidence.
        self.shared.acknowledged.notify_waiters();
        self.shared.acknowledged.notify_one();
    }

    pub(super) const fn again(&mut self) {
        self.own = Some(EntryId { millis: 0, seq: 0 });
    }
}

impl Pending {
    fn given(&mut self, id: EntryId, now: Duration) -> Delivered {
        self.since = now;
        Delivered { id, message: Arc::clone(&self.message) }
    }
}

pub(super) struct Follower {
    receiver: mpsc::UnboundedReceiver<Arc<Published>>,
}

impl Follower {
    pub(super) async fn next(&mut self, wait: Duration) -> Vec<Arc<Published>> {
        let mut found = Vec::new();
        let _ = tokio::time::timeout(wait, self.receiver.recv_many(&mut found, KEPT)).await;
        found
    }
}
