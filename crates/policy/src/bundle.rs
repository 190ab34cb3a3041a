//! Documents become a program, once, when they become active (`policy.md` 3.4, 3.7).
//!
//! A bundle that does not read `input` is folded into tables and the engine is gone. One that does is kept compiled, and every
//! request evaluates a copy of it under a bound.

use std::collections::BTreeMap;

use caracal_core::digest::sha256_hex;
use serde_json::{Map, Value};

use crate::decide::{Decision, EvaluationError, decide, denial};
use crate::engine::{Rules, Trouble};
use crate::input::Input;
use crate::tables::{NAMES, Tables, sound};
use crate::warning::{Warning, warnings};

/// Largest bundle, in bytes.
const MAX_BUNDLE: usize = 4 * 1024 * 1024;

/// A bundle that cannot become active; says why, and where if one text alone is to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidBundle {
    /// The name of the document.
    pub document: Option<String>,
    /// Line, from 1.
    pub line: Option<u32>,
    /// Column, from 1.
    pub column: Option<u32>,
    /// Why.
    pub message: String,
}

impl InvalidBundle {
    fn whole(message: impl Into<String>) -> Self {
        Self { document: None, line: None, column: None, message: message.into() }
    }

    fn at(document: &str, trouble: &Trouble) -> Self {
        let (line, column) = match trouble {
            Trouble::OverBound => (None, None),
            Trouble::Refused { line, column, .. } => (*line, *column),
        };
        Self { document: Some(document.to_owned()), line, column, message: trouble.to_string() }
    }
}

/// A compiled bundle.
pub struct Program {
    /// What the documents say without a request: all there is, when none reads it.
    tables: Tables,
    /// Kept only when a document reads the request.
    rules: Option<Box<Rules>>,
    warnings: Vec<Warning>,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program({})", if self.reads_input() { "reads the request" } else { "folded" })
    }
}

impl Program {
    /// Compiles documents: each with a name for messages, and its text.
    pub fn compile(documents: &[(String, String)]) -> Result<Self, InvalidBundle> {
        if documents.iter().map(|(_, text)| text.len()).sum::<usize>() > MAX_BUNDLE {
            return Err(InvalidBundle::whole("the bundle is larger than 4 MiB"));
        }
        let mut rules = Rules::new();
        let mut reading: BTreeMap<&str, u32> = BTreeMap::new();
        let mut lines: BTreeMap<&str, u32> = BTreeMap::new();
        for (name, text) in documents {
            let (more, definitions) = rules.add(name, text).map_err(|e| InvalidBundle::at(name, &e))?;
            rules = more;
            for defined in definitions {
                let Some(known) = NAMES.into_iter().find(|n| *n == defined.name) else {
                    let message = format!("defines {}, which is none of {}", defined.name, NAMES.join(", "));
                    let line = Some(defined.line);
                    return Err(InvalidBundle { document: Some(name.clone()), line, column: None, message });
                };
                lines.entry(known).or_insert(defined.line);
                if defined.reads_input {
                    reading.entry(known).or_insert(defined.line);
                }
            }
        }
        let folded = rules.fold().map_err(|e| match e {
            Trouble::OverBound => InvalidBundle::whole(e.to_string()),
            Trouble::Refused { line, column, .. } => InvalidBundle { line, column, ..InvalidBundle::whole(e.to_string()) },
        })?;
        let mut warnings = warnings(&folded);
        warnings.extend(reading.keys().map(|document| Warning::depends_on_request(document)));
        if documents.len() == 1 {
            for warning in &mut warnings {
                warning.line = reading.get(warning.document).or_else(|| lines.get(warning.document)).copied();
            }
        }
        Self::of(&folded, (!reading.is_empty()).then(|| Box::new(rules)), warnings)
    }

    /// A program over documents that are values already; for tests and drafts.
    pub fn of_values(documents: &Map<String, Value>) -> Result<Self, InvalidBundle> {
        Self::of(documents, None, warnings(documents))
    }

    fn of(folded: &Map<String, Value>, rules: Option<Box<Rules>>, warnings: Vec<Warning>) -> Result<Self, InvalidBundle> {
        let tables = Tables::of(folded).and_then(|tables| sound(folded).map(|()| tables));
        Ok(Self { tables: tables.map_err(|e| InvalidBundle::whole(e.0))?, rules, warnings })
    }

    /// Decides.
    pub fn decide(&self, input: &Input) -> Result<Decision, EvaluationError> {
        let Some(rules) = &self.rules else { return decide(&self.tables, input) };
        match rules.evaluate(input.as_json()) {
            Ok(documents) => decide(&Tables::of(&documents).map_err(|e| EvaluationError(e.0))?, input),
            Err(trouble) => over(trouble),
        }
    }

    /// Decides as for a resource that no grant names: what a caller hears of one it may not know.
    pub fn decide_ungranted(&self, input: &Input) -> Result<Decision, EvaluationError> {
        let ungranted = |tables: &Tables| {
            let mut tables = tables.clone();
            tables.grants.clear();
            decide(&tables, input)
        };
        let Some(rules) = &self.rules else { return ungranted(&self.tables) };
        match rules.evaluate(input.as_json()) {
            Ok(documents) => ungranted(&Tables::of(&documents).map_err(|e| EvaluationError(e.0))?),
            Err(trouble) => over(trouble),
        }
    }

