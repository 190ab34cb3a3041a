//! What replicas must agree on for a while: used mandates, nonces, counters.
//!
//! The path through it: a service asks its [`Memory`] whether an id is used for the first time. In one process the answer is a row
//! of the store, durable before it is given ([`Memory::embedded`]); among replicas it is one atomic write to the Redis primary
//! ([`Memory::redis`]), which also tells since when that server has been the same: what it cannot remember it does not vouch for.
//!
//! What must never happen: an id taken twice, an answer from a server that may have forgotten, a guess when nobody answers.

mod embedded;
mod redis;

use std::time::Duration;

use caracal_core::time::Time;
use caracal_host::World;
use caracal_store::journal::Journal;

/// What becomes of an id that is presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is taken now, by this call alone.
    First,
    /// It was taken before; by whom, where that is kept.
    Seen(Option<String>),
    /// It is not older than the memory, so nobody can say. Nothing may rest on it.
    Unsure,
}

/// The memory cannot be asked: whoever needs its answer refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shared memory does not answer: {0}")]
pub struct Away(pub(crate) String);

/// The kinds of id that are taken once. Ids of different kinds never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A mandate's `jti` at the Gateway.
    Mandate,
    /// The nonce of a signed Gateway request.
    Nonce,
    /// The `jti` of a Control token.
    Control,
}

/// An id that is presented.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// Its kind.
    pub kind: Kind,
    /// Its text, as the verified token carries it.
    pub id: &'a str,
    /// When it was made; what is not younger than the memory is [`Taken::Unsure`].
    pub issued: Time,
    /// Until when it must be remembered.
    pub until: Time,
    /// Who presents it: a request id, told to whoever comes second.
    pub by: &'a str,
}

/// The memory of an installation. Cheap to clone.
#[derive(Clone)]
pub struct Memory {
    form: Form,
}

#[derive(Clone)]
enum Form {
    Embedded(embedded::Embedded),
    Redis(redis::Redis),
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.form {
            Form::Embedded(_) => "Memory(embedded)",
            Form::Redis(_) => "Memory(redis)",
        })
    }
}

impl Memory {
    /// The memory of one process: ids in the store, counters here.
    pub fn embedded(journal: Journal, world: World) -> Self {
        Self { form: Form::Embedded(embedded::Embedded::new(journal, world)) }
    }

    /// The memory of replicas. Connects once, so that a wrong address is told at the start.
    pub async fn redis(url: &str, world: World) -> Result<Self, Away> {
        Ok(Self { form: Form::Redis(redis::Redis::connect(url, world).await?) })
    }

    /// Takes an id, in one atomic step. Call it after the signature is verified, so that strangers cannot fill or burn it.
    pub async fn take(&self, presented: Presented<'_>) -> Result<Taken, Away> {
        match &self.form {
            Form::Embedded(memory) => memory.take(presented).await,
            Form::Redis(memory) => memory.take(presented).await,
        }
    }

    /// Counts one more of `name` and tells how many there were since its window opened.
    pub async fn count(&self, name: &str, window: Duration) -> Result<u64, Away> {
        match &self.form {
            Form::Embedded(memory) => Ok(memory.count(name, window)),
            Form::Redis(memory) => memory.count(name, window).await,
        }
    }

    /// Whether the memory answers.
    pub async fn ping(&self) -> Result<(), Away> {
        match &self.form {
            // The store's own health tells this.
            Form::Embedded(_) => Ok(()),
            Form::Redis(memory) => memory.ping().await,
        }
    }
}
