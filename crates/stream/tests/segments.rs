//! The spool of segments under what goes wrong: kill -9, torn and damaged files, a full or failing disk, another Redis.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use caracal_host::World;
use caracal_stream::spool::segments::{Disk, Place, RealDisk, Record};
use caracal_stream::spool::{Segments, SpoolConfig, SpoolError};

fn config(dir: &Path) -> SpoolConfig {
    SpoolConfig { dir: dir.to_owned(), max_bytes: 1 << 30 }
}

fn open(dir: &Path) -> Segments {
    Segments::open(config(dir), World::system()).unwrap()
}

fn event(n: usize) -> Record {
    Record { data: format!("{{\"id\":\"e-{n}\"}}").into_bytes(), sig: "ab".repeat(32) }
}

fn waiting(spool: &Segments) -> Vec<Record> {
    spool.undelivered(usize::MAX).unwrap().into_iter().map(|(_, record)| record).collect()
}

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.to_str().unwrap().ends_with(ending)).collect()
}

async fn fill(dir: &Path, count: usize) {
    let spool = open(dir);
    for n in 0..count {
        spool.append(vec![event(n)]).await.unwrap();
    }
    spool.close().await;
}

#[tokio::test]
async fn events_survive_a_restart_and_go_when_audit_has_them() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 3).await;
    let spool = open(dir.path());
    spool.append(vec![event(3)]).await.unwrap();
    let found = spool.undelivered(100).unwrap();
    assert_eq!(found.iter().map(|(_, r)| r.clone()).collect::<Vec<_>>(), (0..4).map(event).collect::<Vec<_>>());
    let places: Vec<Place> = found.iter().map(|(place, _)| *place).collect();
    spool.delivered(&places).unwrap();
    assert!(waiting(&spool).is_empty());
    spool.let_go(&places[..2]).unwrap();
    assert_eq!(files(dir.path(), ".spool").len(), 2, "delivered is not committed");
    spool.send_again().unwrap();
    assert_eq!(waiting(&spool), [event(2), event(3)]);
    spool.let_go(&places).unwrap();
    assert_eq!(spool.depth().undelivered, 0);
    spool.close().await;
    let spool = open(dir.path());
    assert_eq!(spool.depth().bytes, 0);
    assert_eq!((files(dir.path(), ".spool").len(), files(dir.path(), ".ack").len()), (0, 0));
}

#[tokio::test]
async fn many_share_few_syncs() {
    struct Counted(Arc<AtomicUsize>);
    impl Disk for Counted {
        fn sync(&mut self, file: &std::fs::File) -> std::io::Result<()> {
            self.0.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(5));
            RealDisk.sync(file)
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let syncs = Arc::new(AtomicUsize::new(0));
    let spool = Segments::open_on(config(dir.path()), World::system(), Counted(syncs.clone())).unwrap();
    let all = (0..500).map(|n| {
        tokio::spawn({
            let spool = spool.clone();
            async move { spool.append(vec![event(n)]).await }
        })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.unwrap().unwrap();
    }
    assert_eq!(waiting(&spool).len(), 500);
    assert!(syncs.load(Ordering::SeqCst) < 50, "{syncs:?}");
}

#[tokio::test]
async fn a_torn_end_is_cut_and_a_damaged_middle_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 5).await;
    let segment = files(dir.path(), ".spool").remove(0);
    let whole = std::fs::read(&segment).unwrap();
    std::fs::OpenOptions::new().append(true).open(&segment).unwrap().write_all(&whole[..20]).unwrap();
    let spool = open(dir.path());
    assert_eq!(waiting(&spool).len(), 5);
    assert_eq!(std::fs::read(&segment).unwrap(), whole);
    let places: Vec<Place> = spool.undelivered(4).unwrap().into_iter().map(|(place, _)| place).collect();
    spool.delivered(&places).unwrap();
    spool.close().await;

    let mut bad = whole.clone();
    bad[event(0).size() + 10] ^= 1;
    std::fs::write(&segment, &bad).unwrap();
    let spool = open(dir.path());
    assert_eq!(waiting(&spool), [event(2), event(3), event(4)], "what follows the damage is sent again");
    let aside = files(dir.path(), ".corrupt");
    assert_eq!(aside.len(), 1);
    assert_eq!(std::fs::read(&aside[0]).unwrap(), bad);
    spool.close().await;
    let spool = open(dir.path());
    assert_eq!(waiting(&spool).len(), 3);
    assert_eq!(files(dir.path(), ".corrupt").len(), 1);
}

#[tokio::test]
async fn a_segment_that_cannot_be_read_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for n in 0..3 {
        spool.append(vec![event(n)]).await.unwrap();
    }
    let segment = files(dir.path(), ".spool").remove(0);
    let mut bad = std::fs::read(&segment).unwrap();
    bad[event(0).size() + 10] ^= 1;
    std::fs::write(&segment, &bad).unwrap();
    assert_eq!(waiting(&spool), [event(0)], "what stands before the damage");
    spool.append(vec![event(9)]).await.unwrap();
    assert_eq!(waiting(&spool), [event(0), event(9)], "nothing is written behind it");
    assert_eq!((spool.depth().segments, spool.depth().damaged), (2, 1));
    let places: Vec<Place> = spool.undelivered(9).unwrap().into_iter().map(|(place, _)| place).collect();
    spool.delivered(&places).unwrap();
    spool.send_again().unwrap();
    assert_eq!(waiting(&spool), [event(0), event(9)]);
    spool.let_go(&places).unwrap();
    assert!(waiting(&spool).is_empty());
    assert_eq!(std::fs::read(&segment).unwrap(), bad, "it is kept as it is");
    spool.close().await;
    let spool = open(dir.path());
    assert_eq!(waiting(&spool), [event(2)], "a restart puts it right");
    assert_eq!(spool.depth().damaged, 0);
}

