//! What the outbox tells inside this process and outside of it.

use std::time::Duration;

use caracal_gateway::Gateway;
use caracal_host::config::Sources;
use caracal_host::{Supervisor, World};
use caracal_store::{Store, StoreError};
use secrecy::SecretString;

use crate::failure::Failure;

/// Most rows of one pass.
const BATCH: usize = 256;

/// Starts delivering: the Gateway's sets learn of revocations, and rows are marked.
pub(crate) fn start(
    _sources: &Sources,
    store: &Store,
    gateway: &Gateway,
    _redis: Option<SecretString>,
    _world: &World,
    supervisor: &Supervisor,
) -> Result<(), Failure> {
    let (store, gateway) = (store.clone(), gateway.clone());
    supervisor.every("events.deliver", Duration::from_millis(50), move |_stop| {
        let (store, gateway) = (store.clone(), gateway.clone());
        async move { deliver(&store, &gateway).await }
    });
    Ok(())
}

async fn deliver(store: &Store, gateway: &Gateway) -> Result<(), StoreError> {
    let waiting = store.outbox_waiting(BATCH).await?;
    let mut done = Vec::new();
    for row in waiting.into_iter().filter(|r| r.topic != "caracal.audit.events") {
        if let Some(stream) = caracal_core::message::Stream::of_name(&row.topic) {
            gateway.revocations().apply(stream, |name| row.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()));
        }
        done.push(row.id);
    }
    if done.is_empty() { Ok(()) } else { store.outbox_published(done).await }
}
