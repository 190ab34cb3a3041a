//! The keys of a zone, and where they come from.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use caracal_core::id::ZoneId;
use caracal_crypto::keys::PublicKey;

/// A zone's verification keys.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<PublicKey>);

impl KeySet {
    /// These keys.
    pub const fn new(keys: Vec<PublicKey>) -> Self {
        Self(keys)
    }

    /// Whether a key of this name is among them.
    pub fn has(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.kid() == kid)
    }

    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.iter()
    }
}

/// Why there are no keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysError {
    /// There is no such zone.
    UnknownZone,
    /// Nobody can say at the moment.
    Unavailable(String),
}

/// Keys on their way.
pub type Keys<'a> = Pin<Box<dyn Future<Output = Result<Arc<KeySet>, KeysError>> + Send + 'a>>;

/// Where a zone's keys come from: the STS in the same process, or its JWKS.
pub trait KeySource: Send + Sync + 'static {
    /// The keys as known now, if they may still be relied on. Asked for every mandate, so it must be quick.
    fn current(&self, zone: ZoneId) -> Option<Arc<KeySet>>;

    /// The keys, asked for again when `kid` is not among the known ones (within bounds of the source).
    fn fetch<'a>(&'a self, zone: ZoneId, kid: &'a str) -> Keys<'a>;
}

/// Keys that somebody sets, for tests.
#[derive(Debug, Default)]
pub struct FixedKeys(RwLock<HashMap<ZoneId, Arc<KeySet>>>);

impl FixedKeys {
    /// Sets a zone's keys.
    pub fn set(&self, zone: ZoneId, keys: Vec<PublicKey>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(zone, Arc::new(KeySet::new(keys)));
    }
}

impl KeySource for FixedKeys {
    fn current(&self, zone: ZoneId) -> Option<Arc<KeySet>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&zone).cloned()
    }

    fn fetch<'a>(&'a self, zone: ZoneId, _: &'a str) -> Keys<'a> {
        let keys = self.current(zone).ok_or(KeysError::UnknownZone);
        Box::pin(std::future::ready(keys))
    }
}
