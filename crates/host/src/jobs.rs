//! Background work under one roof: every job has a name, restarts after a failure with a growing pause, and ends with the process.
//!
//! A stop has two steps. *Soft*: take nothing new, finish what runs. *Hard*: what still runs is dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caracal_core::time::Time;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::world::World;

/// First pause after a failure.
const PAUSE_MIN_MS: u64 = 100;
/// Longest pause after failures.
const PAUSE_MAX_MS: u64 = 30_000;
/// A job that ran this long before it failed begins again with the first pause.
const HEALTHY_MS: u64 = 60_000;
/// How long dropped work may take to notice.
const ABORT_WAIT: Duration = Duration::from_secs(2);

/// Tells work that the process ends.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    soft: CancellationToken,
    hard: CancellationToken,
}

impl Stop {
    /// A stop that nobody has asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everything to finish.
    pub fn ask(&self) {
        self.soft.cancel();
    }

    /// Drops what is still running.
    pub fn force(&self) {
        self.soft.cancel();
        self.hard.cancel();
    }

    /// Whether the process is ending.
    pub fn asked(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Whether what runs is to be dropped.
    pub fn forced(&self) -> bool {
        self.hard.is_cancelled()
    }

    /// Waits until the process is ending.
    pub async fn wait(&self) {
        self.soft.cancelled().await;
    }

    /// Waits until what runs is to be dropped.
    pub async fn wait_forced(&self) {
        self.hard.cancelled().await;
    }

    /// Sleeps; `false` when the stop came first.
    pub async fn sleep(&self, pause: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.soft.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
}

/// What is known about one job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobReport {
    /// The job's name.
    pub name: String,
    /// Whether it is running or waiting for its next pass.
    pub alive: bool,
    /// Passes that ended well.
    pub passes: u64,
    /// Passes that failed.
    pub failures: u64,
    /// When a pass last ended well.
    pub last_ok: Option<Time>,
    /// What the last failure said.
    pub last_error: Option<String>,
}

/// How everything ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All work finished by itself.
    Clean,
    /// These jobs were dropped.
    Dropped(Vec<String>),
}

