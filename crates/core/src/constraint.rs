//! What narrows a Delegation: a closed object, and the rule that a child never widens it (`coordinator.md` 6.4, 6.5).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::scope::Scopes;
use crate::time::Time;

/// Most edges from a root to the presented one.
pub const MAX_PATH: usize = 10;
/// Longest lifetime of an edge, in seconds.
pub const MAX_LIFE: i64 = 86_400;

/// The constraints of a Delegation, as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraints {
    /// Identifiers the edge may reach; empty is no such bound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Older name of `max_hops`; kept when it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_depth: Option<u32>,
    /// Remaining re-delegations, this edge included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_hops: Option<u32>,
    /// Ceiling on governed calls below the edge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<i64>,
    /// Lifetime, and cap on every mandate's requested lifetime, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<i64>,
    /// Annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_approved: Option<bool>,
    /// Bound kept with the edge, enforced again at mint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broad_reason: Option<String>,
}

/// Why an object is no set of constraints: the code on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadConstraint(pub &'static str);

impl Constraints {
    /// Reads and normalises what a caller sent; the first bad key in the spec's order names the code.
    pub fn read(object: &Map<String, Value>, ttl_seconds: Option<i64>) -> Result<Self, BadConstraint> {
        const KEYS: [&str; 8] =
            ["resources", "max_depth", "max_hops", "budget", "ttl_seconds", "policy_approved", "expires_at", "broad_reason"];
        if object.keys().any(|key| !KEYS.contains(&key.as_str())) {
            return Err(BadConstraint("invalid_delegation_constraint"));
        }
        let get = |key: &str| object.get(key).filter(|v| !v.is_null());
        if object.values().any(Value::is_null) {
            return Err(BadConstraint("invalid_delegation_constraint"));
        }
        let int = |key: &str, max: i64, code| match get(key) {
            None => Ok(None),
            Some(v) => v.as_i64().filter(|n| (1..=max).contains(n)).map(Some).ok_or(BadConstraint(code)),
        };
        let resources = match get("resources") {
            None => Vec::new(),
            Some(v) => {
                let list = v.as_array().filter(|l| l.len() <= 64).ok_or(BadConstraint("invalid_resources"))?;
                let text = |v: &Value| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
                list.iter().map(text).collect::<Option<_>>().ok_or(BadConstraint("invalid_resources"))?
            }
        };
        let hops = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
        let max_depth = hops(int("max_depth", 10, "invalid_max_depth")?);
        let max_hops = hops(int("max_hops", 10, "invalid_max_hops")?);
        if max_depth.is_some() && max_hops.is_some() && max_depth != max_hops {
            return Err(BadConstraint("invalid_max_hops"));
        }
        let budget = int("budget", i64::from(i32::MAX), "invalid_budget")?;
        let ttl = int("ttl_seconds", MAX_LIFE, "invalid_ttl_seconds")?;
        let policy_approved = match get("policy_approved") {
            None => None,
            Some(v) => Some(v.as_bool().ok_or(BadConstraint("invalid_policy_approved"))?),
        };
        let expires_at = match get("expires_at") {
            None => None,
            Some(v) => {
                let text = v.as_str().filter(|t| t.ends_with('Z') && Time::parse_rfc3339(t).is_some());
                Some(text.ok_or(BadConstraint("invalid_expires_at"))?.to_owned())
            }
        };
        let broad_reason = match get("broad_reason") {
            None => None,
            Some(v) => {
                let text = v.as_str().filter(|t| (1..=256).contains(&t.chars().count()));
                Some(text.ok_or(BadConstraint("invalid_broad_reason"))?.to_owned())
            }
        };
        let max_hops = max_hops.or(max_depth);
        Ok(Self {
            resources,
            max_depth,
            max_hops,
            budget,
            ttl_seconds: ttl.or(ttl_seconds),
            policy_approved,
            expires_at,
            broad_reason,
        })
    }

    /// Remaining re-delegations, this edge included; 1 when unsaid.
    pub fn hops(&self) -> u32 {
        self.max_hops.or(self.max_depth).filter(|n| *n > 0).unwrap_or(1)
    }

    /// The bound kept with the edge. `Err` when it is there and no time.
    pub fn ends(&self) -> Result<Option<Time>, BadConstraint> {
        self.expires_at.as_deref().map(|t| Time::parse_rfc3339(t).ok_or(BadConstraint("invalid_expires_at"))).transpose()
    }
}

/// What an edge may reach and for how long, in every dimension that narrows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Scopes.
    pub scopes: Scopes,
    /// The one resource, by identifier.
    pub resource: Option<String>,
    /// When it ends.
    pub expires_at: Time,
    /// The rest.
    pub constraints: Constraints,
}

