//! The spool as append-only segments, for emitters that share no table with Audit (`streams.md` 12).
//!
//! An event is answered for when it is on the disk: one thread writes, and one sync serves all that arrived while the last one ran.
//! A segment goes only when Audit has committed all of it; what the stream took and Audit has not is sent again when it must be.

mod file;
mod record;
mod source;

use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caracal_host::World;
use tokio::sync::{Notify, mpsc, oneshot};
use uuid::Uuid;

use file::Segment;
pub use record::{MAX_FRAME, Record};

use super::{SpoolConfig, SpoolError};

/// The end of a record in its segment: what was delivered or committed reaches up to here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The segment.
    pub segment: Uuid,
    /// Its byte behind the record.
    pub end: u64,
}

/// What touches the disk when events are written; a test puts a full or failing one here.
pub trait Disk: Send + 'static {
    /// Writes all bytes at a place.
    fn write(&mut self, file: &std::fs::File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    /// Makes what was written durable.
    fn sync(&mut self, file: &std::fs::File) -> io::Result<()> {
        file.sync_data()
    }
}

/// The real one.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {}

/// How full the spool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Segments held.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that the stream has not taken.
    pub undelivered: u64,
    /// Bytes that Audit has not committed.
    pub uncommitted: u64,
    /// Segments that cannot be read to their end.
    pub damaged: usize,
}

const SEGMENT_BYTES: u64 = 16 << 20;
const GROUP: usize = 4096;

struct Waiting {
    /// Kept whole or not at all; none only tries the disk.
    records: Vec<Record>,
    answer: oneshot::Sender<Result<(), SpoolError>>,
}

#[derive(Default)]
struct State {
    segments: Vec<Segment>,
    failing: bool,
}

impl State {
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.len).sum()
    }
}

struct Shared {
    config: SpoolConfig,
    world: World,
    state: Mutex<State>,
    /// One at a time looks for what neighbours left.
    taking: Mutex<()>,
    arrived: Notify,
}

/// The segments of a process. Cheap to clone.
#[derive(Clone)]
pub struct Segments {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Waiting>,
    writer: Arc<Mutex<Option<std::thread::JoinHandle<()>>>>,
}

impl std::fmt::Debug for Segments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segments").field("dir", &self.shared.config.dir).finish_non_exhaustive()
    }
}

impl Segments {
    /// Opens the directory and takes over what processes that are gone have left. Reads whole segments: call it before serving.
    pub fn open(config: SpoolConfig, world: World) -> Result<Self, SpoolError> {
        Self::open_on(config, world, RealDisk)
    }

    /// As [`Segments::open`], on another disk.
    pub fn open_on(config: SpoolConfig, world: World, disk: impl Disk) -> Result<Self, SpoolError> {
        file::directory(&config.dir)?;
        let segments = file::take_over(&config.dir, &[])?;
        let state = Mutex::new(State { segments, failing: false });
        let shared = Arc::new(Shared { config, world, state, taking: Mutex::new(()), arrived: Notify::new() });
        shared.let_go()?;
        let (queue, arrivals) = mpsc::channel(GROUP);
        let writing = shared.clone();
        let writer = std::thread::Builder::new().name("spool".to_owned()).spawn(move || run(&writing, arrivals, disk))?;
        Ok(Self { shared, queue, writer: Arc::new(Mutex::new(Some(writer))) })
    }

    /// Tries the disk after it refused, without an event: who serves nothing while unhealthy would otherwise stay so.
    pub async fn probe(&self) -> Result<(), SpoolError> {
        self.hand_in(Vec::new()).await
    }

    /// Keeps events, all or none; returns when they are durable. A caller that hangs up changes nothing.
    pub async fn append(&self, records: Vec<Record>) -> Result<(), SpoolError> {
        if records.is_empty() { Ok(()) } else { self.hand_in(records).await }
    }

    async fn hand_in(&self, records: Vec<Record>) -> Result<(), SpoolError> {
        let (answer, wait) = oneshot::channel();
        self.queue.send(Waiting { records, answer }).await.map_err(|_| SpoolError::Closed)?;
        wait.await.map_err(|_| SpoolError::Closed)?
    }

    /// Whether the next event would probably be kept.
    pub fn healthy(&self) -> bool {
        self.check().is_ok()
    }