/// Runs the background work of a process. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    world: World,
    stop: Stop,
    tracker: TaskTracker,
    reports: Arc<Mutex<BTreeMap<String, JobReport>>>,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("tasks", &self.tracker.len()).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// A supervisor without jobs.
    pub fn new(world: World) -> Self {
        Self { world, stop: Stop::new(), tracker: TaskTracker::new(), reports: Arc::default() }
    }

    /// The process's stop, for listeners and waits.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Runs a job until it returns `Ok` or the process ends. After an error or a panic it starts again after a pause.
    ///
    /// `job` is called for each attempt. It watches its [`Stop`] and returns soon after it is asked.
    pub fn spawn<F, Fut, E>(&self, name: impl Into<String>, mut job: F)
    where
        F: FnMut(Stop) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        let (this, name) = (self.clone(), name.into());
        this.begin(&name);
        self.tracker.spawn(async move {
            let mut pause = PAUSE_MIN_MS;
            loop {
                let began = this.world.monotonic();
                match this.attempt(job(this.stop.clone())).await {
                    Attempt::Done => {
                        this.note(&name, |r, now| {
                            r.passes += 1;
                            r.last_ok = Some(now);
                        });
                        break;
                    }
                    Attempt::Dropped => break,
                    Attempt::Failed(error) => {
                        this.failed(&name, &error);
                        if this.world.monotonic().saturating_sub(began) >= Duration::from_millis(HEALTHY_MS) {
                            pause = PAUSE_MIN_MS;
                        }
                    }
                }
                if !this.stop.sleep(this.spread(pause)).await {
                    break;
                }
                pause = (pause * 2).min(PAUSE_MAX_MS);
            }
            this.note(&name, |r, _| r.alive = false);
        });
    }

    /// Runs a pass again and again with `period` between two, until the process ends. A failed pass is tried again after a pause
    /// that grows, and is never longer than the longer of `period` and half a minute.
    pub fn every<F, Fut, E>(&self, name: impl Into<String>, period: Duration, mut pass: F)
    where
        F: FnMut(Stop) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        let (this, name) = (self.clone(), name.into());
        this.begin(&name);
        let period = u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1);
        self.tracker.spawn(async move {
            let mut pause = PAUSE_MIN_MS.min(period);
            loop {
                let wait = match this.attempt(pass(this.stop.clone())).await {
                    Attempt::Done => {
                        this.note(&name, |r, now| {
                            r.passes += 1;
                            r.last_ok = Some(now);
                        });
                        pause = PAUSE_MIN_MS.min(period);
                        period
                    }
                    Attempt::Dropped => break,
                    Attempt::Failed(error) => {
                        this.failed(&name, &error);
                        let wait = pause;
                        pause = (pause * 2).min(PAUSE_MAX_MS.max(period));
                        wait
                    }
                };
                if !this.stop.sleep(this.spread(wait)).await {
                    break;
                }
            }
            this.note(&name, |r, _| r.alive = false);
        });
    }

    /// Runs something once, to its end, and waits for it at the end of the process. Its caller may go away.
    pub fn once<Fut>(&self, work: Fut)
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(work);
    }

    /// What is known about each job, by name.
    pub fn report(&self) -> Vec<JobReport> {
        self.lock().values().cloned().collect()
    }

    /// Ends everything: asks, waits for `grace`, then drops what is left.
    pub async fn shutdown(&self, grace: Duration) -> Ended {
        self.stop.ask();
        self.tracker.close();
        if tokio::time::timeout(grace, self.tracker.wait()).await.is_ok() {
            return Ended::Clean;
        }
        let left: Vec<String> = self.lock().values().filter(|r| r.alive).map(|r| r.name.clone()).collect();
        self.stop.force();
        let _ = tokio::time::timeout(ABORT_WAIT, self.tracker.wait()).await;
        Ended::Dropped(left)
    }

    async fn attempt<Fut, E>(&self, work: Fut) -> Attempt
    where
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        // A task of its own, so that a panic ends the attempt and not the job.
        let mut task = tokio::spawn(async move { work.await.map_err(|e| e.to_string()) });
        tokio::select! {
            biased;
            ended = &mut task => match ended {
                Ok(Ok(())) => Attempt::Done,
                Ok(Err(error)) => Attempt::Failed(error),
                Err(error) => Attempt::Failed(panic_text(error)),
            },
            () = self.stop.wait_forced() => {
                task.abort();
                Attempt::Dropped
            }
        }
    }

    /// Up to a tenth more, so that replicas do not march in step.
    fn spread(&self, millis: u64) -> Duration {
        let [random] = self.world.random::<1>();
        Duration::from_millis(millis + millis / 10 * u64::from(random) / 255)
    }

    fn begin(&self, name: &str) {
        self.lock().insert(name.to_owned(), JobReport { name: name.to_owned(), alive: true, ..JobReport::default() });
    }

    fn failed(&self, name: &str, error: &str) {
        tracing::warn!(job = name, error, "a job failed and will be tried again");
        self.note(name, |r, _| {
            r.failures += 1;
            r.last_error = Some(error.to_owned());
        });
    }

    fn note(&self, name: &str, change: impl FnOnce(&mut JobReport, Time)) {
        let now = self.world.now();
        if let Some(report) = self.lock().get_mut(name) {
            change(report, now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, JobReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Attempt {
    Done,
    Failed(String),
    Dropped,
}

fn panic_text(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => {
            let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
            format!("panicked: {}", text.unwrap_or_default())
        }
        Err(_) => "was cancelled".to_owned(),
    }
}

/// Waits for the first SIGTERM or SIGINT.
pub async fn terminated() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut term = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = term.recv() => Ok(()),
            ended = tokio::signal::ctrl_c() => ended,
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn supervisor() -> Supervisor {
        Supervisor::new(World::system())
    }

    async fn until(what: impl Fn() -> bool) {
        for _ in 0..500 {
            if what() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never came true");
    }

    #[tokio::test]
    async fn a_job_that_fails_or_panics_starts_again() {
        let supervisor = supervisor();
        let runs = Arc::new(AtomicU32::new(0));
        let seen = runs.clone();
        supervisor.spawn("shaky", move |_| {
            let run = seen.fetch_add(1, Ordering::SeqCst);
            async move {
                match run {
                    0 => Err("no luck"),
                    1 => panic!("worse"),
                    _ => Ok(()),
                }
            }
        });
        until(|| !supervisor.report()[0].alive).await;
        let report = supervisor.report().remove(0);
        assert_eq!((report.failures, report.passes, report.last_error.as_deref()), (2, 1, Some("panicked: worse")));
    }

    #[tokio::test]
    async fn passes_repeat_and_end_with_the_process() {
        let supervisor = supervisor();
        supervisor.every("tick", Duration::from_millis(1), |_| async { Ok::<_, Infallible>(()) });
        until(|| supervisor.report()[0].passes >= 3).await;
        assert_eq!(supervisor.shutdown(Duration::from_secs(5)).await, Ended::Clean);
        assert!(!supervisor.report()[0].alive);
    }

    #[tokio::test]
    async fn what_does_not_listen_is_dropped_and_named() {
        let supervisor = supervisor();
        supervisor.spawn("deaf", |_| std::future::pending::<Result<(), Infallible>>());
        supervisor.spawn("polite", |stop| async move {
            stop.wait().await;
            Ok::<_, Infallible>(())
        });
        assert_eq!(supervisor.shutdown(Duration::from_millis(50)).await, Ended::Dropped(vec!["deaf".into()]));
    }
}
