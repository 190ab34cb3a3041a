//! Appending to a zone's log.

use std::sync::{Arc, LazyLock};

use caracal_core::event::Event;
use caracal_core::id::{EventId, Id as _};
use caracal_core::time::Time;

use super::packed::{Columns, key_of, pack};
use super::read::{Entry, entries_of};
use crate::error::StoreError;
use crate::open::Store;
use crate::sql::{Dialect, Row, Tx, Value};

/// A zone's head: all that the next entry depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The log's name, fixed when it was made.
    pub origin: String,
    /// The next entry's place.
    pub next_seq: u64,
    /// The last entry's content hash.
    pub last_content: Option<[u8; 32]>,
    /// When the last entry was taken in.
    pub last_ingested: Time,
    /// The tree's right edge.
    pub frontier: Vec<u8>,
}

/// What a zone's first head is made of.
#[derive(Clone, Debug)]
pub struct NewHead {
    /// The log's name.
    pub origin: String,
    /// The empty tree's right edge.
    pub frontier: Vec<u8>,
}

/// An entry to be written, at the place after the one before.
#[derive(Clone, Debug)]
pub struct NewEntry {
    /// What it says.
    pub event: Arc<Event>,
    /// The secret of the salts.
    pub secret: [u8; 16],
    /// The content hash.
    pub content: [u8; 32],
    /// The HMAC, and the key that made it.
    pub hmac: Option<([u8; 4], [u8; 32])>,
    /// The emitter's signature.
    pub signature: Option<[u8; 32]>,
    /// SHA-256 of what it signed and a MAC that ties it to the entry, where that is not what [`Event::to_data`] gives.
    pub foreign: Option<([u8; 32], Option<[u8; 16]>)>,
}

/// A message that cannot become an entry.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Where it came from: a place in the spool, an id of the outbox or of the stream.
    pub source: String,
    /// Why.
    pub reason: String,
    /// Its exact bytes, if it has any.
    pub data: Option<Vec<u8>>,
    /// The signature as it came.
    pub sig: String,
}

/// Something an operator should look at.
#[derive(Clone, Debug)]
pub struct Alert {
    /// The zone.
    pub zone: String,
    /// The event.
    pub event_id: EventId,
    /// `content_mismatch_on_replay` and others.
    pub kind: &'static str,
    /// In words.
    pub detail: String,
}

/// What becomes of a batch.
#[derive(Debug, Default)]
pub struct Appending {
    /// Entries, in order.
    pub entries: Vec<NewEntry>,
    /// When they are taken in.
    pub ingested_at: Time,
    /// The right edge after them.
    pub frontier: Vec<u8>,
    /// Alerts.
    pub alerts: Vec<Alert>,
    /// Dead letters.
    pub dead: Vec<DeadLetter>,
}

/// Dead letters and alerts are named by what they say, so that a batch that comes again says nothing twice.
fn name_of(parts: &[&[u8]]) -> Vec<u8> {
    let mut text = Vec::new();
    for part in parts {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part);
    }
    caracal_core::digest::sha256(&[&text])[..16].to_vec()
}

impl Store {
    /// Appends to a zone's log. `make` is given the locked head, the entries that the candidates' ids already have, and the database's
    /// time; what it gives back is written with the new head, all or nothing. Gives what `make` says beside it.
    pub async fn ledger_append<T, F>(
        &self,
        zone: String,
        first: NewHead,
        candidates: Vec<EventId>,
        make: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Head, &[Entry], Time) -> Result<(Appending, T), String> + Send + 'static,
    {
        let now = self.now().await?;
        self.ledger_write(move |tx| {
            Box::pin(async move {
                let (log, head) = locked(tx, &zone, first, now).await?;
                let known = entries_of(tx, log, &zone, &candidates).await?;
                let (appending, said) =
                    make(&head, &known, now).map_err(|why| StoreError::inconsistent("ledger_heads", "frontier", why))?;
                letters(tx, &appending.dead, now).await?;
                alerts(tx, &appending.alerts, now).await?;
                let Some(last) = appending.entries.last() else { return Ok(said) };
                let (content, next_seq) = (last.content, head.next_seq + appending.entries.len() as u64);
                insert(tx, log, &head, appending.ingested_at, appending.entries).await?;
                let sql = "UPDATE ledger_heads SET next_seq = $2, last_content = $3, last_ingested = $4, frontier = $5 \
                           WHERE log = $1 AND next_seq = $6";
                let args = vec![
                    log.into(),
                    next_seq.into(),
                    content.to_vec().into(),
                    appending.ingested_at.into(),
                    appending.frontier.into(),
                    head.next_seq.into(),
                ];
                match tx.execute(sql, args).await? {
                    1 => Ok(said),
                    _ => Err(StoreError::inconsistent("ledger_heads", "next_seq", "the head moved under its lock")),
                }
            })
        })
        .await
    }

