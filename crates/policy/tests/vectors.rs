//! Every decision vector of the contract (`policy.md` 19), through normalisation, tables and the contract.
#![allow(clippy::unwrap_used, reason = "tests")]

use caracal_policy::approval::merge;
use caracal_policy::bundle::Program;
use caracal_policy::decide::{Decision, no_active_policy_set};
use caracal_policy::input::Input;
use serde_json::{Value, json};

fn outcome(vector: &Value) -> Result<Decision, &'static str> {
    let input = Input::normal(&vector["input"]).map_err(|_| "evaluation_conflict")?;
    let Value::Object(documents) = &vector["data_documents"] else { return Ok(no_active_policy_set()) };
    let program = Program::of_values(documents).map_err(|_| "bundle_rejected")?;
    program.decide(&input).map_err(|_| "evaluation_conflict")
}

/// Numbers by value, and the declarations of a gate in any order.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().all(|x| b.iter().any(|y| same(x, y))) && b.iter().all(|y| a.iter().any(|x| same(x, y)))
        }
        (Value::Object(a), Value::Object(b)) => a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same(v, w))),
        _ => a == b,
    }
}

#[test]
fn every_vector_holds() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("vectors.json")).unwrap();
    assert_eq!(vectors.len(), 171, "the whole contract");
    let mut wrong = Vec::new();
    for vector in &vectors {
        let expect = &vector["expect"];
        let found = match outcome(vector) {
            Err(error) => json!({"decision": "error", "error": error}),
            Ok(decision) => {
                let mut found = decision.to_json();
                if let Decision::Allow { policy, .. } = &decision {
                    found["policy"] = policy.clone().into();
                }
                if let Decision::Deny(denial) = &decision {
                    found["reasons"] = json!([denial.reason]);
                }
                found["approval"] = match merge(decision.gates()) {
                    Ok(Some(gate)) => {
                        json!({"tier": gate.tier, "approver": gate.approver.as_str(), "ttl_seconds": gate.ttl_seconds, "privacy": gate.privacy})
                    }
                    Ok(None) => Value::Null,
                    Err(_) => json!({"conflict": true}),
                };
                found
            }
        };
        let good = expect.as_object().unwrap().iter().all(|(key, wanted)| same(&found[key], wanted));
        if !good {
            wrong.push(format!("{}: expected {expect}, found {found}", vector["name"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
}
