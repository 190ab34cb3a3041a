//! Who asks (`coordinator.md` 3): an application by its lifecycle mandate, in its own zone; or the operator, for what it may.

use std::sync::Arc;

use axum::http::HeaderMap;
use caracal_core::claims::Use;
use caracal_core::error::{Situation, coordinator as rows};
use caracal_core::id::{ApplicationId, AuthorityRecordId, ZoneId};
use caracal_core::scope::Scopes;
use caracal_store::StoreError;
use caracal_store::path::Asked;
use caracal_web::Problem;
use caracal_web::bearer::{self, Scheme};
use caracal_web::mandate::{Expect, LEEWAY_SECS, Refused, Unverified};

use crate::service::Coordinator;

/// Longest bearer.
const MAX_BEARER: usize = 4096;

/// An application that proved itself.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    pub(crate) zone: ZoneId,
    pub(crate) application: ApplicationId,
    /// Its own record, on which its Sessions stand.
    pub(crate) record: AuthorityRecordId,
    pub(crate) subject: String,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// An application.
    Application(Runtime),
    /// The operator: sees every Session and Delegation, starts and creates none.
    Operator(ZoneId),
}

impl Caller {
    pub(crate) const fn zone(&self) -> ZoneId {
        match self {
            Self::Application(runtime) => runtime.zone,
            Self::Operator(zone) => *zone,
        }
    }

    /// The application whose objects it may see; `None`: all.
    pub(crate) const fn sees(&self) -> Option<ApplicationId> {
        match self {
            Self::Application(runtime) => Some(runtime.application),
            Self::Operator(_) => None,
        }
    }
}

pub(crate) fn store(error: StoreError) -> Problem {
    match error {
        StoreError::Unavailable(_) => Problem::new(rows::UNAVAILABLE).cause(error),
        other => Problem::new(rows::INTERNAL).cause(other),
    }
}

impl Coordinator {
    /// Authenticates for a route the operator may use too.
    pub(crate) async fn caller(&self, zone: &str, headers: &HeaderMap) -> Result<Caller, Problem> {
        let token = token(headers)?;
        if self.config.operator_token.as_ref().is_some_and(|own| bearer::same_secret(token, own)) {
            return Ok(Caller::Operator(path_zone(zone)?));
        }
        self.runtime(zone, headers).await.map(Caller::Application)
    }

    /// Authenticates an application.
    pub(crate) async fn runtime(&self, zone: &str, headers: &HeaderMap) -> Result<Runtime, Problem> {
        let token = token(headers)?;
        let invalid = || Problem::new(rows::INVALID_TOKEN);
        // The zone is compared before any key is looked up, so that a forged claim costs nothing.
        let claimed = Unverified::of(token).ok_or_else(invalid)?;
        let route = path_zone(zone)?;
        if claimed.zone_id.as_deref() != Some(zone) {
            return Err(Problem::new(rows::ZONE_MISMATCH));
        }
        let mandate = self.verify(token).await?;
        let claims = &mandate.claims;
        let scopes = Scopes::of_text(claims.scope.as_deref().unwrap_or_default());
        if !scopes.contains(&self.config.scope) {
            return Err(Problem::new(rows::MISSING_SCOPE));
        }
        let runtime = Runtime { zone: route, application: claims.client_id, record: claims.sid, subject: claims.sub.clone() };
        self.identity(&runtime).await?;
        Ok(runtime)
    }

    async fn verify(&self, token: &str) -> Result<Arc<caracal_crypto::verified::VerifiedMandate>, Problem> {
        let told = |refused| match refused {
            Refused::Unavailable(why) => Problem::new(rows::UNAVAILABLE).cause(why),
            _ => Problem::new(rows::INVALID_TOKEN),
        };
        let mandate = self.verifier.verify(token).await.map_err(told)?;
        let expect = Expect { usage: Use::Session, issuer: Some(self.issuer.clone()), leeway: LEEWAY_SECS };
        expect.check(&mandate.claims, self.world.now().as_secs()).map_err(told)?;
        Ok(mandate)
    }

    /// The application and its record as they are now, behind the fence (3.3).
    async fn identity(&self, runtime: &Runtime) -> Result<(), Problem> {
        let gone = || Problem::new(rows::IDENTITY_REVOKED);
        let fresh = self.store.fence().fresh(runtime.zone).await.map_err(store)?;
        let asked = Asked { record: Some(runtime.record), ..Asked::default() };
        let references = self.store.references(runtime.zone, asked).await.map_err(store)?;
        references.record.filter(|record| record.is_live(fresh.now)).ok_or_else(gone)?;
        let own = self.store.zone_of_application(runtime.application).await.map_err(store)?;
        if own == Some(runtime.zone) { Ok(()) } else { Err(gone()) }
    }
}

/// An id in a path: of the form of ids, and one of ours; another one names nothing that is there.
pub(crate) fn path_id<I: std::str::FromStr>(text: &str, missing: &'static Situation) -> Result<I, Problem> {
    if !caracal_web::request_id::is_id(text) {
        return Err(Problem::new(rows::INVALID_PARAMS));
    }
    text.parse().map_err(|_| Problem::new(missing))
}

fn token(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || Problem::new(rows::MISSING_TOKEN);
    let token = bearer::bearer(headers, Scheme::Exact).map_err(|_| missing())?.trim();
    if token.is_empty() || token.len() > MAX_BEARER { Err(missing()) } else { Ok(token) }
}

fn path_zone(text: &str) -> Result<ZoneId, Problem> {
    // Text that is no id of ours is nobody's zone.
    path_id(text, rows::ZONE_MISMATCH)
}
