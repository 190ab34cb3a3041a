//! The bus: streams of messages, in this process or in Redis. What it promises is the same in both; `tests/bus.rs` holds them to it.

mod memory;
mod redis;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use caracal_core::message::Stream;
use caracal_crypto::mac::{MacKey, origin_verified};
use caracal_host::World;

use crate::message::{Keys, Published};

/// Why the bus did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// Redis does not answer: nothing counts against a message.
    #[error("Redis does not answer: {0}")]
    Away(String),
    /// Redis refuses this message.
    #[error("Redis refuses: {0}")]
    Refused(String),
}

/// A message's place in its stream. Later ones are larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    millis: u64,
    seq: u64,
}

impl EntryId {
    /// The place right before this one.
    const fn before(self) -> Self {
        match self.seq.checked_sub(1) {
            Some(seq) => Self { millis: self.millis, seq },
            None => Self { millis: self.millis.saturating_sub(1), seq: u64::MAX },
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.seq)
    }
}

impl FromStr for EntryId {
    type Err = BusError;

    fn from_str(text: &str) -> Result<Self, BusError> {
        let parts = || {
            let (millis, seq) = text.split_once('-')?;
            Some(Self { millis: millis.parse().ok()?, seq: seq.parse().ok()? })
        };
        parts().ok_or_else(|| BusError::Away(format!("{text:?} is no place in a stream")))
    }
}

/// A message with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Its place, to acknowledge it by.
    pub id: EntryId,
    /// The message, its signature checked where there are keys.
    pub message: Arc<Published>,
}

/// Who reads as a member of a group.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The stream.
    pub stream: Stream,
    /// The group, which begins with what is already in the stream.
    pub group: &'static str,
    /// This member, unlike every other that lives. One that comes back under its name gets again what it left unacknowledged.
    pub name: String,
    /// Keys a message may be signed with; none: nothing is checked.
    pub keys: Vec<MacKey>,
    /// How long a message waits for its member before another takes it.
    pub idle: Duration,
}

/// How far a group has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which memory this is told of. Another one may have lost what the last one took.
    pub memory: Arc<str>,
    /// Everything up to here is acknowledged.
    pub through: EntryId,
    /// Messages of the group that are not acknowledged.
    pub behind: u64,
    /// Messages in the stream.
    pub length: u64,
}

/// The bus. Cheap to clone.
#[derive(Clone)]
pub struct Bus(Form);

#[derive(Clone)]
enum Form {
    InProcess(memory::Streams),
    Redis(Arc<redis::Redis>),
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_shared() { "Bus(Redis)" } else { "Bus(in process)" })
    }
}

impl Bus {
    /// The bus of one process.
    pub fn in_process(world: World) -> Self {
        Self(Form::InProcess(memory::Streams::new(world)))
    }

    /// The bus of many processes. Connects once, so that a wrong address is told at the start.
    pub async fn redis(url: &str) -> Result<Self, BusError> {
        Ok(Self(Form::Redis(Arc::new(redis::Redis::connect(url).await?))))
    }

    /// Whether other processes may be on it.
    pub const fn is_shared(&self) -> bool {
        matches!(self.0, Form::Redis(_))
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), BusError> {
        match &self.0 {
            Form::InProcess(_) => Ok(()),
            Form::Redis(redis) => redis.ping().await,
        }
    }

    /// The policy by which Redis throws away what it was told when memory is short; `None`: it does not, or does not say.
    pub async fn evicts(&self) -> Option<String> {
        match &self.0 {
            Form::InProcess(_) => None,
            Form::Redis(redis) => redis.evicts().await,
        }
    }

    /// Adds messages, in order; the place of each.
    pub async fn publish(&self, messages: Vec<Published>) -> Result<Vec<EntryId>, BusError> {
        match &self.0 {
            Form::InProcess(streams) => Ok(streams.publish(messages)),
            Form::Redis(redis) => redis.publish(&messages).await,
        }
    }

    /// Joins a group, which is made where there is none.
    pub async fn join(&self, membership: Membership) -> Result<Member, BusError> {
        let form = match &self.0 {
            Form::InProcess(streams) => MemberForm::InProcess(streams.join(&membership)),
            Form::Redis(redis) => MemberForm::Redis(Box::new(redis.join(&membership).await?)),
        };
        Ok(Member { form, membership })
    }

    /// Hears everything that is published on these streams from now on, beside every group.
    pub async fn follow(&self, streams: &'static [Stream], keys: Keys) -> Result<Follower, BusError> {
        let form = match &self.0 {
            Form::InProcess(memory) => FollowerForm::InProcess(memory.follow(streams)),
            Form::Redis(redis) => FollowerForm::Redis(Box::new(redis.follow(streams).await?)),
        };
        Ok(Follower { form, keys })
    }

