//! Step five: how long, durable, signed (`sts.md` 5.6, 5.7, 7, 9). The record is in the store before the mandate exists.

use std::sync::Arc;

use caracal_core::claims::{Claims, Delegated, SubjectType, Use};
use caracal_core::delegation::Delegation;
use caracal_core::event::AuditEvent;
use caracal_core::refusal::Refusal;
use caracal_core::scope::{LIFECYCLE, Scopes};
use caracal_core::time::Time;
use caracal_crypto::jws::{self, MAX_TOKEN};
use caracal_crypto::verified::{VerifiedMandate, VerifiedMandates};
use caracal_host::World;
use caracal_store::Store;
use caracal_store::change::Entity;
use caracal_store::journal::{Consume, Entry, NewRecord, Outcome, Reads, Spend};
use caracal_stream::Spool;

use crate::decide::{Decided, Granted};
use crate::evidence::Evidence;
use crate::refusals;
use crate::resolve::{Known, Resolved};

/// A mandate, or the leave to go without one.
pub(crate) struct Minted {
    pub(crate) token: Option<String>,
    pub(crate) claims: Claims,
    pub(crate) granted: Vec<Granted>,
    pub(crate) authority_ends: Option<Time>,
}

/// Why nothing was minted.
pub(crate) enum NotMinted {
    /// Something the decision read has changed: decide again.
    Stale,
    /// The presented mandate was used before.
    Spent,
    /// The budget of this edge is used up.
    Exhausted(Box<Delegation>),
    /// No.
    Refused(Box<Refusal>, Vec<AuditEvent>),
}

/// Default and cap of a direct exchange, in seconds.
const DIRECT: (i64, i64) = (900, 3600);

/// Who mints.
pub(crate) struct Mint<'a> {
    pub(crate) store: &'a Store,
    pub(crate) spool: &'a Spool,
    pub(crate) world: &'a World,
    pub(crate) evidence: &'a Evidence,
    pub(crate) known: &'a Known,
    pub(crate) verified: &'a VerifiedMandates,
    pub(crate) issuer: &'a str,
}

/// The cap of a direct exchange's `ttl_seconds`, checked before anything is resolved.
pub(crate) fn check_range(ttl: Option<i64>) -> Result<(), Refusal> {
    match ttl {
        Some(ttl) if !(1..=DIRECT.1).contains(&ttl) => Err(refusals::ttl_range(DIRECT.1)),
        _ => Ok(()),
    }
}

