//! SQLite's one writer: doors and journal entries that wait share a transaction and one sync, each in a savepoint.
//!
//! A group is what arrived while the last sync ran; there is no timer. The writer is a task of its own, so a caller that hangs up
//! cancels nothing in the middle, and nobody ever meets an open transaction.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::mpsc;

use crate::error::StoreError;
use crate::sql::Tx;

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
    /// Starts the writer on its connection.
    pub(crate) fn start(conn: SqliteConnection) -> Self {
        let (jobs, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(work(conn, waiting));
        Self { jobs }
    }

    /// Hands a job over. It runs to its end whatever becomes of the caller.
    pub(crate) async fn submit(&self, job: Box<dyn Job>) -> Result<(), StoreError> {
        self.jobs.send(job).await.map_err(|_| StoreError::Unavailable("the writer has stopped".to_owned()))
    }
}

async fn work(mut conn: SqliteConnection, mut waiting: mpsc::Receiver<Box<dyn Job>>) {
    let mut group = Vec::with_capacity(GROUP);
    while waiting.recv_many(&mut group, GROUP).await > 0 {
        let outcomes = transaction(&mut conn, &mut group).await;
        for (job, outcome) in group.drain(..).zip(outcomes) {
            job.done(outcome);
        }
    }
}

/// Runs a group; gives each job's outcome in order.
async fn transaction(conn: &mut SqliteConnection, group: &mut [Box<dyn Job>]) -> Vec<Result<(), StoreError>> {
    let mut outcomes = Vec::with_capacity(group.len());
    if let Err(e) = control(conn, "BEGIN IMMEDIATE").await {
        return group.iter().map(|_| Err(StoreError::Unavailable(e.to_string()))).collect();
    }
    for job in group.iter_mut() {
        outcomes.push(savepoint(conn, job.as_mut()).await);
    }
    let committed = match control(conn, "COMMIT").await {
        Ok(()) => return outcomes,
        Err(e) => e,
    };
    let _ = control(conn, "ROLLBACK").await;
    outcomes
        .into_iter()
        .map(|outcome| outcome.and_then(|()| Err(StoreError::Unavailable(format!("the commit failed: {committed}")))))
        .collect()
}

async fn savepoint(conn: &mut SqliteConnection, job: &mut dyn Job) -> Result<(), StoreError> {
    control(conn, "SAVEPOINT job").await?;
    let run = AssertUnwindSafe(async { job.run(&mut Tx::sqlite(conn)).await }).catch_unwind().await;
    let outcome = run.unwrap_or_else(|_| Err(StoreError::Unavailable("a write stopped in its middle".to_owned())));
    match outcome {
        Ok(()) => control(conn, "RELEASE job").await,
        Err(e) => {
            control(conn, UNDO).await?;
            control(conn, "RELEASE job").await?;
            Err(e)
        }
    }
}

async fn control(conn: &mut SqliteConnection, sql: &'static str) -> Result<(), StoreError> {
    sqlx::query(sql).execute(conn).await?;
    Ok(())
}
