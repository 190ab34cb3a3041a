//! A segment as a file: created under its lock, taken over from a process that is gone, put right, let go.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::record::{Record, Sound, inspect};

/// How much is read at once; a record is smaller.
const READ_BYTES: usize = 2 << 20;

/// A segment that this process holds the lock of.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: Uuid,
    pub(super) file: Arc<File>,
    /// Bytes that are durable.
    pub(super) len: u64,
    /// Bytes that the stream took.
    pub(super) delivered: u64,
    /// Bytes that Audit has committed.
    pub(super) committed: u64,
    /// Nothing is written to it any more.
    pub(super) sealed: bool,
    /// Where it can no longer be read. What follows stays until a restart puts it right.
    pub(super) damaged: Option<u64>,
}

impl Segment {
    /// Bytes that can be sent.
    pub(super) fn readable(&self) -> u64 {
        self.damaged.unwrap_or(self.len)
    }
}

/// The directory, for its owner alone.
pub(super) fn directory(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// A new segment. It gets its name only when it is locked, so that nobody takes it over in between.
pub(super) fn create(dir: &Path, id: Uuid) -> io::Result<Segment> {
    let hidden = dir.join(format!(".seg-{id}.new"));
    let file = new_file(&hidden)?;
    file.try_lock().map_err(busy)?;
    file.sync_all()?;
    fs::rename(&hidden, path(dir, id))?;
    sync_directory(dir)?;
    Ok(Segment { id, file: Arc::new(file), len: 0, delivered: 0, committed: 0, sealed: false, damaged: None })
}

/// Segments whose process is gone, oldest first; those of living ones are left alone, and so are those already `held`.
pub(super) fn take_over(dir: &Path, held: &[Uuid]) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|n| n.strip_prefix("seg-")?.strip_suffix(".spool")?.parse().ok()) else { continue };
        if held.contains(&id) {
            continue;
        }
        // Before it is put right, which would make it look young.
        let written = entry.metadata().and_then(|m| m.modified()).ok();
        match adopt(dir, id) {
            Ok(Some(segment)) => found.push((written, segment)),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.id.cmp(&b.1.id)));
    Ok(found.into_iter().map(|(_, segment)| segment).collect())
}

fn adopt(dir: &Path, id: Uuid) -> io::Result<Option<Segment>> {
    let path = path(dir, id);
    let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // The lock may be of a file that its owner has removed or replaced meanwhile.
    if fs::metadata(&path)?.ino() != file.metadata()?.ino() {
        return Ok(None);
    }
    let bytes = fs::read(&path)?;
    let (mut delivered, mut committed) = read_progress(dir, id);
    let mut len = bytes.len();
    match inspect(&bytes) {
        Sound::Whole => {}
        Sound::Torn(at) => {
            tracing::info!(segment = %id, cut = bytes.len() - at, "an unfinished record was cut from the spool");
            file.set_len(at as u64)?;
            file.sync_all()?;
            len = at;
        }
        Sound::Damaged(ranges) => {
            let aside = dir.join(format!("seg-{id}-{:08x}.corrupt", crc32c::crc32c(&bytes)));
            tracing::error!(segment = %id, kept = %aside.display(), "the spool is damaged: the file is kept aside, its sound records are sent");
            let sound: Vec<u8> = ranges.iter().flat_map(|range| bytes.get(range.clone()).unwrap_or_default()).copied().collect();
            write_whole(&aside, &bytes)?;
            sync_directory(dir)?;
            let hidden = dir.join(format!(".seg-{id}.new"));
            let healed = write_whole(&hidden, &sound)?;
            healed.try_lock().map_err(busy)?;
            // Offsets behind the damage have moved: what follows it is sent again.
            let first = ranges.first().filter(|range| range.start == 0).map_or(0, |range| range.end as u64);
            (delivered, committed) = (delivered.min(first), committed.min(first));
            write_progress(dir, id, delivered, committed)?;
            fs::rename(&hidden, &path)?;
            sync_directory(dir)?;
            file = healed;
            len = sound.len();
        }
    }
    let len = len as u64;
    let (delivered, committed) = (delivered.min(len), committed.min(len));
    Ok(Some(Segment { id, file: Arc::new(file), len, delivered, committed, sealed: true, damaged: None }))
}

/// Some of the records between two places, at least one, each with its end.
pub(super) fn records(file: &File, span: Range<u64>, most: usize) -> io::Result<Vec<(Record, u64)>> {
    let size = usize::try_from(span.end - span.start).unwrap_or(READ_BYTES).min(READ_BYTES);
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, span.start)?;
    let (mut found, mut read) = (Vec::new(), 0);
    while let Some((record, next)) = (found.len() < most).then(|| Record::decode(&bytes, read)).flatten() {
        found.push((record, span.start + next as u64));
        read = next;
    }
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no sound record begins here"));
    }
    Ok(found)
}

/// Removes a segment, then its progress.
pub(super) fn remove(dir: &Path, id: Uuid) -> io::Result<()> {
    fs::remove_file(path(dir, id))?;
    match fs::remove_file(progress_path(dir, id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    sync_directory(dir)
}

/// Notes progress. Not synced: who loses it sends again, which is harmless.
pub(super) fn write_progress(dir: &Path, id: Uuid, delivered: u64, committed: u64) -> io::Result<()> {
    let mut bytes = [delivered.to_le_bytes(), committed.to_le_bytes()].concat();
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let file = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(progress_path(dir, id))?;
    file.write_all_at(&bytes, 0)
}

/// What was noted; nothing when it cannot be trusted.
fn read_progress(dir: &Path, id: Uuid) -> (u64, u64) {
    let bytes = fs::read(progress_path(dir, id)).unwrap_or_default();
    let read = || {
        let (delivered, rest) = bytes.split_first_chunk::<8>()?;
        let (committed, rest) = rest.split_first_chunk::<8>()?;
        let crc = rest.first_chunk::<4>()?;
        let sound = crc32c::crc32c(bytes.get(..16)?) == u32::from_le_bytes(*crc);
        let (delivered, committed) = (u64::from_le_bytes(*delivered), u64::from_le_bytes(*committed));
        (sound && committed <= delivered).then_some((delivered, committed))
    };
    read().unwrap_or((0, 0))
}

/// A file that is nobody's segment, to try the disk with.
pub(super) fn trial(dir: &Path, work: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let path = dir.join(format!(".trial-{}", std::process::id()));
    let outcome = new_file(&path).and_then(|file| work(&file));
    let removed = fs::remove_file(&path);
    outcome.and(removed)
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let file = new_file(path)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()?;
    Ok(file)
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn busy(error: TryLockError) -> io::Error {
    match error {
        TryLockError::Error(error) => error,
        TryLockError::WouldBlock => io::Error::new(io::ErrorKind::WouldBlock, "a new file is locked by another process"),
    }
}

fn path(dir: &Path, id: Uuid) -> PathBuf {
    dir.join(format!("seg-{id}.spool"))
}

fn progress_path(dir: &Path, id: Uuid) -> PathBuf {
    dir.join(format!("seg-{id}.ack"))
}
