//! The decision contract (`policy.md` 6): the first line that applies decides, and says which it was.

use std::collections::BTreeSet;

use caracal_core::refusal::Enough;
use caracal_core::scope::LIFECYCLE;
use serde_json::{Value, json};

use crate::input::{Input, elements, strings};
use crate::tables::{Confinement, Tables};

/// A decision, with everything that is needed to explain it.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It may.
    Allow {
        /// The name of the rule that allowed.
        policy: String,
        /// Mint diagnostics.
        diagnostics: Vec<Value>,
    },
    /// It may not.
    Deny(Denial),
}

/// Why not.
#[derive(Clone, Debug, PartialEq)]
pub struct Denial {
    /// The reason of `policy.md` 6.4.
    pub reason: &'static str,
    /// The rule, for a caller.
    pub rule: &'static str,
    /// The document that decided.
    pub document: Option<&'static str>,
    /// The scopes that failed.
    pub scopes: Vec<String>,
    /// What alone would have been enough, as far as the caller's own grants tell.
    pub enough: Vec<Enough>,
}

/// The evaluation itself failed: no decision, and therefore no authority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EvaluationError(pub String);

impl Decision {
    /// The result document of `policy.md` 6.4.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Allow { policy, diagnostics } => {
                json!({"decision": "allow", "evaluation_status": "complete", "determining_policies": [{"policy": policy}], "diagnostics": diagnostics})
            }
            Self::Deny(denial) => {
                json!({"decision": "deny", "evaluation_status": "complete", "determining_policies": [], "diagnostics": [{"reason": denial.reason}]})
            }
        }
    }

    /// Declarations that gate this decision.
    pub fn gates(&self) -> Vec<&Value> {
        let Self::Allow { diagnostics, .. } = self else { return Vec::new() };
        diagnostics.iter().flat_map(|d| elements(&d["step_up_required"]["tiers"])).collect()
    }
}

/// A denial without more to say than its reason.
pub const fn denial(reason: &'static str, rule: &'static str, document: Option<&'static str>) -> Denial {
    Denial { reason, rule, document, scopes: Vec::new(), enough: Vec::new() }
}

/// The answer of a zone without an active policy set.
pub const fn no_active_policy_set() -> Decision {
    Decision::Deny(denial("no_active_policy_set", "policy.zone", None))
}

struct Facts<'a> {
    tables: &'a Tables,
    requested: BTreeSet<&'a str>,
    labels: Vec<&'a str>,
    identifier: &'a str,
    principal: &'a str,
    subject: Option<&'a Value>,
    edge: Option<&'a Value>,
    session: bool,
}

impl<'a> Facts<'a> {
    fn of(tables: &'a Tables, input: &'a Input) -> Self {
        Self {
            tables,
            requested: input.requested().into_iter().collect(),
            labels: input.labels(),
            identifier: input.text("resource", "identifier").unwrap_or_default(),
            principal: input.text("principal", "id").unwrap_or_default(),
            subject: input.subject(),
            edge: input.edge(),
            session: input.has_session(),
        }
    }

    fn owner(&self) -> Option<&'a str> {
        let grant = self.tables.grants.get(self.identifier)?;
        self.tables.keys_of.get(self.principal)?.contains(&grant.owner).then_some(grant.owner.as_str())
    }

    fn role_allows(&self, scopes: &BTreeSet<&str>) -> bool {
        self.tables.grants.get(self.identifier).is_some_and(|grant| {
            let covers = |label: &&str| grant.roles.get(*label).is_some_and(|role| scopes.iter().all(|s| role.contains(*s)));
            self.labels.iter().any(covers)
        })
    }

    fn role_mismatch(&self, scopes: &BTreeSet<&str>) -> Denial {
        let mut no = denial("role_scope_mismatch", "policy.role", Some("grants"));
        no.scopes = owned(scopes);
        let Some(grant) = self.tables.grants.get(self.identifier) else { return no };
        let covering: Vec<String> = grant
            .roles
            .iter()
            .filter(|(_, role)| scopes.iter().all(|s| role.contains(*s)))
            .map(|(label, _)| label.clone())
            .collect();
        if !covering.is_empty() {
            no.enough.push(Enough::Role { labels: covering });
        }
        let best = self
            .labels
            .iter()
            .filter_map(|label| grant.roles.get(*label))
            .map(|role| scopes.iter().filter(|s| role.contains(**s)).map(|s| (*s).to_owned()).collect::<Vec<_>>());
        if let Some(covered) = best.max_by_key(Vec::len).filter(|covered| !covered.is_empty()) {
            no.enough.push(Enough::Scope { scopes: covered });
        }
        no
    }

    fn confined(&self) -> Result<(), Denial> {
        let mut no = denial("confinement_violation", "policy.confinement", Some("confinement"));
        let rules = match &self.tables.confinement {
            Confinement::None => return Ok(()),
            Confinement::RefuseAll => return Err(no),
            Confinement::Rules(rules) => rules,
        };
        let mut left = self.requested.clone();
        for (_, scopes) in rules.iter().filter(|(prefix, _)| self.labels.iter().any(|label| label.starts_with(prefix.as_str()))) {
            left.retain(|scope| scopes.contains(*scope));
        }
        if left.len() == self.requested.len() {
            return Ok(());
        }
        no.scopes = self.requested.iter().filter(|s| !left.contains(**s)).map(|s| (*s).to_owned()).collect();
        if !left.is_empty() {
            no.enough.push(Enough::Scope { scopes: owned(&left) });
        }
        Err(no)
    }

    /// Diagnostics of a mint that is allowed: what it takes beside, and how its scopes are classified.
    fn mint_diagnostics(&self, input: &Input) -> Result<Vec<Value>, EvaluationError> {
        let (Some(risk), Some(declared)) = (&self.tables.risk, &self.tables.approvals) else { return Ok(Vec::new()) };
        let mut classified = Vec::new();
        let mut requested = input.requested();
        requested.sort_unstable();
        for scope in requested {
            let Some(tiers) = risk.get(scope) else { continue };
            let mut tiers = tiers.iter();
            match (tiers.next(), tiers.next()) {
                (Some(tier), None) => classified.push((scope, tier.as_str())),
                _ => return Err(EvaluationError(format!("scope {scope} is classified two ways"))),
            }
        }
        let matched: Vec<&Value> = declared.iter().filter(|d| classified.iter().any(|(_, tier)| d["tier"] == *tier)).collect();
        let mut diagnostics = Vec::new();
        if !matched.is_empty() {
            diagnostics.push(json!({"step_up_required": {"type": "human_approval", "tiers": matched}}));
        }
        if !classified.is_empty() {
            let risk: Vec<Value> = classified.iter().map(|(scope, tier)| json!({"scope": scope, "tier": tier})).collect();
            diagnostics.push(json!({"risk": risk}));
        }
        Ok(diagnostics)
    }
}

