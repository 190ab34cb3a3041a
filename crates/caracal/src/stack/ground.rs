//! What the services of a process stand on, from its configuration: on one database alone, or on PostgreSQL and Redis.

use std::path::PathBuf;

use caracal_crypto::mac::MacKey;
use caracal_crypto::seal::{Kek, Keks};
use caracal_custody::Custody;
use caracal_ephemeral::Memory;
use caracal_host::config::{Common, Key, Mode, Service, Sources};
use caracal_host::{Supervisor, World};
use caracal_store::{Store, StoreConfig};
use caracal_stream::spool::{Segments, Table};
use caracal_stream::{Bus, Dispatcher, Keys, Spool, SpoolConfig};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};

use super::evidence::Emptying;
use crate::failure::Failure;

const KEK: Key = Key::new("SECRET_STORE_KEK", "Seals secrets at rest; 64 hex digits").secret();
const KEK_PREVIOUS: Key = Key::new("SECRET_STORE_KEK_PREVIOUS", "Still opens what it sealed, during a rotation").secret();
const BACKEND: Key = Key::new("CARACAL_SECRET_BACKEND", "Where sealed documents are kept").default("builtin");

/// The keys of custody.
pub(crate) const KEYS: &[Key] = &[KEK, KEK_PREVIOUS, BACKEND];

/// Most PostgreSQL connections.
const CONNECTIONS: u32 = 20;

/// What a process stands on.
pub(crate) struct Ground {
    pub(crate) world: World,
    pub(crate) supervisor: Supervisor,
    pub(crate) store: Store,
    pub(crate) bus: Bus,
    pub(crate) audit_key: Option<MacKey>,
    redis: Option<SecretString>,
}

/// Something that could not be had.
pub(crate) fn failed(e: &impl ToString) -> Failure {
    Failure::start(e.to_string())
}

/// Connects to the Redis of `REDIS_URL`.
pub(crate) async fn bus(url: &str, mode: Mode) -> Result<Bus, Failure> {
    let bus = Bus::redis(url).await.map_err(|e| redis_failed(&e))?;
    if let Some(policy) = bus.evicts().await {
        evicting(&policy, mode)?;
    }
    Ok(bus)
}

/// A Redis that throws away what has no end loses streams with it: outside dev nothing is built on that.
fn evicting(policy: &str, mode: Mode) -> Result<(), Failure> {
    if policy.starts_with("allkeys") && mode.published() {
        return Err(Failure::start(format!(
            "Redis may evict revocations and evidence under way (maxmemory-policy is {policy}); set maxmemory-policy noeviction"
        )));
    }
    tracing::warn!(policy, "Redis evicts: a used mandate that is evicted opens again; set maxmemory-policy noeviction");
    Ok(())
}

fn redis_failed(e: &impl ToString) -> Failure {
    let why = e.to_string();
    Failure::start(format!("cannot use Redis: {why}; check REDIS_URL and that the server runs (7.0 or newer)"))
}

/// A key as it signs and verifies.
pub(crate) fn mac_key(bytes: &SecretSlice<u8>) -> MacKey {
    MacKey::from_bytes(bytes.expose_secret())
}

/// The keys of messages: the one that signs, and what still verifies.
pub(crate) fn message_keys(common: &Common) -> Keys {
    let of = |current: &Option<SecretSlice<u8>>, previous: &Option<SecretSlice<u8>>| {
        let Some(current) = current else { return Vec::new() };
        std::iter::once(current).chain(previous).map(mac_key).collect()
    };
    Keys {
        streams: of(&common.streams_key, &common.streams_key_previous),
        revocations: of(&common.revocation_key, &common.revocation_key_previous),
    }
}

fn kek(sources: &Sources, key: &Key) -> Result<Option<Kek>, Failure> {
    let value = sources.value(key).map_err(|e| failed(&e))?;
    value.map(|v| Kek::from_hex(v.text.trim()).map_err(|e| Failure::start(format!("{}: {e}", key.name)))).transpose()
}

/// The keys that seal, where they are given.
pub(crate) fn given_keks(sources: &Sources) -> Result<Option<Keks>, Failure> {
    let (current, previous) = (kek(sources, &KEK)?, kek(sources, &KEK_PREVIOUS)?);
    Ok(current.map(|current| Keks::new(current, previous)))
}

