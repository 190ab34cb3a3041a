//! Reading a zone's log.

use std::fmt::Write as _;
use std::time::Duration;

use caracal_core::event::Event;
use caracal_core::id::EventId;
use caracal_core::time::Time;
use serde_json::Value as Json;

use super::append::{Head, fixed, head};
use super::packed::{Columns, key_of, text_of, unpack};
use super::words;
use crate::error::StoreError;
use crate::open::Store;
use crate::sql::{Dialect, Row, Tx, Value};

/// Entries read at once where each must be looked at.
const PAGE: usize = 512;
/// How long entries are looked at for one question.
const SCAN: Duration = Duration::from_secs(10);

/// An entry as stored.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its place.
    pub seq: u64,
    /// When it was taken in.
    pub ingested_at: Time,
    /// What it says.
    pub event: Event,
    /// The secret of the salts.
    pub secret: [u8; 16],
    /// The content hash.
    pub content: [u8; 32],
    /// The content hash of the entry before.
    pub previous: Option<[u8; 32]>,
    /// The HMAC, and the key that made it.
    pub hmac: Option<([u8; 4], [u8; 32])>,
    /// The emitter's signature.
    pub signature: Option<[u8; 32]>,
    /// SHA-256 of what it signed and a MAC that ties it to the entry, where that is not what [`Event::to_data`] gives.
    pub foreign: Option<([u8; 32], Option<[u8; 16]>)>,
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

impl Filter {
    /// Whether an entry's event says what has no column, or a text that a column has no number for.
    fn accepts(&self, event: &Event) -> bool {
        let says = |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|w| is == Some(w));
        let labelled = |label: &String| {
            let labels = event.meta("agent_labels").and_then(Json::as_array);
            labels.is_some_and(|labels| labels.iter().any(|l| l.as_str() == Some(label)))
        };
        let fingerprint = event.meta_text("subject_fingerprint").or_else(|| event.meta_text("subject_fp"));
        (self.event_types.is_empty() || self.event_types.contains(&event.event_type))
            && says(&self.decision, Some(&event.decision))
            && says(&self.evaluation_status, Some(&event.evaluation_status))
            && says(&self.record_id, event.meta_text("session_id"))
            && says(&self.resource, event.meta_text("resource"))
            && says(&self.fingerprint, fingerprint)
            && says(&self.trace_id, event.meta_text("trace_id"))
            && self.label.as_ref().is_none_or(labelled)
    }

    /// Whether columns alone decide.
    fn is_exact(&self) -> bool {
        let mut words = self.event_types.iter().chain(&self.decision).chain(&self.evaluation_status);
        words.all(|text| words::number(text).is_some())
            && self.record_id.is_none()
            && self.resource.is_none()
            && self.fingerprint.is_none()
            && self.trace_id.is_none()
            && self.label.is_none()
    }

    /// The index whose range holds the answer; none: that of places.
    fn index(&self) -> Option<&'static str> {
        let by_time = self.order == Order::NewestFirst || (!self.by_ingestion && self.since.or(self.until).is_some());
        [
            (self.event_id.is_some(), "event"),
            (self.request_id.is_some(), "request"),
            (self.session_id.is_some(), "session"),
            (self.application_id.is_some(), "application"),
            (by_time, "time"),
        ]
        .into_iter()
        .find_map(|(is, index)| is.then_some(index))
    }

    /// Goes on behind `entry`.
    fn go_on(&mut self, entry: &Entry) {
        match self.order {
            Order::NewestFirst => self.after = Some((entry.event.occurred_at, entry.event.id)),
            Order::Ledger | Order::LedgerBackwards => self.after_seq = Some(entry.seq),
        }
    }
}

