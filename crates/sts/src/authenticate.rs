//! Step two: who asks (`sts.md` 2.4, 2.5). The application's secret, or the Gateway's signature; nothing else proves anything.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use caracal_core::digest::sha256;
use caracal_core::id::{ApplicationId, ZoneId};
use caracal_core::refusal::Refusal;
use caracal_core::time::Time;
use caracal_crypto::mac::MacKey;
use caracal_crypto::secret::{Kind, Secret, Verifier, dummy, is_generated};
use caracal_custody::Custody;
use caracal_host::World;
use caracal_store::Store;
use caracal_store::fence::Fresh;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

use crate::evidence::Whose;
use crate::limits::{Room, Windows};
use crate::refusals;
use crate::request::TokenRequest;
use crate::view::{Application, Views, ZoneView};

/// An application that proved itself, in a zone seen fresh.
pub(crate) struct Authenticated {
    pub(crate) view: Arc<ZoneView>,
    pub(crate) fresh: Fresh,
    pub(crate) application: ApplicationId,
}

impl Authenticated {
    pub(crate) fn row(&self) -> Option<&Application> {
        self.view.application(self.application)
    }
}

/// A refusal here, with whom its evidence is about.
pub(crate) struct NotAuthenticated {
    pub(crate) refusal: Refusal,
    pub(crate) whose: Whose,
}

/// Authenticates applications. Slow derivations are bounded, and a supplied secret is derived once.
pub(crate) struct Gatekeeper {
    views: Arc<Views>,
    store: Store,
    custody: Custody,
    world: World,
    derivations: Semaphore,
    /// Keyed hash of (stored verifier, presented secret) of secrets found right. Only ever speeds up a correct one.
    known: Cache<[u8; 32], ()>,
    known_key: MacKey,
    by_address: Windows<IpAddr>,
    by_application: Windows<[u8; 32]>,
}

/// Failures of one address or application in a window.
const FAILURES: u32 = 60;
const WINDOW: Duration = Duration::from_mins(1);

impl Gatekeeper {
    pub(crate) fn new(views: Arc<Views>, store: Store, custody: Custody, world: World, derivations: usize) -> Self {
        Self {
            views,
            store,
            custody,
            derivations: Semaphore::new(derivations),
            known: Cache::new(8192),
            known_key: MacKey::from_bytes(&world.random::<32>()),
            by_address: Windows::new(WINDOW, FAILURES),
            by_application: Windows::new(WINDOW, FAILURES),
            world,
        }
    }

    /// Rule 13: an address that failed too often is not looked at.
    pub(crate) fn admits(&self, address: Option<IpAddr>) -> Result<(), Refusal> {
        let Some(address) = address else { return Ok(()) };
        match self.by_address.look(&address, self.world.monotonic()) {
            Room::Free => Ok(()),
            Room::Full(seconds) => Err(refusals::throttled(seconds)),
        }
    }

    /// By the application's own secret.
    pub(crate) async fn by_secret(
        &self,
        request: &TokenRequest,
        address: Option<IpAddr>,
    ) -> Result<Authenticated, NotAuthenticated> {
        let plain = |refusal| NotAuthenticated { refusal, whose: Whose::default() };
        let presented = Secret::of(request.secret.as_str());
        let id: Option<ApplicationId> = request.application.parse().ok();
        let zone: Option<ZoneId> = request.zone.parse().ok();
        let seen = match zone {
            Some(zone) => self.views.fresh(zone).await.map_err(plain)?,
            None => None,
        };
        if let (Some((view, fresh)), Some(id)) = (seen, id)
            && let Some(application) = view.application(id).filter(|a| is_live(a, fresh.now))
        {
            let verifier = application.verifier.clone();
            return if self.verify(verifier.as_ref(), &presented).await {
                Ok(Authenticated { view, fresh, application: id })
            } else {
                Err(self.fail(request, address, Whose::application(&view, id)))
            };
        }
        // Not in that zone. Only whoever holds the secret learns where it is; everybody pays the same.
        let own = match id {
            Some(id) => self.store.zone_of_application(id).await.map_err(|e| plain(refusals::unavailable(e)))?,
            None => None,
        };
        let elsewhere = match own {
            Some(own) => self.views.fresh(own).await.map_err(plain)?,
            None => None,
        };
        let found = elsewhere.as_ref().zip(id).and_then(|((view, fresh), id)| {
            view.application(id).filter(|a| is_live(a, fresh.now)).map(|a| (Whose::application(view, id), a.verifier.clone()))
        });
        let right = self.verify(found.as_ref().and_then(|(_, v)| v.as_ref()), &presented).await;
        match found {
            Some((whose, _)) if right && !request.zone.is_empty() => {
                let own = whose.zone.map(|zone| zone.to_string()).unwrap_or_default();
                Err(NotAuthenticated { refusal: refusals::zone_mismatch(&request.zone, &own), whose })
            }
            found => Err(self.fail(request, address, found.map(|(whose, _)| whose).unwrap_or_default())),
        }
    }

    /// By the Gateway's signature, already verified: the mandate's own zone and application.
    pub(crate) async fn by_gateway(&self, zone: ZoneId, application: ApplicationId) -> Result<Authenticated, NotAuthenticated> {
        let plain = |refusal| NotAuthenticated { refusal, whose: Whose::zone(zone) };
        let Some((view, fresh)) = self.views.fresh(zone).await.map_err(plain)? else {
            return Err(NotAuthenticated { refusal: refusals::client(), whose: Whose::default() });
        };
        if view.application(application).is_some_and(|a| is_live(a, fresh.now)) {
            Ok(Authenticated { view, fresh, application })
        } else {
            Err(plain(refusals::client()))
        }
    }

    async fn verify(&self, verifier: Option<&Verifier>, presented: &Secret) -> bool {
        let slow = verifier.map_or_else(|| !is_generated(Kind::Client, presented.expose()), Verifier::is_slow);
        if !slow {
            return verifier.is_some_and(|v| v.matches(self.custody.verifier_key(), presented));
        }
        if presented.expose().is_empty() {
            return false;
        }
        let key = verifier.map(|v| self.known_key.tag(&[v.to_text().as_bytes(), b"\0", presented.expose().as_bytes()]));
        if key.is_some_and(|key| self.known.get(&key).is_some()) {
            return true;
        }
        // The queue frees the place of whoever hangs up: the permit is waited for by the caller's own future.
        let Ok(_permit) = self.derivations.acquire().await else { return false };
        let (verifier, secret, hash) = (verifier.cloned(), presented.clone(), self.custody.verifier_key().clone());
        let right = tokio::task::spawn_blocking(move || {
            if let Some(verifier) = verifier {
                verifier.matches(&hash, &secret)
            } else {
                dummy(&secret);
                false
            }
        })
        .await
        .unwrap_or(false);
        if let (true, Some(key)) = (right, key) {
            self.known.insert(key, ());
        }
        right
    }

    fn fail(&self, request: &TokenRequest, address: Option<IpAddr>, whose: Whose) -> NotAuthenticated {
        let now = self.world.monotonic();
        let by_address = address.map_or(Room::Free, |address| self.by_address.count(&address, now));
        let by_application = self.by_application.count(&sha256(&[request.application.as_bytes()]), now);
        let refusal = match (by_address, by_application) {
            (Room::Full(seconds), _) | (_, Room::Full(seconds)) => refusals::throttled(seconds),
            _ => refusals::client(),
        };
        NotAuthenticated { refusal, whose }
    }
}

fn is_live(application: &Application, now: Time) -> bool {
    application.row.expires_at.is_none_or(|end| end > now)
}
