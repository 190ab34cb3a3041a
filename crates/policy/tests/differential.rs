//! The decider against a slow transcription of the contract's text (`policy.md` 6.1, 6.2), on generated documents and inputs.
#![allow(clippy::unwrap_used, reason = "tests")]

use caracal_policy::bundle::Program;
use caracal_policy::decide::Decision;
use caracal_policy::input::Input;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// The contract, line by line, over plain values: no tables, no order but the page's.
mod contract {
    use serde_json::{Value, json};

    pub enum Outcome {
        Deny(&'static str),
        Allow(String, Value),
        Error,
    }

    fn elements(value: &Value) -> Vec<Value> {
        match value {
            Value::Array(items) => items.clone(),
            Value::Object(members) => members.values().cloned().collect(),
            _ => vec![],
        }
    }

    fn collection(value: &Value) -> bool {
        value.is_array() || value.is_object()
    }

    fn empty(value: &Value) -> bool {
        value.is_null() || value == "" || value == &json!([]) || value == &json!({}) || value.as_f64() == Some(0.0)
    }

    fn one_of(value: &Value, words: &[&str]) -> bool {
        words.iter().any(|w| value == w)
    }

    fn declared(d: &Value) -> bool {
        let Some(fields) = d.as_object() else { return false };
        d["tier"].as_str().is_some_and(|t| !t.is_empty())
            && fields.get("approver").is_none_or(|a| one_of(a, &["operator", "subject", "any"]))
            && fields.get("privacy").is_none_or(|p| one_of(p, &["identified", "pseudonymous", "anonymous"]))
            && fields.get("ttl_seconds").is_none_or(|t| t.as_f64().is_some_and(|n| n > 0.0 && n % 1.0 == 0.0))
    }