impl Mint<'_> {
    /// A direct exchange: bootstrap or delegated mint.
    pub(crate) async fn direct(&self, decided: Decided, scopes: &Scopes, ttl: Option<i64>) -> Result<Minted, NotMinted> {
        let Decided { resolved, granted, events } = decided;
        let now = resolved.who.fresh.now;
        let refused = |refusal: Refusal, events: Vec<AuditEvent>| NotMinted::Refused(Box::new(refusal), events);
        let delegated = resolved.path.is_some();
        let life = match direct_life(&resolved, ttl, now) {
            Ok(life) => life,
            Err(refusal) => return Err(refused(refusal, events)),
        };
        let bootstrap = scopes.len() == 1 && scopes.contains(LIFECYCLE);
        if delegated == bootstrap {
            // The contract allows exactly these two; anything else here is a defect, and defects deny.
            return Err(refused(refusals::internal("a form of exchange that does not exist was allowed"), events));
        }
        let application = resolved.who.application;
        let record = NewRecord {
            id: self.world.mint(),
            subject_type: SubjectType::Application,
            subject: application.to_string(),
            application,
            parent: None,
            expires_at: now.plus_secs(life),
            at: now,
        };
        let claims = Claims {
            iss: self.issuer.to_owned(),
            sub: record.subject.clone(),
            aud: vec![self.issuer.to_owned()],
            exp: now.as_secs() + life,
            iat: now.as_secs(),
            jti: self.world.mint(),
            zone_id: resolved.who.view.zone,
            client_id: application,
            scope: Some(scopes.to_string()),
            sid: record.id,
            root_sid: record.id,
            usage: if delegated { Use::Gateway } else { Use::Session },
            sub_type: SubjectType::Application,
            target: granted.iter().map(|g| g.identifier.clone()).collect(),
            session: resolved.session.as_ref().map(|s| s.id),
            delegated: delegation(&resolved),
            bound_request: None,
        };
        let offer = resolved.path.as_ref().map(caracal_core::delegation::Path::presented);
        let presented = offer.filter(|e| e.issuer != e.receiver && !e.presented).map(|e| e.id).into_iter().collect();
        let entry = Entry {
            zone: Some(resolved.who.view.zone),
            reads: Some(reads(&resolved)),
            record: Some(record.clone()),
            spend: Spend::Budgets(resolved.path.as_ref().map(caracal_core::delegation::Path::budgets).unwrap_or_default()),
            presented,
            events: self.evidence.seal(events),
        };
        match self.spool.commit(self.store.journal(), entry).await {
            Ok(Outcome::Durable) => {}
            Ok(Outcome::Stale) => return Err(NotMinted::Stale),
            Ok(Outcome::Exhausted(id)) => {
                let edge = resolved.path.as_ref().and_then(|path| path.edges().iter().find(|edge| edge.id == id));
                let known = edge.cloned().map(|edge| NotMinted::Exhausted(Box::new(edge)));
                return Err(known.unwrap_or_else(|| refused(refusals::internal("a budget ran out that nobody spends"), Vec::new())));
            }
            Ok(Outcome::Spent) => return Err(refused(refusals::internal("an id was used up that nobody presented"), Vec::new())),
            Err(e) => return Err(refused(refusals::unavailable(e), Vec::new())),
        }
        self.known.minted(resolved.who.view.zone, resolved.who.fresh.stamp, &record);
        match self.sign(&resolved, &claims) {
            Ok(token) => Ok(Minted { token: Some(token), claims, granted, authority_ends: None }),
            Err(refusal) => Err(refused(refusal, Vec::new())),
        }
    }

    /// The Gateway's exchange: a resource mandate where the upstream receives it, evidence in any case.
    pub(crate) async fn gateway(&self, decided: Decided, consume: Option<Consume>, always_sign: bool) -> Result<Minted, NotMinted> {
        let Decided { resolved, granted, events } = decided;
        let now = resolved.who.fresh.now;
        let refused = |refusal: Refusal| NotMinted::Refused(Box::new(refusal), Vec::new());
        let Some(subject) = resolved.subject.clone() else { return Err(refused(refusals::token("gateway"))) };
        let Ok(ends) = resolved.path.as_ref().map(caracal_core::delegation::Path::ends_at).transpose() else {
            return Err(NotMinted::Refused(Box::new(refusals::edge()), events));
        };
        let lease = resolved.path.as_ref().and_then(caracal_core::delegation::Path::lease_ends_at);
        let bounds = [ends, lease].into_iter().flatten().map(|t| t.secs_since(now));
        let cap = resolved.path.as_ref().and_then(caracal_core::delegation::Path::ttl_cap);
        let life = bounds.chain(cap).chain([subject.claims.exp - now.as_secs(), 900]).min().unwrap_or(0);
        if life < 1 {
            return Err(NotMinted::Refused(Box::new(refusals::elapsed()), events));
        }
        let forwards = always_sign
            || granted.iter().filter_map(|g| g.directive.as_ref()).any(caracal_core::directive::Directive::forwards_mandate);
        let record = forwards.then(|| NewRecord {
            id: self.world.mint(),
            subject_type: subject.claims.sub_type,
            subject: subject.claims.sub.clone(),
            application: resolved.who.application,
            parent: Some(subject.claims.sid),
            expires_at: now.plus_secs(life),
            at: now,
        });
        let targets: Vec<String> = granted.iter().map(|g| g.identifier.clone()).collect();
        let claims = Claims {
            aud: targets.clone(),
            target: targets,
            exp: now.as_secs() + life,
            iat: now.as_secs(),
            jti: self.world.mint(),
            sid: record.as_ref().map_or(subject.claims.sid, |r| r.id),
            usage: Use::Resource,
            delegated: delegation(&resolved),
            bound_request: None,
            ..subject.claims.clone()
        };
        let entry = Entry {
            zone: Some(resolved.who.view.zone),
            reads: Some(reads(&resolved)),
            record,
            spend: consume.into(),
            events: self.evidence.seal(events),
            ..Entry::default()
        };
        match self.spool.commit(self.store.journal(), entry).await {
            Ok(Outcome::Durable) => {}
            Ok(Outcome::Stale) => return Err(NotMinted::Stale),
            Ok(Outcome::Spent) => return Err(NotMinted::Spent),
            Ok(Outcome::Exhausted(_)) => return Err(refused(refusals::internal("a budget ran out that nobody spends"))),
            Err(e) => return Err(refused(refusals::unavailable(e))),
        }
        let token = if forwards { Some(self.sign(&resolved, &claims).map_err(refused)?) } else { None };
        Ok(Minted { token, claims, granted, authority_ends: ends })
    }

    fn sign(&self, resolved: &Resolved, claims: &Claims) -> Result<String, Refusal> {
        let key = resolved.who.view.signing.as_ref().ok_or_else(|| refusals::internal("the zone has no signing key that opens"))?;
        let payload = serde_json::to_vec(claims).map_err(refusals::internal)?;
        let token = jws::sign(key, &payload).map_err(refusals::internal)?;
        if token.len() > MAX_TOKEN {
            return Err(refusals::too_long());
        }
        // What this process signed, it need not verify.
        let digest = VerifiedMandates::digest(&token);
        self.verified.insert(VerifiedMandate { claims: claims.clone(), kid: key.id().to_string(), digest });
        Ok(token)
    }
}

