//! Who asks, and what they may: the table of `api.md` 4.3 and the zone rule of 4.4, as values.

use caracal_core::error::{Situation, api as rows};
use caracal_core::id::ZoneId;
use caracal_web::bearer::same_secret;
use secrecy::SecretString;

use crate::routes::{Does, Reach, Route};

/// Longest bearer.
const BEARER_MAX: usize = 4096;

/// What an actor may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capability {
    /// Look.
    #[cfg_attr(not(test), expect(dead_code, reason = "tokens with less than full authority come with the routes that mint them"))]
    Read,
    /// Look, and decide what waits for approval.
    #[cfg_attr(not(test), expect(dead_code, reason = "tokens with less than full authority come with the routes that mint them"))]
    Approve,
    /// Everything but deciding what waits for approval.
    Write,
}

/// An authenticated administrator.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    /// The token's id.
    pub(crate) id: String,
    /// The token's name.
    pub(crate) name: String,
    /// The one zone it may touch; none means all.
    pub(crate) zone: Option<ZoneId>,
    /// What it may do there.
    pub(crate) capability: Capability,
    /// Whether it is the deployment's own token, which alone may touch the platform's namespace.
    pub(crate) bootstrap: bool,
}

impl Actor {
    /// The deployment's own token.
    pub(crate) fn bootstrap() -> Self {
        Self { id: "bootstrap".into(), name: "bootstrap".into(), zone: None, capability: Capability::Write, bootstrap: true }
    }

    /// As rows name it: an id, never a name that may change.
    pub(crate) fn stamp(&self) -> String {
        format!("admin:{}", self.id)
    }

    /// `global` or `zone`.
    pub(crate) const fn scope(&self) -> &'static str {
        if self.zone.is_none() { "global" } else { "zone" }
    }

    /// Whether it may call this route on the zone of the path.
    pub(crate) fn may(&self, route: &Route, zone: Option<&str>) -> Result<(), &'static Situation> {
        match (self.capability, route.does) {
            (Capability::Write, _) | (_, Does::Look) => {}
            (Capability::Read, _) => return Err(rows::READ_ONLY),
            (Capability::Approve, _) => return Err(rows::APPROVE_ONLY),
        }
        let within = match (self.zone, route.reach) {
            (None, _) | (_, Reach::Any) => true,
            (Some(own), Reach::Zone) => zone == Some(own.to_string().as_str()),
            (Some(_), Reach::Deployment) => false,
        };
        if within { Ok(()) } else { Err(rows::ZONE_MISMATCH) }
    }
}

/// The bearers this deployment knows.
pub(crate) struct Bearers(Vec<(SecretString, Actor)>);

impl Bearers {
    pub(crate) fn new(bootstrap: Option<SecretString>) -> Self {
        Self(bootstrap.into_iter().map(|token| (token, Actor::bootstrap())).collect())
    }

    /// One more, for tests of what lesser ones may.
    #[cfg(test)]
    pub(crate) fn add(&mut self, token: &str, actor: Actor) {
        self.0.push((SecretString::from(token), actor));
    }

    /// Whose bearer it is; looks at every one, so that time tells nothing.
    pub(crate) fn actor(&self, presented: &str) -> Option<Actor> {
        if presented.len() > BEARER_MAX {
            return None;
        }
        let matching = |found: Option<Actor>, (token, actor): &(SecretString, Actor)| {
            let right = same_secret(presented, token);
            found.or_else(|| right.then(|| actor.clone()))
        };
        self.0.iter().fold(None, matching)
    }
}
