//! What is told of an exchange: events, signed, on their way to the spool (`sts.md` 18).

use std::sync::Arc;
use std::time::Duration;

use caracal_core::event::{AuditEvent, DecidedBy, PLATFORM, Verdict};
use caracal_core::id::{ApplicationId, ZoneId};
use caracal_core::jcs;
use caracal_core::refusal::Refusal;
use caracal_core::time::Time;
use caracal_crypto::mac::{MacKey, audit_signature};
use caracal_host::World;
use caracal_policy::decide::Decision;
use caracal_policy::input::Input;
use caracal_store::journal::SpooledEvent;
use serde_json::{Value, json};

use crate::limits::{LeftOut, Room, Suppressed, Windows};
use crate::numbers::Numbers;
use crate::resolve::Resolved;
use crate::view::{Active, Application, ZoneView};

/// Whose ledger a refusal before the resource loop belongs to, and whom it is about, as far as is known.
#[derive(Clone, Default)]
pub(crate) struct Whose {
    pub(crate) zone: Option<ZoneId>,
    pub(crate) application: Option<(ApplicationId, Arc<ZoneView>)>,
}

impl Whose {
    /// A zone, and nobody in it.
    pub(crate) const fn zone(zone: ZoneId) -> Self {
        Self { zone: Some(zone), application: None }
    }

    /// An application of a zone, whether or not it proved itself.
    pub(crate) fn application(view: &Arc<ZoneView>, id: ApplicationId) -> Self {
        Self { zone: Some(view.zone), application: Some((id, Arc::clone(view))) }
    }
}

/// Longest recorded input, in bytes; a longer one is left out and marked.
const MAX_INPUT: usize = 16 * 1024;

/// Makes events.
pub(crate) struct Evidence {
    world: World,
    key: Option<Arc<MacKey>>,
    /// Refusals before the resource loop, per ledger.
    early: Windows<String>,
    suppressed: Suppressed,
    numbers: Numbers,
    contract: String,
}

impl Evidence {
    pub(crate) fn new(world: World, key: Option<Arc<MacKey>>, numbers: Numbers) -> Self {
        Self {
            world,
            key,
            early: Windows::new(Duration::from_secs(1), 100),
            suppressed: Suppressed::default(),
            numbers,
            contract: caracal_policy::contract_sha(),
        }
    }

    /// Signs events for the spool.
    pub(crate) fn seal(&self, events: Vec<AuditEvent>) -> Vec<SpooledEvent> {
        events
            .into_iter()
            .map(|event| {
                let data = event.to_data();
                let sig = self.key.as_deref().map(|key| audit_signature(key, &data)).unwrap_or_default();
                SpooledEvent { id: event.id, data, sig }
            })
            .collect()
    }

    /// A refusal before the resource loop; `None` when its ledger had enough of them this second.
    pub(crate) fn early(&self, whose: &Whose, request_id: &str, refusal: &Refusal, at: Time) -> Option<AuditEvent> {
        let status = match refusal.reason {
            "client_authentication_failed" | "throttled" | "zone_mismatch" => "client_authentication_failed",
            "subject_token_invalid" | "gateway_required" => "subject_token_invalid",
            "subject_federation_rejected" => "subject_federation_rejected",
            "approval_invalid" => "approval_invalid",
            "authority_record_not_usable"
            | "session_not_usable"
            | "delegation_not_usable"
            | "delegation_scope_exceeded"
            | "ttl_exceeds_delegation" => "reference_invalid",
            "delegation_budget_exhausted" => "delegation_budget_exhausted",
            _ => "request_invalid",
        };
        let ledger = whose.zone.map_or_else(|| PLATFORM.to_owned(), |zone| zone.to_string());
        if self.early.count(&ledger, self.world.monotonic()) != Room::Free {
            self.numbers.suppressed.inc();
            self.suppressed.left_out(ledger, at);
            return None;
        }
        let mut event = AuditEvent::new(self.world.mint(), ledger, "token_exchange", Verdict::Deny, status, at);
        request_id.clone_into(&mut event.request_id);
        if let Some((id, view)) = &whose.application {
            event = about_application(event, id.to_string(), view.application(*id));
        }
        Some(event.with("refusal", refusal.for_ledger()))
    }

