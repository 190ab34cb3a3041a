//! How a process that serves is told to end.

use caracal_host::jobs::Stop;
use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGTERM, SIGINT, or a stop from inside; a second signal ends the process at once.
pub(crate) async fn stopped(stop: &Stop) {
    let told = async {
        let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
            return std::future::pending().await;
        };
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        tokio::spawn(async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            std::process::exit(130);
        });
    };
    tokio::select! { () = told => {}, () = stop.wait() => {} }
}