/// Columns of an entry, in the order of [`of_row`].
fn columns(dialect: Dialect) -> String {
    // A cast on SQLite would make a number of what is none.
    let words = dialect.pick(
        "e.event_type, e.decision, e.evaluation_status",
        "e.event_type::bigint, e.decision::bigint, e.evaluation_status::bigint",
    );
    format!(
        "e.seq, e.occurred_at, e.ingested_at, {words}, e.event_id, e.request_id, e.application_id, e.session_id, e.secret, e.content, \
         e.chain_key_id, e.chain_hmac, e.producer_sig, e.data_hash, e.data_mac, e.body, \
         (SELECT p.content FROM ledger_entries p WHERE p.log = e.log AND p.seq = CASE WHEN e.seq > 1 THEN e.seq - 1 END)"
    )
}

/// A question's statement: at most `most` entries of the log that columns do not rule out. `from` and `to` bound places.
fn statement(dialect: Dialect, log: i64, filter: &Filter, (from, to): (u64, u64), most: usize) -> (String, Vec<Value>) {
    // SQLite keeps no figures of how entries are spread and would guess; PostgreSQL does.
    let by = filter.index().filter(|_| dialect == Dialect::Sqlite).map(|index| format!(" INDEXED BY ledger_entries_{index}"));
    let mut sql = format!("SELECT {} FROM ledger_entries e{} WHERE e.log = $1", columns(dialect), by.unwrap_or_default());
    let mut args = vec![Value::from(log)];
    let mut add = |condition: &str, arg: Value| {
        args.push(arg);
        let _ = write!(sql, " AND {condition}${}", args.len());
    };
    let by_time = !filter.by_ingestion;
    if let Some(since) = filter.since.filter(|_| by_time) {
        add("e.occurred_at >= ", since.into());
    }
    if let Some(until) = filter.until.filter(|_| by_time) {
        add("e.occurred_at < ", until.into());
    }
    // Whatever stands before the first place was never appended.
    add("e.seq >= ", from.into());
    if to < u64::MAX {
        add("e.seq < ", to.into());
    }
    for (column, text) in
        [("request_id", &filter.request_id), ("application_id", &filter.application_id), ("session_id", &filter.session_id)]
    {
        if let Some(text) = text {
            add(&format!("e.{column} = "), key_of(text).into());
        }
    }
    if let Some(id) = filter.event_id {
        add("e.event_id = ", Value::id(id));
    }
    if let Some(seq) = filter.after_seq {
        add(if filter.order == Order::LedgerBackwards { "e.seq < " } else { "e.seq > " }, seq.into());
    }
    if let Some((at, id)) = filter.after {
        // The first half is the index's range, the second cuts what shares its edge.
        add("e.occurred_at <= ", at.into());
        args.push(Value::id(id));
        let n = args.len();
        let _ = write!(sql, " AND (e.occurred_at < ${} OR e.event_id < ${n})", n - 1);
    }
    for (column, texts) in [
        ("event_type", &filter.event_types[..]),
        ("decision", filter.decision.as_slice()),
        ("evaluation_status", filter.evaluation_status.as_slice()),
    ] {
        let numbers: Vec<u16> = texts.iter().filter_map(|text| words::number(text)).collect();
        let mut either: Vec<String> = Vec::new();
        for number in &numbers {
            args.push(i64::from(*number).into());
            either.push(format!("e.{column} = ${}", args.len()));
        }
        if numbers.len() < texts.len() {
            either.push(format!("e.{column} IS NULL"));
        }
        if !either.is_empty() {
            let _ = write!(sql, " AND ({})", either.join(" OR "));
        }
    }
    // A request or a Session has few entries: found by their index and sorted, not met one by one on the way along the places. The
    // sign keeps PostgreSQL from that way.
    let few = filter.request_id.is_some() || filter.session_id.is_some() || filter.event_id.is_some();
    sql += match (filter.order, few) {
        (Order::NewestFirst, _) => " ORDER BY e.occurred_at DESC, e.event_id DESC",
        (Order::Ledger, false) => " ORDER BY e.seq",
        (Order::Ledger, true) => " ORDER BY +e.seq",
        (Order::LedgerBackwards, false) => " ORDER BY e.seq DESC",
        (Order::LedgerBackwards, true) => " ORDER BY +e.seq DESC",
    };
    args.push(most.into());
    let _ = write!(sql, " LIMIT ${}", args.len());
    (sql, args)
}