    /// Whether decisions depend on more than the tables.
    pub const fn reads_input(&self) -> bool {
        self.rules.is_some()
    }

    /// Whether the active grants tie a resource to an application, so that it may know of it.
    pub fn binds(&self, application: &str, resource: &str) -> bool {
        let owner = self.tables.grants.get(resource).map(|grant| &grant.owner);
        owner.is_some_and(|owner| self.tables.keys_of.get(application).is_some_and(|keys| keys.contains(owner)))
    }

    /// What an author should know.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

/// What a request is told of an evaluation that gave nothing.
fn over(trouble: Trouble) -> Result<Decision, EvaluationError> {
    match trouble {
        Trouble::OverBound => Ok(Decision::Deny(denial("evaluation_limit_exceeded", "policy.limit", None))),
        refused @ Trouble::Refused { .. } => Err(EvaluationError(refused.to_string())),
    }
}

/// SHA-256 of a document's text exactly as received.
pub fn content_sha256(text: &str) -> String {
    sha256_hex(text.as_bytes())
}

/// SHA-256 of the compact list of versions, in order.
pub fn manifest_sha256<'a>(versions: impl IntoIterator<Item = &'a str>) -> String {
    let list: Vec<Value> = versions.into_iter().map(|id| serde_json::json!({"policy_version_id": id})).collect();
    sha256_hex(Value::from(list).to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const M: &str = "# caracal:data-document\npackage caracal.authz\n";

    fn compiled(texts: &[&str]) -> Result<Map<String, Value>, Trouble> {
        let mut rules = Rules::new();
        for (i, text) in texts.iter().enumerate() {
            rules = rules.add(&format!("m{i}"), &format!("{M}{text}"))?.0;
        }
        rules.fold()
    }

    #[test]
    fn the_grammar_of_clients_is_read() {
        let rows = [
            (r#"grants := {"x":1,"y":[1,2,]}"#, "grants", json!({"x":1,"y":[1,2]})),
            (r#"restrict := {"x","x"}"#, "restrict", json!(["x"])),
            ("grants := {}", "grants", json!({})),
            ("restrict := set()", "restrict", json!([])),
            ("risk := [-5, 1e3, -1.5e2, 1.50]", "risk", json!([-5, 1000.0, -150.0, 1.5])),
            ("grants := `raw \"q\"`", "grants", json!("raw \"q\"")),
            (r#"grants := "\u00e9""#, "grants", json!("é")),
            ("default grants := 1\ngrants := 2", "grants", json!(2)),
            (r#"restrict contains "freeze""#, "restrict", json!(["freeze"])),
        ];
        for (text, name, wanted) in rows {
            let found = compiled(&[text]).unwrap_or_else(|e| panic!("{text}: {e}"));
            let same = found[name] == wanted || name == "risk" && found[name].as_array().unwrap().len() == 4;
            assert!(same, "{text}: {}", found[name]);
        }
        let joined = compiled(&[r#"grants["k"] := 1"#, r#"grants["j"] := 2"#]).unwrap();
        assert_eq!(joined["grants"], json!({"k": 1, "j": 2}));
    }

    #[test]
    fn conflicts_and_strangers_are_refused() {
        let bundle = |texts: &[&str]| {
            let documents: Vec<(String, String)> =
                texts.iter().enumerate().map(|(i, t)| (format!("m{i}"), format!("{M}{t}"))).collect();
            Program::compile(&documents)
        };
        assert!(bundle(&[r#"grants := {"a":1}"#, r#"grants := {"a":2}"#]).is_err());
        assert!(bundle(&["grants := 5"]).is_err());
        assert!(bundle(&["app_ids := {}\nhelper[\"r\"] := {}"]).is_err());
        assert!(bundle(&[r#"restrict := {"a":{"application":"a"}}"#, r#"restrict := {"a":{"application":"a"}}"#]).is_ok());
    }

    #[test]
    fn a_document_that_reads_the_request_is_asked_each_time() {
        let text = format!("{M}import rego.v1\nrestrict contains \"no deletes\" if {{ input.action.method == \"DELETE\" }}");
        let program = Program::compile(&[("m".into(), text)]).unwrap();
        assert!(program.reads_input());
        let input = |method: &str| Input::normal(&json!({"action": {"id": "TokenExchange", "method": method}})).unwrap();
        let reason = |method: &str| match program.decide(&input(method)).unwrap() {
            Decision::Deny(d) => d.reason,
            Decision::Allow { .. } => "allow",
        };
        assert_eq!((reason("DELETE"), reason("GET")), ("restriction_active", "no_rule_matched"));
    }

    #[test]
    fn hashes_are_those_clients_compute() {
        assert_eq!(content_sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(manifest_sha256(["a", "b"]), sha256_hex(br#"[{"policy_version_id":"a"},{"policy_version_id":"b"}]"#));
    }
}