/// The dimension in which a child would be wider than its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wider {
    /// Scopes.
    Scopes,
    /// Resources.
    Resources,
    /// Hops.
    Hops,
    /// Lifetime of mandates.
    Ttl,
    /// End.
    Expiry,
    /// Governed calls.
    Budget,
}

impl Authority {
    /// Whether this edge, as a child, stays within its parent in every dimension.
    pub fn within(&self, parent: &Self) -> Result<(), Wider> {
        if !self.scopes.within(&parent.scopes) {
            return Err(Wider::Scopes);
        }
        if !self.resources_within(parent) {
            return Err(Wider::Resources);
        }
        if parent.constraints.hops() < 2 || self.constraints.hops() > parent.constraints.hops() - 1 {
            return Err(Wider::Hops);
        }
        self.bounds_within(parent)
    }

    /// The same without the hop that a child costs: how two bounds compare, for edges of one place in the tree.
    pub fn narrower_or_equal(&self, other: &Self) -> bool {
        self.scopes.within(&other.scopes)
            && self.resources_within(other)
            && self.constraints.hops() <= other.constraints.hops()
            && self.bounds_within(other).is_ok()
    }

    fn bounds_within(&self, parent: &Self) -> Result<(), Wider> {
        let at_most = |child: Option<i64>, parent: Option<i64>, absent_is_fine: bool| match (child, parent) {
            (_, None) => true,
            (None, Some(_)) => absent_is_fine,
            (Some(child), Some(parent)) => child <= parent,
        };
        if !at_most(self.constraints.ttl_seconds, parent.constraints.ttl_seconds, false) {
            return Err(Wider::Ttl);
        }
        if !at_most(self.constraints.budget, parent.constraints.budget, true) {
            return Err(Wider::Budget);
        }
        if self.expires_at > parent.expires_at { Err(Wider::Expiry) } else { Ok(()) }
    }

    fn resources_within(&self, parent: &Self) -> bool {
        let named: Vec<&str> = self.resource.iter().chain(&self.constraints.resources).map(String::as_str).collect();
        if let Some(only) = &parent.resource {
            return match &self.resource {
                Some(own) => own == only,
                None => !named.is_empty() && named.iter().all(|n| n == only),
            };
        }
        if parent.constraints.resources.is_empty() {
            return true;
        }
        !named.is_empty() && named.iter().all(|n| parent.constraints.resources.iter().any(|p| p == n))
    }

