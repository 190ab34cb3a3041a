//! Step four: each resource in turn (`sts.md` 6). A skip drops the resource; the exchange fails when nothing is granted.

use caracal_core::claims::Claims;
use caracal_core::directive::Directive;
use caracal_core::event::{AuditEvent, Verdict};
use caracal_core::refusal::Refusal;
use caracal_core::request::match_operation;
use caracal_core::scope::Scopes;
use caracal_policy::decide::{Decision, no_active_policy_set};
use caracal_policy::input::Input;
use serde_json::{Value, json};

use crate::evidence::Evidence;
use crate::limits::{Room, Windows};
use crate::refusals;
use crate::resolve::Resolved;
use crate::view::{Policy, Resource, Upstream};

/// What is asked of the resources, whichever form it came in.
pub(crate) struct Asking<'a> {
    /// As the caller wrote them.
    pub(crate) resources: &'a [String],
    /// Scopes of the request; none at a Gateway exchange.
    pub(crate) scopes: &'a Scopes,
    /// The operation of a Gateway exchange.
    pub(crate) operation: Option<(&'a str, &'a str)>,
    pub(crate) request_id: &'a str,
}

/// Which mints count: (zone, resource row, application).
pub(crate) type MintKey = ([u8; 16], [u8; 16], [u8; 16]);

/// A resource that is granted.
#[derive(Clone)]
pub(crate) struct Granted {
    pub(crate) identifier: String,
    /// Only at a Gateway exchange.
    pub(crate) directive: Option<Directive>,
}

/// Every resource was looked at, and something is granted.
pub(crate) struct Decided {
    pub(crate) resolved: Resolved,
    pub(crate) granted: Vec<Granted>,
    pub(crate) events: Vec<AuditEvent>,
}

/// Nothing is granted.
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) events: Vec<AuditEvent>,
}

/// Runs the loop.
pub(crate) fn decide(resolved: Resolved, asking: &Asking<'_>, evidence: &Evidence, mints: &Mints<'_>) -> Result<Decided, Refused> {
    let mut turn =
        Loop { on: &resolved, asking, evidence, events: Vec::new(), kept: None, decided: None, limited: Vec::new(), skipped: 0 };
    let mut granted: Vec<Granted> = Vec::new();
    let mut gated = None;
    for written in asking.resources {
        match turn.resource(written, mints) {
            Ok(Some((one, gates))) => {
                if gates {
                    gated = gated.or_else(|| Some(written.clone()));
                }
                // Identifier and row id of one resource are one resource.
                if !granted.iter().any(|g| g.identifier == one.identifier) {
                    granted.push(one);
                }
            }
            Ok(None) => {}
            Err(refusal) => return Err(turn.stop(*refusal)),
        }
    }
    if let Some(written) = gated {
        return Err(turn.stop(refusals::approval_required(&written)));
    }
    if granted.is_empty() {
        let refusal = turn.nothing();
        return Err(turn.stop(refusal));
    }
    granted.sort_by(|a, b| a.identifier.cmp(&b.identifier));
    let events = turn.events;
    Ok(Decided { resolved, granted, events })
}

/// The mint budgets, looked at for forms that count.
pub(crate) struct Mints<'a> {
    pub(crate) windows: &'a Windows<MintKey>,
    pub(crate) now: std::time::Duration,
    pub(crate) counts: bool,
}

struct Loop<'a> {
    on: &'a Resolved,
    asking: &'a Asking<'a>,
    evidence: &'a Evidence,
    events: Vec<AuditEvent>,
    /// The refusal of a resource whose own checks the caller may see.
    kept: Option<Refusal>,
    /// The first answer of the contract.
    decided: Option<Refusal>,
    limited: Vec<u64>,
    skipped: usize,
}

