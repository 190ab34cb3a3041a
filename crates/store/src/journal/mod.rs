//! The path's group commit: what an exchange or a call must make durable before it answers.
//!
//! Entries are values, not closures, so that all that wait are written by one statement a table and one sync. Inside the
//! transaction each entry is held against what changed since its decision was read: a hit writes nothing and decides again.
//! A crash leaves evidence without effect, never effect without evidence.

mod changes;
mod write;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use caracal_core::claims::SubjectType;
use caracal_core::id::{ApplicationId, AuthorityRecordId, DelegationId, EventId, ZoneId};
use caracal_core::time::Time;
use futures::future::BoxFuture;
use sqlx::PgPool;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::change::Entity;
use crate::error::StoreError;
use crate::fence::{Fence, Stamp, lock_key};
use crate::postgres;
use crate::sql::Tx;
use crate::writer::{Job, UNDO, Writer};
use changes::Changes;
use write::write;

/// Most entries of one group.
const GROUP: usize = 256;
/// Most entries that wait.
const QUEUE: usize = 8192;
/// How long a lane stays without entries.
const LANE_IDLE: Duration = Duration::from_mins(1);

/// What a decision read: as of when, and which entities.
#[derive(Clone, Debug)]
pub struct Reads {
    /// When.
    pub stamp: Stamp,
    /// What.
    pub entities: Vec<Entity>,
}

/// An Authority record to be written.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// Its id, the mandate's `sid`.
    pub id: AuthorityRecordId,
    /// Whom it is about.
    pub subject_type: SubjectType,
    /// The mandate's `sub`.
    pub subject: String,
    /// The Application that asked.
    pub application: ApplicationId,
    /// The record it came from.
    pub parent: Option<AuthorityRecordId>,
    /// When it ends.
    pub expires_at: Time,
    /// When it was authenticated.
    pub at: Time,
}

/// An event with its exact bytes and signature, on its way to the ledger.
#[derive(Clone, Debug)]
pub struct SpooledEvent {
    /// Its id.
    pub id: EventId,
    /// The exact `data`.
    pub data: Vec<u8>,
    /// Hex HMAC over `data`; empty without a key.
    pub sig: String,
}

/// An id that is used up.
#[derive(Clone, Debug)]
pub struct Consume {
    /// What kind of id: never compare across kinds.
    pub purpose: Purpose,
    /// The id.
    pub id: Vec<u8>,
    /// Until when it must be remembered.
    pub until: Time,
}

impl From<Option<Consume>> for Spend {
    fn from(id: Option<Consume>) -> Self {
        id.map_or(Self::Nothing, Self::Id)
    }
}

impl Consume {
    fn key(&self) -> (u8, &[u8]) {
        (self.purpose as u8, &self.id)
    }
}

/// What a consumed id was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// A gateway mandate's `jti`.
    Mandate = 1,
    /// A nonce of a Gateway call.
    Nonce = 2,
    /// A Control token's `jti`.
    Control = 3,
}

/// One thing of the path that must become durable, whole.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// The zone; `None` for evidence of none.
    pub zone: Option<ZoneId>,
    /// What the decision read; `None` when nothing was granted.
    pub reads: Option<Reads>,
    /// The record of a mint.
    pub record: Option<NewRecord>,
    /// What it uses up.
    pub spend: Spend,
    /// Edges that are presented for the first time.
    pub presented: Vec<DelegationId>,
    /// Evidence.
    pub events: Vec<SpooledEvent>,
}

/// What an entry uses up. A mint counts against budgets, the use of what was minted consumes its id: never both, so that whichever
/// is refused, nothing was written (`sts.md` 5.7).
#[derive(Clone, Debug, Default)]
pub enum Spend {
    /// Nothing.
    #[default]
    Nothing,
    /// An id that can be used once.
    Id(Consume),
    /// One of each edge's budget, from the root on: all are raised by one, or none. Edges without a budget are not counted.
    Budgets(Vec<DelegationId>),
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable.
    Durable,
    /// Something the decision read has changed: nothing was written, decide again.
    Stale,
    /// The id was used up before: nothing was written.
    Spent,
    /// The budget of this edge is used up: nothing was written.
    Exhausted(DelegationId),
}