    /// Keeps messages that cannot become entries, when no batch carries them.
    pub async fn ledger_dead_letters(&self, dead: Vec<DeadLetter>) -> Result<(), StoreError> {
        let now = self.now().await?;
        self.ledger_write(move |tx| Box::pin(async move { letters(tx, &dead, now).await })).await
    }
}

const HEAD: &str = "origin, next_seq, last_content, last_ingested, frontier, log";

/// The head of a zone, as [`of_head`] reads it.
pub(super) async fn head(tx: &mut Tx<'_>, zone: &str, lock: &str) -> Result<Option<(i64, Head)>, StoreError> {
    let row = tx.first(format!("SELECT {HEAD} FROM ledger_heads WHERE zone = $1{lock}"), vec![zone.into()]).await?;
    row.as_ref().map(of_head).transpose()
}

/// Reads the head under its lock; makes it when it is the zone's first.
async fn locked(tx: &mut Tx<'_>, zone: &str, first: NewHead, now: Time) -> Result<(i64, Head), StoreError> {
    // SQLite's writer is alone already.
    let lock = tx.dialect().pick("", " FOR UPDATE");
    if let Some(found) = head(tx, zone, lock).await? {
        return Ok(found);
    }
    let sql = "INSERT INTO ledger_heads (zone, origin, next_seq, last_ingested, frontier) VALUES ($1, $2, 1, $3, $4) ON CONFLICT DO NOTHING";
    tx.execute(sql, vec![zone.into(), first.origin.into(), now.into(), first.frontier.into()]).await?;
    head(tx, zone, lock).await?.ok_or_else(|| StoreError::inconsistent("ledger_heads", "zone", "the head is gone"))
}

fn of_head(row: &Row) -> Result<(i64, Head), StoreError> {
    let head = Head {
        origin: row.text(0)?,
        next_seq: row.count(1)?,
        last_content: row.opt_bytes(2)?.map(|b| fixed(b, "last_content")).transpose()?,
        last_ingested: row.time(3)?,
        frontier: row.bytes(4)?,
    };
    Ok((row.int(5)?, head))
}

pub(super) fn fixed<const N: usize>(bytes: Vec<u8>, column: &'static str) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| StoreError::inconsistent("ledger", column, format!("not {N} bytes")))
}

/// Columns of an entry, in the order of [`columns`].
const COLUMNS: &str = "log, seq, occurred_at, ingested_at, event_type, decision, evaluation_status, event_id, request_id, \
                       application_id, session_id, secret, content, chain_key_id, chain_hmac, producer_sig, data_hash, data_mac, body";
/// How many they are.
const WIDTH: usize = 19;
/// Rows of one statement: as many of the first as there are, then of the next. On SQLite a statement is run in place, so that one a
/// row costs no more, and many parameters cost more than they save: there it is the last alone.
const ROWS: [usize; 4] = [64, 16, 4, 1];