fn reads(resolved: &Resolved) -> Reads {
    let mut entities = resolved.references.read.clone();
    entities.extend(resolved.asked.record.map(Entity::record));
    entities.push(Entity::VIEW);
    // View and references were found good, or read, after the fence answered: the decision is as of that answer, or later.
    let stamp = resolved.who.fresh.stamp;
    Reads { stamp, entities }
}

fn delegation(resolved: &Resolved) -> Option<Delegated> {
    let path = resolved.path.as_ref()?;
    let edge = path.presented();
    Some(Delegated {
        delegation_edge_id: edge.id,
        source_session_id: edge.source,
        target_session_id: edge.target,
        delegation_path: path.edges().iter().map(|e| e.id).collect(),
        delegation_chain: path.chain(),
        hop_count: u32::try_from(path.edges().len()).unwrap_or(u32::MAX),
        delegation_graph_epoch: resolved.references.graph_epoch,
    })
}

/// The lifetime of a direct exchange: the request's, cut by everything it stands on.
fn direct_life(resolved: &Resolved, ttl: Option<i64>, now: Time) -> Result<i64, Refusal> {
    let wanted = ttl.unwrap_or(DIRECT.0);
    let Some(path) = &resolved.path else {
        let ends = resolved.session.as_ref().and_then(caracal_core::session::Session::ends_at).map(|t| t.secs_since(now));
        let life = ends.into_iter().chain([wanted]).min().unwrap_or(wanted);
        return if life < 1 { Err(refusals::session()) } else { Ok(life) };
    };
    if let (Some(asked), Some(cap)) = (ttl, path.ttl_cap())
        && asked > cap
    {
        return Err(refusals::edge_ttl(cap));
    }
    let ends = path.ends_at().map_err(|_| refusals::edge())?.secs_since(now);
    let life = wanted.min(ends).min(path.ttl_cap().unwrap_or(i64::MAX));
    if life < 1 { Err(refusals::elapsed()) } else { Ok(life) }
}

/// The process's memory of verified mandates, shared with whoever verifies in it.
pub(crate) type Verified = Arc<VerifiedMandates>;