impl Loop<'_> {
    /// One resource: granted (and whether an approval gates it), skipped, or the whole request fails.
    fn resource(&mut self, written: &str, mints: &Mints<'_>) -> Result<Option<(Granted, bool)>, Box<Refusal>> {
        let on = self.on;
        let Some(resource) = on.who.view.resource(written) else {
            self.skip(written, "resource_not_found");
            return self.contract_alone(written);
        };
        let identifier = &resource.row.identifier;
        let known = self.knows(identifier);
        let undeclared = resource.undeclared(self.asking.scopes);
        if !undeclared.is_empty() {
            self.skip(written, "scope_mismatch");
            if !known {
                return self.contract_alone(written);
            }
            let declared = self.asking.scopes.iter().filter(|s| !undeclared.iter().any(|u| u == s)).map(str::to_owned).collect();
            self.keep(refusals::undeclared(written, undeclared, declared));
            return Ok(None);
        }
        if on.path.as_ref().is_some_and(|path| !path.reaches(identifier)) {
            self.skip(written, "resource_outside_delegation");
            if !known {
                return self.contract_alone(written);
            }
            self.keep(refusals::outside_edge(written));
            return Ok(None);
        }
        if let Some((method, path)) = self.asking.operation {
            self.operation_floor(written, resource, method, path)?;
        }
        if mints.counts && known {
            let key = (
                caracal_core::id::Id::to_bytes(on.who.view.zone),
                caracal_core::id::Id::to_bytes(resource.row.id),
                caracal_core::id::Id::to_bytes(on.who.application),
            );
            if let Room::Full(seconds) = mints.windows.count(&key, mints.now) {
                self.skip(written, "rate_limited");
                self.limited.push(seconds);
                return Ok(None);
            }
        }
        let directive = match (&resource.upstream, self.asking.operation.is_some()) {
            (_, false) => None,
            (Upstream::Ready(directive), true) => Some(directive.clone()),
            (Upstream::NoProvider, true) => {
                self.skip_because(written, "provider_unavailable", "provider_not_found");
                self.keep(refusals::provider(written));
                return Ok(None);
            }
            (Upstream::Unusable(why), true) => {
                self.skip_because(written, "provider_credential_unavailable", "configuration");
                return Err(Box::new(refusals::credential(written, why.clone())));
            }
        };
        let (decision, gates) = self.evaluate(written, &resource.row.id.to_string(), identifier, &resource.row.scopes)?;
        Ok(match decision {
            Decision::Allow { .. } => Some((Granted { identifier: identifier.clone(), directive }, gates)),
            Decision::Deny(denial) => {
                let bootstrap = self.asking.scopes.len() == 1 && self.asking.scopes.contains(caracal_core::scope::LIFECYCLE);
                let refusal = refusals::policy(&denial, written, bootstrap);
                self.decided.get_or_insert(refusal);
                None
            }
        })
    }

    /// What the caller may not know answers as the contract does for a resource without grants.
    fn contract_alone(&mut self, written: &str) -> Result<Option<(Granted, bool)>, Box<Refusal>> {
        self.skipped += 1;
        let input = self.input("", written, &[]);
        let decision = match &self.on.who.view.policy {
            Policy::Active(active) => active.program.decide_ungranted(&input).map_err(|e| Box::new(refusals::policy_failed(e)))?,
            Policy::None => no_active_policy_set(),
            Policy::Broken(why) => return Err(Box::new(refusals::policy_failed(why))),
        };
        if let Decision::Deny(denial) = decision {
            let bootstrap = self.asking.scopes.len() == 1 && self.asking.scopes.contains(caracal_core::scope::LIFECYCLE);
            let refusal = refusals::policy(&denial, written, bootstrap);
            self.decided.get_or_insert(refusal);
        }
        Ok(None)
    }

    fn evaluate(&mut self, written: &str, id: &str, identifier: &str, scopes: &[String]) -> Result<(Decision, bool), Box<Refusal>> {
        let input = self.input(id, identifier, scopes);
        let (active, outcome) = match &self.on.who.view.policy {
            Policy::Active(active) => (Some(active), active.program.decide(&input)),
            Policy::None => (None, Ok(no_active_policy_set())),
            Policy::Broken(why) => {
                let mut event = self.event(written, Verdict::Deny, "policy_eval_failed");
                event.diagnostics = vec![json!({"error": why})];
                self.events.push(event);
                return Err(Box::new(refusals::policy_failed(why)));
            }
        };
        let decision = match outcome {
            Ok(decision) => decision,
            Err(e) => {
                let mut event = self.event(written, Verdict::Deny, "policy_eval_failed");
                event.diagnostics = vec![json!({"error": e.to_string()})];
                self.events.push(event);
                return Err(Box::new(refusals::policy_failed(e)));
            }
        };
        let verdict = if matches!(decision, Decision::Allow { .. }) { Verdict::Allow } else { Verdict::Deny };
        let event = self.event(identifier, verdict, "complete");
        let kind = self.on.subject.as_ref().map_or("", |m| m.claims.sub_type.as_str());
        let event =
            self.evidence.of_decision(event.with("subject_kind", kind), self.on, active.map(AsRef::as_ref), input, &decision);
        self.events.push(event);
        let gates = !decision.gates().is_empty();
        Ok((decision, gates))
    }

    fn operation_floor(&mut self, written: &str, resource: &Resource, method: &str, path: &str) -> Result<(), Box<Refusal>> {
        if !resource.row.enforced {
            return Ok(());
        }
        let declared = match_operation(&resource.row.operations, method, path);
        let carried = self.on.subject.as_ref().and_then(|m| m.claims.scope.as_deref()).map(Scopes::of_text).unwrap_or_default();
        if declared.is_some_and(|op| carried.contains(&op.scope)) {
            return Ok(());
        }
        let event = self.event(written, Verdict::Deny, "operation_not_permitted").with("method", method).with("path", path);
        self.events.push(event);
        Err(Box::new(refusals::operation(written, declared.map(|op| op.scope.as_str()))))
    }

    /// Resources the caller may know (27.3 rule 2).
    fn knows(&self, identifier: &str) -> bool {
        let application = self.on.who.application.to_string();
        let granted = matches!(&self.on.who.view.policy, Policy::Active(a) if a.program.binds(&application, identifier));
        let named = self.on.path.as_ref().is_some_and(|path| {
            path.edges().iter().any(|e| {
                e.authority.resource.as_deref() == Some(identifier)
                    || e.authority.constraints.resources.iter().any(|r| r == identifier)
            })
        });
        granted || named || self.on.subject.as_ref().is_some_and(|m| m.claims.target.iter().any(|t| t == identifier))
    }

    fn event(&self, resource: &str, verdict: Verdict, status: &'static str) -> AuditEvent {
        self.evidence.step(self.on, self.asking.request_id, verdict, status, resource)
    }

    fn skip(&mut self, resource: &str, status: &'static str) {
        let event = self.event(resource, Verdict::Deny, status);
        self.events.push(event);
    }

    fn skip_because(&mut self, resource: &str, status: &'static str, reason: &'static str) {
        let event = self.event(resource, Verdict::Deny, status).with("reason", reason);
        self.events.push(event);
    }

    fn keep(&mut self, refusal: Refusal) {
        self.kept = Some(refusal);
    }

    /// Why nothing is granted, in order of preference.
    fn nothing(&mut self) -> Refusal {
        if !self.limited.is_empty() && self.limited.len() == self.asking.resources.len() {
            return refusals::rate_limited(self.limited.iter().copied().max().unwrap_or(1));
        }
        let written = self.asking.resources.first().map_or("", String::as_str);
        self.kept.take().or_else(|| self.decided.take()).unwrap_or_else(|| refusals::provider(written))
    }

    fn stop(mut self, refusal: Refusal) -> Refused {
        let requested = json!(self.asking.resources);
        let first = self.asking.resources.first().map_or("", String::as_str);
        let event =
            self.event(first, Verdict::Deny, "exchange_denied").with("requested", requested).with("refusal", refusal.for_ledger());
        self.events.push(event);
        Refused { refusal, events: self.events }
    }

    /// The policy input (`policy.md` 5.1).
    fn input(&self, id: &str, identifier: &str, scopes: &[String]) -> Input {
        let on = self.on;
        let application = on.who.application.to_string();
        let mut principal = json!({"type": "Application", "id": application, "zone_id": on.who.view.zone,
            "registration_method": on.who.row().map(|a| a.row.registration_method.as_str())});
        if let Some(session) = &on.session {
            principal["agent_session_id"] = json!(session.id);
            principal["lifecycle"] = session.lifecycle.as_str().into();
            principal["labels"] = json!(session.labels);
        }
        let mut action = json!({"id": "TokenExchange"});
        if let Some((method, path)) = self.asking.operation {
            action["method"] = method.into();
            action["path"] = path.into();
        }
        let edge = on.path.as_ref().map(|path| {
            let edge = path.presented();
            json!({"id": edge.id, "source_session_id": edge.source, "target_session_id": edge.target,
                "issuer_application_id": edge.issuer, "receiver_application_id": edge.receiver, "resource_id": edge.resource_id,
                "scopes": edge.authority.scopes, "edge_version": edge.version, "path": path.edges().iter().map(|e| e.id).collect::<Vec<_>>(),
                "graph_epoch": on.references.graph_epoch, "constraints_json": edge.authority.constraints})
        });
        let subject = on.subject.as_ref().map(|m| claims_json(&m.claims));
        let raw = json!({
            "schema_version": caracal_policy::input::SCHEMA,
            "principal": principal,
            "resource": {"type": "Resource", "id": id, "identifier": identifier, "scopes": scopes},
            "action": action,
            "session": {"id": on.asked.record},
            "delegation_edge": edge,
            "context": {"actor_claims": {"caracal_client_id": application}, "subject_claims": subject, "trace_id": self.asking.request_id,
                "session_id": on.asked.record, "agent_session_id": on.asked.session, "delegation_edge_id": on.asked.edge,
                "challenge_resolved": false, "requested_scopes": self.asking.scopes}
        });
        // The schema is ours and constant, so the normal form exists.
        Input::normal(&raw).unwrap_or_else(|_| unreachable!("the schema is the contract's own"))
    }
}

fn claims_json(claims: &Claims) -> Value {
    serde_json::to_value(claims).unwrap_or_default()
}
