//! Appending to a zone's log.

use std::collections::HashMap;

use caracal_core::id::EventId;
use caracal_core::time::Time;

use crate::error::StoreError;
use crate::open::Store;
use crate::sql::{Row, Tx, Value};

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
    /// Keys the digests by which copies are told.
    pub dedupe_key: [u8; 32],
}

/// What a zone's first head is made of.
#[derive(Clone, Debug)]
pub struct NewHead {
    /// The log's name.
    pub origin: String,
    /// The empty tree's right edge.
    pub frontier: Vec<u8>,
    /// 32 random bytes.
    pub dedupe_key: [u8; 32],
}

/// An entry that an event id already has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its place.
    pub seq: u64,
    /// The digest of its event.
    pub dedupe: Vec<u8>,
}

/// An entry to be written. Which column means what: `audit.md` 7.3, 18.4.
#[derive(Clone, Debug)]
pub struct NewEntry {
    /// Its place.
    pub seq: u64,
    /// The event.
    pub event_id: EventId,
    /// Column.
    pub event_type: String,
    /// Column.
    pub decision: String,
    /// Column.
    pub evaluation_status: String,
    /// Column.
    pub request_id: String,
    /// Of the metadata: `application_id`.
    pub application_id: Option<String>,
    /// Of the metadata: `agent_session_id`.
    pub session_id: Option<String>,
    /// Of the metadata: `delegation_edge_id`.
    pub delegation_id: Option<String>,
    /// Of the metadata: `session_id`.
    pub record_id: Option<String>,
    /// Of the metadata: `resource`.
    pub resource: Option<String>,
    /// Of the metadata: `agent_labels`, each between line feeds.
    pub labels: Option<String>,
    /// Of the metadata: `subject_fingerprint`.
    pub fingerprint: Option<String>,
    /// Of the metadata: `trace_id`.
    pub trace_id: Option<String>,
    /// When it happened.
    pub occurred_at: Time,
    /// When it was taken in.
    pub ingested_at: Time,
    /// The event's wire form, JSON.
    pub body: Vec<u8>,
    /// The secret of the salts.
    pub secret: [u8; 16],
    /// The content hash.
    pub content: [u8; 32],
    /// The one before.
    pub previous: Option<[u8; 32]>,
    /// The HMAC.
    pub chain_hmac: Option<[u8; 32]>,
    /// Which key made it.
    pub chain_key_id: Option<String>,
    /// The digest of the event.
    pub dedupe: Vec<u8>,
    /// The producer's signature.
    pub producer_sig: String,
    /// SHA-256 of the bytes it signed.
    pub data_hash: [u8; 32],
}

/// A message that cannot become an entry.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Where it came from: a place in the spool, an id of the outbox or of the stream.
    pub source: String,
    /// Why.
    pub reason: String,
    /// The bytes.
    pub data: String,
    /// The signature.
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
    /// The right edge after them.
    pub frontier: Vec<u8>,
    /// Alerts.
    pub alerts: Vec<Alert>,
    /// Dead letters.
    pub dead: Vec<DeadLetter>,
}

/// Dead letters and alerts are named by what they say, so that a batch that comes again says nothing twice.
fn name_of(parts: &[&str]) -> Vec<u8> {
    let mut text = Vec::new();
    for part in parts {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part.as_bytes());
    }
    caracal_core::digest::sha256(&[&text])[..16].to_vec()
}

