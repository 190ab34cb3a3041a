//! A log line of WARN or ERROR that no test announced fails it.

use std::fmt::Write as _;
use std::sync::{Mutex, Once, PoisonError};

use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Collect;

impl<S: tracing::Subscriber> Layer<S> for Collect {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() <= tracing::Level::WARN && event.metadata().target().starts_with("caracal") {
            let mut text = String::new();
            event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
                let _ = write!(text, "{field}={value:?} ");
            });
            LINES.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{} {text}", event.metadata().level()));
        }
    }
}

/// Looks at the log when it goes.
pub struct Quiet(());

pub fn start() -> Quiet {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing_subscriber::registry().with(Collect).init());
    Quiet(())
}

impl Quiet {
    /// Takes the lines a test expects: each must hold the text, and there must be one.
    #[allow(clippy::unused_self, reason = "the log is the process's, who may look at it is the test's")]
    pub fn announced(&self, text: &str) {
        let lines = std::mem::take(&mut *LINES.lock().unwrap_or_else(PoisonError::into_inner));
        assert!(!lines.is_empty() && lines.iter().all(|line| line.contains(text)), "{lines:?}");
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !std::thread::panicking() {
            assert!(lines.is_empty(), "not announced: {lines:#?}");
        }
    }
}
