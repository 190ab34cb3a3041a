//! The path's group commit: what an exchange or a call must make durable before it answers.
//!
//! Entries are values, not closures, so that all that wait are written by one statement a table and one sync. Inside the
//! transaction each entry is held against what changed since its decision was read: a hit writes nothing and decides again.
//! A crash leaves evidence without effect, never effect without evidence.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use caracal_core::claims::SubjectType;
use caracal_core::id::{ApplicationId, AuthorityRecordId, DelegationId, EventId, Id, ZoneId};
use caracal_core::time::Time;
use futures::future::BoxFuture;
use sqlx::PgPool;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::change::{Entity, Kind};
use crate::error::StoreError;
use crate::fence::{Fence, Held, Stamp};
use crate::postgres;
use crate::sql::{Dialect, Tx, Value};
use crate::writer::{Job, Writer};

/// Most entries of one group.
const GROUP: usize = 256;
/// Most entries that wait.
const QUEUE: usize = 8192;

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
    /// Edges with a budget: all are raised by one, or none.
    pub budget: Vec<DelegationId>,
    /// Edges that are presented for the first time.
    pub presented: Vec<DelegationId>,
    /// The id that is used up.
    pub consume: Option<Consume>,
    /// Evidence.
    pub events: Vec<SpooledEvent>,
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

    pub(crate) fn postgres(pool: PgPool, fence: Fence, spooled: Arc<Notify>) -> Self {
        let (entries, mut waiting) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let mut group: Vec<(Entry, Answer)> = Vec::with_capacity(GROUP);
            while waiting.recv_many(&mut group, GROUP).await > 0 {
                let (entries, answers): (Vec<Entry>, Vec<Answer>) = std::mem::take(&mut group).into_iter().unzip();
                let run = tokio::spawn(commit_group(pool.clone(), fence.clone(), entries));
                answer_all(answers, run.await.map_err(|_| StoreError::Unavailable("a write stopped in its middle".to_owned())));
                spooled.notify_one();
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
                (Some(zone), Some(reads)) => fence.good(zone, reads.stamp, &reads.entities),
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

/// One failure fails one: what the database refuses of a group is tried again entry by entry.
async fn write_apart(tx: &mut Tx<'_>, entries: &[Entry], fresh: &[bool]) -> Result<Outcomes, StoreError> {
    match write_inside(tx, entries, fresh).await {
        Ok(outcomes) => Ok(outcomes.into_iter().map(Ok).collect()),
        Err(e) if entries.len() == 1 || matches!(e, StoreError::Unavailable(_)) => Err(e),
        Err(_) => {
            let mut outcomes = Vec::with_capacity(entries.len());
            for (entry, fresh) in entries.iter().zip(fresh) {
                let alone = write_inside(tx, std::slice::from_ref(entry), &[*fresh]).await;
                outcomes.push(alone.and_then(|mut one| one.pop().ok_or_else(no_answer)));
            }
            Ok(outcomes)
        }
    }
}

/// Writes all of these entries or nothing of them, inside the transaction that is open.
async fn write_inside(tx: &mut Tx<'_>, entries: &[Entry], fresh: &[bool]) -> Result<Vec<Outcome>, StoreError> {
    tx.execute("SAVEPOINT entries", vec![]).await?;
    let outcome = write(tx, entries, fresh).await;
    if outcome.is_err() {
        tx.execute("ROLLBACK TO entries", vec![]).await?;
    }
    tx.execute("RELEASE entries", vec![]).await?;
    outcome
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
        let zones: BTreeSet<ZoneId> = entries.iter().filter(|e| e.reads.is_some()).filter_map(|e| e.zone).collect();
        for zone in &zones {
            postgres::lock(&mut tx, *zone, false).await?;
        }
        let changed = changed_since(&mut tx, fence, entries).await?;
        let fresh: Vec<bool> = entries
            .iter()
            .map(|entry| match (entry.zone, &entry.reads) {
                (Some(zone), Some(reads)) => changed.get(&zone).is_some_and(|log| log.holds(reads) && !log.hits(reads)),
                _ => true,
            })
            .collect();
        write(&mut tx, entries, &fresh).await?
    };
    transaction.commit().await?;
    Ok(outcomes)
}

/// What a zone's change log holds since the oldest view of a group.
struct Changes {
    /// The history this process knows; `None` when the database has another.
    history: Option<Held>,
    /// Where the database stands.
    epoch: u64,
    /// Views older than this epoch cannot be judged by the log.
    pruned_before: u64,
    log: HashMap<Entity, u64>,
}

impl Changes {
    /// Whether the log can judge this decision: it was read in the history that stands here, and nothing since is pruned.
    fn holds(&self, reads: &Reads) -> bool {
        self.history.is_some_and(|held| held.is_of(reads.stamp)) && (self.pruned_before..=self.epoch).contains(&reads.stamp.epoch)
    }

    fn hits(&self, reads: &Reads) -> bool {
        reads.entities.iter().any(|entity| self.log.get(entity).is_some_and(|at| *at > reads.stamp.epoch))
    }
}

async fn changed_since(tx: &mut Tx<'_>, fence: &Fence, entries: &[Entry]) -> Result<HashMap<ZoneId, Changes>, StoreError> {
    let mut oldest: HashMap<ZoneId, u64> = HashMap::new();
    for entry in entries {
        if let (Some(zone), Some(reads)) = (entry.zone, &entry.reads) {
            oldest.entry(zone).and_modify(|e| *e = (*e).min(reads.stamp.epoch)).or_insert(reads.stamp.epoch);
        }
    }
    let mut changed = HashMap::new();
    for (zone, epoch) in oldest {
        let held = fence.held(zone);
        let rows = tx
            .all(
                "SELECT c.epoch, c.kind, c.entity_id, e.pruned_before, e.epoch, e.mark, \
                 (SELECT h.mark FROM change_log h WHERE h.zone_id = $1 AND h.epoch = $3 LIMIT 1) FROM zone_epochs e \
                 LEFT JOIN change_log c ON c.zone_id = e.zone_id AND c.epoch > $2 WHERE e.zone_id = $1",
                vec![Value::id(zone), epoch.into(), held.epoch.into()],
            )
            .await?;
        let mut changes = Changes { history: None, epoch: 0, pruned_before: u64::MAX, log: HashMap::new() };
        for row in rows {
            (changes.pruned_before, changes.epoch) = (row.count(3)?, row.count(4)?);
            // What we know must be part of what the database has; a primary that lost or replaced it judges nothing of ours.
            let ours = match held.epoch {
                0 => true,
                at if at == changes.epoch => row.int(5)? == held.mark,
                at => at < changes.epoch && row.opt_int(6)? == Some(held.mark),
            };
            changes.history = ours.then_some(held);
            let (Some(at), Some(kind), Some(id)) = (row.opt_int(0)?, row.opt_int(1)?, row.opt_bytes(2)?) else { continue };
            let kind = Kind::of(kind).ok_or_else(|| StoreError::inconsistent("change_log", "kind", kind.to_string()))?;
            let id = id.try_into().map_err(|_| StoreError::inconsistent("change_log", "entity_id", "not 16 bytes"))?;
            let latest = changes.log.entry(Entity { kind, id }).or_default();
            *latest = (*latest).max(u64::try_from(at).unwrap_or(0));
        }
        changed.insert(zone, changes);
    }
    Ok(changed)
}

/// Writes the entries that still stand; the same order of checks on both backends.
async fn write(tx: &mut Tx<'_>, entries: &[Entry], fresh: &[bool]) -> Result<Vec<Outcome>, StoreError> {
    let mut outcomes: Vec<Outcome> = fresh.iter().map(|fresh| if *fresh { Outcome::Durable } else { Outcome::Stale }).collect();
    consume(tx, entries, &mut outcomes).await?;
    for (entry, outcome) in entries.iter().zip(&mut outcomes) {
        if *outcome == Outcome::Durable && !entry.budget.is_empty() {
            *outcome = spend(tx, &entry.budget).await?;
        }
    }
    let standing: Vec<&Entry> = entries.iter().zip(&outcomes).filter(|(_, o)| **o == Outcome::Durable).map(|(e, _)| e).collect();
    insert_records(tx, &standing).await?;
    mark_presented(tx, &standing).await?;
    insert_events(tx, &standing).await?;
    Ok(outcomes)
}

async fn consume(tx: &mut Tx<'_>, entries: &[Entry], outcomes: &mut [Outcome]) -> Result<(), StoreError> {
    let mut first: HashMap<(u8, &[u8]), usize> = HashMap::new();
    for (at, (entry, outcome)) in entries.iter().zip(outcomes.iter_mut()).enumerate() {
        let (Some(consume), Outcome::Durable) = (&entry.consume, *outcome) else { continue };
        if first.insert((consume.purpose as u8, &consume.id), at).is_some() {
            // Twice in one group: the earlier one has it.
            *outcome = Outcome::Spent;
        }
    }
    // The map kept the later index of a pair; the first of each pair is the one still durable.
    let mut wanted: Vec<&Consume> = entries
        .iter()
        .zip(outcomes.iter())
        .filter(|(_, outcome)| **outcome == Outcome::Durable)
        .filter_map(|(entry, _)| entry.consume.as_ref())
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    // In one order, so that two processes that are shown the same ids do not wait in a circle.
    wanted.sort_unstable_by(|a, b| (a.purpose as u8, &a.id).cmp(&(b.purpose as u8, &b.id)));
    let args = vec![
        Value::Ints(wanted.iter().map(|c| i64::from(c.purpose as u8)).collect()),
        Value::Blobs(wanted.iter().map(|c| c.id.clone()).collect()),
        Value::Ints(wanted.iter().map(|c| c.until.as_micros()).collect()),
    ];
    let sql = tx.dialect().pick(
        "INSERT INTO consumed_ids (purpose, id, until) \
         SELECT p.value, unhex(i.value), u.value FROM json_each($1) p JOIN json_each($2) i ON i.key = p.key JOIN json_each($3) u ON u.key = p.key \
         WHERE true ON CONFLICT DO NOTHING RETURNING purpose, id",
        "INSERT INTO consumed_ids (purpose, id, until) SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[]) \
         ON CONFLICT DO NOTHING RETURNING purpose, id",
    );
    let mut taken = BTreeSet::new();
    for row in tx.all(sql, args).await? {
        taken.insert((row.int(0)?, row.bytes(1)?));
    }
    for (entry, outcome) in entries.iter().zip(outcomes) {
        if let (Some(consume), Outcome::Durable) = (&entry.consume, *outcome)
            && !taken.contains(&(i64::from(consume.purpose as u8), consume.id.clone()))
        {
            *outcome = Outcome::Spent;
        }
    }
    Ok(())
}

/// Raises every budget by one or none; an exhausted edge nearest the root is named.
async fn spend(tx: &mut Tx<'_>, edges: &[DelegationId]) -> Result<Outcome, StoreError> {
    let ids = tx.dialect().ids(1);
    let held = tx.dialect().pick("", " ORDER BY id FOR UPDATE");
    let sql = format!("SELECT id, budget, budget_spent FROM delegations WHERE budget IS NOT NULL AND id IN {ids}{held}");
    let mut full = BTreeSet::new();
    for row in tx.all(sql, vec![Value::id_list(edges.iter().copied())]).await? {
        if row.int(2)? >= row.int(1)? {
            full.insert(row.id::<DelegationId>(0)?);
        }
    }
    if let Some(edge) = edges.iter().find(|edge| full.contains(edge)) {
        return Ok(Outcome::Exhausted(*edge));
    }
    let sql = format!("UPDATE delegations SET budget_spent = budget_spent + 1 WHERE budget IS NOT NULL AND id IN {ids}");
    tx.execute(sql, vec![Value::id_list(edges.iter().copied())]).await?;
    Ok(Outcome::Durable)
}

async fn insert_records(tx: &mut Tx<'_>, entries: &[&Entry]) -> Result<(), StoreError> {
    let records: Vec<(ZoneId, &NewRecord)> = entries.iter().filter_map(|e| e.zone.zip(e.record.as_ref())).collect();
    if records.is_empty() {
        return Ok(());
    }
    if tx.dialect() == Dialect::Sqlite {
        let rows: Vec<serde_json::Value> = records
            .iter()
            .map(|(zone, r)| {
                serde_json::json!([
                    hex::encode(r.id.to_bytes()),
                    hex::encode(zone.to_bytes()),
                    r.subject_type.as_str(),
                    r.subject,
                    hex::encode(r.application.to_bytes()),
                    r.parent.map(|p| hex::encode(p.to_bytes())),
                    r.expires_at.as_micros(),
                    r.at.as_micros()
                ])
            })
            .collect();
        tx.execute(
            "INSERT INTO authority_records (id, zone_id, subject_type, subject, application_id, parent_id, status, expires_at, authenticated_at) \
             SELECT unhex(value->>0), unhex(value->>1), value->>2, value->>3, unhex(value->>4), unhex(value->>5), 'active', value->>6, value->>7 \
             FROM json_each($1)",
            vec![serde_json::Value::from(rows).to_string().into()],
        )
        .await?;
    } else {
        let args = vec![
            Value::id_list(records.iter().map(|(_, r)| r.id)),
            Value::id_list(records.iter().map(|(zone, _)| *zone)),
            Value::Texts(records.iter().map(|(_, r)| r.subject_type.as_str().to_owned()).collect()),
            Value::Texts(records.iter().map(|(_, r)| r.subject.clone()).collect()),
            Value::id_list(records.iter().map(|(_, r)| r.application)),
            Value::Blobs(records.iter().map(|(_, r)| r.parent.map(|p| p.to_bytes().to_vec()).unwrap_or_default()).collect()),
            Value::Ints(records.iter().map(|(_, r)| r.expires_at.as_micros()).collect()),
            Value::Ints(records.iter().map(|(_, r)| r.at.as_micros()).collect()),
        ];
        tx.execute(
            "INSERT INTO authority_records (id, zone_id, subject_type, subject, application_id, parent_id, status, expires_at, authenticated_at) \
             SELECT a, b, c, d, e, nullif(f, ''::bytea), 'active', g, h \
             FROM unnest($1::bytea[], $2::bytea[], $3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::bigint[], $8::bigint[]) AS t(a, b, c, d, e, f, g, h)",
            args,
        )
        .await?;
    }
    Ok(())
}

async fn mark_presented(tx: &mut Tx<'_>, entries: &[&Entry]) -> Result<(), StoreError> {
    let edges: BTreeSet<DelegationId> = entries.iter().flat_map(|e| e.presented.iter().copied()).collect();
    if edges.is_empty() {
        return Ok(());
    }
    let sql = format!("UPDATE delegations SET presented = 1 WHERE presented = 0 AND id IN {}", tx.dialect().ids(1));
    tx.execute(sql, vec![Value::id_list(edges)]).await?;
    Ok(())
}

async fn insert_events(tx: &mut Tx<'_>, entries: &[&Entry]) -> Result<(), StoreError> {
    let events: Vec<&SpooledEvent> = entries.iter().flat_map(|e| &e.events).collect();
    if events.is_empty() {
        return Ok(());
    }
    let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
    if tx.dialect() == Dialect::Sqlite {
        let rows: Vec<serde_json::Value> =
            events.iter().map(|e| serde_json::json!([hex::encode(e.id.to_bytes()), text(&e.data), e.sig])).collect();
        tx.execute(
            "INSERT INTO spool (event_id, data, sig) SELECT unhex(value->>0), value->>1, value->>2 FROM json_each($1)",
            vec![serde_json::Value::from(rows).to_string().into()],
        )
        .await?;
    } else {
        let args = vec![
            Value::id_list(events.iter().map(|e| e.id)),
            Value::Texts(events.iter().map(|e| text(&e.data)).collect()),
            Value::Texts(events.iter().map(|e| e.sig.clone()).collect()),
        ];
        tx.execute("INSERT INTO spool (event_id, data, sig) SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[])", args)
            .await?;
    }
    Ok(())
}
