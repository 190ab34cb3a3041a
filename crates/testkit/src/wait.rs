//! Waiting for a condition, with a deadline and the last thing seen.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Polls until `look` answers `Ok`, and gives its value; fails the test after `limit` with the last `Err` seen.
pub async fn until<T, E, F, Fut>(what: &str, limit: Duration, mut look: F) -> T
where
    E: Debug,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        match look().await {
            Ok(value) => return value,
            Err(last) if Instant::now() >= deadline => panic!("{what}: not within {limit:?}; last seen: {last:?}"),
            Err(_) => sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// A variable of the test run; empty counts as unset.
pub(crate) fn variable(name: &str) -> Option<String> {
    #[allow(clippy::disallowed_methods, reason = "tests are configured by their environment")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
