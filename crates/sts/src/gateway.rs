//! The Gateway's own exchange (`sts.md` 3.5, `gateway.md` 7.7): a gateway mandate in, where to and with what out.

use std::sync::Arc;

use caracal_core::directive::Directive;
use caracal_core::refusal::Refusal;
use caracal_core::scope::Scopes;
use caracal_crypto::verified::VerifiedMandate;
use caracal_store::journal::Consume;

use crate::authenticate::NotAuthenticated;
use crate::decide::{Asking, Mints, decide};
use crate::evidence::Whose;
use crate::exchange::{Sts, TRIES};
use crate::mint::{Minted, NotMinted};
use crate::refusals;
use crate::resolve::presented;

/// What the Gateway hands over, its mandate verified.
#[derive(Clone, Debug)]
pub struct GatewayCall<'a> {
    /// The mandate.
    pub mandate: &'a Arc<VerifiedMandate>,
    /// The resource as the caller named it.
    pub resource: &'a str,
    /// The method as received.
    pub method: &'a str,
    /// The operation path.
    pub path: &'a str,
    /// Correlation.
    pub request_id: &'a str,
    /// The consumption of the mandate, to commit with the evidence.
    pub consume: Option<Consume>,
}

/// What it gets back. Holds a live credential.
#[derive(Clone, Debug)]
pub struct GatewayGrant {
    /// The resource mandate, where the directive forwards it.
    pub token: Option<String>,
    /// Where to and with what.
    pub directive: Directive,
}

/// Why not.
#[derive(Clone, Debug)]
pub enum GatewayRefusal {
    /// The STS says no.
    Refused(Box<Refusal>),
    /// The mandate was used before.
    Replayed,
}

impl Sts {
    /// Exchanges a gateway mandate, inside the process.
    pub async fn gateway_exchange(&self, call: GatewayCall<'_>) -> Result<GatewayGrant, GatewayRefusal> {
        let minted = self.for_gateway(&call, false).await?;
        let directive = minted.granted.into_iter().find_map(|g| g.directive);
        let Some(mut directive) = directive else {
            return Err(GatewayRefusal::Refused(Box::new(refusals::provider(call.resource))));
        };
        directive.authority_expires_at = minted.authority_ends.map(caracal_core::time::Time::as_secs);
        Ok(GatewayGrant { token: minted.token, directive })
    }

    /// The exchange itself; `always_sign` where the answer travels.
    pub(crate) async fn for_gateway(&self, call: &GatewayCall<'_>, always_sign: bool) -> Result<Minted, GatewayRefusal> {
        let refused = |refusal: Refusal| GatewayRefusal::Refused(Box::new(refusal));
        for _ in 0..TRIES {
            match self.gateway_once(call, always_sign).await {
                Ok(minted) => return Ok(minted),
                Err(NotMinted::Stale) => self.inner.numbers.decided_again.inc(),
                Err(NotMinted::Spent) => return Err(GatewayRefusal::Replayed),
                Err(NotMinted::Exhausted(_)) => {
                    return Err(refused(refusals::internal("an exchange spent what it does not spend")));
                }
                Err(NotMinted::Refused(refusal, events)) => {
                    return Err(refused(self.told(*refusal, call.consume.clone(), events).await));
                }
            }
        }
        Err(refused(refusals::unavailable("the zone changes faster than an exchange is decided")))
    }

    async fn gateway_once(&self, call: &GatewayCall<'_>, always_sign: bool) -> Result<Minted, NotMinted> {
        let inner = &self.inner;
        let claims = &call.mandate.claims;
        let early = |whose: &Whose, refusal: Refusal| {
            let event = inner.evidence.early(whose, call.request_id, &refusal, inner.world.now());
            NotMinted::Refused(Box::new(refusal), event.into_iter().collect())
        };
        let who = match inner.gate.by_gateway(claims.zone_id, claims.client_id).await {
            Ok(who) => who,
            Err(NotAuthenticated { refusal, whose }) => return Err(early(&whose, refusal)),
        };
        let whose = Whose::application(&who.view, who.application);
        let early = |refusal| early(&whose, refusal);
        let resolved = presented(who, Arc::clone(call.mandate), &inner.known).await.map_err(early)?;
        let resources = [call.resource.to_owned()];
        let method = call.method.trim().to_ascii_uppercase();
        let asking = Asking {
            resources: &resources,
            scopes: &Scopes::none(),
            operation: Some((&method, call.path.trim())),
            request_id: call.request_id,
        };
        let mints = Mints { windows: &inner.mints, now: inner.world.monotonic(), counts: false };
        let decided =
            decide(resolved, &asking, &inner.evidence, &mints).map_err(|r| NotMinted::Refused(Box::new(r.refusal), r.events))?;
        self.mint().gateway(decided, call.consume.clone(), always_sign).await
    }
}