/// The keys that seal, read before anything is opened.
pub(crate) fn keks(sources: &Sources) -> Result<Keks, Failure> {
    let missing = || Failure::start("SECRET_STORE_KEK is not set; generate one with: openssl rand -hex 32");
    given_keks(sources)?.ok_or_else(missing)
}

impl Ground {
    /// Opens the database and joins the bus; each says what to do when it cannot. `data` is SQLite's directory.
    pub(crate) async fn open(common: &Common, data: PathBuf, world: World) -> Result<Self, Failure> {
        let url = |secret: &Option<SecretString>| secret.as_ref().map(|url| url.expose_secret().to_owned());
        let audit_key = common.audit_key.as_ref().map(mac_key);
        let bus = match url(&common.redis_url) {
            Some(url) => bus(&url, common.mode).await?,
            None => Bus::in_process(world.clone()),
        };
        let config = StoreConfig { database_url: url(&common.database_url), dir: data, connections: CONNECTIONS };
        let store = Store::open(&config, world.clone(), audit_key.clone()).await.map_err(|e| failed(&e))?;
        let supervisor = Supervisor::new(world.clone());
        Ok(Self { world, supervisor, store, bus, audit_key, redis: common.redis_url.clone() })
    }

    /// What replicas must agree on for a while.
    pub(crate) async fn memory(&self) -> Result<Memory, Failure> {
        match &self.redis {
            Some(url) => Memory::redis(url.expose_secret(), self.world.clone()).await.map_err(|e| redis_failed(&e)),
            None => Ok(Memory::embedded(self.store.journal().clone(), self.world.clone())),
        }
    }

    /// Sealed documents.
    pub(crate) async fn custody(&self, sources: &Sources, keks: Keks) -> Result<Custody, Failure> {
        let backend = sources.value(&BACKEND).map_err(|e| failed(&e))?.map(|v| v.text.to_string());
        let backend = backend.as_deref().unwrap_or(caracal_custody::BUILTIN);
        Custody::open(&self.store, keks, self.world.clone(), backend).await.map_err(|e| failed(&e))
    }

    /// Where the evidence of this process waits, and the job that empties it: a table where the bus is this process's own, else
    /// segments on this host's disk.
    pub(crate) async fn spool(&self, sources: &Sources, service: Service) -> Result<(Spool, Emptying), Failure> {
        let mut reader = sources.reader(service);
        let config = SpoolConfig::read(&mut reader);
        let config = reader.finish(config)?;
        if !self.bus.is_shared() {
            let table = Table::open(self.store.clone(), config.max_bytes).await.map_err(|e| failed(&e))?;
            let emptying = Emptying::table(&table, &self.bus);
            return Ok((Spool::Table(table), emptying));
        }
        let (dir, world) = (config.dir.display().to_string(), self.world.clone());
        let opened = tokio::task::spawn_blocking(move || Segments::open(config, world)).await.map_err(|e| failed(&e))?;
        let segments = opened.map_err(|e| {
            Failure::start(format!("{dir}: {e}; let AUDIT_REPLAY_DIR name a directory that this user may write to"))
        })?;
        let emptying = Emptying::segments(&segments, &self.bus);
        Ok((Spool::Segments(segments), emptying))
    }

    /// Publishes what doors leave in the outbox.
    pub(crate) fn dispatcher(&self, common: &Common) -> Dispatcher {
        Dispatcher::new(self.store.clone(), message_keys(common), self.bus.clone(), self.world.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_that_evicts_streams_is_refused_outside_dev() {
        let refused = |policy, mode| evicting(policy, mode).err().map(|e| e.to_string());
        let told = refused("allkeys-lru", Mode::Stable).unwrap();
        assert!(told.contains("allkeys-lru") && told.ends_with("set maxmemory-policy noeviction"), "{told}");
        assert!(refused("allkeys-random", Mode::Rc).is_some());
        assert_eq!(refused("allkeys-lru", Mode::Dev), None);
        assert_eq!(refused("volatile-ttl", Mode::Stable), None, "what has no end stays");
    }
}
