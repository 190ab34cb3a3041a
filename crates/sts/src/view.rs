//! What a zone looks like: an immutable view, read in one snapshot, good while nothing it was made of has changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use caracal_core::directive::Directive;
use caracal_core::id::{ApplicationId, ProviderId, ResourceId, ZoneId};
use caracal_core::refusal::Refusal;
use caracal_core::scope::{LIFECYCLE, Scopes};
use caracal_core::time::Time;
use caracal_crypto::keys::{PublicKey, SigningKey};
use caracal_crypto::secret::Verifier;
use caracal_custody::Custody;
use caracal_host::World;
use caracal_policy::bundle::{Program, manifest_sha256};
use caracal_provider::{Config, caracal_jwt};
use caracal_store::Store;
use caracal_store::change::Entity;
use caracal_store::fence::{Fresh, Stamp};
use caracal_store::path::{ApplicationRow, ResourceRow, ZoneRows};
use caracal_web::mandate::KeySet;

use crate::refusals;

/// How long a replaced key still verifies, in seconds.
const KEY_GRACE: i64 = 24 * 3600;

/// An Application with its verifier parsed.
pub(crate) struct Application {
    pub(crate) row: ApplicationRow,
    pub(crate) verifier: Option<Verifier>,
}

/// A resource with its scopes as a set and its directive made.
pub(crate) struct Resource {
    pub(crate) row: ResourceRow,
    pub(crate) declared: Scopes,
    pub(crate) upstream: Upstream,
}

/// What the Gateway would be told.
#[allow(clippy::large_enum_variant, reason = "nearly every resource has a directive")]
pub(crate) enum Upstream {
    /// This.
    Ready(Directive),
    /// The provider's row is gone.
    NoProvider,
    /// The provider cannot be used; why, for operators.
    Unusable(String),
}

/// What governs a zone.
pub(crate) enum Policy {
    /// Nothing: deny.
    None,
    /// This.
    Active(Arc<Active>),
    /// Something that cannot be loaded: neither deny-all nor an older one.
    Broken(String),
}

/// An active policy-set version, compiled.
pub(crate) struct Active {
    pub(crate) set: String,
    pub(crate) version: String,
    pub(crate) manifest: String,
    pub(crate) program: Program,
}

/// A zone.
pub(crate) struct ZoneView {
    pub(crate) zone: ZoneId,
    pub(crate) stamp: Stamp,
    /// When a replaced key verifies no more: a change that nobody announces.
    until: Option<Time>,
    pub(crate) policy: Policy,
    pub(crate) signing: Option<SigningKey>,
    pub(crate) keys: Arc<KeySet>,
    pub(crate) public: Vec<PublicKey>,
    pub(crate) skipped_keys: usize,
    applications: HashMap<ApplicationId, Application>,
    resources: HashMap<String, Resource>,
    by_id: HashMap<ResourceId, String>,
}

impl ZoneView {
    pub(crate) fn application(&self, id: ApplicationId) -> Option<&Application> {
        self.applications.get(&id)
    }

    /// A resource by identifier or row id.
    pub(crate) fn resource(&self, written: &str) -> Option<&Resource> {
        if let Some(found) = self.resources.get(written) {
            return Some(found);
        }
        let id: ResourceId = written.parse().ok()?;
        self.resources.get(self.by_id.get(&id)?)
    }
}

impl Resource {
    /// Whether every scope may be asked of it; the lifecycle scope goes with an upstream.
    pub(crate) fn undeclared(&self, scopes: &Scopes) -> Vec<String> {
        let implied = |s: &str| s == LIFECYCLE && self.row.upstream_url.as_deref().is_some_and(|u| !u.is_empty());
        scopes.iter().filter(|s| !self.declared.contains(s) && !implied(s)).map(str::to_owned).collect()
    }
}

/// Views of the zones this process serves.
pub(crate) struct Views {
    store: Store,
    custody: Custody,
    world: World,
    slots: Mutex<HashMap<ZoneId, Arc<Slot>>>,
}

#[derive(Default)]
struct Slot {
    view: ArcSwapOption<ZoneView>,
    loading: tokio::sync::Mutex<()>,
}

impl Views {
    pub(crate) fn new(store: Store, custody: Custody, world: World) -> Self {
        Self { store, custody, world, slots: Mutex::default() }
    }