fn owned(scopes: &BTreeSet<&str>) -> Vec<String> {
    scopes.iter().map(|s| (*s).to_owned()).collect()
}

/// Decides. Pure: the same tables and input give the same decision, byte for byte.
pub fn decide(tables: &Tables, input: &Input) -> Result<Decision, EvaluationError> {
    let facts = Facts::of(tables, input);
    let deny = |d: Denial| Ok(Decision::Deny(d));
    if tables.restricted {
        return deny(denial("restriction_active", "policy.restrict", Some("restrict")));
    }
    let plain = facts.subject.is_none() && facts.edge.is_none() && !facts.session;
    let lifecycle = facts.requested.contains(LIFECYCLE);
    let bootstrap = lifecycle && facts.requested.len() == 1 && plain;
    let mint = facts.edge.is_some() && facts.session && facts.subject.is_none() && !facts.requested.is_empty() && !lifecycle;
    let workload =
        input.text("principal", "type") == Some("Workload") && input.text("action", "id") == Some("CredentialInjection") && plain;
    let malformed = (tables.risk.is_none(), tables.approvals.is_none());
    let owner = facts.owner();
    if bootstrap && owner.is_some() {
        if workload && malformed == (false, false) {
            return Err(EvaluationError("a bootstrap and a workload mint apply at once".to_owned()));
        }
        return Ok(Decision::Allow { policy: "caracal-bootstrap".to_owned(), diagnostics: Vec::new() });
    }
    if (mint || workload) && !bootstrap {
        if malformed.0 {
            return deny(denial("malformed_risk_data", "policy.risk", Some("risk")));
        }
        if malformed.1 {
            return deny(denial("malformed_approval_data", "policy.approval_tiers", Some("approval_tiers")));
        }
    }
    if mint {
        let Some(owner) = owner else { return deny(denial("resource_not_granted", "policy.ownership", Some("grants"))) };
        let carried: BTreeSet<&str> = facts.edge.map(|e| strings(&e["scopes"])).unwrap_or_default().into_iter().collect();
        if !facts.requested.is_subset(&carried) {
            let mut no = denial("delegation_scope_exceeded", "delegation.scopes", None);
            no.scopes = facts.requested.difference(&carried).map(|s| (*s).to_owned()).collect();
            return deny(no);
        }
        if let Err(no) = facts.confined() {
            return deny(no);
        }
        if !facts.role_allows(&facts.requested) {
            return deny(facts.role_mismatch(&facts.requested));
        }
        return Ok(Decision::Allow { policy: format!("caracal-{owner}-mint"), diagnostics: facts.mint_diagnostics(input)? });
    }
    if workload && malformed == (false, false) {
        return Ok(Decision::Allow { policy: "caracal-workload-mint".to_owned(), diagnostics: facts.mint_diagnostics(input)? });
    }
    if let Some(claims) = facts.subject {
        let carried: BTreeSet<&str> =
            claims["scope"].as_str().map(|s| s.split(' ').filter(|p| !p.is_empty()).collect()).unwrap_or_default();
        let names_edge = claims.get("delegation_edge_id").is_some_and(|id| !id.is_null() && id != "");
        if names_edge && facts.requested.is_empty() && !carried.is_empty() {
            if !elements(&claims["target"]).iter().any(|t| **t == facts.identifier) {
                let mut no = denial("mandate_target_mismatch", "policy.target", None);
                no.enough.push(Enough::Target { resource: facts.identifier.to_owned() });
                return deny(no);
            }
            let Some(owner) = owner else { return deny(denial("resource_not_granted", "policy.ownership", Some("grants"))) };
            if !facts.role_allows(&carried) {
                return deny(facts.role_mismatch(&carried));
            }
            return Ok(Decision::Allow { policy: format!("caracal-{owner}-use"), diagnostics: Vec::new() });
        }
    }
    deny(denial("no_rule_matched", "policy.shape", None))
}