    /// The summaries of what was left out since the last time, one a ledger.
    pub(crate) fn summaries(&self) -> Vec<AuditEvent> {
        let until = self.world.now();
        let summary = |(ledger, left): (String, LeftOut)| {
            AuditEvent::new(self.world.mint(), ledger, "denials_suppressed", Verdict::Deny, "complete", until)
                .with("emitter", "sts")
                .with("from", left.from.rfc3339_micros())
                .with("until", until.rfc3339_micros())
                .with("counts", json!({"token_exchange": left.count}))
        };
        self.suppressed.take().into_iter().map(summary).collect()
    }

    /// The frame of an event of the resource loop.
    pub(crate) fn step(
        &self,
        on: &Resolved,
        request_id: &str,
        verdict: Verdict,
        status: &'static str,
        resource: &str,
    ) -> AuditEvent {
        let zone = on.who.view.zone.to_string();
        let mut event = AuditEvent::new(self.world.mint(), zone, "token_exchange", verdict, status, on.who.fresh.now);
        request_id.clone_into(&mut event.request_id);
        let mut event = about_application(event, on.who.application.to_string(), on.who.row()).with("resource", resource);
        if let Some(session) = &on.session {
            event = event
                .with("agent_session_id", session.id.to_string())
                .with("agent_lifecycle", session.lifecycle.as_str())
                .with("agent_labels", json!(session.labels))
                .with("agent_depth", session.depth)
                .with_some("agent_parent_id", session.parent.map(|p| p.to_string()));
        }
        if let Some(path) = &on.path {
            event = event
                .with("delegation_edge_id", path.presented().id.to_string())
                .with("delegation_chain", serde_json::to_value(path.chain()).unwrap_or_default())
                .with("delegation_hop_count", path.edges().len())
                .with("delegation_graph_epoch", on.references.graph_epoch);
        }
        event.with_some("session_id", on.asked.record.map(|r| r.to_string()))
    }

    /// An event of an evaluated decision: names bundle and version, and keeps the whole input.
    pub(crate) fn of_decision(
        &self,
        event: AuditEvent,
        on: &Resolved,
        active: Option<&Active>,
        input: Input,
        decision: &Decision,
    ) -> AuditEvent {
        let canonical = jcs::canonical(input.as_json());
        let mut event = event
            .with("requested_scopes", input.as_json()["context"]["requested_scopes"].clone())
            .with("session_id", on.asked.record.map(|id| id.to_string()).unwrap_or_default())
            .with("agent_session_id", on.asked.session.map(|id| id.to_string()).unwrap_or_default())
            .with("delegation_edge_id", on.asked.edge.map(|id| id.to_string()).unwrap_or_default())
            .with("policy_input_sha256", caracal_core::digest::sha256_hex(&canonical))
            .with("decision_contract_version", caracal_policy::CONTRACT_VERSION)
            .with("decision_contract_sha", self.contract.clone());
        event = if canonical.len() <= MAX_INPUT {
            event.with("policy_input", input.into_json())
        } else {
            event.with("policy_input_omitted", canonical.len())
        };
        event.decided_by = active.map(|active| DecidedBy {
            policy_set_id: active.set.clone(),
            policy_set_version_id: active.version.clone(),
            manifest_sha: active.manifest.clone(),
        });
        let result = decision.to_json();
        event.determining = list(&result["determining_policies"]);
        event.diagnostics = list(&result["diagnostics"]);
        event
    }
}

fn about_application(event: AuditEvent, id: String, row: Option<&Application>) -> AuditEvent {
    event
        .with("application_id", id)
        .with_some("application_name", row.map(|a| a.row.name.clone()))
        .with_some("application_registration_method", row.map(|a| a.row.registration_method.clone()))
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}
