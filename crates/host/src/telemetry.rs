//! Logs: lines for people on a terminal, JSON elsewhere; always to standard error, redacted, through a bounded queue so that a slow
//! reader of logs never slows a request down. Lines that do not fit are counted and told.

use std::fmt::{self, Write as _};
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::redact::redact;
use crate::world::World;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text {
        /// With colours.
        colour: bool,
    },
    /// For machines.
    Json,
}

impl Form {
    /// Text on a terminal, JSON elsewhere.
    pub fn detect(colour: bool) -> Self {
        if std::io::stderr().is_terminal() { Self::Text { colour } } else { Self::Json }
    }
}

/// What the log needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How lines look.
    pub form: Form,
    /// `debug`, `info`, `warn` or `error`; anything else is `info`.
    pub level: String,
    /// Field `version`.
    pub version: String,
    /// Field `env`.
    pub environment: String,
    /// Field `hostname`.
    pub hostname: String,
    /// Longest text of a field, in bytes.
    pub field_bytes: usize,
    /// Lines that may wait for the writer.
    pub queue: usize,
}

/// Keeps the writer alive; when dropped, waiting lines are written.
#[derive(Debug)]
pub struct Guard {
    sender: Option<SyncSender<Line>>,
    writer: Option<JoinHandle<()>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            let _ = sender.send(Line::End);
        }
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[derive(Debug)]
enum Line {
    Text(Vec<u8>),
    End,
}

/// Starts the log of the process; a second call leaves the first in place and gives an inert guard.
pub fn init(settings: Settings, world: World) -> Guard {
    let (sender, receiver) = sync_channel(settings.queue.max(1));
    let lost = Arc::new(AtomicU64::new(0));
    let level = match settings.level.to_ascii_lowercase().as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "warn" => LevelFilter::WARN,
        "error" => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    };
    let lines = Lines { settings, world, sender: sender.clone(), lost: lost.clone() };
    // Libraries speak of their own affairs below warning.
    let targets = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("caracal", level);
    if tracing_subscriber::registry().with(lines.with_filter(targets)).try_init().is_err() {
        return Guard { sender: None, writer: None };
    }
    let writer = std::thread::Builder::new().name("log".into()).spawn(move || write(&receiver, &lost)).ok();
    Guard { sender: Some(sender), writer }
}

fn write(receiver: &Receiver<Line>, lost: &AtomicU64) {
    let mut out = std::io::stderr();
    while let Ok(Line::Text(mut batch)) = receiver.recv() {
        let mut end = false;
        while batch.len() < 1 << 16 {
            match receiver.try_recv() {
                Ok(Line::Text(more)) => batch.extend_from_slice(&more),
                Ok(Line::End) => {
                    end = true;
                    break;
                }
                Err(_) => break,
            }
        }
        let missing = lost.swap(0, Ordering::Relaxed);
        if missing > 0 {
            batch.extend_from_slice(format!("{{\"level\":\"warn\",\"msg\":\"log lines lost\",\"count\":{missing}}}\n").as_bytes());
        }
        // Nobody is left to tell when standard error is gone.
        let _ = out.write_all(&batch).and_then(|()| out.flush());
        if end {
            return;
        }
    }
}