type Answer = oneshot::Sender<Result<Outcome, StoreError>>;

/// A handle on the journal. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    entries: mpsc::Sender<(Entry, Answer)>,
}

impl Journal {
    pub(crate) fn sqlite(writer: Writer, fence: Fence, spooled: Arc<Notify>) -> Self {
        let (entries, mut waiting) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let mut group: Vec<(Entry, Answer)> = Vec::with_capacity(GROUP);
            while waiting.recv_many(&mut group, GROUP).await > 0 {
                let (over, wait) = oneshot::channel();
                let (entries, answers) = std::mem::take(&mut group).into_iter().unzip();
                let job =
                    GroupJob { entries, answers, fence: fence.clone(), outcomes: Vec::new(), spooled: Arc::clone(&spooled), over };
                if writer.submit(Box::new(job)).await.is_ok() {
                    // The next group is what arrives while this one syncs.
                    let _ = wait.await;
                }
            }
        });
        Self { entries }
    }

    /// A lane a zone: who waits for one zone's door holds up nobody of another.
    pub(crate) fn postgres(pool: PgPool, fence: Fence, spooled: Arc<Notify>) -> Self {
        let (entries, mut waiting) = mpsc::channel::<(Entry, Answer)>(QUEUE);
        tokio::spawn(async move {
            let mut lanes: HashMap<Option<ZoneId>, mpsc::Sender<(Entry, Answer)>> = HashMap::new();
            while let Some(mut one) = waiting.recv().await {
                let zone = one.0.zone;
                if let Some(lane) = lanes.get(&zone) {
                    match lane.try_send(one) {
                        Ok(()) => continue,
                        Err(TrySendError::Full((_, answer))) => {
                            let _ = answer.send(Err(StoreError::Unavailable("too much waits for this zone".to_owned())));
                            continue;
                        }
                        Err(TrySendError::Closed(back)) => one = back,
                    }
                }
                lanes.retain(|_, lane| !lane.is_closed());
                let (lane, entries) = mpsc::channel(QUEUE);
                // A new lane has room.
                let _ = lane.try_send(one);
                lanes.insert(zone, lane);
                tokio::spawn(serve_lane(entries, pool.clone(), fence.clone(), Arc::clone(&spooled)));
            }
        });
        Self { entries }
    }

    /// Makes an entry durable, or tells why not. Runs to its end whatever becomes of the caller.
    pub async fn commit(&self, entry: Entry) -> Result<Outcome, StoreError> {
        let stopped = || StoreError::Unavailable("the journal has stopped".to_owned());
        let (answer, wait) = oneshot::channel();
        self.entries.send((entry, answer)).await.map_err(|_| stopped())?;
        wait.await.map_err(|_| stopped())?
    }
}

/// Commits what a zone's lane brings, a group at a time. A lane that is quiet ends; the next entry of its zone opens another.
async fn serve_lane(mut waiting: mpsc::Receiver<(Entry, Answer)>, pool: PgPool, fence: Fence, spooled: Arc<Notify>) {
    let mut group: Vec<(Entry, Answer)> = Vec::with_capacity(GROUP);
    loop {
        match tokio::time::timeout(LANE_IDLE, waiting.recv_many(&mut group, GROUP)).await {
            Ok(0) => return,
            // What came in the meantime is still given, and then nothing.
            Err(_) => waiting.close(),
            Ok(_) => {
                let (entries, answers): (Vec<Entry>, Vec<Answer>) = std::mem::take(&mut group).into_iter().unzip();
                let run = tokio::spawn(commit_group(pool.clone(), fence.clone(), entries));
                answer_all(answers, run.await.map_err(|_| StoreError::Unavailable("a write stopped in its middle".to_owned())));
                spooled.notify_one();
            }
        }
    }
}

/// What became of each entry of a group.
type Outcomes = Vec<Result<Outcome, StoreError>>;

fn answer_all(answers: Vec<Answer>, result: Result<Outcomes, StoreError>) {
    match result {
        Ok(outcomes) => {
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                let _ = answer.send(outcome);
            }
        }
        Err(e) => {
            for answer in answers {
                let _ = answer.send(Err(StoreError::Unavailable(e.to_string())));
            }
        }
    }
}

