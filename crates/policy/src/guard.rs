//! Builtins that make much of little, or that know the world: looked at before they run.
//!
//! The engine checks its clock between steps, so a single step must be small. What a builtin would make is worked out from its
//! arguments first; one that is too much ends the evaluation. The nine of `policy.md` 3.3 do not exist here, however they are spelt.

use std::cell::Cell;

use regorus::unstable::{BUILTINS, Expr, Ref, Span};
use regorus::{Engine, Source, Value};

use crate::document::FORBIDDEN;

/// Most that one builtin may make, in bytes.
const MOST: u64 = 16 << 20;

thread_local! {
    /// Whether a guard ended the evaluation that runs on this thread: the engine hands on only the text of an error.
    static OVER: Cell<bool> = const { Cell::new(false) };
}

pub(crate) fn reset() {
    OVER.set(false);
}

pub(crate) fn went_over() -> bool {
    OVER.get()
}

/// What a builtin would make of its arguments, in bytes; arguments of a wrong type are for the builtin to refuse.
type Makes = fn(&[Value]) -> u64;

const GUARDED: [(&str, u8, Makes); 10] = [
    ("numbers.range", 2, |args| elements(number(&args[1]) - number(&args[0]), 1.0)),
    ("numbers.range_step", 3, |args| elements(number(&args[1]) - number(&args[0]), number(&args[2]))),
    ("bits.lsh", 2, |args| args[1].as_u64().unwrap_or(0) / 8),
    ("concat", 2, |args| weight(&args[1]).saturating_add(length(&args[0]).saturating_mul(weight(&args[1])))),
    ("replace", 3, |args| replaced(text(&args[0]), text(&args[1]), text(&args[2]))),
    ("strings.replace_n", 2, replaced_n),
    ("regex.replace", 3, |args| (length(&args[0]) + 1).saturating_mul(length(&args[2]) + 1)),
    ("sprintf", 2, |args| formatted(text(&args[0])).saturating_add(weight(&args[1]).saturating_mul(2))),
    ("json.marshal", 1, |args| weight(&args[0]).saturating_mul(2)),
    ("json.marshal_with_options", 2, |args| weight(&args[0]).saturating_mul(weight(&args[1]).saturating_add(2))),
];

/// Puts the guards before the builtins of an engine.
pub(crate) fn install(engine: &mut Engine) {
    let Some(nowhere) = nowhere() else { return };
    for (name, arity, makes) in GUARDED {
        let Some((builtin, _)) = BUILTINS.get(name).copied() else { continue };
        let span = nowhere.clone();
        let guarded = move |args: Vec<Value>| {
            if makes(&args) > MOST {
                OVER.set(true);
                return Err(span.error(&format!("{name} would make more than it may")));
            }
            let blank = |_| Ref::new(Expr::Null { span: span.clone(), value: Value::Null, eidx: 0 });
            let params: Vec<Ref<Expr>> = args.iter().map(blank).collect();
            builtin(&span, &params, &args, true)
        };
        // Only a name that is taken is refused, and each is added once.
        let _ = engine.add_extension(name.to_owned(), arity, Box::new(guarded));
    }
    for name in FORBIDDEN {
        let Some((_, arity)) = BUILTINS.get(name).copied() else { continue };
        let span = nowhere.clone();
        let gone = move |_: Vec<Value>| Err(span.error(&format!("{name} does not exist here")));
        let _ = engine.add_extension(name.to_owned(), arity, Box::new(gone));
    }
}

/// A place for the messages of a builtin that is called for somebody else.
fn nowhere() -> Option<Span> {
    let source = Source::from_contents("builtin".to_owned(), " ".to_owned()).ok()?;
    Some(Span { source, line: 1, col: 1, start: 0, end: 0 })
}

/// The bytes of a value itself, without what it holds.
pub(crate) fn own_weight(value: &Value) -> u64 {
    16 + length(value)
}

/// The bytes of a value written out: what is shared counts each time it is met. Not counted on beyond [`MOST`].
fn weight(value: &Value) -> u64 {
    fn add(value: &Value, nesting: u32, sum: &mut u64) {
        let Some(deeper) = nesting.checked_sub(1) else {
            *sum = u64::MAX;
            return;
        };
        *sum = sum.saturating_add(own_weight(value));
        let mut all = |values: &mut dyn Iterator<Item = &Value>| {
            for value in values {
                if *sum > MOST {
                    return;
                }
                add(value, deeper, sum);
            }
        };
        match value {
            Value::Array(items) => all(&mut items.iter()),
            Value::Set(items) => all(&mut items.iter()),
            Value::Object(members) => all(&mut members.iter().flat_map(|(k, v)| [k, v])),
            _ => {}
        }
    }
    let mut sum = 0;
    add(value, 512, &mut sum);
    sum
}

fn text(value: &Value) -> &str {
    if let Value::String(text) = value { text } else { "" }
}

fn length(value: &Value) -> u64 {
    text(value).len() as u64
}

/// Not a number: no size.
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is what is wanted")]
fn elements(distance: f64, step: f64) -> u64 {
    ((distance / step).abs() as u64).saturating_mul(24)
}

/// The length after every `old` has become `new`.
fn replaced(value: &str, old: &str, new: &str) -> u64 {
    let times = value.matches(old).count() as u64;
    (value.len() as u64).saturating_add(times.saturating_mul(new.len() as u64))
}

/// One replacement after the other, as the builtin does it.
fn replaced_n(args: &[Value]) -> u64 {
    let Ok(patterns) = args[0].as_object() else { return 0 };
    let mut value = text(&args[1]).to_owned();
    for (old, new) in patterns.iter_sorted() {
        let (old, new) = (text(old), text(new));
        if replaced(&value, old, new) > MOST {
            return u64::MAX;
        }
        value = value.replace(old, new);
    }
    value.len() as u64
}

/// The widths a format asks for.
fn formatted(format: &str) -> u64 {
    let runs = format.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty());
    runs.map(|run| run.parse().unwrap_or(u64::MAX)).fold(format.len() as u64, u64::saturating_add)
}
