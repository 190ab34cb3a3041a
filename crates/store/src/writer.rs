//! SQLite's one writer: doors and journal entries that wait share a transaction and one sync, each in a savepoint.
//!
//! A group is what arrived while the last sync ran; there is no timer. The writer is a thread of its own, so a caller that hangs up
//! cancels nothing in the middle, nobody ever meets an open transaction, and no statement waits for another thread to wake up.

use std::panic::{AssertUnwindSafe, catch_unwind};

use futures::future::BoxFuture;
use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::error::StoreError;
use crate::sql::Tx;
use crate::sqlite::begin;

/// Most jobs of one transaction.
const GROUP: usize = 256;
/// Most jobs that wait; beyond it callers wait to wait.
const QUEUE: usize = 4096;

/// Takes back what the job that runs has written so far; it may go on.
pub(crate) const UNDO: &str = "ROLLBACK TO job";

/// A unit of work: runs inside a savepoint, and learns afterwards whether the transaction committed.
pub(crate) trait Job: Send {
    /// Does the work; an error rolls this job back and no other.
    fn run<'t>(&'t mut self, tx: &'t mut Tx<'_>) -> BoxFuture<'t, Result<(), StoreError>>;
    /// The transaction is over.
    fn done(self: Box<Self>, outcome: Result<(), StoreError>);
}

/// A handle on the writer.
#[derive(Clone)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Box<dyn Job>>,
}

impl Writer {
    /// Starts the writer on its connection. It ends with its last handle.
    pub(crate) fn start(conn: Connection) -> Result<Self, StoreError> {
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let runtime = Handle::current();
        let thread = std::thread::Builder::new().name("sqlite-writer".to_owned());
        let started = thread.spawn(move || work(conn, waiting, &runtime));
        started.map_err(|e| StoreError::Start(format!("the writer's thread cannot be started: {e}")))?;
        Ok(Self { jobs })
    }

    /// Hands a job over. It runs to its end whatever becomes of the caller.
    pub(crate) async fn submit(&self, job: Box<dyn Job>) -> Result<(), StoreError> {
        self.jobs.send(job).await.map_err(|_| StoreError::Unavailable("the writer has stopped".to_owned()))
    }
}

fn work(mut conn: Connection, mut waiting: mpsc::Receiver<Box<dyn Job>>, runtime: &Handle) {
    let mut group = Vec::with_capacity(GROUP);
    while waiting.blocking_recv_many(&mut group, GROUP) > 0 {
        let outcomes = transaction(&mut conn, &mut group, runtime);
        for (job, outcome) in group.drain(..).zip(outcomes) {
            job.done(outcome);
        }
    }
}

/// Runs a group; gives each job's outcome in order.
fn transaction(conn: &mut Connection, group: &mut [Box<dyn Job>], runtime: &Handle) -> Vec<Result<(), StoreError>> {
    let mut outcomes = Vec::with_capacity(group.len());
    if let Err(e) = open(conn) {
        return nothing(outcomes, group.len(), &e);
    }
    for job in group.iter_mut() {
        outcomes.push(savepoint(conn, job.as_mut(), runtime));
        // Out of space or memory SQLite takes back all of it by itself; the next savepoint would begin, and commit, a transaction of its own.
        if conn.is_autocommit() {
            return nothing(outcomes, group.len(), &"the database ended it");
        }
    }
    match begin(conn, "COMMIT") {
        Ok(()) => outcomes,
        Err(e) => {
            let _ = begin(conn, "ROLLBACK");
            nothing(outcomes, group.len(), &e)
        }
    }
}

/// Begins a transaction; one that could not be ended before is ended first.
fn open(conn: &Connection) -> Result<(), StoreError> {
    if !conn.is_autocommit() {
        begin(conn, "ROLLBACK")?;
    }
    begin(conn, "BEGIN IMMEDIATE")
}

/// Nothing of a group is there; who was refused before keeps its own answer.
fn nothing(mut outcomes: Vec<Result<(), StoreError>>, jobs: usize, why: &dyn std::fmt::Display) -> Vec<Result<(), StoreError>> {
    let lost = || Err(StoreError::Unavailable(format!("the transaction was lost: {why}")));
    for outcome in &mut outcomes {
        if outcome.is_ok() {
            *outcome = lost();
        }
    }
    outcomes.resize_with(jobs, lost);
    outcomes
}

fn savepoint(conn: &mut Connection, job: &mut dyn Job, runtime: &Handle) -> Result<(), StoreError> {
    begin(conn, "SAVEPOINT job")?;
    let run = catch_unwind(AssertUnwindSafe(|| runtime.block_on(job.run(&mut Tx::sqlite(conn)))));
    let outcome = run.unwrap_or_else(|_| Err(StoreError::Unavailable("a write stopped in its middle".to_owned())));
    match outcome {
        Ok(()) => begin(conn, "RELEASE job"),
        Err(e) => {
            begin(conn, UNDO)?;
            begin(conn, "RELEASE job")?;
            Err(e)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::open_writer;

    struct Write(&'static str);

    impl Job for Write {
        fn run<'t>(&'t mut self, tx: &'t mut Tx<'_>) -> BoxFuture<'t, Result<(), StoreError>> {
            Box::pin(async move { tx.execute(self.0, vec![]).await.map(|_| ()) })
        }

        fn done(self: Box<Self>, _: Result<(), StoreError>) {}
    }

    fn group(statements: &[&'static str]) -> Vec<Box<dyn Job>> {
        statements.iter().map(|sql| Box::new(Write(sql)) as Box<dyn Job>).collect()
    }

    /// What became of each job, and how many rows there are afterwards.
    fn run(prepare: &str, statements: &[&'static str]) -> (Vec<bool>, i64) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut conn = open_writer(&dir.path().join("a.db")).unwrap();
        conn.execute_batch("CREATE TABLE a (what BLOB UNIQUE)").unwrap();
        conn.execute_batch(prepare).unwrap();
        let outcomes = transaction(&mut conn, &mut group(statements), runtime.handle());
        assert!(conn.is_autocommit(), "the next group finds no open transaction");
        let rows = conn.query_row("SELECT count(*) FROM a", [], |row| row.get(0)).unwrap();
        (outcomes.iter().map(Result::is_ok).collect(), rows)
    }

    #[test]
    fn one_that_is_refused_fails_alone() {
        let statements = ["INSERT INTO a VALUES (1)", "INSERT INTO a VALUES (1)", "INSERT INTO a VALUES (2)"];
        assert_eq!(run("", &statements), (vec![true, false, true], 2));
    }

    #[test]
    fn a_full_disk_fails_the_whole_group_and_leaves_nothing_of_it() {
        let statements = ["INSERT INTO a VALUES (1)", "INSERT INTO a VALUES (zeroblob(1000000))", "INSERT INTO a VALUES (2)"];
        assert_eq!(run("PRAGMA max_page_count = 8", &statements), (vec![false, false, false], 0));
    }
}