    /// The zone as new as `fresh`, and that answer; `None` when there is no live zone of that id.
    pub(crate) async fn fresh(&self, zone: ZoneId) -> Result<Option<(Arc<ZoneView>, Fresh)>, Refusal> {
        let slot = {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.get(&zone).cloned()
        };
        // Anybody may ask for any id; only those of zones are remembered. Absence that was read after the request came is fresh enough.
        if slot.is_none() && !self.store.zone_lives(zone).await.map_err(refusals::unavailable)? {
            return Ok(None);
        }
        let fresh = self.store.fence().fresh(zone).await.map_err(refusals::unavailable)?;
        if let Some(slot) = &slot
            && let Some(view) = self.good(slot, fresh.now)
        {
            return Ok(Some((view, fresh)));
        }
        let held = slot.unwrap_or_default();
        let one = held.loading.lock().await;
        if let Some(view) = self.good(&held, fresh.now) {
            return Ok(Some((view, fresh)));
        }
        let since = fresh.now.minus_secs(KEY_GRACE);
        let Some(rows) = self.store.zone_rows(zone, since).await.map_err(refusals::unavailable)? else {
            self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(&zone);
            return Ok(None);
        };
        let before = held.view.load_full();
        let custody = self.custody.clone();
        // Compiling policy and opening keys takes longer than a request may hold a worker.
        let view =
            tokio::task::spawn_blocking(move || build(rows, before.as_deref(), &custody)).await.map_err(refusals::internal)?;
        let view = Arc::new(view);
        held.view.store(Some(Arc::clone(&view)));
        drop(one);
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).insert(zone, held);
        Ok(Some((view, fresh)))
    }

    /// The view as known now, if nothing it is made of is known to have changed.
    pub(crate) fn current(&self, zone: ZoneId) -> Option<Arc<ZoneView>> {
        let slot = self.slots.lock().unwrap_or_else(PoisonError::into_inner).get(&zone).cloned()?;
        self.good(&slot, self.world.now())
    }

    fn good(&self, slot: &Slot, now: Time) -> Option<Arc<ZoneView>> {
        let view = slot.view.load_full()?;
        let lasts = view.until.is_none_or(|until| now < until);
        (lasts && self.store.fence().good(view.zone, view.stamp, &[Entity::VIEW])).then_some(view)
    }
}

fn build(rows: ZoneRows, before: Option<&ZoneView>, custody: &Custody) -> ZoneView {
    let zone = rows.zone;
    let directives: HashMap<ProviderId, Result<Directive, String>> = rows
        .providers
        .iter()
        .map(|p| {
            let made = Config::stored(&p.kind, &p.config).map_err(|e| e.to_string()).and_then(|config| {
                let secrets = custody.provider_secrets(zone, p.id, p.sealed.as_deref()).map_err(|e| e.to_string())?;
                config.directive(&secrets).map_err(|e| e.to_string())
            });
            (p.id, made.map(|d| Directive { provider_id: Some(p.id.to_string()), ..d }))
        })
        .collect();
    let mut resources = HashMap::with_capacity(rows.resources.len());
    let mut by_id = HashMap::with_capacity(rows.resources.len());
    for row in rows.resources {
        let url = row.upstream_url.clone().unwrap_or_default();
        let upstream = match row.provider.map(|id| directives.get(&id)) {
            None => Upstream::Ready(Directive { url, ..caracal_jwt() }),
            Some(None) => Upstream::NoProvider,
            Some(Some(Ok(directive))) => Upstream::Ready(Directive { url, ..directive.clone() }),
            Some(Some(Err(why))) => Upstream::Unusable(why.clone()),
        };
        by_id.insert(row.id, row.identifier.clone());
        let declared = row.scopes.iter().map(String::as_str).collect();
        resources.insert(row.identifier.clone(), Resource { row, declared, upstream });
    }
    let applications = rows
        .applications
        .into_iter()
        .map(|row| (row.id, Application { verifier: row.verifier.as_deref().and_then(Verifier::parse), row }))
        .collect();
    let mut signing = None;
    let mut public = Vec::with_capacity(rows.keys.len());
    let mut skipped_keys = 0;
    for key in &rows.keys {
        // A key that cannot be opened is left out; the others go on verifying.
        let opened = custody.signing_key(key.id, &key.sealed).ok().and_then(|k| Some((k.public().ok()?, k)));
        match opened {
            Some((shown, private)) => {
                public.push(shown);
                if key.replaced_at.is_none() && signing.is_none() {
                    signing = Some(private);
                }
            }
            None => skipped_keys += 1,
        }
    }
    let until = rows.keys.iter().filter_map(|key| key.replaced_at).map(|at| at.plus_secs(KEY_GRACE)).min();
    ZoneView {
        zone,
        until,
        stamp: rows.stamp,
        policy: policy(rows.policy, before),
        signing,
        keys: Arc::new(KeySet::new(public.clone())),
        public,
        skipped_keys,
        applications,
        resources,
        by_id,
    }
}

fn policy(active: Option<caracal_store::management::ActiveSet>, before: Option<&ZoneView>) -> Policy {
    let Some(active) = active else { return Policy::None };
    let version = active.version.to_string();
    if let Some(Policy::Active(held)) = before.map(|b| &b.policy)
        && held.version == version
    {
        return Policy::Active(Arc::clone(held));
    }
    let ids: Vec<String> = active.documents.iter().map(|(id, _)| id.to_string()).collect();
    let manifest = manifest_sha256(ids.iter().map(String::as_str));
    if manifest != active.manifest_sha256 {
        return Policy::Broken("the manifest's hash is not the stored one".to_owned());
    }
    let documents: Vec<(String, String)> = active.documents.into_iter().map(|(id, text)| (id.to_string(), text)).collect();
    match Program::compile(&documents) {
        Ok(program) => Policy::Active(Arc::new(Active { set: active.set.to_string(), version, manifest, program })),
        Err(e) => Policy::Broken(e.to_string()),
    }
}
