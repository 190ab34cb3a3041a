//! Step three: what the request refers to, all of it live, on a view no older than the request (`sts.md` 4, 5).

use std::sync::Arc;

use caracal_core::claims::{Claims, SubjectType};
use caracal_core::delegation::{Broken, Path};
use caracal_core::id::ZoneId;
use caracal_core::refusal::Refusal;
use caracal_core::session::Session;
use caracal_store::Store;
use caracal_store::path::{Asked, References};
use quick_cache::sync::Cache;

use crate::authenticate::Authenticated;
use crate::refusals;
use crate::request::{Reference, TokenRequest};

/// A request whose references hold.
pub(crate) struct Resolved {
    pub(crate) who: Authenticated,
    pub(crate) references: Arc<References>,
    pub(crate) path: Option<Path>,
    pub(crate) session: Option<Session>,
    /// The record the exchange names, by form or by token.
    pub(crate) asked: Asked,
    /// Claims of the verified subject token.
    pub(crate) subject: Option<Arc<caracal_crypto::verified::VerifiedMandate>>,
}

/// References of warm exchanges, each good while nothing it was made of has changed.
pub(crate) struct Known {
    store: Store,
    cache: Cache<(ZoneId, Asked), Arc<References>>,
}

impl Known {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, cache: Cache::new(65_536) }
    }

    /// Loads references, or finds them good. Absence is never remembered.
    pub(crate) async fn get(&self, zone: ZoneId, asked: Asked) -> Result<Arc<References>, Refusal> {
        if let Some(found) = self.cache.get(&(zone, asked)) {
            if self.store.fence().good(zone, found.stamp, &found.read) {
                return Ok(found);
            }
            self.cache.remove(&(zone, asked));
        }
        let loaded = self.load(zone, asked).await?;
        let complete = (asked.record.is_none() || loaded.record.is_some())
            && (asked.session.is_none() || loaded.session.is_some())
            && (asked.edge.is_none() || !loaded.edges.is_empty());
        // A slow load must not put back what a change took out: its stamp says how old it is, and good() looks at it on every use.
        if complete && self.store.fence().good(zone, loaded.stamp, &loaded.read) {
            self.cache.insert((zone, asked), Arc::clone(&loaded));
        }
        Ok(loaded)
    }

    /// Reads again, whatever is remembered: a denial by elapsed time looks at the row first, because leases are extended silently.
    pub(crate) async fn again(&self, zone: ZoneId, asked: Asked) -> Result<Arc<References>, Refusal> {
        self.cache.remove(&(zone, asked));
        self.get(zone, asked).await
    }

    async fn load(&self, zone: ZoneId, asked: Asked) -> Result<Arc<References>, Refusal> {
        self.store.references(zone, asked).await.map(Arc::new).map_err(refusals::unavailable)
    }
}

/// Resolves the references of a direct exchange (3.1, 3.2, 3.7).
pub(crate) async fn direct(who: Authenticated, request: &TokenRequest, known: &Known) -> Result<Resolved, Refusal> {
    if request.edge != Reference::Absent && request.session.is_absent() {
        return Err(refusals::edge());
    }
    if request.record == Reference::Nonsense {
        return Err(refusals::record());
    }
    if request.session == Reference::Nonsense {
        return Err(if request.edge.is_absent() { refusals::session() } else { refusals::edge() });
    }
    if request.edge == Reference::Nonsense {
        return Err(refusals::edge());
    }
    let asked = Asked { record: request.record.id(), session: request.session.id(), edge: request.edge.id() };
    if asked == Asked::default() {
        let references = Arc::new(References::nothing(who.view.stamp));
        return Ok(Resolved { who, references, path: None, session: None, asked, subject: None });
    }
    let references = known.get(who.view.zone, asked).await?;
    let outcome = check_direct(&who, &references, asked);
    if let Ok((session, path)) = outcome {
        Ok(Resolved { who, references, path, session, asked, subject: None })
    } else {
        let references = known.again(who.view.zone, asked).await?;
        let (session, path) = check_direct(&who, &references, asked)?;
        Ok(Resolved { who, references, path, session, asked, subject: None })
    }
}

fn check_direct(who: &Authenticated, references: &References, asked: Asked) -> Result<(Option<Session>, Option<Path>), Refusal> {
    let now = who.fresh.now;
    if asked.record.is_some() {
        let own = |r: &&caracal_store::path::Record| r.is_live(now) && !r.is_user && r.subject == who.application.to_string();
        references.record.as_ref().filter(own).ok_or_else(refusals::record)?;
    }
    lineage(who, references, asked)
}

/// The Session and edge rules of 5.2 and 5.3, the same for every form.
fn lineage(who: &Authenticated, references: &References, asked: Asked) -> Result<(Option<Session>, Option<Path>), Refusal> {
    let now = who.fresh.now;
    let Some(session) = asked.session else { return Ok((None, None)) };
    let own = references.session.as_ref().filter(|s| s.application == who.application && s.is_live(now));
    if asked.edge.is_none() {
        return own.cloned().map(|s| (Some(s), None)).ok_or_else(refusals::session);
    }
    let path = Path::check(references.edges.clone(), references.sessions.clone(), now).map_err(|broken| match broken {
        Broken::Edge(_) | Broken::Session(_) | Broken::Discontinuous | Broken::TooLong => refusals::edge(),
    })?;
    if path.presented().target != session || path.target().application != who.application {
        return Err(refusals::edge());
    }
    let target = path.target().clone();
    Ok((Some(target), Some(path)))
}

/// Resolves the references of a Gateway exchange (3.5): everything comes from the presented mandate.
pub(crate) async fn presented(
    who: Authenticated,
    mandate: Arc<caracal_crypto::verified::VerifiedMandate>,
    known: &Known,
) -> Result<Resolved, Refusal> {
    let claims = &mandate.claims;
    let asked = Asked { record: Some(claims.sid), session: claims.session, edge: claims.edge() };
    let references = known.get(who.view.zone, asked).await?;
    let outcome = check_presented(&who, &references, asked, claims);
    if let Ok((session, path)) = outcome {
        Ok(Resolved { who, references, path, session, asked, subject: Some(mandate) })
    } else {
        let references = known.again(who.view.zone, asked).await?;
        let (session, path) = check_presented(&who, &references, asked, claims)?;
        Ok(Resolved { who, references, path, session, asked, subject: Some(mandate) })
    }
}

fn check_presented(
    who: &Authenticated,
    references: &References,
    asked: Asked,
    claims: &Claims,
) -> Result<(Option<Session>, Option<Path>), Refusal> {
    let kind = claims.sub_type == SubjectType::User;
    let own = |r: &&caracal_store::path::Record| r.is_live(who.fresh.now) && r.subject == claims.sub && r.is_user == kind;
    references.record.as_ref().filter(own).ok_or_else(refusals::record)?;
    if claims.client_id != who.application {
        return Err(refusals::record());
    }
    lineage(who, references, asked)
}