#[tokio::test]
async fn a_full_spool_refuses_and_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let max_bytes = (event(0).size() * 3) as u64;
    let spool = Segments::open(SpoolConfig { dir: dir.path().to_owned(), max_bytes }, World::system()).unwrap();
    for n in 0..3 {
        spool.append(vec![event(n)]).await.unwrap();
    }
    assert!(!spool.healthy());
    assert_eq!(spool.append(vec![event(3)]).await, Err(SpoolError::Full));
    let places: Vec<Place> = spool.undelivered(3).unwrap().into_iter().map(|(place, _)| place).collect();
    spool.delivered(&places).unwrap();
    assert_eq!(spool.append(vec![event(3)]).await, Err(SpoolError::Full), "taken by the stream is not committed");
    spool.let_go(&places).unwrap();
    spool.append(vec![event(4)]).await.unwrap();
    assert_eq!(waiting(&spool), [event(4)]);
    assert!(spool.healthy());
}

#[tokio::test]
async fn a_disk_that_fails_denies_and_recovers() {
    struct Failing(Arc<AtomicBool>, bool);
    impl Disk for Failing {
        fn write(&mut self, file: &std::fs::File, bytes: &[u8], at: u64) -> std::io::Result<()> {
            if self.0.load(Ordering::SeqCst) && !self.1 {
                RealDisk.write(file, &bytes[..bytes.len() / 2], at)?;
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            RealDisk.write(file, bytes, at)
        }
        fn sync(&mut self, file: &std::fs::File) -> std::io::Result<()> {
            if self.0.load(Ordering::SeqCst) { Err(std::io::Error::other("sync")) } else { RealDisk.sync(file) }
        }
    }
    for at_sync in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let broken = Arc::new(AtomicBool::new(false));
        let spool = Segments::open_on(config(dir.path()), World::system(), Failing(broken.clone(), at_sync)).unwrap();
        spool.append(vec![event(0)]).await.unwrap();
        broken.store(true, Ordering::SeqCst);
        for n in 1..4 {
            assert!(matches!(spool.append(vec![event(n)]).await, Err(SpoolError::Disk(_))));
        }
        assert!(!spool.healthy());
        assert!(spool.probe().await.is_err());
        broken.store(false, Ordering::SeqCst);
        spool.probe().await.unwrap();
        assert!(spool.healthy());
        spool.append(vec![event(9)]).await.unwrap();
        assert_eq!(waiting(&spool), [event(0), event(9)]);
        assert_eq!(spool.depth().segments, 2, "nothing is written behind what nobody knows");
        spool.close().await;
        assert_eq!(waiting(&open(dir.path())), [event(0), event(9)]);
    }
}

#[tokio::test]
async fn neighbours_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (open(dir.path()), open(dir.path()));
    one.append(vec![event(1)]).await.unwrap();
    two.append(vec![event(2)]).await.unwrap();
    assert_eq!((one.take_over().unwrap(), two.take_over().unwrap()), (0, 0), "a living neighbour's is its own");
    one.close().await;
    assert_eq!(two.take_over().unwrap(), 1);
    assert_eq!(waiting(&two), [event(1), event(2)]);
    two.append(vec![event(3)]).await.unwrap();
    assert_eq!(waiting(&two).len(), 3);
}

/// A neighbour's file that takes long to read: here one that has no end.
#[tokio::test]
async fn the_path_does_not_wait_for_what_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let endless = dir.path().join("seg-11111111-1111-4111-8111-111111111111.spool");
    assert!(Command::new("mkfifo").arg(&endless).status().unwrap().success());
    let taking = spool.clone();
    std::thread::spawn(move || taking.take_over());
    // More than a pipe holds: when it is written, it is being read.
    std::fs::OpenOptions::new().write(true).open(&endless).unwrap().write_all(&vec![0; 256 << 10]).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(spool.check()));
    assert_eq!(told.recv_timeout(std::time::Duration::from_secs(10)), Ok(Ok(())));
}

/// Runs only as a child of the test below.
#[tokio::test]
async fn child_that_appends_for_ever() {
    let Ok(dir) = std::env::var("SPOOL_CHILD_DIR") else { return };
    let spool = open(Path::new(&dir));
    let tasks = (0..32).map(|task| {
        let spool = spool.clone();
        tokio::spawn(async move {
            for n in 0.. {
                spool.append(vec![event(task * 1_000_000 + n)]).await.unwrap();
                eprintln!("kept {}", task * 1_000_000 + n);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn what_was_answered_for_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut answered = Vec::new();
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_appends_for_ever", "--nocapture"])
            .env("SPOOL_CHILD_DIR", dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut kept = |line: String| answered.extend(line.strip_prefix("kept ").and_then(|n| n.parse::<usize>().ok()));
        lines.by_ref().take(200 * round).for_each(|line| kept(line.unwrap()));
        child.kill().unwrap();
        child.wait().unwrap();
        lines.map_while(Result::ok).for_each(kept);
    }
    let spool = open(dir.path());
    let found: std::collections::HashSet<Vec<u8>> = waiting(&spool).into_iter().map(|record| record.data).collect();
    assert!(answered.len() >= 1200);
    let lost: Vec<_> = answered.iter().filter(|n| !found.contains(&event(**n).data)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(files(dir.path(), ".corrupt").is_empty());
}
