//! The Rego engine, within bounds (`policy.md` 3.7). All that knows `regorus` is here and in [`guard`](crate::guard).
//!
//! Bounded are: the text (length, and nesting by the parser), the time (by the engine's clock: it has no count of instructions that
//! stands with guarded builtins), what a builtin may make of its arguments (by the guard, before it runs), and what comes out (size
//! and nesting). A panic of the engine is an evaluation that failed.

use std::num::{NonZeroU32, NonZeroUsize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use regorus::unstable::{Expr, Module, Ref, Rule, RuleHead, Span};
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, LimitError, PolicyLengthConfig, Value as Rego};
use serde_json::{Map, Value};

use crate::document::blanked;
use crate::{guard, shape};

/// What an evaluation may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) time: Duration,
    /// Size of the documents that come out, as [`guard::own_weight`] counts: about a quarter of the memory they take.
    pub(crate) bytes: u64,
}

/// Of a request.
pub(crate) const REQUEST: Bounds = Bounds { time: Duration::from_millis(20), bytes: 4 << 20 };
/// Of compiling and folding a bundle.
pub(crate) const FOLD: Bounds = Bounds { time: Duration::from_secs(2), bytes: 64 << 20 };
/// Stack of the parser: ample for a chain of as many operators as a text may have. Only what is used takes memory.
const STACK: usize = 256 << 20;
/// Deepest nesting of a document.
const NESTING: u32 = 128;
/// The query that gives all documents.
const ALL: &str = "data.caracal.authz";
/// Work between two looks at the clock.
const TICKS: NonZeroU32 = NonZeroU32::MIN.saturating_add(63);
/// Longest line and text that is parsed; the validator is the one that limits texts.
const LENGTHS: PolicyLengthConfig = PolicyLengthConfig {
    max_col: NonZeroU32::MIN.saturating_add(1 << 20),
    max_file_bytes: NonZeroUsize::MIN.saturating_add(1 << 20),
    max_lines: NonZeroUsize::MIN.saturating_add(1 << 20),
};

/// Why the engine gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// It went over a bound.
    #[error("the evaluation takes more time, size or nesting than it may")]
    OverBound,
    /// It refused.
    #[error("{message}")]
    Refused {
        /// In its own words.
        message: String,
        /// Line, from 1.
        line: Option<u32>,
        /// Column, from 1.
        column: Option<u32>,
    },
}

impl Trouble {
    fn said(text: &str) -> Self {
        let (line, column) = place(text);
        let last = text.lines().map(str::trim).rfind(|l| !l.is_empty()).unwrap_or_default();
        Self::Refused { message: last.strip_prefix("error: ").unwrap_or(last).to_owned(), line, column }
    }
}

/// A rule of a module: what it defines, where, and whether it reads the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) line: u32,
    pub(crate) reads_input: bool,
}

/// Modules, parsed; evaluated on a copy.
#[derive(Clone)]
pub(crate) struct Rules(Engine);

impl Rules {
    pub(crate) fn new() -> Self {
        let mut engine = Engine::new();
        engine.set_strict_builtin_errors(true);
        // What a document prints goes nowhere.
        engine.set_gather_prints(true);
        engine.set_policy_length_config(LENGTHS);
        guard::install(&mut engine);
        Self(engine)
    }

    /// Adds a module, and tells what it defines. Modern dialect first; a text of the older one without `rego.v1` is read as that.
    ///
    /// The parser goes as deep as a text does: on a stack of its own, which outlasts what the scan lets through. What is kept is flat.
    pub(crate) fn add(self, name: &str, text: &str) -> Result<(Self, Vec<Definition>), Trouble> {
        shape::scan(&blanked(text).map_err(|e| Trouble::said(&e.code))?).map_err(|e| Trouble::said(&e.to_string()))?;
        let parse = || shielded(|| self.parsed(name, text));
        let failed = || Trouble::said("the text cannot be parsed here");
        std::thread::scope(|scope| {
            let parser = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, parse).map_err(|_| failed())?;
            parser.join().unwrap_or_else(|_| Err(failed()))
        })
    }

    fn parsed(self, name: &str, text: &str) -> Result<(Self, Vec<Definition>), Trouble> {
        let Self(mut engine) = self;
        engine.set_rego_v0(false);
        if let Err(modern) = engine.add_policy(name.to_owned(), text.to_owned()) {
            engine.set_rego_v0(true);
            engine.add_policy(name.to_owned(), text.to_owned()).map_err(|_| trouble(&modern))?;
        }
        let Some(module) = engine.get_modules().last() else { return Ok((Self(engine), Vec::new())) };
        shape::check(module).map_err(|e| Trouble::said(&e.to_string()))?;
        let defined = definitions(module, text);
        Ok((Self(engine), defined))
    }

    /// All documents, without a request.
    pub(crate) fn fold(&mut self) -> Result<Map<String, Value>, Trouble> {
        documents(&mut self.0, FOLD)
    }

    /// All documents, for a request.
    pub(crate) fn evaluate(&self, input: &Value) -> Result<Map<String, Value>, Trouble> {
        let mut engine = self.0.clone();
        engine.set_input(from_json(input)?);
        documents(&mut engine, REQUEST)
    }
}