    /// Why the next event would probably not be kept.
    pub fn check(&self) -> Result<(), SpoolError> {
        let state = self.shared.lock();
        if self.writer.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_none_or(std::thread::JoinHandle::is_finished) {
            return Err(SpoolError::Closed);
        }
        if state.failing {
            return Err(SpoolError::Disk("the last write failed".to_owned()));
        }
        // What is committed to its end makes room when it is needed.
        let held: u64 = state.segments.iter().filter(|s| s.committed < s.len).map(|s| s.len).sum();
        if held < self.shared.config.max_bytes { Ok(()) } else { Err(SpoolError::Full) }
    }

    /// How full it is.
    pub fn depth(&self) -> Depth {
        let state = self.shared.lock();
        let undelivered = state.segments.iter().map(|s| s.len - s.delivered).sum();
        let uncommitted = state.segments.iter().map(|s| s.len - s.committed).sum();
        let damaged = state.segments.iter().filter(|s| s.damaged.is_some()).count();
        Depth { segments: state.segments.len(), bytes: state.bytes(), undelivered, uncommitted, damaged }
    }

    /// The oldest events that the stream has not taken. Blocks on the disk. Where a segment cannot be read, the others go on.
    pub fn undelivered(&self, most: usize) -> Result<Vec<(Place, Record)>, SpoolError> {
        // Files are shared, so that no lock is held while the disk is read.
        let parts: Vec<_> = {
            let state = self.shared.lock();
            let waiting = state.segments.iter().filter(|s| s.delivered < s.readable());
            waiting.map(|s| (s.id, s.file.clone(), s.delivered, s.readable())).collect()
        };
        let mut found = Vec::new();
        for (segment, file, mut at, end) in parts {
            while at < end && found.len() < most {
                let records = match file::records(&file, at..end, most - found.len()) {
                    Ok(records) => records,
                    Err(error) => {
                        self.shared.damaged(segment, at, &error);
                        break;
                    }
                };
                for (record, next) in records {
                    found.push((Place { segment, end: next }, record));
                    at = next;
                }
            }
        }
        Ok(found)
    }

    /// The stream has confirmed everything of these segments up to these places.
    pub fn delivered(&self, places: &[Place]) -> Result<(), SpoolError> {
        self.shared.advance(places, false)
    }

    /// Audit has committed everything of these segments up to these places. A segment that is done goes.
    pub fn let_go(&self, places: &[Place]) -> Result<(), SpoolError> {
        self.shared.advance(places, true)?;
        self.shared.let_go()
    }

    /// The stream has lost its memory: what Audit has not committed is undelivered again.
    pub fn send_again(&self) -> Result<(), SpoolError> {
        let mut state = self.shared.lock();
        for segment in state.segments.iter_mut().filter(|s| s.delivered > s.committed) {
            segment.delivered = segment.committed;
            file::write_progress(&self.shared.config.dir, segment.id, segment.delivered, segment.committed)?;
        }
        Ok(())
    }

    /// Takes over segments of neighbours that have stopped since; says how many.
    pub fn take_over(&self) -> Result<usize, SpoolError> {
        let _single = self.shared.taking.lock().unwrap_or_else(PoisonError::into_inner);
        // Whole files are read here: the path, which asks the state, does not wait for that. What we create meanwhile is locked.
        let held: Vec<Uuid> = self.shared.lock().segments.iter().map(|s| s.id).collect();
        let found = file::take_over(self.shared.dir(), &held)?;
        let count = found.len();
        self.shared.lock().segments.splice(0..0, found);
        self.shared.arrived.notify_one();
        self.shared.let_go()?;
        Ok(count)
    }

    /// Waits until everything that was handed in is written, then lets go of the directory.
    pub async fn close(self) {
        let Self { queue, writer, shared } = self;
        drop(queue);
        let thread = writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        drop(shared);
    }
}

