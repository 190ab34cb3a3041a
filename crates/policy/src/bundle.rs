//! Documents become a program, once, when they become active (`policy.md` 3.4, 3.7).
//!
//! A bundle that does not read `input` is folded into tables and the engine is gone. One that does is kept compiled, and every
//! request evaluates a copy of it under a bound.

use std::num::NonZeroU32;
use std::time::Duration;

use caracal_core::digest::sha256_hex;
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value as Rego};
use serde_json::{Map, Value};

use crate::decide::{Decision, EvaluationError, decide, denial};
use crate::document::{Invalid, blanked};
use crate::input::Input;
use crate::tables::{NAMES, Tables, warnings};

/// Largest bundle, in bytes.
const MAX_BUNDLE: usize = 4 * 1024 * 1024;
/// What a request may take.
const REQUEST: Duration = Duration::from_millis(20);
/// What folding and compiling may take.
const FOLD: Duration = Duration::from_secs(2);
/// The query that gives all documents.
const ALL: &str = "data.caracal.authz";

/// A bundle that cannot become active; says why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidBundle(pub String);

/// A compiled bundle.
pub struct Program {
    /// What the documents say without a request: all there is, when none reads it.
    tables: Tables,
    /// Kept only when a document reads the request.
    engine: Option<Box<Engine>>,
    warnings: Vec<String>,
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
            return Err(InvalidBundle("the bundle is larger than 4 MiB".to_owned()));
        }
        let mut engine = bounded(FOLD);
        let mut reads = false;
        for (name, text) in documents {
            add(&mut engine, name, text).map_err(|e| InvalidBundle(format!("{name}: {e}")))?;
            let blank = blanked(text).map_err(|e| InvalidBundle(format!("{name}: {e}")))?;
            for defined in heads(&blank) {
                if !NAMES.contains(&defined) {
                    return Err(InvalidBundle(format!("{name}: defines {defined}, which is none of {}", NAMES.join(", "))));
                }
            }
            reads |= mentions_input(&blank);
        }
        let folded = documents_of(&mut engine).map_err(|e| InvalidBundle(e.0))?;
        let tables = Tables::of(&folded).map_err(|e| InvalidBundle(e.0))?;
        engine.set_execution_timer_config(timer(REQUEST));
        Ok(Self { tables, engine: reads.then(|| Box::new(engine)), warnings: warnings(&folded) })
    }

    /// A program over documents that are values already; for tests and drafts.
    pub fn of_values(documents: &Map<String, Value>) -> Result<Self, InvalidBundle> {
        let tables = Tables::of(documents).map_err(|e| InvalidBundle(e.0))?;
        Ok(Self { tables, engine: None, warnings: warnings(documents) })
    }

    /// Decides.
    pub fn decide(&self, input: &Input) -> Result<Decision, EvaluationError> {
        match &self.engine {
            None => decide(&self.tables, input),
            Some(engine) => {
                let mut engine = engine.clone();
                let text = input.as_json().to_string();
                engine.set_input_json(&text).map_err(|e| EvaluationError(e.to_string()))?;
                let documents = match documents_of(&mut engine) {
                    Ok(documents) => documents,
                    Err(e) if e.0.contains("execution") && e.0.contains("limit") => {
                        return Ok(Decision::Deny(denial("evaluation_limit_exceeded", "policy.limit", None)));
                    }
                    Err(e) => return Err(e),
                };
                decide(&Tables::of(&documents).map_err(|e| EvaluationError(e.0))?, input)
            }
        }
    }

    /// Whether decisions depend on more than the tables.
    pub const fn reads_input(&self) -> bool {
        self.engine.is_some()
    }

    /// Whether the active grants tie a resource to an application, so that it may know of it.
    pub fn binds(&self, application: &str, resource: &str) -> bool {
        let owner = self.tables.grants.get(resource).map(|grant| &grant.owner);
        owner.is_some_and(|owner| self.tables.keys_of.get(application).is_some_and(|keys| keys.contains(owner)))
    }

    /// What an author should know.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
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

/// The engine's parser on one text.
pub(crate) fn parse(text: &str) -> Result<(), Invalid> {
    add(&mut bounded(FOLD), "document", text).map_err(|e| {
        let (line, column) = place(&e);
        Invalid { code: format!("syntax_error: {}", e.lines().last().unwrap_or_default().trim()), line, column, lexical: false }
    })
}

