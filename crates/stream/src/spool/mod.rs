//! Where evidence waits until Audit has committed it, in the form that the process's surroundings allow.
//!
//! With everything in one process on one database it is a table, written in the transaction of the decision. Where events travel through
//! Redis it is a directory of segments on the emitter's own disk, so that neither Redis nor the database can lose what was answered
//! for. A decision is answered when its evidence is in the spool; what the spool cannot take is denied.

pub mod segments;
mod table;

use std::fmt;
use std::io;
use std::path::PathBuf;

use caracal_core::error::Service;
use caracal_host::config::{Key, Reader};
use caracal_host::{Metrics, Supervisor};
use caracal_store::StoreError;
use caracal_store::journal::{Entry, Journal, Outcome, Spend, SpooledEvent};

use self::segments::Record;
pub use self::segments::Segments;
pub use self::table::Table;

/// Why an event is not in the spool. The decision it belongs to is denied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    /// The bound is reached: Audit has to commit something first.
    #[error("the evidence spool is full (AUDIT_SPOOL_MAX_BYTES)")]
    Full,
    /// Empty or too long for an event, or a signature that is no hex.
    #[error("this is no event the spool can hold")]
    Unfit,
    /// The disk refuses.
    #[error("the evidence spool cannot be written or read: {0}")]
    Disk(String),
    /// The spool is closed.
    #[error("the evidence spool is closed")]
    Closed,
    /// The database of the table, or of what the evidence is about, refuses.
    #[error("{0}")]
    Store(String),
}

impl From<io::Error> for SpoolError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error.to_string())
    }
}

impl From<StoreError> for SpoolError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

const SG: &[Service] = &[Service::Sts, Service::Gateway];
const DIR: Key =
    Key::new("AUDIT_REPLAY_DIR", "Directory in which evidence waits for Audit").default("/var/lib/caracal/audit-replay").of(SG);
const MAX_BYTES: Key =
    Key::new("AUDIT_SPOOL_MAX_BYTES", "How much evidence may wait; beyond it decisions are denied").default("1073741824").of(SG);

/// The keys of the spool.
pub const KEYS: &[Key] = &[DIR, MAX_BYTES];

/// Where segments are and how much may wait.
#[derive(Clone, Debug)]
pub struct SpoolConfig {
    /// `AUDIT_REPLAY_DIR`.
    pub dir: PathBuf,
    /// `AUDIT_SPOOL_MAX_BYTES`: of the segments this process holds, or of the table.
    pub max_bytes: u64,
}

impl SpoolConfig {
    /// Reads them; `None` after a fault, which the reader remembers.
    pub fn read(r: &mut Reader<'_>) -> Option<Self> {
        let (dir, max_bytes) = (r.string(&DIR), r.integer(&MAX_BYTES, 1..=u64::MAX));
        Some(Self { dir: dir?.into(), max_bytes: max_bytes? })
    }
}

/// The spool of a process. Cheap to clone.
#[derive(Clone)]
pub enum Spool {
    /// A table of the database.
    Table(Table),
    /// Files of this host.
    Segments(Segments),
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table(_) => "Spool(table)",
            Self::Segments(_) => "Spool(segments)",
        })
    }
}

impl Spool {
    /// Keeps events, all or none; returns when they are durable.
    pub async fn append(&self, events: Vec<SpooledEvent>) -> Result<(), SpoolError> {
        match self {
            Self::Table(table) => table.commit(Entry { events, ..Entry::default() }).await.map(drop),
            Self::Segments(segments) => segments.append(events.into_iter().map(record).collect()).await,
        }
    }

    /// Makes a decision durable, then its evidence: in one transaction where the spool is a table, else in this order. A decision whose
    /// evidence cannot be kept is an error, and nobody is answered for it: a record alone has no effect.
    pub async fn commit(&self, journal: &Journal, mut entry: Entry) -> Result<Outcome, SpoolError> {
        let segments = match self {
            Self::Table(table) => return table.commit(entry).await,
            Self::Segments(segments) => segments,
        };
        let events = std::mem::take(&mut entry.events);
        if decides(&entry) {
            // What cannot be kept is told before anything is written, so that a denial leaves no record behind.
            segments.check()?;
            match journal.commit(entry).await? {
                Outcome::Durable => {}
                other => return Ok(other),
            }
        }
        segments.append(events.into_iter().map(record).collect()).await.map(|()| Outcome::Durable)
    }

    /// Whether the next event would probably be kept: for `/ready` (`audit_replay_unavailable`).
    pub fn healthy(&self) -> bool {
        match self {
            Self::Table(table) => table.healthy(),
            Self::Segments(segments) => segments.healthy(),
        }
    }

    /// Shows how full it is.
    pub fn show(&self, metrics: &Metrics) {
        let name = |what: &str| format!("audit_replay_{what}");
        let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let uncommitted = metrics.gauge(&name("uncommitted_bytes"), "Bytes that Audit has not committed.");
        let segments = match self {
            Self::Table(table) => {
                let table = table.clone();
                metrics.on_scrape(move || uncommitted.set(whole(table.held())));
                return;
            }
            Self::Segments(segments) => segments.clone(),
        };
        let files = metrics.gauge(&name("files"), "Segments in which evidence waits.");
        let bytes = metrics.gauge(&name("bytes"), "Bytes of these segments.");
        let damaged = metrics.gauge(&name("damaged_files"), "Segments that cannot be read to their end before a restart.");
        metrics.on_scrape(move || {
            let depth = segments.depth();
            files.set(whole(depth.segments as u64));
            bytes.set(whole(depth.bytes));
            damaged.set(whole(depth.damaged as u64));
            uncommitted.set(whole(depth.uncommitted));
        });
    }

    /// Starts the background work beside delivery.
    pub fn jobs(&self, supervisor: &Supervisor) {
        if let Self::Segments(segments) = self {
            segments.jobs(supervisor);
        }
    }
}

/// Whether an entry without its events has anything to make durable.
fn decides(entry: &Entry) -> bool {
    entry.reads.is_some() || entry.record.is_some() || !matches!(entry.spend, Spend::Nothing) || !entry.presented.is_empty()
}

fn record(event: SpooledEvent) -> Record {
    Record { data: event.data, sig: event.sig }
}