impl Store {
    /// Appends to a zone's log. `make` is given the locked head, the entries that the candidates' ids already have, and the database's
    /// time; what it gives back is written with the new head, all or nothing.
    pub async fn ledger_append<F>(&self, zone: String, first: NewHead, candidates: Vec<EventId>, make: F) -> Result<u64, StoreError>
    where
        F: FnOnce(&Head, &HashMap<EventId, Known>, Time) -> Result<Appending, String> + Send + 'static,
    {
        let now = self.now().await?;
        self.ledger_write(move |tx| {
            Box::pin(async move {
                let head = head(tx, &zone, first, now).await?;
                let known = known(tx, &zone, &candidates).await?;
                let appending = make(&head, &known, now).map_err(|why| StoreError::inconsistent("ledger_heads", "frontier", why))?;
                for (entry, seq) in appending.entries.iter().zip(head.next_seq..) {
                    if entry.seq != seq {
                        return Err(StoreError::inconsistent("ledger_entries", "seq", "an entry does not follow the head"));
                    }
                    insert(tx, &zone, entry).await?;
                }
                letters(tx, &appending.dead, now).await?;
                for alert in &appending.alerts {
                    let sql = "INSERT INTO ledger_alerts (id, zone, event_id, kind, detail, observed_at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
                    let args = vec![
                        name_of(&[&alert.zone, &alert.event_id.to_string(), alert.kind, &alert.detail]).into(),
                        (&alert.zone).into(),
                        Value::id(alert.event_id),
                        alert.kind.into(),
                        (&alert.detail).into(),
                        now.into(),
                    ];
                    tx.execute(sql, args).await?;
                }
                let Some(last) = appending.entries.last() else { return Ok(head.next_seq - 1) };
                let sql = "UPDATE ledger_heads SET next_seq = $2, last_content = $3, last_ingested = $4, frontier = $5, updated_at = $6 \
                           WHERE zone = $1 AND next_seq = $7";
                let args = vec![
                    (&zone).into(),
                    (last.seq + 1).into(),
                    last.content.to_vec().into(),
                    last.ingested_at.into(),
                    appending.frontier.into(),
                    now.into(),
                    head.next_seq.into(),
                ];
                match tx.execute(sql, args).await? {
                    1 => Ok(last.seq),
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

/// Reads the head under its lock; makes it when it is the zone's first.
async fn head(tx: &mut Tx<'_>, zone: &str, first: NewHead, now: Time) -> Result<Head, StoreError> {
    let sql = "INSERT INTO ledger_heads (zone, origin, next_seq, last_ingested, frontier, dedupe_key, updated_at) \
               VALUES ($1, $2, 1, $3, $4, $5, $3) ON CONFLICT DO NOTHING";
    let args = vec![zone.into(), first.origin.into(), now.into(), first.frontier.into(), first.dedupe_key.to_vec().into()];
    tx.execute(sql, args).await?;
    // SQLite's writer is alone already.
    let sql = tx.dialect().pick(
        "SELECT origin, next_seq, last_content, last_ingested, frontier, dedupe_key FROM ledger_heads WHERE zone = $1",
        "SELECT origin, next_seq, last_content, last_ingested, frontier, dedupe_key FROM ledger_heads WHERE zone = $1 FOR UPDATE",
    );
    let row = tx.first(sql, vec![zone.into()]).await?;
    row.as_ref().map_or_else(|| Err(StoreError::inconsistent("ledger_heads", "zone", "the head is gone")), of_head)
}

pub(super) fn of_head(row: &Row) -> Result<Head, StoreError> {
    Ok(Head {
        origin: row.text(0)?,
        next_seq: row.count(1)?,
        last_content: row.opt_bytes(2)?.map(|b| fixed(b, "last_content")).transpose()?,
        last_ingested: row.time(3)?,
        frontier: row.bytes(4)?,
        dedupe_key: fixed(row.bytes(5)?, "dedupe_key")?,
    })
}

pub(super) fn fixed<const N: usize>(bytes: Vec<u8>, column: &'static str) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| StoreError::inconsistent("ledger", column, format!("not {N} bytes")))
}

async fn known(tx: &mut Tx<'_>, zone: &str, candidates: &[EventId]) -> Result<HashMap<EventId, Known>, StoreError> {
    let sql = format!("SELECT event_id, seq, dedupe FROM ledger_entries WHERE zone = $1 AND event_id IN {}", tx.dialect().ids(2));
    let rows = tx.all(sql, vec![zone.into(), Value::id_list(candidates.iter().copied())]).await?;
    rows.iter().map(|row| Ok((row.id(0)?, Known { seq: row.count(1)?, dedupe: row.bytes(2)? }))).collect()
}

async fn insert(tx: &mut Tx<'_>, zone: &str, e: &NewEntry) -> Result<(), StoreError> {
    let sql = "INSERT INTO ledger_entries (zone, seq, event_id, event_type, decision, evaluation_status, request_id, application_id, session_id, \
               delegation_id, record_id, resource, labels, fingerprint, trace_id, occurred_at, ingested_at, body, secret, hash_version, content, \
               previous, chain_hmac, chain_key_id, dedupe, producer_sig, data_hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, \
               $13, $14, $15, $16, $17, $18, $19, 2, $20, $21, $22, $23, $24, $25, $26)";
    let args = vec![
        zone.into(),
        e.seq.into(),
        Value::id(e.event_id),
        (&e.event_type).into(),
        (&e.decision).into(),
        (&e.evaluation_status).into(),
        (&e.request_id).into(),
        e.application_id.clone().into(),
        e.session_id.clone().into(),
        e.delegation_id.clone().into(),
        e.record_id.clone().into(),
        e.resource.clone().into(),
        e.labels.clone().into(),
        e.fingerprint.clone().into(),
        e.trace_id.clone().into(),
        e.occurred_at.into(),
        e.ingested_at.into(),
        e.body.clone().into(),
        e.secret.to_vec().into(),
        e.content.to_vec().into(),
        e.previous.map(|p| p.to_vec()).into(),
        e.chain_hmac.map(|h| h.to_vec()).into(),
        e.chain_key_id.clone().into(),
        e.dedupe.clone().into(),
        (&e.producer_sig).into(),
        e.data_hash.to_vec().into(),
    ];
    tx.execute(sql, args).await.map(|_| ())
}

async fn letters(tx: &mut Tx<'_>, dead: &[DeadLetter], now: Time) -> Result<(), StoreError> {
    for letter in dead {
        let sql = "INSERT INTO ledger_dead_letters (id, source, reason, data, sig, received_at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        // Places repeat where state is restored beside a newer ledger; bytes do not.
        let id = name_of(&[&letter.source, &letter.reason, &letter.data, &letter.sig]);
        let data = without_nul(&letter.data);
        tx.execute(
            sql,
            vec![id.into(), (&letter.source).into(), (&letter.reason).into(), data.into(), (&letter.sig).into(), now.into()],
        )
        .await?;
    }
    Ok(())
}

/// PostgreSQL keeps no U+0000 in text; evidence of a bad message must not fail on it.
fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}
