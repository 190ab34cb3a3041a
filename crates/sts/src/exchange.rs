//! The pipeline, run: and run again, at most three times, when what it read has changed before it was durable.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use caracal_core::claims::Use;
use caracal_core::delegation::Delegation;
use caracal_core::event::AuditEvent;
use caracal_core::id::ZoneId;
use caracal_core::refusal::Refusal;
use caracal_crypto::verified::VerifiedMandates;
use caracal_custody::Custody;
use caracal_ephemeral::Memory;
use caracal_host::{Metrics, Supervisor, World};
use caracal_store::Store;
use caracal_store::journal::{Entry, Outcome};
use caracal_stream::Spool;
use caracal_stream::spool::SpoolError;
use caracal_web::mandate::{Expect, KeySet, KeySource, Keys, KeysError, LEEWAY_SECS, Verifier};

use crate::authenticate::{Gatekeeper, NotAuthenticated};
use crate::config::Config;
use crate::decide::{Asking, MintKey, Mints, decide};
use crate::evidence::{Evidence, Whose};
use crate::limits::Windows;
use crate::mint::{Mint, Minted, NotMinted, Verified, check_range};
use crate::numbers::Numbers;
use crate::refusals;
use crate::request::{Presented, TokenRequest};
use crate::resolve::{Known, direct};
use crate::view::Views;

/// How often an exchange is decided before it is refused as unavailable.
pub(crate) const TRIES: usize = 4;

/// The STS. Cheap to clone.
#[derive(Clone)]
pub struct Sts {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) store: Store,
    /// Where evidence becomes durable, with the decision or right after it.
    pub(crate) spool: Spool,
    /// Remembers nonces.
    pub(crate) memory: Memory,
    pub(crate) world: World,
    pub(crate) views: Arc<Views>,
    pub(crate) known: Known,
    pub(crate) gate: Gatekeeper,
    pub(crate) evidence: Evidence,
    pub(crate) verified: Verified,
    pub(crate) mints: Windows<MintKey>,
    pub(crate) numbers: Numbers,
    pub(crate) metrics: Metrics,
}

impl Sts {
    /// An STS on a store. `verified` is the process's one memory of mandates.
    pub fn new(
        config: Config,
        store: Store,
        spool: Spool,
        memory: Memory,
        custody: Custody,
        world: World,
        verified: Arc<VerifiedMandates>,
    ) -> Self {
        let metrics = Metrics::new("sts");
        let numbers = Numbers::new(&metrics);
        let views = Arc::new(Views::new(store.clone(), custody.clone(), world.clone()));
        let gate = Gatekeeper::new(Arc::clone(&views), store.clone(), custody, world.clone(), config.verify_concurrency);
        let evidence = Evidence::new(world.clone(), store.audit_key(), numbers.clone());
        let mints = Windows::new(Duration::from_mins(1), config.mint_rate);
        let known = Known::new(store.clone());
        let inner = Inner { config, store, spool, memory, world, views, known, gate, evidence, verified, mints, numbers, metrics };
        Self { inner: Arc::new(inner) }
    }

    /// The service's numbers.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// The issuer, verbatim.
    pub fn issuer(&self) -> &str {
        &self.inner.config.issuer
    }

    /// Verifies mandates with this STS's own keys.
    pub fn verifier(&self) -> Verifier {
        Verifier::new(Arc::new(self.clone()), Arc::clone(&self.inner.verified), self.inner.world.clone())
    }