    /// How far a group has come: what its members acknowledged is what they publish of themselves.
    pub async fn progress(&self, stream: Stream, group: &str) -> Result<Progress, BusError> {
        match &self.0 {
            Form::InProcess(streams) => Ok(streams.progress(stream, group)),
            Form::Redis(redis) => redis.progress(stream, group).await,
        }
    }

    /// Waits until something may have been acknowledged: told at once in one process, after a while among many.
    pub async fn moved(&self, while_shared: Duration) {
        match &self.0 {
            Form::InProcess(streams) => streams.acknowledged().await,
            Form::Redis(_) => tokio::time::sleep(while_shared).await,
        }
    }

    /// Whether a stream's memory is one that nobody has said the past to again ([`Self::told`]).
    pub async fn forgot(&self, stream: Stream) -> Result<bool, BusError> {
        match &self.0 {
            Form::InProcess(_) => Ok(false),
            Form::Redis(redis) => redis.forgot(stream).await,
        }
    }

    /// Notes that this memory of the stream was told the past.
    pub async fn told(&self, stream: Stream) -> Result<(), BusError> {
        match &self.0 {
            Form::InProcess(_) => Ok(()),
            Form::Redis(redis) => redis.told(stream).await,
        }
    }

    /// Removes entries older than `before_millis`; `kept_by`: only what this group has acknowledged.
    pub async fn trim(&self, stream: Stream, before_millis: u64, kept_by: Option<&str>) -> Result<(), BusError> {
        let mut before = EntryId { millis: before_millis, seq: 0 };
        if let Some(group) = kept_by {
            before = before.min(self.progress(stream, group).await?.through);
        }
        match &self.0 {
            Form::InProcess(_) => Ok(()),
            Form::Redis(redis) => redis.trim(stream, before).await,
        }
    }
}

/// A member of a group: each message is given to one of them, and to another when that one dies.
pub struct Member {
    form: MemberForm,
    membership: Membership,
}

enum MemberForm {
    InProcess(memory::Member),
    Redis(Box<redis::Member>),
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("of", &self.membership).finish_non_exhaustive()
    }
}

impl Member {
    /// The next messages: what this member left unacknowledged before, what others left idle, then what is new, waiting for it up to
    /// `wait`. A message without a right signature is dropped, and the log says so.
    pub async fn read(&mut self, most: usize, wait: Duration) -> Result<Vec<Delivered>, BusError> {
        let found = match &mut self.form {
            MemberForm::InProcess(member) => member.read(most, wait).await,
            MemberForm::Redis(member) => member.read(most, wait).await?,
        };
        let (good, bad): (Vec<_>, Vec<_>) = found.into_iter().partition(|one| trusted(&self.membership.keys, &one.message));
        let bad: Vec<EntryId> = bad.into_iter().map(|one| one.id).collect();
        for id in &bad {
            tracing::warn!(stream = self.membership.stream.name(), %id, "a message without a right signature was dropped");
        }
        self.acknowledge(&bad).await?;
        Ok(good)
    }

    /// These have had their effect: they never come again, and the group's progress may say so.
    pub async fn acknowledge(&mut self, ids: &[EntryId]) -> Result<(), BusError> {
        if ids.is_empty() {
            return Ok(());
        }
        match &mut self.form {
            MemberForm::InProcess(member) => {
                member.acknowledge(ids);
                Ok(())
            }
            MemberForm::Redis(member) => member.acknowledge(ids).await,
        }
    }

    /// What was read and not acknowledged is read again.
    pub fn again(&mut self) {
        match &mut self.form {
            MemberForm::InProcess(member) => member.again(),
            MemberForm::Redis(member) => member.again(),
        }
    }
}

/// Hears everything on some streams.
pub struct Follower {
    form: FollowerForm,
    keys: Keys,
}

enum FollowerForm {
    InProcess(memory::Follower),
    Redis(Box<redis::Follower>),
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Follower")
    }
}

impl Follower {
    /// What was published since the last call, waiting for it up to `wait`; only what is signed as it must be. After an error it goes on
    /// where it was, or from the beginning where the server has lost its memory.
    pub async fn next(&mut self, wait: Duration) -> Result<Vec<Arc<Published>>, BusError> {
        let mut found = match &mut self.form {
            FollowerForm::InProcess(follower) => follower.next(wait).await,
            FollowerForm::Redis(follower) => follower.next(wait).await?,
        };
        found.retain(|message| {
            let good = trusted(self.keys.verifying(message.stream), message);
            if !good {
                tracing::warn!(stream = message.stream.name(), "a message without a right signature was ignored");
            }
            good
        });
        Ok(found)
    }
}

fn trusted(keys: &[MacKey], message: &Published) -> bool {
    keys.is_empty() || origin_verified(keys, message.stream.name(), &message.fields)
}
