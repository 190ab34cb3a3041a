//! What the contract reads: the six documents as typed tables (`policy.md` 4).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Map, Value};

use crate::input::{elements, strings};

/// The six documents, by name.
pub const NAMES: [&str; 6] = ["app_ids", "grants", "confinement", "restrict", "risk", "approval_tiers"];

/// A bundle that no contract can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// Who owns a resource and what its roles may.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grant {
    pub(crate) owner: String,
    pub(crate) roles: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Confinement {
    /// No rule.
    None,
    /// Malformed: every delegated mint is refused.
    RefuseAll,
    /// Each must pass.
    Rules(Vec<(String, BTreeSet<String>)>),
}

/// The documents of one bundle, folded.
#[derive(Clone, Debug, PartialEq)]
pub struct Tables {
    /// Binding keys of each application id.
    pub(crate) keys_of: HashMap<String, HashSet<String>>,
    pub(crate) grants: HashMap<String, Grant>,
    pub(crate) confinement: Confinement,
    pub(crate) restricted: bool,
    /// Tiers of each scope; `None` when the document is malformed.
    pub(crate) risk: Option<HashMap<String, BTreeSet<String>>>,
    /// Valid declarations; `None` when the document is malformed.
    pub(crate) approvals: Option<Vec<Value>>,
}

impl Tables {
    /// Folds documents, by name. Sets come as arrays, except a set where only an array is allowed, which must come as something else.
    pub fn of(documents: &Map<String, Value>) -> Result<Self, Unreadable> {
        for name in ["app_ids", "grants", "restrict"] {
            if let Some(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) = documents.get(name) {
                return Err(Unreadable(format!("{name} is {value}; expected a collection")));
            }
        }
        let none = Value::Null;
        let document = |name: &str| documents.get(name).unwrap_or(&none);
        let mut keys_of: HashMap<String, HashSet<String>> = HashMap::new();
        if let Value::Object(bindings) = document("app_ids") {
            for (key, id) in bindings {
                if let Value::String(id) = id {
                    keys_of.entry(id.clone()).or_default().insert(key.clone());
                }
            }
        }
        let mut grants = HashMap::new();
        if let Value::Object(entries) = document("grants") {
            for (resource, entry) in entries {
                let Some(owner) = entry["application"].as_str() else { continue };
                let collection = |v: &Value| v.is_array() || v.is_object();
                let role =
                    |(label, scopes): (&String, &Value)| (label.clone(), strings(scopes).into_iter().map(str::to_owned).collect());
                let roles = entry["roles"].as_object().into_iter().flatten().filter(|(_, v)| collection(v)).map(role).collect();
                grants.insert(resource.clone(), Grant { owner: owner.to_owned(), roles });
            }
        }
        Ok(Self {
            keys_of,
            grants,
            confinement: confinement(documents.get("confinement")),
            restricted: !elements(document("restrict")).is_empty(),
            risk: risk(documents.get("risk")),
            approvals: approvals(documents.get("approval_tiers")),
        })
    }
}

pub(crate) fn confinement(document: Option<&Value>) -> Confinement {
    let Some(document) = document else { return Confinement::None };
    if !document.is_array() && !document.is_object() {
        return Confinement::RefuseAll;
    }
    let mut rules = Vec::new();
    for element in elements(document) {
        let Some(prefix) = element.get("label_prefix").and_then(Value::as_str) else { return Confinement::RefuseAll };
        rules.push((prefix.to_owned(), strings(&element["scopes"]).into_iter().map(str::to_owned).collect()));
    }
    Confinement::Rules(rules)
}

pub(crate) fn risk(document: Option<&Value>) -> Option<HashMap<String, BTreeSet<String>>> {
    let mut tiers: HashMap<String, BTreeSet<String>> = HashMap::new();
    let Some(document) = document else { return Some(tiers) };
    for element in document.as_array()? {
        let text = |key: &str| element[key].as_str().filter(|t| !t.is_empty()).map(str::to_owned);
        tiers.entry(text("scope")?).or_default().insert(text("tier")?);
    }
    Some(tiers)
}

pub(crate) fn approvals(document: Option<&Value>) -> Option<Vec<Value>> {
    let Some(document) = document else { return Some(Vec::new()) };
    let mut valid: Vec<Value> = Vec::new();
    for element in document.as_array()? {
        let members = element.as_object()?;
        let one_of = |key: &str, words: &[&str]| members.get(key).is_none_or(|v| v.as_str().is_some_and(|v| words.contains(&v)));
        let tier = members.get("tier").and_then(Value::as_str).is_some_and(|t| !t.is_empty());
        let ttl = members.get("ttl_seconds").is_none_or(|v| v.as_f64().is_some_and(|n| n > 0.0 && n.fract() == 0.0));
        let named =
            one_of("approver", &["operator", "subject", "any"]) && one_of("privacy", &["identified", "pseudonymous", "anonymous"]);
        if !(tier && ttl && named) {
            return None;
        }
        if !valid.contains(element) {
            valid.push(element.clone());
        }
    }
    Some(valid)
}

/// What a type check finds in documents as they are written, before any request (`policy.md` 3.4).
pub(crate) fn sound(documents: &Map<String, Value>) -> Result<(), Unreadable> {
    let Some(Value::Object(grants)) = documents.get("grants").filter(|g| g.as_object().is_some_and(|g| !g.is_empty())) else {
        return Ok(());
    };
    for member in ["application", "roles"] {
        if grants.values().all(|entry| entry.get(member).is_none()) {
            return Err(Unreadable(format!("no entry of grants has {member}")));
        }
    }
    Ok(())
}
