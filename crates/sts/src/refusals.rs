//! The refusals of the STS as values, one function a situation (`sts.md` 27.2).

use std::borrow::Cow;

use caracal_core::error::sts;
use caracal_core::refusal::{Ask, Enough, Operator, Refusal};

pub(crate) fn malformed(field: &'static str, text: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(sts::MALFORMED, "request_malformed", "request.form", Ask::Oneself, text).field(field)
}

pub(crate) fn ttl_range(cap: i64) -> Refusal {
    Refusal::new(sts::TTL_RANGE, "ttl_out_of_range", "request.ttl", Ask::Oneself, format!("ttl_seconds must be 0 to {cap}"))
        .enough(Enough::Ttl { max_seconds: cap })
}

pub(crate) fn client() -> Refusal {
    let text = "invalid client credentials";
    Refusal::new(sts::CLIENT_REFUSED, "client_authentication_failed", "application.secret", Ask::Oneself, text)
        .enough(Enough::Credential { usage: None })
}

pub(crate) fn zone_mismatch(asked: &str, own: &str) -> Refusal {
    let text = format!("application belongs to zone {own}, not to {asked}");
    Refusal::new(sts::ZONE_MISMATCH, "zone_mismatch", "application.zone", Ask::Oneself, text)
}

pub(crate) fn throttled(seconds: u64) -> Refusal {
    Refusal::new(sts::THROTTLED, "throttled", "application.throttle", Ask::Wait, "too many failed authentications")
        .retry_after(seconds)
}

pub(crate) fn rate_limited(seconds: u64) -> Refusal {
    Refusal::new(sts::THROTTLED, "rate_limited", "resource.mint_budget", Ask::Wait, "mint budget used up").retry_after(seconds)
}

pub(crate) fn token(usage: &'static str) -> Refusal {
    let text = "invalid subject token";
    Refusal::new(sts::TOKEN_REFUSED, "subject_token_invalid", "mandate.verify", Ask::Oneself, text)
        .enough(Enough::Credential { usage: Some(usage) })
}

pub(crate) fn federation() -> Refusal {
    let text = "the identity token is not of a registered issuer";
    Refusal::new(sts::TOKEN_REFUSED, "subject_federation_rejected", "federation.issuer", Ask::Oneself, text)
}

pub(crate) fn gateway_required() -> Refusal {
    let text = "a subject token is exchanged through the Gateway";
    Refusal::new(sts::DENIED, "gateway_required", "mandate.direct", Ask::Oneself, text)
}

pub(crate) fn record() -> Refusal {
    let text = "authority record is not usable";
    Refusal::new(sts::DENIED, "authority_record_not_usable", "authority_record.live", Ask::Oneself, text)
}

pub(crate) fn session() -> Refusal {
    Refusal::new(sts::DENIED, "session_not_usable", "session.live", Ask::Oneself, "session is not usable").enough(Enough::Session)
}

pub(crate) fn edge() -> Refusal {
    Refusal::new(sts::DENIED, "delegation_not_usable", "delegation.live", Ask::Delegator, "delegation is not usable")
        .enough(Enough::Delegation { scopes: None, resource: None })
}

pub(crate) fn edge_scopes(beyond: Vec<String>, carried: Vec<String>) -> Refusal {
    let text = "requested scopes exceed the delegation";
    let refusal = Refusal::new(sts::DENIED, "delegation_scope_exceeded", "delegation.scopes", Ask::Delegator, text);
    let refusal = refusal.scopes(beyond.clone()).enough(Enough::Delegation { scopes: Some(beyond), resource: None });
    if carried.is_empty() { refusal } else { refusal.enough(Enough::Scope { scopes: carried }) }
}

pub(crate) fn edge_ttl(max: i64) -> Refusal {
    let text = "ttl_seconds exceeds the delegation";
    Refusal::new(sts::DENIED, "ttl_exceeds_delegation", "delegation.ttl", Ask::Oneself, text)
        .enough(Enough::Ttl { max_seconds: max })
}

pub(crate) fn budget() -> Refusal {
    let text = "delegation budget exhausted";
    Refusal::new(sts::DENIED, "delegation_budget_exhausted", "delegation.budget", Ask::Delegator, text)
        .enough(Enough::Delegation { scopes: None, resource: None })
}

pub(crate) fn outside_edge(resource: &str) -> Refusal {
    let text = "policy denied (resource_outside_delegation)";
    Refusal::new(sts::DENIED, "resource_outside_delegation", "delegation.resources", Ask::Delegator, text)
        .resource(resource)
        .enough(Enough::Delegation { scopes: None, resource: Some(resource.to_owned()) })
}

