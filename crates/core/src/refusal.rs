//! A no, as a value: what decided, what would have been enough, and whether asking makes sense (`sts.md` 27).
//!
//! One type, rendered once per audience. The caller's rendering holds constants of the spec and the caller's own words; what a
//! caller may not know never enters it, because it is only ever in [`Operator`].

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::error::Situation;

/// Most elements of a list in the caller's rendering.
const MAX_LIST: usize = 16;
/// Longest string in the caller's rendering, in characters.
const MAX_TEXT: usize = 256;

/// Whether asking makes sense, and whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// Wait for the open hold.
    Approval,
    /// Somebody with administrative rights in the zone.
    Operator,
    /// Whoever issued the Delegation.
    Delegator,
    /// Send another request.
    #[serde(rename = "self")]
    Oneself,
    /// The same request, later.
    Wait,
    /// Nobody can help.
    Nobody,
}

/// Something that alone would have passed the check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Enough {
    /// To ask for no more than these.
    Scope {
        /// A part of the request.
        scopes: Vec<String>,
    },
    /// A Session with one of these labels.
    Role {
        /// Labels of the caller's own grants.
        labels: Vec<String>,
    },
    /// A Delegation that carries these.
    Delegation {
        /// Scopes it would need.
        #[serde(skip_serializing_if = "Option::is_none")]
        scopes: Option<Vec<String>>,
        /// Resource it would need.
        #[serde(skip_serializing_if = "Option::is_none")]
        resource: Option<String>,
    },
    /// A mandate minted for this resource.
    Target {
        /// The resource.
        resource: String,
    },
    /// A live Session.
    Session,
    /// An approved hold.
    Approval,
    /// A live provider connection.
    Connection,
    /// A valid client secret, or a fresh mandate.
    Credential {
        /// The mandate's use; absent for a secret.
        #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
        usage: Option<&'static str>,
    },
    /// A lifetime of at most this.
    Ttl {
        /// Seconds.
        max_seconds: i64,
    },
}

/// What only the ledger and operators see.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Operator {
    /// Ids that decided.
    pub object: Map<String, Value>,
    /// Where the rule's document came from.
    pub policy_version_id: Option<String>,
    /// Its line there.
    pub line: Option<u32>,
    /// In words.
    pub detail: Option<String>,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The row of the catalogue: code and status.
    pub situation: &'static Situation,
    /// One sentence for people; below 1 KiB.
    pub description: Cow<'static, str>,
    /// Why, in one stable word.
    pub reason: &'static str,
    /// The check that decided.
    pub rule: &'static str,
    /// The policy document that decided.
    pub document: Option<&'static str>,
    /// The resource that decided, as the caller wrote it.
    pub resource: Option<String>,
    /// The scopes that failed.
    pub scopes: Vec<String>,
    /// The malformed field.
    pub field: Option<Cow<'static, str>>,
    /// How an own object ended.
    pub state: Option<&'static str>,
    /// What would have been enough; empty when nothing would, or the caller may not know.
    pub enough: Vec<Enough>,
    /// Whether asking makes sense.
    pub ask: Ask,
    /// Where to ask, on the STS.
    pub at: Option<String>,
    /// When to come back, in whole seconds, at least 1.
    pub retry_after: Option<u64>,
    /// What only operators see.
    pub operator: Option<Box<Operator>>,
}

