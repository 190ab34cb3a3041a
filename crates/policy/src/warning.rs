//! What an author should know of documents that mean less, or more, than they seem to (`policy.md` 2.3). Nothing is refused for it.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::input::elements;
use crate::tables::{Confinement, approvals, confinement, risk};

/// A warning, as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The kind.
    pub code: &'static str,
    /// The document, one of the six.
    pub document: &'static str,
    /// Where it is defined, from 1; only where one text was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// For whoever reads it.
    pub message: String,
}

impl Warning {
    fn new(code: &'static str, document: &'static str, message: impl Into<String>) -> Self {
        Self { code, document, line: None, message: message.into() }
    }

    pub(crate) fn depends_on_request(document: &'static str) -> Self {
        Self::new("depends_on_request", document, format!("{document} reads input: it is evaluated again for every request"))
    }
}

/// Warnings of documents as they are without a request.
pub(crate) fn warnings(documents: &Map<String, Value>) -> Vec<Warning> {
    let mut found = Vec::new();
    let scoped = documents.get("confinement");
    if confinement(scoped) == Confinement::RefuseAll {
        let not_text = |e: &&Value| e.get("label_prefix").is_some_and(|prefix| !prefix.is_string());
        found.push(if scoped.is_some_and(|document| elements(document).iter().any(not_text)) {
            Warning::new(
                "label_prefix_not_text",
                "confinement",
                "a label_prefix is not a text: every delegated mint will be refused",
            )
        } else {
            let message = "expected a collection of {label_prefix, scopes}: every delegated mint will be refused";
            Warning::new("malformed_confinement", "confinement", message)
        });
    }
    if risk(documents.get("risk")).is_none() {
        let message = "expected an array of {scope, tier}: every delegated mint and workload mint will be refused";
        found.push(Warning::new("malformed_risk", "risk", message));
    }
    if approvals(documents.get("approval_tiers")).is_none() {
        let message = "expected an array of {tier, approver?, ttl_seconds?, privacy?}: every delegated mint and workload mint will be refused";
        found.push(Warning::new("malformed_approval_tiers", "approval_tiers", message));
    }
    found
}