fn timer(limit: Duration) -> ExecutionTimerConfig {
    ExecutionTimerConfig { limit, check_interval: NonZeroU32::MIN.saturating_add(63) }
}

fn bounded(limit: Duration) -> Engine {
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(true);
    engine.set_execution_timer_config(timer(limit));
    engine
}

/// Modern dialect first; a text of the older one without `rego.v1` is read as that.
fn add(engine: &mut Engine, name: &str, text: &str) -> Result<(), String> {
    engine.set_rego_v0(false);
    let modern = match engine.add_policy(name.to_owned(), text.to_owned()) {
        Ok(_) => return Ok(()),
        Err(e) => e.to_string(),
    };
    engine.set_rego_v0(true);
    engine.add_policy(name.to_owned(), text.to_owned()).map(|_| ()).map_err(|_| modern)
}

/// Line and column out of the engine's message (`--> name:LINE:COLUMN`).
fn place(message: &str) -> (Option<u32>, Option<u32>) {
    let Some(after) = message.split("--> ").nth(1) else { return (None, None) };
    let mut parts = after.lines().next().unwrap_or_default().rsplit(':');
    let column = parts.next().and_then(|c| c.trim().parse().ok());
    (parts.next().and_then(|l| l.trim().parse().ok()), column)
}

fn mentions_input(blank: &str) -> bool {
    blank.match_indices("input").any(|(at, word)| {
        let plain = |c: Option<char>| !c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        plain(blank[..at].chars().next_back()) && plain(blank[at + word.len()..].chars().next())
    })
}

/// First names of rule heads at the outermost level.
fn heads(blank: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let mut found = Vec::new();
    for line in blank.lines() {
        let text = line.trim_start();
        let text = text.strip_prefix("default ").map_or(text, str::trim_start);
        let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
        let name = &text[..end];
        let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if depth == 0 && starts && !matches!(name, "package" | "import" | "else" | "with") {
            found.push(name);
        }
        for c in line.chars() {
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth -= 1,
                _ => {}
            }
        }
    }
    found
}

fn documents_of(engine: &mut Engine) -> Result<Map<String, Value>, EvaluationError> {
    let results = engine.eval_query(ALL.to_owned(), false).map_err(|e| EvaluationError(e.to_string()))?;
    let mut documents = Map::new();
    let value = results.result.first().and_then(|r| r.expressions.first()).map(|e| &e.value);
    if let Some(Rego::Object(members)) = value {
        for (name, value) in members.iter() {
            let Rego::String(name) = name else { continue };
            // Only an array will do for these two: a set must not pass for one.
            let set_is_wrong = matches!(value, Rego::Set(_)) && matches!(&**name, "risk" | "approval_tiers");
            let value = if set_is_wrong { Value::String("a set".to_owned()) } else { to_json(value) };
            documents.insert(name.to_string(), value);
        }
    }
    Ok(documents)
}

fn to_json(value: &Rego) -> Value {
    match value {
        Rego::Null | Rego::Undefined => Value::Null,
        Rego::Array(items) => items.iter().map(to_json).collect(),
        Rego::Set(items) => items.iter().map(to_json).collect(),
        Rego::Object(members) => {
            let key = |k: &Rego| match k {
                Rego::String(s) => s.to_string(),
                other => to_json(other).to_string(),
            };
            Value::Object(members.iter().map(|(k, v)| (key(k), to_json(v))).collect())
        }
        other => serde_json::to_value(other).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const M: &str = "# caracal:data-document\npackage caracal.authz\n";

    fn compiled(texts: &[&str]) -> Result<Map<String, Value>, InvalidBundle> {
        let mut engine = bounded(FOLD);
        for (i, text) in texts.iter().enumerate() {
            add(&mut engine, &format!("m{i}"), &format!("{M}{text}")).map_err(InvalidBundle)?;
        }
        documents_of(&mut engine).map_err(|e| InvalidBundle(e.0))
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
        assert!(bundle(&[r#"grants := {"a":{"application":"a"}}"#, r#"grants := {"a":{"application":"a"}}"#]).is_ok());
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