impl Refusal {
    /// A refusal with nothing but its reason and rule.
    pub fn new(
        situation: &'static Situation,
        reason: &'static str,
        rule: &'static str,
        ask: Ask,
        description: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            situation,
            description: description.into(),
            reason,
            rule,
            document: None,
            resource: None,
            scopes: Vec::new(),
            field: None,
            state: None,
            enough: Vec::new(),
            ask,
            at: None,
            retry_after: None,
            operator: None,
        }
    }

    /// Names the malformed field.
    #[must_use]
    pub fn field(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.field = Some(name.into());
        self
    }

    /// Names what would have been enough.
    #[must_use]
    pub fn enough(mut self, enough: Enough) -> Self {
        self.enough.push(enough);
        self
    }

    /// Names the resource that decided.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// Names the scopes that failed.
    #[must_use]
    pub fn scopes(mut self, scopes: Vec<String>) -> Self {
        self.scopes = scopes;
        self
    }

    /// Says when to come back; `ask` becomes [`Ask::Wait`].
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.ask = Ask::Wait;
        self.retry_after = Some(seconds.max(1));
        self
    }

    /// Adds what only operators see.
    #[must_use]
    pub fn for_operators(mut self, operator: Operator) -> Self {
        self.operator = Some(Box::new(operator));
        self
    }

    /// The member `refusal` of an answer: lists cut at 16, strings at 256 characters.
    pub fn for_caller(&self) -> Value {
        let mut cut = false;
        let text = |s: &str, cut: &mut bool| -> String {
            if s.chars().count() > MAX_TEXT {
                *cut = true;
            }
            s.chars().take(MAX_TEXT).collect()
        };
        let list = |items: &[String], cut: &mut bool| -> Vec<String> {
            let mut items: Vec<String> = items.iter().map(|item| text(item, cut)).collect();
            items.sort_unstable();
            items.dedup();
            if items.len() > MAX_LIST {
                *cut = true;
                items.truncate(MAX_LIST);
            }
            items
        };
        let mut member = self.frame();
        if let Some(resource) = &self.resource {
            member.insert("resource".to_owned(), text(resource, &mut cut).into());
        }
        if !self.scopes.is_empty() {
            member.insert("scopes".to_owned(), list(&self.scopes, &mut cut).into());
        }
        let enough: Vec<Value> = self
            .enough
            .iter()
            .take(MAX_LIST)
            .map(|one| {
                let bounded = match one {
                    Enough::Scope { scopes } => Enough::Scope { scopes: list(scopes, &mut cut) },
                    Enough::Role { labels } => Enough::Role { labels: list(labels, &mut cut) },
                    Enough::Delegation { scopes, resource } => Enough::Delegation {
                        scopes: scopes.as_deref().map(|s| list(s, &mut cut)),
                        resource: resource.as_deref().map(|r| text(r, &mut cut)),
                    },
                    Enough::Target { resource } => Enough::Target { resource: text(resource, &mut cut) },
                    other => other.clone(),
                };
                serde_json::to_value(bounded).unwrap_or_default()
            })
            .collect();
        member.insert("enough".to_owned(), enough.into());
        if cut {
            member.insert("more".to_owned(), true.into());
        }
        let value = Value::Object(member);
        // 4 KiB is what a Gateway decodes; the lists are what can be left out without losing the reason.
        if value.to_string().len() <= 4096 { value } else { self.without_lists() }
    }

    /// The same value for the ledger: uncut, with the ids, place and words that decided.
    pub fn for_ledger(&self) -> Value {
        let mut member = self.frame();
        if let Some(resource) = &self.resource {
            member.insert("resource".to_owned(), resource.clone().into());
        }
        if !self.scopes.is_empty() {
            member.insert("scopes".to_owned(), self.scopes.clone().into());
        }
        member.insert("enough".to_owned(), serde_json::to_value(&self.enough).unwrap_or_default());
        if let Some(operator) = &self.operator {
            if !operator.object.is_empty() {
                member.insert("object".to_owned(), Value::Object(operator.object.clone()));
            }
            if let Some(id) = &operator.policy_version_id {
                member.insert("policy_version_id".to_owned(), id.clone().into());
            }
            if let Some(line) = operator.line {
                member.insert("line".to_owned(), line.into());
            }
            if let Some(detail) = &operator.detail {
                member.insert("detail".to_owned(), detail.clone().into());
            }
        }
        Value::Object(member)
    }

    fn frame(&self) -> Map<String, Value> {
        let mut member = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                member.insert(key.to_owned(), value);
            }
        };
        put("v", Some(json!(1)));
        put("reason", Some(self.reason.into()));
        put("rule", Some(self.rule.into()));
        put("document", self.document.map(Value::from));
        put("field", self.field.as_deref().map(Value::from));
        put("state", self.state.map(Value::from));
        put("ask", serde_json::to_value(self.ask).ok());
        put("at", self.at.as_deref().map(Value::from));
        put("retry_after", self.retry_after.map(Value::from));
        member
    }

    fn without_lists(&self) -> Value {
        let mut member = self.frame();
        member.insert("enough".to_owned(), json!([]));
        member.insert("more".to_owned(), json!(true));
        Value::Object(member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::sts;

    fn role_mismatch() -> Refusal {
        let mut refusal =
            Refusal::new(sts::DENIED, "role_scope_mismatch", "policy.role", Ask::Oneself, "policy denied (role_scope_mismatch)")
                .resource("resource://ledger")
                .scopes(vec!["ledger:post".into()])
                .enough(Enough::Role { labels: vec!["clerk".into()] })
                .enough(Enough::Scope { scopes: vec!["ledger:read".into()] });
        refusal.document = Some("grants");
        refusal
    }

    #[test]
    fn the_example_of_the_spec() {
        let wanted = json!({"v":1,"reason":"role_scope_mismatch","rule":"policy.role","document":"grants","resource":"resource://ledger",
            "scopes":["ledger:post"],"enough":[{"kind":"role","labels":["clerk"]},{"kind":"scope","scopes":["ledger:read"]}],"ask":"self"});
        assert_eq!(role_mismatch().for_caller(), wanted);
    }

    #[test]
    fn what_operators_see_stays_with_them() {
        let operator =
            Operator { policy_version_id: Some("pv-9".into()), detail: Some("secret words".into()), ..Operator::default() };
        let refusal = role_mismatch().for_operators(operator);
        assert!(!refusal.for_caller().to_string().contains("pv-9"));
        assert_eq!(refusal.for_ledger()["policy_version_id"], "pv-9");
    }

    #[test]
    fn lists_and_texts_are_bounded() {
        let many: Vec<String> = (0..100).map(|i| format!("s{i:03}{}", "x".repeat(400))).collect();
        let refusal = role_mismatch().scopes(many.clone()).enough(Enough::Scope { scopes: many });
        let member = refusal.for_caller();
        assert_eq!(member["more"], true);
        assert!(member.to_string().len() <= 4096);
    }
}
