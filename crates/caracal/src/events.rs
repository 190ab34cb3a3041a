//! What the outbox tells: to the Gateway of this process at once, and to Redis where there is one.

use caracal_crypto::mac::MacKey;
use caracal_gateway::Gateway;
use caracal_host::config::Common;
use caracal_host::{Supervisor, World};
use caracal_store::Store;
use caracal_stream::{Dispatcher, Keys, RedisBus};
use secrecy::{ExposeSecret as _, SecretString};

use crate::failure::Failure;

/// A connection to the Redis of `REDIS_URL`.
pub(crate) async fn connect(url: &str) -> Result<RedisBus, Failure> {
    RedisBus::connect(url).await.map_err(|e| {
        Failure::start(format!("cannot connect to Redis: {e}; check REDIS_URL and that the server runs (7.0 or newer)"))
    })
}

/// Starts the dispatcher. A Redis that does not answer stops the start.
pub(crate) async fn start(
    common: &Common,
    store: &Store,
    gateway: &Gateway,
    redis_url: Option<SecretString>,
    world: &World,
    supervisor: &Supervisor,
) -> Result<(), Failure> {
    let key = |of: &Option<secrecy::SecretSlice<u8>>| of.as_ref().map(|k| MacKey::from_bytes(k.expose_secret()));
    let keys = Keys { streams: key(&common.streams_key), revocations: key(&common.revocation_key) };
    let redis = match redis_url {
        None => None,
        Some(url) => Some(connect(url.expose_secret()).await?),
    };
    let dispatcher = Dispatcher::new(store.clone(), keys, redis, true, world.clone());
    let sets = gateway.revocations();
    dispatcher.subscribe(move |message| {
        sets.apply(message.stream, |name| message.field(name).map(str::to_owned));
    });
    dispatcher.jobs(supervisor);
    Ok(())
}
