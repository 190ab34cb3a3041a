//! Reading a zone's log.

use std::fmt::Write as _;

use caracal_core::id::EventId;
use caracal_core::time::Time;
use serde_json::Value as Json;

use super::append::{Head, fixed, of_head};
use crate::error::StoreError;
use crate::open::Store;
use crate::sql::{Row, Value};

/// An entry as stored.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its place.
    pub seq: u64,
    /// The event's id.
    pub event_id: EventId,
    /// When it happened.
    pub occurred_at: Time,
    /// When it was taken in.
    pub ingested_at: Time,
    /// The event in its wire form.
    pub event: Json,
    /// The secret of the salts.
    pub secret: [u8; 16],
    /// The content hash.
    pub content: [u8; 32],
    /// The one before.
    pub previous: Option<[u8; 32]>,
    /// The HMAC.
    pub chain_hmac: Option<[u8; 32]>,
    /// The columns it is found by: type, decision, status, request id.
    pub found_by: [String; 4],
}

/// In which order entries come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Newest first, by when they happened and then by id.
    #[default]
    NewestFirst,
    /// By place.
    Ledger,
    /// By place, backwards.
    LedgerBackwards,
}

/// Which entries; all conditions hold together.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `occurred_at` at or after.
    pub since: Option<Time>,
    /// `occurred_at` before.
    pub until: Option<Time>,
    /// Whether the two mean `ingested_at` instead.
    pub by_ingestion: bool,
    /// Exactly this.
    pub request_id: Option<String>,
    /// Exactly this.
    pub decision: Option<String>,
    /// Exactly this.
    pub evaluation_status: Option<String>,
    /// One of these; empty: any.
    pub event_types: Vec<String>,
    /// Exactly this.
    pub application_id: Option<String>,
    /// The Session.
    pub session_id: Option<String>,
    /// The Authority record.
    pub record_id: Option<String>,
    /// Exactly this.
    pub resource: Option<String>,
    /// One of the labels.
    pub label: Option<String>,
    /// Exactly this.
    pub fingerprint: Option<String>,
    /// Exactly this.
    pub trace_id: Option<String>,
    /// Exactly this.
    pub event_id: Option<EventId>,
    /// Past this place (in the order's direction).
    pub after_seq: Option<u64>,
    /// Past this moment and id, newest first.
    pub after: Option<(Time, EventId)>,
    /// The order.
    pub order: Order,
}

const COLUMNS: &str = "seq, event_id, occurred_at, ingested_at, body, secret, content, previous, chain_hmac, event_type, decision, \
                       evaluation_status, request_id";

impl Store {
    /// A zone's head; `None` before its first event.
    pub async fn ledger_head(&self, zone: String) -> Result<Option<Head>, StoreError> {
        self.read_ledger(move |tx| {
            Box::pin(async move {
                let sql =
                    "SELECT origin, next_seq, last_content, last_ingested, frontier, dedupe_key FROM ledger_heads WHERE zone = $1";
                tx.first(sql, vec![zone.into()]).await?.as_ref().map(of_head).transpose()
            })
        })
        .await
    }

    /// Zones that have a log.
    pub async fn ledger_zones(&self) -> Result<Vec<String>, StoreError> {
        self.read_ledger(|tx| {
            Box::pin(async move {
                let rows = tx.all("SELECT zone FROM ledger_heads ORDER BY zone", vec![]).await?;
                rows.iter().map(|row| row.text(0)).collect()
            })
        })
        .await
    }