pub(crate) fn undeclared(resource: &str, failed: Vec<String>, declared: Vec<String>) -> Refusal {
    let text = "policy denied (scope_mismatch)";
    let refusal =
        Refusal::new(sts::DENIED, "scope_mismatch", "resource.scopes", Ask::Operator, text).resource(resource).scopes(failed);
    if declared.is_empty() { refusal } else { refusal.enough(Enough::Scope { scopes: declared }) }
}

pub(crate) fn operation(resource: &str, needed: Option<&str>) -> Refusal {
    let ask = if needed.is_some() { Ask::Oneself } else { Ask::Operator };
    let refusal = Refusal::new(sts::OPERATION, "operation_not_permitted", "resource.operations", ask, "operation not permitted")
        .resource(resource);
    match needed {
        Some(scope) => refusal.scopes(vec![scope.to_owned()]).enough(Enough::Scope { scopes: vec![scope.to_owned()] }),
        None => refusal,
    }
}

pub(crate) fn provider(resource: &str) -> Refusal {
    Refusal::new(sts::DENIED, "provider_unavailable", "provider.connection", Ask::Operator, "policy denied").resource(resource)
}

pub(crate) fn credential(resource: &str, detail: String) -> Refusal {
    let text = "provider credential unavailable";
    Refusal::new(sts::PROVIDER_CREDENTIAL, "provider_credential_unavailable", "provider.credential", Ask::Operator, text)
        .resource(resource)
        .enough(Enough::Connection)
        .for_operators(Operator { detail: Some(detail), ..Operator::default() })
}

/// Approvals come with a later release: a decision that asks for one is refused, and nothing is granted without it.
pub(crate) fn approval_required(resource: &str) -> Refusal {
    let text = "an approval is required, and this release cannot take one";
    Refusal::new(sts::DENIED, "approval_required", "policy.approval", Ask::Operator, text)
        .resource(resource)
        .enough(Enough::Approval)
}

pub(crate) fn approval_unknown() -> Refusal {
    Refusal::new(
        sts::APPROVAL_REFUSED,
        "approval_invalid",
        "approval.binding",
        Ask::Oneself,
        "approval is not valid for this request",
    )
}

pub(crate) fn elapsed() -> Refusal {
    edge()
}

pub(crate) fn too_long() -> Refusal {
    Refusal::new(
        sts::DENIED,
        "delegation_not_usable",
        "delegation.live",
        Ask::Delegator,
        "the mandate would be longer than any gateway takes",
    )
}

pub(crate) fn unavailable(detail: impl std::fmt::Display) -> Refusal {
    let text = "temporarily unavailable";
    Refusal::new(sts::UNAVAILABLE, "unavailable", "platform.unavailable", Ask::Wait, text)
        .retry_after(1)
        .for_operators(Operator { detail: Some(format!("{detail}")), ..Operator::default() })
}

pub(crate) fn policy_failed(detail: impl std::fmt::Display) -> Refusal {
    let text = "policy evaluation unavailable";
    Refusal::new(sts::POLICY_FAILED, "unavailable", "platform.unavailable", Ask::Wait, text)
        .retry_after(1)
        .for_operators(Operator { detail: Some(format!("{detail}")), ..Operator::default() })
}

pub(crate) fn internal(detail: impl std::fmt::Display) -> Refusal {
    Refusal::new(sts::INTERNAL, "unavailable", "platform.unavailable", Ask::Wait, "internal error")
        .retry_after(1)
        .for_operators(Operator { detail: Some(format!("{detail}")), ..Operator::default() })
}

/// The answer of the decision contract.
pub(crate) fn policy(denial: &caracal_policy::decide::Denial, resource: &str, bootstrap: bool) -> Refusal {
    let oneself = matches!(denial.reason, "role_scope_mismatch" | "confinement_violation" | "mandate_target_mismatch")
        || denial.reason == "no_rule_matched" && !bootstrap;
    let ask = match denial.reason {
        "delegation_scope_exceeded" => Ask::Delegator,
        _ if oneself => Ask::Oneself,
        _ => Ask::Operator,
    };
    let text = format!("policy denied ({})", denial.reason);
    let mut refusal =
        Refusal::new(sts::DENIED, denial.reason, denial.rule, ask, text).resource(resource).scopes(denial.scopes.clone());
    refusal.document = denial.document;
    refusal.enough.clone_from(&denial.enough);
    refusal
}