struct Lines {
    settings: Settings,
    world: World,
    sender: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields { map: Map::new(), message: String::new(), most: self.settings.field_bytes };
        event.record(&mut fields);
        let meta = event.metadata();
        let service = room(meta.target());
        let line = match self.settings.form {
            Form::Json => json_line(&self.settings, self.world.now().as_micros() / 1000, *meta.level(), service, fields),
            Form::Text { colour } => text_line(colour, &self.world.now().rfc3339_millis(), *meta.level(), service, &fields),
        };
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Line::Text(line.into_bytes())) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// `caracal_gateway::pipeline` speaks for `gateway`.
fn room(target: &str) -> &str {
    let first = target.split("::").next().unwrap_or(target);
    first.strip_prefix("caracal_").unwrap_or(first)
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn json_line(settings: &Settings, millis: i64, level: Level, service: &str, fields: Fields) -> String {
    let mut line = Map::new();
    line.insert("time".into(), json!(millis));
    line.insert("level".into(), json!(level_name(level)));
    line.insert("service".into(), json!(service));
    line.insert("msg".into(), json!(fields.message));
    line.insert("hostname".into(), json!(settings.hostname));
    line.insert("pid".into(), json!(std::process::id()));
    line.insert("version".into(), json!(settings.version));
    line.insert("env".into(), json!(settings.environment));
    for (name, value) in fields.map {
        // An event cannot rename what every line says about itself, except the service that it speaks for.
        if name == "service" || !line.contains_key(&name) {
            line.insert(name, value);
        }
    }
    format!("{}\n", Value::Object(line))
}

fn text_line(colour: bool, time: &str, level: Level, service: &str, fields: &Fields) -> String {
    let clock = time.get(11..23).unwrap_or(time);
    let (code, name) = match level {
        Level::ERROR => ("31", "ERROR"),
        Level::WARN => ("33", "WARN "),
        Level::INFO => ("32", "INFO "),
        Level::DEBUG => ("36", "DEBUG"),
        Level::TRACE => ("35", "TRACE"),
    };
    let name = if colour { format!("\u{1b}[{code}m{name}\u{1b}[0m") } else { name.to_owned() };
    let mut line = format!("{clock} {name} {service:<11} {}", printable(&fields.message));
    for (key, value) in &fields.map {
        let shown = match value {
            Value::String(text) if text.contains(' ') => format!("{text:?}"),
            Value::String(text) => printable(text),
            other => other.to_string(),
        };
        let _ = if colour { write!(line, " \u{1b}[2m{key}=\u{1b}[0m{shown}") } else { write!(line, " {key}={shown}") };
    }
    line.push('\n');
    line
}

/// Text of a client must not move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

struct Fields {
    map: Map<String, Value>,
    message: String,
    most: usize,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.map.insert(field.name().to_owned(), value);
    }

    fn text(&mut self, field: &Field, text: &str) {
        let mut text = redact(text).into_owned();
        if text.len() > self.most {
            let cut = (0..=self.most).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
            text.truncate(cut);
            text.push('…');
        }
        if field.name() == "message" { self.message = text } else { self.put(field, Value::String(text)) }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.text(field, &text);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, json!(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, json!(value));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, json!(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, json!(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            form: Form::Json,
            level: "info".into(),
            version: "1".into(),
            environment: "test".into(),
            hostname: "h".into(),
            field_bytes: 16,
            queue: 8,
        }
    }

    /// The lines an action logs.
    fn logged(form: Form, action: impl FnOnce()) -> Vec<String> {
        let (sender, receiver) = sync_channel(8);
        let (world, _) = World::fixed(1);
        let lines = Lines { settings: Settings { form, ..settings() }, world, sender, lost: Arc::default() };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), action);
        receiver
            .try_iter()
            .map(|line| match line {
                Line::Text(bytes) => String::from_utf8(bytes).unwrap(),
                Line::End => String::new(),
            })
            .collect()
    }

    #[test]
    fn a_json_line_has_its_fields_redacted_and_cut() {
        let lines = logged(Form::Json, || {
            tracing::info!(target: "caracal_gateway::x", pid = 0, path = "0123456789abcdefgh", n = 3, "sent Bearer abc.def");
        });
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(line["service"], "gateway");
        assert_eq!(line["time"], 1_790_000_000_000_i64);
        assert_eq!((&line["path"], &line["n"]), (&json!("0123456789abcdef…"), &json!(3)));
        assert_eq!(line["msg"], "sent Bearer [red…");
        assert_ne!(line["pid"], 0);
    }

    #[test]
    fn a_terminal_line_reads_alone_and_moves_no_cursor() {
        let lines = logged(Form::Text { colour: false }, || {
            tracing::warn!(target: "caracal_sts", who = "a\u{1b}[2Jb", text = "two words", "denied");
        });
        assert_eq!(lines[0], "14:13:20.000 WARN  sts         denied text=\"two words\" who=a\\u{1b}[2Jb\n");
    }
}