    /// Entries of a zone, at most `most`.
    pub async fn ledger_entries(&self, zone: String, filter: Filter, most: usize) -> Result<Vec<Entry>, StoreError> {
        self.read_ledger(move |tx| {
            Box::pin(async move {
                let dialect = tx.dialect();
                let mut sql = format!("SELECT {COLUMNS} FROM ledger_entries WHERE zone = $1");
                let mut args = vec![Value::from(zone)];
                let time = if filter.by_ingestion { "ingested_at" } else { "occurred_at" };
                let mut add = |condition: &dyn Fn(usize) -> String, arg: Value| {
                    args.push(arg);
                    sql += " AND ";
                    sql += &condition(args.len());
                };
                if let Some(since) = filter.since {
                    add(&|n| format!("{time} >= ${n}"), since.into());
                }
                if let Some(until) = filter.until {
                    add(&|n| format!("{time} < ${n}"), until.into());
                }
                for (column, value) in [
                    ("request_id", filter.request_id),
                    ("decision", filter.decision),
                    ("evaluation_status", filter.evaluation_status),
                    ("application_id", filter.application_id),
                    ("session_id", filter.session_id),
                    ("record_id", filter.record_id),
                    ("resource", filter.resource),
                    ("fingerprint", filter.fingerprint),
                    ("trace_id", filter.trace_id),
                ] {
                    if let Some(value) = value {
                        add(&|n| format!("{column} = ${n}"), value.into());
                    }
                }
                if let Some(id) = filter.event_id {
                    add(&|n| format!("event_id = ${n}"), Value::id(id));
                }
                if !filter.event_types.is_empty() {
                    add(&|n| format!("event_type IN {}", dialect.texts(n)), filter.event_types.into());
                }
                if let Some(label) = filter.label {
                    let function = dialect.pick("instr", "strpos");
                    add(&|n| format!("{function}(labels, ${n}) > 0"), format!("\n{label}\n").into());
                }
                if let Some(seq) = filter.after_seq {
                    let sign = if filter.order == Order::LedgerBackwards { "<" } else { ">" };
                    add(&|n| format!("seq {sign} ${n}"), seq.into());
                }
                if let Some((at, id)) = filter.after {
                    args.push(at.into());
                    args.push(Value::id(id));
                    let n = args.len();
                    let _ = write!(sql, " AND (occurred_at < ${} OR (occurred_at = ${} AND event_id < ${n}))", n - 1, n - 1);
                }
                sql += match filter.order {
                    Order::NewestFirst => " ORDER BY occurred_at DESC, event_id DESC",
                    Order::Ledger => " ORDER BY seq",
                    Order::LedgerBackwards => " ORDER BY seq DESC",
                };
                args.push(most.into());
                let _ = write!(sql, " LIMIT ${}", args.len());
                tx.all(sql, args).await?.iter().map(of_row).collect()
            })
        })
        .await
    }

    /// Everything that happened under a request id, oldest first.
    pub async fn ledger_by_request(&self, zone: String, request_id: String, most: usize) -> Result<Vec<Entry>, StoreError> {
        let filter = Filter { request_id: Some(request_id), order: Order::Ledger, ..Filter::default() };
        let mut entries = self.ledger_entries(zone, filter, most).await?;
        entries.sort_by_key(|e| (e.occurred_at, e.seq));
        Ok(entries)
    }

    /// How many dead letters wait.
    pub async fn ledger_dead_count(&self) -> Result<u64, StoreError> {
        self.read_ledger(|tx| {
            Box::pin(async move {
                let row = tx.first("SELECT count(*) FROM ledger_dead_letters", vec![]).await?;
                row.map_or(Ok(0), |row| row.count(0))
            })
        })
        .await
    }
}

fn of_row(row: &Row) -> Result<Entry, StoreError> {
    let body = row.bytes(4)?;
    Ok(Entry {
        seq: row.count(0)?,
        event_id: row.id(1)?,
        occurred_at: row.time(2)?,
        ingested_at: row.time(3)?,
        event: serde_json::from_slice(&body).map_err(|e| StoreError::inconsistent("ledger_entries", "body", e.to_string()))?,
        secret: fixed(row.bytes(5)?, "secret")?,
        content: fixed(row.bytes(6)?, "content")?,
        previous: row.opt_bytes(7)?.map(|b| fixed(b, "previous")).transpose()?,
        chain_hmac: row.opt_bytes(8)?.map(|b| fixed(b, "chain_hmac")).transpose()?,
        found_by: [row.text(9)?, row.text(10)?, row.text(11)?, row.text(12)?],
    })
}