struct GroupJob {
    entries: Vec<Entry>,
    answers: Vec<Answer>,
    fence: Fence,
    outcomes: Outcomes,
    spooled: Arc<Notify>,
    over: oneshot::Sender<()>,
}

impl Job for GroupJob {
    fn run<'t>(&'t mut self, tx: &'t mut Tx<'_>) -> BoxFuture<'t, Result<(), StoreError>> {
        Box::pin(async move {
            let fence = &self.fence;
            let fresh = |entry: &Entry| match (entry.zone, &entry.reads) {
                (Some(zone), Some(reads)) => fence.stands(zone, reads.stamp, &reads.entities),
                _ => true,
            };
            let fresh: Vec<bool> = self.entries.iter().map(fresh).collect();
            self.outcomes = write_apart(tx, &self.entries, &fresh).await?;
            Ok(())
        })
    }

    fn done(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { answers, outcomes, spooled, over, .. } = *self;
        answer_all(answers, outcome.map(|()| outcomes));
        spooled.notify_one();
        let _ = over.send(());
    }
}

/// One failure fails one: what the database refuses of a group is undone and tried again entry by entry.
async fn write_apart(tx: &mut Tx<'_>, entries: &[Entry], fresh: &[bool]) -> Result<Outcomes, StoreError> {
    match write(tx, entries, fresh).await {
        Ok(outcomes) => return Ok(outcomes.into_iter().map(Ok).collect()),
        Err(e) if entries.len() == 1 || matches!(e, StoreError::Unavailable(_)) => return Err(e),
        Err(_) => tx.execute(UNDO, vec![]).await?,
    };
    let mut outcomes = Vec::with_capacity(entries.len());
    for (entry, fresh) in entries.iter().zip(fresh) {
        tx.execute("SAVEPOINT entry", vec![]).await?;
        let alone = write(tx, std::slice::from_ref(entry), &[*fresh]).await;
        if alone.is_err() {
            tx.execute("ROLLBACK TO entry", vec![]).await?;
        }
        tx.execute("RELEASE entry", vec![]).await?;
        outcomes.push(alone.and_then(|mut one| one.pop().ok_or_else(no_answer)));
    }
    Ok(outcomes)
}

fn no_answer() -> StoreError {
    StoreError::Unavailable("a write gave no answer".to_owned())
}

/// As [`write_apart`], with transactions instead of savepoints, which would cost every group a round trip.
async fn commit_group(pool: PgPool, fence: Fence, entries: Vec<Entry>) -> Outcomes {
    match commit_postgres(&pool, &fence, &entries).await {
        Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
        Err(e) if entries.len() == 1 => vec![Err(e)],
        Err(StoreError::Unavailable(why)) => entries.iter().map(|_| Err(StoreError::Unavailable(why.clone()))).collect(),
        Err(_) => {
            let mut outcomes = Vec::with_capacity(entries.len());
            for entry in &entries {
                let alone = commit_postgres(&pool, &fence, std::slice::from_ref(entry)).await;
                outcomes.push(alone.and_then(|mut one| one.pop().ok_or_else(no_answer)));
            }
            outcomes
        }
    }
}

async fn commit_postgres(pool: &PgPool, fence: &Fence, entries: &[Entry]) -> Result<Vec<Outcome>, StoreError> {
    let mut transaction = pool.begin().await?;
    let outcomes = {
        let mut tx = Tx::postgres(&mut transaction);
        // Shared among journals, exclusive for the door; in one order, so that nobody waits in a circle.
        let zones = entries.iter().filter(|e| e.reads.is_some()).filter_map(|e| e.zone);
        let keys: BTreeSet<i64> = zones.map(lock_key).collect();
        if !keys.is_empty() {
            postgres::lock_shared(&mut tx, keys).await?;
        }
        let changes = Changes::since(&mut tx, fence, entries).await?;
        let fresh: Vec<bool> = entries.iter().map(|entry| changes.spare(entry)).collect();
        write(&mut tx, entries, &fresh).await?
    };
    transaction.commit().await?;
    Ok(outcomes)
}