fn documents(engine: &mut Engine, bounds: Bounds) -> Result<Map<String, Value>, Trouble> {
    engine.set_execution_timer_config(ExecutionTimerConfig { limit: bounds.time, check_interval: TICKS });
    guard::reset();
    let results = shielded(|| engine.eval_query(ALL.to_owned(), false).map_err(|e| trouble(&e)))?;
    let value = results.result.first().and_then(|r| r.expressions.first()).map(|e| &e.value);
    let mut documents = Map::new();
    let mut left = bounds.bytes;
    let Some(Rego::Object(members)) = value else { return Ok(documents) };
    for (name, value) in members.iter() {
        let Rego::String(name) = name else { continue };
        // Only an array will do for these two: a set must not pass for one.
        let set_is_wrong = matches!(value, Rego::Set(_)) && matches!(&**name, "risk" | "approval_tiers");
        let value = if set_is_wrong { Value::String("a set".to_owned()) } else { to_json(value, NESTING, &mut left)? };
        documents.insert(name.to_string(), value);
    }
    Ok(documents)
}

/// Runs the engine so that its panics are refusals.
fn shielded<T>(work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    let broken = |_| Err(Trouble::Refused { message: "the engine failed".to_owned(), line: None, column: None });
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(broken)
}

fn trouble(error: &(impl std::fmt::Display + AsRef<dyn std::error::Error + Send + Sync>)) -> Trouble {
    if error.as_ref().is::<LimitError>() || guard::went_over() { Trouble::OverBound } else { Trouble::said(&error.to_string()) }
}

/// Line and column out of the engine's message (`--> name:LINE:COLUMN`).
fn place(message: &str) -> (Option<u32>, Option<u32>) {
    let Some(after) = message.split("--> ").nth(1) else { return (None, None) };
    let mut parts = after.lines().next().unwrap_or_default().rsplit(':');
    let column = parts.next().and_then(|c| c.trim().parse().ok());
    (parts.next().and_then(|l| l.trim().parse().ok()), column)
}

fn definitions(module: &Module, text: &str) -> Vec<Definition> {
    let names: Vec<&Span> = module.policy.iter().map(|rule| root(head(rule)).span()).collect();
    let at = |name: &Span| usize::try_from(name.start).unwrap_or(usize::MAX);
    let reads = |from: usize, to: usize| text.get(from..to).is_none_or(reads_input);
    // The request may have been imported under another name.
    let imported = reads(0, names.first().map_or(text.len(), |name| at(name)));
    let ends = names.iter().skip(1).map(|next| at(next)).chain([text.len()]);
    let definition = |(name, end): (&&Span, usize)| Definition {
        name: name.text().to_owned(),
        line: name.line,
        // The rule's own text is all up to the next name.
        reads_input: imported || reads(at(name), end),
    };
    names.iter().zip(ends).map(definition).collect()
}

fn head(rule: &Rule) -> &Ref<Expr> {
    match rule {
        Rule::Spec { head: RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. }, .. }
        | Rule::Default { refr, .. } => refr,
    }
}

/// The first name of a reference.
fn root(mut expr: &Expr) -> &Expr {
    while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = expr {
        expr = refr;
    }
    expr
}

/// Whether a text names the request, comments and strings aside. A text that cannot be told apart does.
fn reads_input(text: &str) -> bool {
    let Ok(blank) = blanked(text) else { return true };
    blank.match_indices("input").any(|(at, word)| {
        let plain = |c: Option<char>| !c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        plain(blank[..at].chars().next_back()) && plain(blank[at + word.len()..].chars().next())
    })
}

fn to_json(value: &Rego, nesting: u32, left: &mut u64) -> Result<Value, Trouble> {
    let deeper = nesting.checked_sub(1).ok_or(Trouble::OverBound)?;
    *left = left.checked_sub(guard::own_weight(value)).ok_or(Trouble::OverBound)?;
    Ok(match value {
        Rego::Null | Rego::Undefined => Value::Null,
        Rego::Array(items) => items.iter().map(|v| to_json(v, deeper, left)).collect::<Result<_, _>>()?,
        Rego::Set(items) => items.iter().map(|v| to_json(v, deeper, left)).collect::<Result<_, _>>()?,
        Rego::Object(members) => {
            let mut object = Map::new();
            for (key, value) in members.iter() {
                let key = match key {
                    Rego::String(text) => text.to_string(),
                    other => to_json(other, deeper, left)?.to_string(),
                };
                object.insert(key, to_json(value, deeper, left)?);
            }
            Value::Object(object)
        }
        other => serde_json::to_value(other).unwrap_or_default(),
    })
}

fn from_json(value: &Value) -> Result<Rego, Trouble> {
    Rego::from_json_str(&value.to_string()).map_err(|e| trouble(&e))
}