    pub fn decide(documents: &Value, input: &Value) -> Outcome {
        let doc = |name: &str| documents.get(name);
        let context = &input["context"];
        let scopes = elements(&context["requested_scopes"]);
        let subject = &context["subject_claims"];
        let has_subject = !empty(subject);
        let edge = &input["delegation_edge"];
        let has_edge = edge.is_object();
        let session = !empty(&context["agent_session_id"]);
        let labels = elements(&input["principal"]["labels"]);
        let entry = &documents["grants"][input["resource"]["identifier"].as_str().unwrap()];
        let owner = entry["application"].as_str().unwrap_or("\0");
        let owned = documents["app_ids"][owner] == input["principal"]["id"] && !input["principal"]["id"].is_null();
        let role_allows = |wanted: &[Value]| {
            labels.iter().any(|l| {
                let role = &entry["roles"][l.as_str().unwrap()];
                collection(role) && wanted.iter().all(|s| elements(role).contains(s))
            })
        };
        let is_bootstrap =
            !scopes.is_empty() && scopes.iter().all(|s| s == "agent:lifecycle") && !has_subject && !has_edge && !session;
        let is_mint = has_edge && session && !has_subject && !scopes.is_empty() && !scopes.contains(&json!("agent:lifecycle"));
        let narrowed = scopes.iter().all(|s| elements(&edge["scopes"]).contains(s));
        let passes = |rule: &Value| match rule["label_prefix"].as_str() {
            None => false,
            Some(prefix) => {
                !labels.iter().any(|l| l.as_str().unwrap().starts_with(prefix))
                    || scopes.iter().all(|s| elements(&rule["scopes"]).contains(s))
            }
        };
        let confined = doc("confinement").is_none_or(|c| collection(c) && elements(c).iter().all(passes));
        let is_workload = input["principal"]["type"] == "Workload"
            && input["action"]["id"] == "CredentialInjection"
            && !has_subject
            && !has_edge
            && !session;
        let carried: Vec<Value> =
            subject["scope"].as_str().unwrap_or("").split(' ').filter(|s| !s.is_empty()).map(Value::from).collect();
        let names_edge = !subject["delegation_edge_id"].is_null() && subject["delegation_edge_id"] != "";
        let is_presentation = has_subject && names_edge && scopes.is_empty() && !carried.is_empty();
        let on_target = elements(&subject["target"]).contains(&input["resource"]["identifier"]);
        let text = |v: &Value| v.as_str().is_some_and(|t| !t.is_empty());
        let bad_risk =
            doc("risk").is_some_and(|r| r.as_array().is_none_or(|r| !r.iter().all(|e| text(&e["scope"]) && text(&e["tier"]))));
        let bad_approval = doc("approval_tiers").is_some_and(|a| a.as_array().is_none_or(|a| !a.iter().all(declared)));
        let attempt = is_mint || is_workload;

        let diagnostics = || {
            let risk = doc("risk").map(elements).unwrap_or_default();
            let mut classified: Vec<(String, Value)> = vec![];
            let mut sorted: Vec<&str> = scopes.iter().map(|s| s.as_str().unwrap()).collect();
            sorted.sort_unstable();
            for scope in sorted {
                let mut tiers: Vec<&Value> = risk.iter().filter(|e| e["scope"] == scope).map(|e| &e["tier"]).collect();
                tiers.dedup();
                match tiers.as_slice() {
                    [] => {}
                    [first, rest @ ..] if rest.iter().all(|t| t == first) => classified.push((scope.to_owned(), (*first).clone())),
                    _ => return None,
                }
            }
            let mut matched: Vec<Value> = vec![];
            for declaration in doc("approval_tiers").map(elements).unwrap_or_default() {
                if classified.iter().any(|(_, t)| *t == declaration["tier"]) && !matched.contains(&declaration) {
                    matched.push(declaration);
                }
            }
            let mut list = vec![];
            if !matched.is_empty() {
                list.push(json!({"step_up_required": {"type": "human_approval", "tiers": matched}}));
            }
            if !classified.is_empty() {
                let risk: Vec<Value> = classified.iter().map(|(s, t)| json!({"scope": s, "tier": t})).collect();
                list.push(json!({"risk": risk}));
            }
            Some(Value::from(list))
        };
        let allow = |policy: String| diagnostics().map_or(Outcome::Error, |d| Outcome::Allow(policy, d));

        if doc("restrict").is_some_and(|r| !elements(r).is_empty()) {
            return Outcome::Deny("restriction_active");
        }
        if is_bootstrap && owned && is_workload && !bad_risk && !bad_approval {
            return Outcome::Error;
        }
        if is_bootstrap && owned {
            return Outcome::Allow("caracal-bootstrap".into(), json!([]));
        }
        if attempt && !is_bootstrap && bad_risk {
            return Outcome::Deny("malformed_risk_data");
        }
        if attempt && !is_bootstrap && bad_approval {
            return Outcome::Deny("malformed_approval_data");
        }
        if is_mint && !owned {
            return Outcome::Deny("resource_not_granted");
        }
        if is_mint && !narrowed {
            return Outcome::Deny("delegation_scope_exceeded");
        }
        if is_mint && !confined {
            return Outcome::Deny("confinement_violation");
        }
        if is_mint && !role_allows(&scopes) {
            return Outcome::Deny("role_scope_mismatch");
        }
        if is_mint {
            return allow(format!("caracal-{owner}-mint"));
        }
        if is_workload && !bad_risk && !bad_approval {
            return allow("caracal-workload-mint".into());
        }
        if is_presentation && !on_target {
            return Outcome::Deny("mandate_target_mismatch");
        }
        if is_presentation && !owned {
            return Outcome::Deny("resource_not_granted");
        }
        if is_presentation && !role_allows(&carried) {
            return Outcome::Deny("role_scope_mismatch");
        }
        if is_presentation {
            return Outcome::Allow(format!("caracal-{owner}-use"), json!([]));
        }
        Outcome::Deny("no_rule_matched")
    }
}

const SCOPES: [&str; 5] = ["a:read", "a:write", "a:close", "agent:lifecycle", "A:read"];
const LABELS: [&str; 4] = ["clerk", "clerk:x", "auditor", ""];
const RESOURCES: [&str; 3] = ["resource://a", "resource://b", "resource://none"];
const APPS: [&str; 3] = ["app-1", "app-2", "app-3"];
const KEYS: [&str; 3] = ["one", "two", "three"];

fn one(of: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop::sample::select(of).prop_map(Value::from)
}

fn some(of: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop::collection::vec(one(of), 0..4).prop_map(Value::from)
}

/// Mostly what is meant, sometimes anything.
fn or_odd(good: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    let odd = prop_oneof![
        Just(Value::Null),
        Just(json!("")),
        Just(json!(0)),
        Just(json!(5)),
        Just(json!(false)),
        Just(json!([])),
        Just(json!({})),
        Just(json!({"x": "a:read"})),
        Just(json!(["a:read", 1, null])),
    ];
    prop_oneof![9 => good, 1 => odd]
}

fn object(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> impl Strategy<Value = Value> {
    let members: Vec<_> = fields
        .into_iter()
        .map(|(name, value)| (prop::bool::weighted(0.9), value).prop_map(move |(kept, v)| kept.then(|| (name.to_owned(), v))))
        .collect();
    members.prop_map(|members| Value::Object(members.into_iter().flatten().collect()))
}

fn keyed(keys: &'static [&'static str], value: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    prop::collection::btree_map(prop::sample::select(keys).prop_map(str::to_owned), value, 0..4)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

fn documents() -> impl Strategy<Value = Value> {
    let entry =
        object(vec![("application", or_odd(one(&KEYS)).boxed()), ("roles", or_odd(keyed(&LABELS, or_odd(some(&SCOPES)))).boxed())]);
    let rule = object(vec![("label_prefix", or_odd(one(&LABELS)).boxed()), ("scopes", or_odd(some(&SCOPES)).boxed())]);
    let risk = object(vec![("scope", or_odd(one(&SCOPES)).boxed()), ("tier", or_odd(one(&["money", "pii"])).boxed())]);
    let tier = object(vec![
        ("tier", or_odd(one(&["money", "pii", "other"])).boxed()),
        ("approver", or_odd(one(&["operator", "subject", "any"])).boxed()),
        ("ttl_seconds", or_odd(prop_oneof![Just(json!(900)), Just(json!(60.0))]).boxed()),
        ("privacy", or_odd(one(&["identified", "anonymous"])).boxed()),
    ]);
    let list = |of: BoxedStrategy<Value>, most: usize| prop::collection::vec(of, 0..most).prop_map(Value::from);
    let rare = |value: BoxedStrategy<Value>| prop::option::weighted(0.4, value);
    (
        or_odd(keyed(&KEYS, or_odd(one(&APPS)))),
        or_odd(keyed(&RESOURCES, or_odd(entry))),
        rare(or_odd(list(rule.boxed(), 3)).boxed()),
        prop::option::weighted(0.1, or_odd(some(&SCOPES))),
        rare(or_odd(list(risk.boxed(), 3)).boxed()),
        rare(or_odd(list(tier.boxed(), 3)).boxed()),
    )
        .prop_map(|(app_ids, grants, confinement, restrict, risk, tiers)| {
            let mut all = Map::new();
            all.insert("app_ids".into(), app_ids);
            all.insert("grants".into(), grants);
            let named = [("confinement", confinement), ("restrict", restrict), ("risk", risk), ("approval_tiers", tiers)];
            all.extend(named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
            Value::Object(all)
        })
}

fn inputs() -> impl Strategy<Value = Value> {
    let edge = object(vec![("id", Just(json!("e")).boxed()), ("scopes", or_odd(some(&SCOPES)).boxed())]);
    let claims = object(vec![
        ("scope", or_odd(prop_oneof![Just(json!("a:read")), Just(json!(" a:read  a:write ")), Just(json!(" "))]).boxed()),
        ("delegation_edge_id", or_odd(Just(json!("e"))).boxed()),
        ("target", or_odd(some(&RESOURCES)).boxed()),
    ]);
    let kind = prop_oneof![8 => Just("Application"), 2 => Just("Workload")];
    let action = prop_oneof![8 => Just("TokenExchange"), 2 => Just("CredentialInjection")];
    (
        (kind, one(&APPS), some(&LABELS), one(&RESOURCES), action),
        some(&SCOPES),
        prop::option::of(edge),
        prop::option::of(or_odd(Just(json!("s")))),
        prop::option::weighted(0.4, claims),
    )
        .prop_map(|((kind, id, labels, resource, action), scopes, edge, session, claims)| {
            json!({"principal": {"type": kind, "id": id, "labels": labels}, "resource": {"identifier": resource},
                "action": {"id": action}, "delegation_edge": edge,
                "context": {"requested_scopes": scopes, "agent_session_id": session, "subject_claims": claims}})
        })
}

/// Brings a case within reach of an allow: owner, edge and role are as they should be, what else there is stays.
fn come_near(documents: &mut Value, raw: &mut Value) {
    documents["app_ids"]["one"] = json!("app-1");
    documents["grants"] = json!({"resource://a": {"application": "one", "roles": {"clerk": SCOPES}}});
    raw["principal"]["id"] = json!("app-1");
    raw["principal"]["labels"].as_array_mut().unwrap().push(json!("clerk"));
    raw["resource"]["identifier"] = json!("resource://a");
    let scopes = raw["context"]["requested_scopes"].as_array_mut().unwrap();
    scopes.retain(|s| s != "agent:lifecycle");
    if raw["context"]["subject_claims"].is_null() {
        raw["delegation_edge"] = json!({"id": "e", "scopes": SCOPES});
        raw["context"]["agent_session_id"] = json!("s");
    } else {
        raw["context"]["requested_scopes"] = json!([]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]
    #[test]
    fn the_decider_is_its_contract(mut documents in documents(), mut raw in inputs(), near in any::<bool>()) {
        if near && documents["app_ids"].is_object() {
            come_near(&mut documents, &mut raw);
        }
        let Ok(program) = Program::of_values(documents.as_object().unwrap()) else { return Ok(()) };
        let found = program.decide(&Input::normal(&raw).unwrap());
        match contract::decide(&documents, &raw) {
            contract::Outcome::Error => prop_assert!(found.is_err(), "{found:?}"),
            contract::Outcome::Deny(reason) => match found {
                Ok(Decision::Deny(denial)) => prop_assert_eq!(denial.reason, reason),
                other => prop_assert!(false, "expected {}, found {:?}", reason, other),
            },
            contract::Outcome::Allow(name, wanted) => match found {
                Ok(Decision::Allow { policy, diagnostics }) => {
                    prop_assert_eq!(policy, name);
                    prop_assert_eq!(Value::from(diagnostics), wanted);
                }
                other => prop_assert!(false, "expected {}, found {:?}", name, other),
            },
        }
    }
}
