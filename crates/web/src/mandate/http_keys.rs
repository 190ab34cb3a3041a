//! Keys from the STS's JWKS (`gateway.md` 4.2, 4.3): cached, one fetch a zone at a time, a bounded number of zones and of fetches, an
//! unknown `kid` asks again once per cool-down, an unknown zone is remembered, and an STS that is away is told apart from both.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use caracal_core::id::ZoneId;
use caracal_crypto::keys::Jwks;
use caracal_egress::{Bounds, Client};
use caracal_host::World;
use http::{Method, Request, Uri};
use http_body_util::Full;
use tokio::sync::Semaphore;
use url::Url;

use super::keys::{KeySet, KeySource, Keys, KeysError};

/// Largest key set.
const BYTES_MAX: usize = 256 * 1024;
/// How long a key set is relied on.
const LIFE: Duration = Duration::from_mins(5);
/// How long an unknown zone, or an unknown `kid`, is not asked for again.
const COOL_DOWN: Duration = Duration::from_secs(30);
/// Most zones remembered.
const ZONES_MAX: usize = 4096;
/// Most fetches at once.
const FETCHES_MAX: usize = 16;

/// How keys are fetched.
#[derive(Clone, Copy, Debug)]
pub struct KeySettings {
    /// How long one fetch may take.
    pub timeout: Duration,
    /// How long a key set is relied on.
    pub life: Duration,
    /// Most zones remembered.
    pub zones: usize,
}

impl Default for KeySettings {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(5), life: LIFE, zones: ZONES_MAX }
    }
}

/// What is known about one zone.
#[derive(Clone)]
enum Known {
    Keys(Arc<KeySet>),
    Unknown,
}

#[derive(Default)]
struct Slot {
    state: Mutex<Option<State>>,
    /// Held while fetching, so that others wait for that fetch.
    flight: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct State {
    known: Known,
    fetched: Duration,
    /// When an unknown `kid` last made us ask again.
    forced: Option<Duration>,
}

/// The keys of an STS that is another process.
pub struct HttpKeys {
    client: Client<Full<Bytes>>,
    base: String,
    settings: KeySettings,
    world: World,
    slots: Mutex<HashMap<ZoneId, Arc<Slot>>>,
    fetches: Semaphore,
    failed: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for HttpKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpKeys").field("base", &self.base).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HttpKeys {
    /// Keys of the STS at `sts`; `failed` is called for each fetch that failed (for a counter).
    pub fn new(
        client: Client<Full<Bytes>>,
        sts: &Url,
        settings: KeySettings,
        world: World,
        failed: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let base = format!("{}/.well-known/jwks.json?zone_id=", sts.as_str().trim_end_matches('/'));
        let (slots, fetches) = (Mutex::default(), Semaphore::new(FETCHES_MAX));
        Self { client, base, settings, world, slots, fetches, failed: Box::new(failed) }
    }

    /// Forgets a zone's keys, because a message said that they changed.
    pub fn forget(&self, zone: ZoneId) {
        lock(&self.slots).remove(&zone);
    }

    fn slot(&self, zone: ZoneId) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        if !slots.contains_key(&zone) && slots.len() >= self.settings.zones {
            // The oldest leaves first; made-up zones crowd out one another before a zone in use, which is renewed.
            let oldest = slots.iter().min_by_key(|(_, slot)| lock(&slot.state).as_ref().map(|s| s.fetched)).map(|(zone, _)| *zone);
            if let Some(oldest) = oldest {
                slots.remove(&oldest);
            }
        }
        slots.entry(zone).or_default().clone()
    }

    /// What is known and may be relied on; an unknown zone for the cool-down only.
    fn valid(&self, state: Option<State>) -> Option<State> {
        let state = state?;
        let life = match state.known {
            Known::Keys(_) => self.settings.life,
            Known::Unknown => COOL_DOWN,
        };
        (self.world.monotonic().saturating_sub(state.fetched) < life).then_some(state)
    }

    async fn fetched(&self, zone: ZoneId, kid: &str) -> Result<Arc<KeySet>, KeysError> {
        let slot = self.slot(zone);
        let _flight = slot.flight.lock().await;
        let now = self.world.monotonic();
        let before = self.valid(lock(&slot.state).clone());
        let mut forced = None;
        if let Some(state) = &before {
            let asked = state.forced.is_some_and(|at| now.saturating_sub(at) < COOL_DOWN);
            match &state.known {
                Known::Unknown => return Err(KeysError::UnknownZone),
                Known::Keys(keys) if keys.has(kid) || asked => return Ok(keys.clone()),
                Known::Keys(_) => forced = Some(now),
            }
        }
        match self.ask(zone).await {
            Ok(known) => {
                *lock(&slot.state) = Some(State { known: known.clone(), fetched: now, forced });
                match known {
                    Known::Keys(keys) => Ok(keys),
                    Known::Unknown => Err(KeysError::UnknownZone),
                }
            }
            Err(why) => {
                (self.failed)();
                Err(KeysError::Unavailable(why))
            }
        }
    }

    async fn ask(&self, zone: ZoneId) -> Result<Known, String> {
        let _turn = tokio::time::timeout(self.settings.timeout, self.fetches.acquire())
            .await
            .map_err(|_| "too many key fetches at once".to_owned())?
            .map_err(|e| e.to_string())?;
        let uri: Uri = format!("{}{zone}", self.base).parse().map_err(|_| "STS_URL is no URI".to_owned())?;
        let request = Request::builder().method(Method::GET).uri(uri).header("accept", "application/json");
        let request = request.body(Full::default()).map_err(|e| e.to_string())?;
        let bounds = Bounds { time: self.settings.timeout, bytes: BYTES_MAX };
        let response = self.client.fetch(request, bounds).await.map_err(|e| e.to_string())?;
        match response.status().as_u16() {
            200 => {}
            404 => return Ok(Known::Unknown),
            other => return Err(format!("the STS answered {other}")),
        }
        let jwks: Jwks = serde_json::from_slice(response.body()).map_err(|e| format!("the key set is no JWKS: {e}"))?;
        let keys = jwks.usable();
        if keys.is_empty() {
            return Err("the key set has no usable key".to_owned());
        }
        Ok(Known::Keys(Arc::new(KeySet::new(keys))))
    }
}

impl KeySource for HttpKeys {
    fn current(&self, zone: ZoneId) -> Option<Arc<KeySet>> {
        let slot = lock(&self.slots).get(&zone)?.clone();
        let state = lock(&slot.state).clone();
        match self.valid(state)?.known {
            Known::Keys(keys) => Some(keys),
            Known::Unknown => None,
        }
    }

    fn fetch<'a>(&'a self, zone: ZoneId, kid: &'a str) -> Keys<'a> {
        Box::pin(self.fetched(zone, kid))
    }
}
