//! Texts that nearly every event says, and their numbers in the packed form. A number is for ever: new words go to the end.
//!
//! The first 192 take one byte where they are used: keys of metadata and of recorded inputs, and values that repeat. Words of which an
//! event has one, in a column of its own, come after them: each is here before the first event says it, since an entry whose column has
//! no number for a word that has one is taken for an altered one.

use std::collections::HashMap;
use std::sync::LazyLock;

#[rustfmt::skip]
const WORDS: &[&str] = &[
    // Metadata and recorded inputs: keys.
    "application_id", "application_name", "application_registration_method", "resource", "requested_scopes", "agent_session_id",
    "agent_lifecycle", "agent_labels", "agent_depth", "agent_parent_id", "delegation_edge_id", "delegation_chain",
    "delegation_hop_count", "delegation_graph_epoch", "session_id", "policy_input", "policy_input_sha256", "policy_input_omitted",
    "decision_contract_version", "decision_contract_sha", "policy", "reason", "refusal", "rule", "document", "detail", "enough", "kind",
    "labels", "scopes", "ask", "v", "requested", "action", "id", "context", "actor_claims", "caracal_client_id", "challenge_resolved",
    "trace_id", "principal", "registration_method", "type", "zone_id", "identifier", "schema_version", "delegation_edge",
    "constraints_json", "max_hops", "resources", "ttl_seconds", "graph_epoch", "issuer_application_id", "path",
    "receiver_application_id", "source_session_id", "target_session_id", "lifecycle", "method", "subject_claims", "aud", "client_id",
    "delegation_path", "exp", "iat", "nbf", "hop_count", "iss", "jti", "root_sid", "scope", "sid", "sub", "sub_type", "target", "use",
    "session", "auth_mode", "duration_ms", "gateway_status", "latency_ms", "provider_id", "connection_id", "request_bytes",
    "response_bytes", "result_class", "subject_fingerprint", "subject_fp", "subject_kind", "upstream_host", "upstream_status",
    "error_kind", "error_code", "traceparent", "revocation_interrupted", "challenge_id", "tier", "approver_class", "approver_plane",
    "approver_subject_id", "privacy_mode", "binding", "subject_anchor", "request_digest", "federated_user_issuer", "subject",
    "authority_record_id", "constraints", "first_request_id", "status_code", "record_id", "record_seq", "record_sha256", "actor",
    "actor_id", "actor_name", "actor_scope", "entity_type", "entity_id", "change_kind", "changed_fields", "secret_rotated", "credential",
    "workload_id", "workload_name", "policy_set_id", "policy_set_version_id", "manifest_sha", "kid", "command", "subcommand",
    "plan_digest", "idempotency_key", "authorized_by", "emitter", "from", "until", "counts", "count", "caracal_truncated",
    "caracal_oversize", "sha256", "name", "budget", "operations", "request_id", "target_resources",
    // Values.
    "TokenExchange", "Application", "Resource", "application", "managed", "dynamic", "task", "service", "gateway", "GET", "POST", "PUT",
    "PATCH", "DELETE", "success", "client_error", "server_error", "redirect", "none", "provider_oauth", "provider_api_key",
    "caracal_mandate", "agent:lifecycle", "global", "zone", "create", "update", "delete", "role", "self", "operator", "user", "roles",
    "risk", "limit", "window_seconds", "bearer", "api_key", "oauth", "approvals", "attempts", "grants", "delegations",
    "target_resource", "issuer",
    // Up to here one byte each. Decisions, types, statuses: in columns.
    "allow", "deny", "pending", "approved", "rejected", "consumed",
    "token_exchange", "gateway_resource_request", "run_launch", "step_up_issued", "step_up_decided", "step_up_consumed",
    "jti_collision", "replay_detected", "control.invoke", "credential_revealed", "session_started", "session_suspended",
    "session_resumed", "session_terminated", "delegation_created", "delegation_revoked", "delegation_expired", "authority_revoked",
    "policy_activated", "policy_deactivated", "signing_key_rotated", "admin_action", "control.result", "denials_suppressed",
    "audit_redacted", "audit_retention_applied", "audit_imported", "audit_integrity_failure", "audit_alert_acknowledged",
    "audit_dead_letter_archived", "audit_log_key_rotated", "audit_log_restarted",
    "complete", "anomaly", "executed", "upstream_error", "upstream_rejected", "build_failed", "workload_auth_failed",
    "client_authentication_failed", "subject_token_invalid", "reference_invalid", "request_invalid", "session_revoked",
    "sts_unavailable", "exchange_failed", "request_binding_mismatch", "delegation_budget_exhausted", "exchange_denied",
    "subject_federation_rejected", "approval_invalid", "operation_not_permitted",
];

static NUMBERS: LazyLock<HashMap<&'static str, u16>> = LazyLock::new(|| WORDS.iter().copied().zip(0..).collect());

/// The number of a word.
pub(super) fn number(text: &str) -> Option<u16> {
    NUMBERS.get(text).copied()
}

/// The word of a number.
pub(super) fn word(number: u16) -> Option<&'static str> {
    WORDS.get(usize::from(number)).copied()
}

#[cfg(test)]
mod tests {
    use caracal_core::digest::sha256_hex;

    use super::*;

    #[test]
    fn each_word_has_one_number_and_keeps_it() {
        assert_eq!(NUMBERS.len(), WORDS.len(), "a word occurs twice");
        // What was stored is read with these: they never change. Words that come later get a line of their own here.
        assert_eq!(
            sha256_hex(WORDS[..250].join("\n").as_bytes()),
            "c19c7caca60cc96a21b08be6d5644688520ed07612200b5bf8469bc2ccdbe4f2"
        );
    }
}