/// The first place taken in at `time` or later. Places and times of ingestion rise together, so no index is needed.
async fn first_ingested(tx: &mut Tx<'_>, log: i64, next_seq: u64, time: Time) -> Result<u64, StoreError> {
    let (mut low, mut high) = (1, next_seq);
    while low < high {
        let middle = low.midpoint(high);
        let sql = "SELECT ingested_at FROM ledger_entries WHERE log = $1 AND seq = $2";
        match tx.first(sql, vec![log.into(), middle.into()]).await? {
            Some(row) if row.time(0)? < time => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The entries that these event ids have.
pub(super) async fn entries_of(tx: &mut Tx<'_>, log: i64, zone: &str, ids: &[EventId]) -> Result<Vec<Entry>, StoreError> {
    let (columns, ids_2) = (columns(tx.dialect()), tx.dialect().ids(2));
    let sql = format!("SELECT {columns} FROM ledger_entries e WHERE e.log = $1 AND e.event_id IN {ids_2}");
    let rows = tx.all(sql, vec![log.into(), Value::id_list(ids.iter().copied())]).await?;
    rows.iter().map(|row| of_row(zone, row)).collect()
}

impl Store {
    /// A zone's head; `None` before its first event.
    pub async fn ledger_head(&self, zone: String) -> Result<Option<Head>, StoreError> {
        self.read_ledger(move |tx| Box::pin(async move { Ok(head(tx, &zone, "").await?.map(|(_, head)| head)) })).await
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

    /// Entries of a zone, at most `most`. What no column decides is read and looked at, for [`SCAN`] at most.
    pub async fn ledger_entries(&self, zone: String, mut filter: Filter, most: usize) -> Result<Vec<Entry>, StoreError> {
        let world = self.world().clone();
        let deadline = world.monotonic() + SCAN;
        // No text of an event has it, and a key would take it for its mark.
        if [&filter.request_id, &filter.application_id, &filter.session_id].into_iter().flatten().any(|t| t.contains('\0')) {
            return Ok(Vec::new());
        }
        self.read_ledger(move |tx| {
            Box::pin(async move {
                let Some((log, head)) = head(tx, &zone, "").await? else { return Ok(Vec::new()) };
                let mut places = (1, u64::MAX);
                if filter.by_ingestion {
                    if let Some(since) = filter.since {
                        places.0 = first_ingested(tx, log, head.next_seq, since).await?;
                    }
                    if let Some(until) = filter.until {
                        places.1 = first_ingested(tx, log, head.next_seq, until).await?;
                    }
                }
                let page = if filter.is_exact() { most } else { most.max(PAGE) };
                let mut found = Vec::new();
                loop {
                    let (sql, args) = statement(tx.dialect(), log, &filter, places, page);
                    let rows = tx.all(sql, args).await?;
                    for row in &rows {
                        let entry = of_row(&zone, row)?;
                        filter.go_on(&entry);
                        if filter.accepts(&entry.event) {
                            found.push(entry);
                        }
                        if found.len() == most {
                            return Ok(found);
                        }
                    }
                    if rows.len() < page {
                        return Ok(found);
                    }
                    if world.monotonic() > deadline {
                        return Err(StoreError::Unavailable("the search looked at too many entries; narrow its window".to_owned()));
                    }
                }
            })
        })
        .await
    }

    /// All that the database holds of a zone's log, in order and past a place, which it may be in places that no entry can have: one that
    /// is no number is the last. What is stored as nothing that was ever written is its place alone.
    pub async fn ledger_in_order(
        &self,
        zone: String,
        after: Option<i64>,
        most: usize,
    ) -> Result<Vec<(i64, Option<Entry>)>, StoreError> {
        self.read_ledger(move |tx| {
            Box::pin(async move {
                let Some((log, _)) = head(tx, &zone, "").await? else { return Ok(Vec::new()) };
                let mut args = vec![log.into(), most.into()];
                let past = after.map(|seq| args.push(seq.into())).map_or("", |()| " AND e.seq > $3");
                let columns = columns(tx.dialect());
                let sql = format!("SELECT {columns} FROM ledger_entries e WHERE e.log = $1{past} ORDER BY e.seq LIMIT $2");
                let rows = tx.all(sql, args).await?;
                Ok(rows.iter().map(|row| (row.int(0).unwrap_or(i64::MAX), of_row(&zone, row).ok())).collect())
            })
        })
        .await
    }

    /// Everything that happened under a request id, oldest first.
    pub async fn ledger_by_request(&self, zone: String, request_id: String, most: usize) -> Result<Vec<Entry>, StoreError> {
        let filter = Filter { request_id: Some(request_id), order: Order::Ledger, ..Filter::default() };
        let mut entries = self.ledger_entries(zone, filter, most).await?;
        entries.sort_by_key(|e| (e.event.occurred_at, e.seq));
        Ok(entries)
    }

    /// Bytes that the ledger's entries occupy, with their indexes.
    pub async fn ledger_bytes(&self) -> Result<u64, StoreError> {
        self.read_ledger(|tx| {
            Box::pin(async move {
                let sql = tx.dialect().pick(
                    "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
                    "SELECT pg_total_relation_size('ledger_entries')::bigint",
                );
                tx.first(sql, vec![]).await?.map_or(Ok(0), |row| row.count(0))
            })
        })
        .await
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

fn of_row(zone: &str, row: &Row) -> Result<Entry, StoreError> {
    let wrong = |column| StoreError::inconsistent("ledger_entries", column, format!("entry {} of {zone}", row.int(0).unwrap_or(0)));
    let hash = |at, column| row.opt_bytes(at)?.map(|b| fixed(b, column)).transpose();
    let word = |at, column| row.opt_int(at)?.map(|n| u16::try_from(n).map_err(|_| wrong(column))).transpose();
    let key = |at, column| row.opt_bytes(at)?.map(|key| text_of(&key).ok_or_else(|| wrong(column))).transpose();
    let columns = Columns {
        id: row.id(6)?,
        occurred_at: row.time(1)?,
        event_type: word(3, "event_type")?,
        decision: word(4, "decision")?,
        evaluation_status: word(5, "evaluation_status")?,
        request_id: key(7, "request_id")?.ok_or_else(|| wrong("request_id"))?,
        application_id: key(8, "application_id")?,
        session_id: key(9, "session_id")?,
    };
    let data_mac = row.opt_bytes(16)?.map(|b| fixed(b, "data_mac")).transpose()?;
    let key_id = row.opt_bytes(12)?.map(|b| fixed(b, "chain_key_id")).transpose()?;
    Ok(Entry {
        seq: row.count(0)?,
        ingested_at: row.time(2)?,
        event: unpack(zone, &columns, &row.bytes(17)?).ok_or_else(|| wrong("body"))?,
        secret: fixed(row.bytes(10)?, "secret")?,
        content: fixed(row.bytes(11)?, "content")?,
        previous: hash(18, "content")?,
        hmac: key_id.zip(hash(13, "chain_hmac")?),
        signature: hash(14, "producer_sig")?,
        foreign: hash(15, "data_hash")?.map(|hash| (hash, data_mac)),
    })
}

#[cfg(test)]
mod tests {
    use caracal_host::World;

    use super::*;
    use crate::StoreConfig;

    /// Entries that mean nothing, so that PostgreSQL has something to plan with.
    async fn fill(store: &Store) {
        let fill = "INSERT INTO ledger_entries (log, seq, occurred_at, ingested_at, event_type, decision, evaluation_status, event_id, \
                    request_id, application_id, session_id, secret, content, body) SELECT 1, n, 1000 * n, 1000 * n, n % 8, n % 4, n % 5, \
                    sha256(n::text::bytea), sha256((n / 3)::text::bytea), sha256((n % 500)::text::bytea), \
                    sha256((n / 20)::text::bytea), '', '', sha256(n::text::bytea) FROM generate_series(1, 20000) n";
        let write = |sql: &'static str| store.ledger_write(move |tx| Box::pin(async move { tx.execute(sql, vec![]).await }));
        write(fill).await.unwrap();
        write("ANALYZE ledger_entries").await.unwrap();
    }

    /// How a backend would answer a question.
    async fn plan(store: &Store, filter: Filter) -> String {
        store
            .read_ledger(move |tx| {
                Box::pin(async move {
                    let dialect = tx.dialect();
                    let (sql, args) = statement(dialect, 1, &filter, (1, u64::MAX), 100);
                    let rows = tx.all(format!("{} {sql}", dialect.pick("EXPLAIN QUERY PLAN", "EXPLAIN")), args).await?;
                    let lines: Result<Vec<String>, StoreError> =
                        rows.iter().map(|row| row.text(if dialect == Dialect::Sqlite { 3 } else { 0 })).collect();
                    Ok::<_, StoreError>(lines?.join("\n"))
                })
            })
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn each_question_is_a_range_of_an_index() {
        let text = || Some("x".to_owned());
        let time = Some(Time::from_secs(10));
        let id: EventId = "0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10".parse().unwrap();
        let window = || Filter { since: time, until: Some(Time::from_secs(12)), ..Filter::default() };
        let questions: Vec<(&str, Filter)> = vec![
            ("time", window()),
            ("time", Filter { decision: Some("deny".into()), ..window() }),
            ("time", Filter { event_types: vec!["token_exchange".into(), "x".into()], ..window() }),
            ("time", Filter { evaluation_status: text(), resource: text(), label: text(), ..window() }),
            ("time", Filter { record_id: text(), fingerprint: text(), trace_id: text(), ..window() }),
            ("time", Filter { after: time.map(|t| (t, id)), ..Filter::default() }),
            ("event", Filter { event_id: Some(id), ..window() }),
            ("request", Filter { request_id: text(), order: Order::Ledger, ..Filter::default() }),
            ("session", Filter { session_id: text(), ..window() }),
            ("session", Filter { session_id: text(), order: Order::LedgerBackwards, ..Filter::default() }),
            ("application", Filter { application_id: text(), ..window() }),
            ("time", Filter { order: Order::Ledger, until: Some(Time::from_micros(10_100_000)), ..window() }),
            ("place", Filter { order: Order::Ledger, after_seq: Some(7), ..Filter::default() }),
            ("place", Filter { order: Order::LedgerBackwards, after_seq: Some(7), ..Filter::default() }),
        ];
        for database in caracal_testkit::backends().await {
            let config =
                StoreConfig { database_url: database.url().map(str::to_owned), dir: database.dir().to_owned(), connections: 2 };
            let store = Store::open(&config, World::system(), None).await.unwrap();
            if store.dialect() == Dialect::Postgres {
                fill(&store).await;
            }
            for (index, filter) in &questions {
                let name = match (*index, store.dialect()) {
                    ("place", Dialect::Sqlite) => "sqlite_autoindex_ledger_entries_1".to_owned(),
                    ("place", Dialect::Postgres) => "ledger_entries_pkey".to_owned(),
                    (index, _) => format!("ledger_entries_{index}"),
                };
                let plan = plan(&store, filter.clone()).await;
                // Of the entry itself, not of the one before it, which is always found by its place.
                let ways = ["SEARCH e USING INDEX NAME (", "using NAME on ledger_entries e", "Bitmap Index Scan on NAME "];
                let ranged = ways.iter().any(|way| plan.contains(&way.replace("NAME", &name)));
                assert!(ranged, "{}: {filter:?}\n{plan}", database.name());
                assert!(!plan.contains("SCAN e") && !plan.contains("Seq Scan"), "{}: {filter:?}\n{plan}", database.name());
            }
        }
    }
}