fn run(shared: &Shared, mut arrivals: mpsc::Receiver<Waiting>, mut disk: impl Disk) {
    while let Some(first) = arrivals.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP
            && let Ok(next) = arrivals.try_recv()
        {
            group.push(next);
        }
        shared.write(group, &mut disk);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dir(&self) -> &Path {
        &self.config.dir
    }

    /// Writes a group with one sync and answers everybody in it.
    fn write(&self, group: Vec<Waiting>, disk: &mut impl Disk) {
        let mut bytes = Vec::new();
        let mut kept = Vec::new();
        let total = self.make_room(&group);
        for Waiting { records, answer } in group {
            if records.is_empty() {
                let _ = answer.send(self.trial(disk));
                continue;
            }
            let before = bytes.len();
            let size: usize = records.iter().map(Record::size).sum();
            let outcome = if total + (before + size) as u64 > self.config.max_bytes {
                Err(SpoolError::Full)
            } else {
                records.iter().try_for_each(|record| record.encode(&mut bytes))
            };
            match outcome {
                Ok(()) => kept.push(answer),
                Err(error) => {
                    bytes.truncate(before);
                    drop(answer.send(Err(error)));
                }
            }
        }
        if kept.is_empty() {
            return;
        }
        let outcome = self.append(&bytes, disk);
        self.lock().failing = outcome.is_err();
        if let Err(error) = &outcome {
            tracing::error!(%error, "the evidence spool cannot be written: decisions are denied");
        }
        for answer in kept {
            let _ = answer.send(outcome.clone());
        }
        self.arrived.notify_one();
    }

    /// How much is held, after a segment that is done but still open was let go for want of room.
    fn make_room(&self, group: &[Waiting]) -> u64 {
        let coming: u64 = group.iter().flat_map(|w| &w.records).map(|record| record.size() as u64).sum();
        let mut state = self.lock();
        let total = state.bytes();
        if total + coming <= self.config.max_bytes {
            return total;
        }
        for segment in state.segments.iter_mut().filter(|s| s.len > 0 && s.committed == s.len) {
            segment.sealed = true;
        }
        drop(state);
        if let Err(error) = self.let_go() {
            tracing::warn!(%error, "a spool segment could not be removed");
        }
        self.lock().bytes()
    }

    fn trial(&self, disk: &mut impl Disk) -> Result<(), SpoolError> {
        let outcome = file::trial(self.dir(), |file| disk.write(file, &[0x20; 4096], 0).and_then(|()| disk.sync(file)));
        self.lock().failing = outcome.is_err();
        outcome.map_err(SpoolError::from)
    }

    fn append(&self, bytes: &[u8], disk: &mut impl Disk) -> Result<(), SpoolError> {
        let (id, file, at) = self.open_segment()?;
        let outcome = disk.write(&file, bytes, at).and_then(|()| disk.sync(&file));
        let mut state = self.lock();
        let Some(segment) = state.segments.iter_mut().find(|s| s.id == id) else { return Err(SpoolError::Closed) };
        if outcome.is_ok() {
            segment.len += bytes.len() as u64;
            segment.sealed |= segment.len >= SEGMENT_BYTES;
        } else {
            // After a failed sync nobody knows what is on the disk: nothing is ever written behind it.
            segment.sealed = true;
            let _ = file.set_len(at);
            if segment.len == 0 {
                state.segments.retain(|s| s.id != id);
                let _ = file::remove(self.dir(), id);
            }
        }
        outcome.map_err(SpoolError::from)
    }

    fn open_segment(&self) -> Result<(Uuid, Arc<std::fs::File>, u64), SpoolError> {
        let mut state = self.lock();
        if state.segments.last().is_none_or(|s| s.sealed) {
            let id = uuid::Builder::from_random_bytes(self.world.random()).into_uuid();
            state.segments.push(file::create(self.dir(), id)?);
        }
        state.segments.last().map(|s| (s.id, s.file.clone(), s.len)).ok_or(SpoolError::Closed)
    }

    fn advance(&self, places: &[Place], committed: bool) -> Result<(), SpoolError> {
        let mut state = self.lock();
        let mut touched: Vec<Uuid> = Vec::new();
        for place in places {
            let Some(segment) = state.segments.iter_mut().find(|s| s.id == place.segment) else { continue };
            let end = place.end.min(segment.len);
            segment.delivered = segment.delivered.max(end);
            if committed {
                segment.committed = segment.committed.max(end);
            }
            if !touched.contains(&segment.id) {
                touched.push(segment.id);
            }
        }
        for segment in state.segments.iter().filter(|s| touched.contains(&s.id)) {
            file::write_progress(self.dir(), segment.id, segment.delivered, segment.committed)?;
        }
        Ok(())
    }

    /// Nothing is sent from here on or written behind it; the file stays.
    fn damaged(&self, id: Uuid, at: u64, error: &io::Error) {
        let mut state = self.lock();
        let Some(segment) = state.segments.iter_mut().find(|s| s.id == id && s.damaged.is_none()) else { return };
        (segment.damaged, segment.sealed) = (Some(at), true);
        tracing::error!(segment = %id, at, %error, "a spool segment cannot be read: its evidence waits for a restart, which puts it right");
    }

    /// Removes what is sealed and committed to its end.
    fn let_go(&self) -> Result<(), SpoolError> {
        let mut state = self.lock();
        let done: Vec<Uuid> = state.segments.iter().filter(|s| s.sealed && s.committed == s.len).map(|s| s.id).collect();
        for id in done {
            file::remove(self.dir(), id)?;
            state.segments.retain(|s| s.id != id);
        }
        Ok(())
    }
}