/// The statement that writes so many rows; few texts, so that each is prepared once.
static INSERTS: LazyLock<[String; ROWS.len()]> = LazyLock::new(|| {
    ROWS.map(|rows| {
        let row = |at: usize| (1..=WIDTH).map(|n| format!("${}", at * WIDTH + n)).collect::<Vec<_>>().join(", ");
        let rows: Vec<String> = (0..rows).map(|at| format!("({})", row(at))).collect();
        format!("INSERT INTO ledger_entries ({COLUMNS}) VALUES {}", rows.join(", "))
    })
});

async fn insert(tx: &mut Tx<'_>, log: i64, head: &Head, ingested_at: Time, entries: Vec<NewEntry>) -> Result<(), StoreError> {
    let mut rest = entries.len();
    let mut rows = entries.into_iter().zip(head.next_seq..);
    let first = if tx.dialect() == Dialect::Sqlite { ROWS.len() - 1 } else { 0 };
    for (size, sql) in ROWS.into_iter().zip(INSERTS.iter()).skip(first) {
        while rest >= size {
            let mut args = Vec::with_capacity(size * WIDTH);
            for (entry, seq) in rows.by_ref().take(size) {
                columns(&mut args, log, seq, ingested_at, &entry);
            }
            tx.execute(sql.as_str(), args).await?;
            rest -= size;
        }
    }
    Ok(())
}

fn columns(args: &mut Vec<Value>, log: i64, seq: u64, ingested_at: Time, entry: &NewEntry) {
    let columns = Columns::of(&entry.event);
    let body = pack(&entry.event, &columns);
    let number = |word: Option<u16>| Value::Int(word.map(i64::from));
    let key = |text: Option<&String>| Value::Bytes(text.map(|text| key_of(text)));
    let (key_id, hmac) = entry.hmac.unzip();
    args.extend([
        log.into(),
        seq.into(),
        columns.occurred_at.into(),
        ingested_at.into(),
        number(columns.event_type),
        number(columns.decision),
        number(columns.evaluation_status),
        Value::id(columns.id),
        key(Some(&columns.request_id)),
        key(columns.application_id.as_ref()),
        key(columns.session_id.as_ref()),
        entry.secret.to_vec().into(),
        entry.content.to_vec().into(),
        key_id.map(|id| id.to_vec()).into(),
        hmac.map(|hmac| hmac.to_vec()).into(),
        entry.signature.map(|sig| sig.to_vec()).into(),
        entry.foreign.map(|(hash, _)| hash.to_vec()).into(),
        entry.foreign.and_then(|(_, mac)| mac).map(|mac| mac.to_vec()).into(),
        body.into(),
    ]);
}

async fn letters(tx: &mut Tx<'_>, dead: &[DeadLetter], now: Time) -> Result<(), StoreError> {
    for letter in dead {
        let sql = "INSERT INTO ledger_dead_letters (id, source, reason, data, sig, received_at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        // Places repeat where state is restored beside a newer ledger; bytes do not.
        let data = letter.data.as_deref();
        let id = name_of(&[
            letter.source.as_bytes(),
            letter.reason.as_bytes(),
            data.unwrap_or_default(),
            letter.sig.as_bytes(),
            &[data.is_some().into()],
        ]);
        // PostgreSQL keeps no U+0000 in text; a reason may quote the message.
        let (source, reason) = (letter.source.replace('\0', ""), letter.reason.replace('\0', ""));
        let args =
            vec![id.into(), source.into(), reason.into(), letter.data.clone().into(), letter.sig.as_bytes().into(), now.into()];
        tx.execute(sql, args).await?;
    }
    Ok(())
}

async fn alerts(tx: &mut Tx<'_>, alerts: &[Alert], now: Time) -> Result<(), StoreError> {
    for alert in alerts {
        let sql = "INSERT INTO ledger_alerts (id, zone, event_id, kind, detail, observed_at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        let event = Value::id(alert.event_id);
        let parts = [alert.zone.as_bytes(), &alert.event_id.to_bytes(), alert.kind.as_bytes(), alert.detail.as_bytes()];
        let args = vec![name_of(&parts).into(), (&alert.zone).into(), event, alert.kind.into(), (&alert.detail).into(), now.into()];
        tx.execute(sql, args).await?;
    }
    Ok(())
}