    pub(crate) fn mint(&self) -> Mint<'_> {
        Mint {
            store: &self.inner.store,
            spool: &self.inner.spool,
            world: &self.inner.world,
            evidence: &self.inner.evidence,
            known: &self.inner.known,
            verified: &self.inner.verified,
            issuer: &self.inner.config.issuer,
        }
    }

    /// A direct exchange.
    pub(crate) async fn exchange(
        &self,
        request: &TokenRequest,
        address: Option<IpAddr>,
        request_id: &str,
    ) -> Result<Minted, Refusal> {
        self.inner.gate.admits(address)?;
        for _ in 0..TRIES {
            match self.once(request, address, request_id).await {
                Ok(minted) => return Ok(minted),
                Err(NotMinted::Stale) => self.inner.numbers.decided_again.inc(),
                Err(NotMinted::Spent | NotMinted::Exhausted(_)) => {
                    return Err(refusals::internal("an exchange spent what it does not spend"));
                }
                Err(NotMinted::Refused(refusal, events)) => return Err(self.told(*refusal, None, events).await),
            }
        }
        Err(refusals::unavailable("the zone changes faster than an exchange is decided"))
    }

    async fn once(&self, request: &TokenRequest, address: Option<IpAddr>, request_id: &str) -> Result<Minted, NotMinted> {
        let inner = &self.inner;
        let who = match inner.gate.by_secret(request, address).await {
            Ok(who) => who,
            Err(NotAuthenticated { refusal, whose }) => return Err(self.early(&whose, request_id, refusal)),
        };
        let whose = Whose::application(&who.view, who.application);
        let early = |refusal| self.early(&whose, request_id, refusal);
        if matches!(request.presented, Presented::Identity) {
            let extra = !request.resources.is_empty()
                || !request.scopes.is_empty()
                || !request.record.is_absent()
                || !request.session.is_absent()
                || !request.edge.is_absent()
                || request.approval.is_some()
                || request.bound;
            let refusal = if extra {
                refusals::malformed("subject_token_type", "a federation exchange takes nothing else")
            } else {
                // No issuer can be registered in this release, so no identity token is of a registered one.
                refusals::federation()
            };
            return Err(early(refusal));
        }
        if request.resources.is_empty() {
            return Err(early(refusals::malformed("resource", "resource is required")));
        }
        if request.bound {
            return Err(early(refusals::malformed("bind_method", "mandates bound to one request are not minted by this release")));
        }
        check_range(request.ttl).map_err(early)?;
        if let Presented::Mandate(token) = &request.presented {
            let refusal = match self.verify(token, Use::Session, who.view.zone, who.fresh.now.as_secs()).await {
                Ok(_) => refusals::gateway_required(),
                Err(refusal) => refusal,
            };
            return Err(early(refusal));
        }
        if request.approval.is_some() {
            return Err(early(refusals::approval_unknown()));
        }
        let resolved = direct(who, request, &inner.known).await.map_err(early)?;
        if let Some(path) = &resolved.path {
            let beyond = path.scopes_beyond(&request.scopes);
            if !beyond.is_empty() {
                let carried = request.scopes.beyond(&beyond).to_vec();
                return Err(early(refusals::edge_scopes(beyond.to_vec(), carried)));
            }
            if let (Some(asked), Some(cap)) = (request.ttl, path.ttl_cap())
                && asked > cap
            {
                return Err(early(refusals::edge_ttl(cap)));
            }
            // The cached number only ever lags behind; the conditional update in the journal decides.
            if let Some(edge) = path.exhausted() {
                return Err(self.exhausted(&whose, request_id, edge));
            }
        }
        let asking = Asking { resources: &request.resources, scopes: &request.scopes, operation: None, request_id };
        let mints = Mints { windows: &inner.mints, now: inner.world.monotonic(), counts: true };
        let decided =
            decide(resolved, &asking, &inner.evidence, &mints).map_err(|r| NotMinted::Refused(Box::new(r.refusal), r.events))?;
        match self.mint().direct(decided, &request.scopes, request.ttl).await {
            Err(NotMinted::Exhausted(edge)) => Err(self.exhausted(&whose, request_id, &edge)),
            outcome => outcome,
        }
    }

    fn early(&self, whose: &Whose, request_id: &str, refusal: Refusal) -> NotMinted {
        let event = self.inner.evidence.early(whose, request_id, &refusal, self.inner.world.now());
        NotMinted::Refused(Box::new(refusal), event.into_iter().collect())
    }

    /// The budget of an edge is used up: told with the edge and its numbers, in the ledger alone (5.7).
    fn exhausted(&self, whose: &Whose, request_id: &str, edge: &Delegation) -> NotMinted {
        let refusal = refusals::budget();
        let budget = edge.authority.constraints.budget;
        let event = self.inner.evidence.early(whose, request_id, &refusal, self.inner.world.now()).map(|event| {
            event
                .with("delegation_edge_id", edge.id.to_string())
                .with_some("delegation_budget", budget)
                .with("delegation_budget_spent", budget.map_or(edge.budget_spent, |most| edge.budget_spent.max(most)))
        });
        NotMinted::Refused(Box::new(refusal), event.into_iter().collect())
    }

    /// The STS's background work: what a bound left out of the ledgers is summarised every minute.
    pub fn jobs(&self, supervisor: &Supervisor) {
        let own = self.clone();
        supervisor.every("sts.suppressed", Duration::from_mins(1), move |_stop| {
            let own = own.clone();
            async move { own.summarise().await }
        });
    }

    /// Tells each ledger how many refusals were left out of it since the last time.
    pub async fn summarise(&self) -> Result<(), SpoolError> {
        let events = self.inner.evidence.summaries();
        if events.is_empty() { Ok(()) } else { self.inner.spool.append(self.inner.evidence.seal(events)).await }
    }

    /// Makes the evidence of a refusal durable before the refusal is told. What cannot be evidenced is unavailable.
    pub(crate) async fn told(
        &self,
        refusal: Refusal,
        consume: Option<caracal_store::journal::Consume>,
        events: Vec<AuditEvent>,
    ) -> Refusal {
        if events.is_empty() && consume.is_none() {
            return refusal;
        }
        let entry = Entry { events: self.inner.evidence.seal(events), spend: consume.into(), ..Entry::default() };
        match self.inner.spool.commit(self.inner.store.journal(), entry).await {
            Ok(Outcome::Durable | Outcome::Spent | Outcome::Stale | Outcome::Exhausted(_)) => refusal,
            Err(e) => refusals::unavailable(e),
        }
    }

    /// Verifies a presented mandate for this zone and use.
    pub(crate) async fn verify(
        &self,
        token: &str,
        usage: Use,
        zone: ZoneId,
        now: i64,
    ) -> Result<Arc<caracal_crypto::verified::VerifiedMandate>, Refusal> {
        let word = usage.as_str();
        let mandate = self.verifier().verify(token).await.map_err(|refused| match refused {
            caracal_web::mandate::Refused::Unavailable(why) => refusals::unavailable(why),
            _ => refusals::token(word),
        })?;
        let expect = Expect { usage, issuer: Some(self.inner.config.issuer.clone()), leeway: LEEWAY_SECS };
        if mandate.claims.zone_id != zone || expect.check(&mandate.claims, now).is_err() {
            return Err(refusals::token(word));
        }
        Ok(mandate)
    }
}

impl KeySource for Sts {
    fn current(&self, zone: ZoneId) -> Option<Arc<KeySet>> {
        self.inner.views.current(zone).map(|view| Arc::clone(&view.keys))
    }

    fn fetch<'a>(&'a self, zone: ZoneId, _kid: &'a str) -> Keys<'a> {
        Box::pin(async move {
            match self.inner.views.fresh(zone).await {
                Ok(Some((view, _))) => Ok(Arc::clone(&view.keys)),
                Ok(None) => Err(KeysError::UnknownZone),
                Err(refusal) => Err(KeysError::Unavailable(refusal.description.into_owned())),
            }
        })
    }
}