    /// Whether the edge reaches this resource.
    pub fn reaches(&self, identifier: &str) -> bool {
        let listed = &self.constraints.resources;
        self.resource.as_deref().is_none_or(|own| own == identifier)
            && (listed.is_empty() || listed.iter().any(|r| r == identifier))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "tests hand a literal over")]
    fn read(value: Value) -> Result<Constraints, BadConstraint> {
        Constraints::read(value.as_object().unwrap(), None)
    }

    #[test]
    fn the_object_is_closed_and_bounded() {
        assert_eq!(read(json!({"max_depth": 3})).unwrap().hops(), 3);
        for (bad, code) in [
            (json!({"other": 1}), "invalid_delegation_constraint"),
            (json!({"max_hops": null}), "invalid_delegation_constraint"),
            (json!({"max_hops": 11}), "invalid_max_hops"),
            (json!({"max_hops": 2, "max_depth": 3}), "invalid_max_hops"),
            (json!({"budget": 0}), "invalid_budget"),
            (json!({"ttl_seconds": 86_401}), "invalid_ttl_seconds"),
            (json!({"resources": [""]}), "invalid_resources"),
            (json!({"expires_at": "2026-01-01T00:00:00+01:00"}), "invalid_expires_at"),
            (json!({"broad_reason": ""}), "invalid_broad_reason"),
            (json!({"policy_approved": 1}), "invalid_policy_approved"),
        ] {
            assert_eq!(read(bad.clone()).unwrap_err().0, code, "{bad}");
        }
    }

    fn authority() -> impl Strategy<Value = Authority> {
        let resource = || proptest::option::of("resource://[ab]");
        let resources = proptest::collection::vec("resource://[ab]", 0..3);
        let scopes = proptest::collection::vec("[a-c]", 0..3);
        let number = |max: i64| proptest::option::of(1..max);
        (scopes, resource(), resources, proptest::option::of(1_u32..5), number(4), number(4), 0_i64..4).prop_map(
            |(scopes, resource, resources, max_hops, budget, ttl_seconds, end)| Authority {
                scopes: scopes.into_iter().collect(),
                resource,
                expires_at: Time::from_secs(end),
                constraints: Constraints { resources, max_hops, budget, ttl_seconds, ..Constraints::default() },
            },
        )
    }

    /// Whether it reaches what it names: one that names a resource beside a list without it reaches nothing.
    fn sound(a: &Authority) -> bool {
        let listed = &a.constraints.resources;
        a.resource.as_ref().is_none_or(|one| listed.is_empty() || listed.contains(one))
    }

    /// Whether it names a resource in one way: a list beside one resource is compared whole, which may refuse and never widens.
    fn named_once(a: &Authority) -> bool {
        a.constraints.resources.iter().all(|listed| a.resource.as_ref().is_none_or(|one| one == listed))
    }

    proptest! {
        // Few pairs of anything narrow; enough of them must.
        #![proptest_config(ProptestConfig { cases: 5_000, max_global_rejects: 100_000, ..ProptestConfig::default() })]
        #[test]
        fn narrowing_is_reflexive(a in authority()) {
            prop_assume!(named_once(&a));
            prop_assert!(a.narrower_or_equal(&a));
        }

        #[test]
        fn narrowing_is_transitive(a in authority(), b in authority(), c in authority()) {
            // What a child may leave unsaid, its ancestors go on bounding (budget), so it is left out of this comparison.
            let plain = |x: &Authority| { let mut x = x.clone(); x.constraints.budget = None; x };
            let (a, b, c) = (plain(&a), plain(&b), plain(&c));
            prop_assume!(named_once(&a) && named_once(&b) && named_once(&c));
            prop_assert!(!(a.narrower_or_equal(&b) && b.narrower_or_equal(&c)) || a.narrower_or_equal(&c));
        }

        #[test]
        fn a_child_never_reaches_further(child in authority(), parent in authority(), target in "resource://[abc]") {
            if child.within(&parent).is_ok() {
                prop_assert!(child.scopes.within(&parent.scopes));
                prop_assert!(child.expires_at <= parent.expires_at);
                prop_assert!(child.constraints.hops() < parent.constraints.hops());
                let tried = sound(&child) && sound(&parent) && child.reaches(&target);
                prop_assert!(!tried || parent.reaches(&target));
                prop_assert!(parent.constraints.ttl_seconds.is_none_or(|p| child.constraints.ttl_seconds.is_some_and(|c| c <= p)));
                prop_assert!(parent.constraints.budget.is_none_or(|p| child.constraints.budget.is_none_or(|c| c <= p)));
            }
        }
    }

    #[test]
    fn the_vectors_of_narrowing_hold() {
        let now = 1_000;
        let edge = |scopes: &str, resource: Option<&str>, ends: i64, c: Value| Authority {
            scopes: Scopes::of_text(scopes),
            resource: resource.map(str::to_owned),
            expires_at: Time::from_secs(now + ends),
            constraints: read(c).unwrap(),
        };
        let parent = |c: Value| edge("a b", Some("R1"), 590, c);
        let p2 = parent(json!({"max_hops": 2, "ttl_seconds": 600}));
        let rows = [
            (&p2, edge("a", Some("R1"), 300, json!({"ttl_seconds": 300})), None),
            (&p2, edge("a", Some("R1"), 300, json!({"ttl_seconds": 300, "max_hops": 2})), Some(Wider::Hops)),
            (&p2, edge("a", Some("R1"), 601, json!({"ttl_seconds": 601})), Some(Wider::Ttl)),
            (&p2, edge("a", Some("R1"), 60, json!({})), Some(Wider::Ttl)),
            (&p2, edge("a c", Some("R1"), 300, json!({"ttl_seconds": 300})), Some(Wider::Scopes)),
            (&p2, edge("a", Some("R2"), 300, json!({"ttl_seconds": 300})), Some(Wider::Resources)),
            (&parent(json!({"ttl_seconds": 600})), edge("a", Some("R1"), 300, json!({"ttl_seconds": 300})), Some(Wider::Hops)),
            (
                &parent(json!({"max_hops": 2, "budget": 1, "ttl_seconds": 600})),
                edge("a b", Some("R1"), 300, json!({"ttl_seconds": 300})),
                None,
            ),
            (
                &parent(json!({"max_hops": 2, "budget": 10, "ttl_seconds": 600})),
                edge("a", Some("R1"), 300, json!({"ttl_seconds": 300, "budget": 11})),
                Some(Wider::Budget),
            ),
        ];
        for (i, (parent, child, wanted)) in rows.into_iter().enumerate() {
            assert_eq!(child.within(parent).err(), wanted, "row {i}");
        }
        let listed = edge("a b", None, 590, json!({"max_hops": 3, "ttl_seconds": 600, "resources": ["R1", "R2"]}));
        let two = edge("a", None, 300, json!({"ttl_seconds": 300, "max_hops": 2, "resources": ["R2"]}));
        assert_eq!(two.within(&listed), Ok(()));
        let three = edge("a", None, 300, json!({"ttl_seconds": 300, "max_hops": 2, "resources": ["R2", "R3"]}));
        assert_eq!(three.within(&listed), Err(Wider::Resources));
    }
}
