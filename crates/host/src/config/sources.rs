//! Where values come from, and which of two wins: flags, the process environment, env files, the TOML file, what `up` generated,
//! defaults. A variable set to the empty text in one place hides the places below it and then counts as unset.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Service;
use super::error::{ConfigError, ConfigErrors};
use super::key::{Key, Mode, Run};
use super::reader::Reader;

/// The place a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command.
    Flag(&'static str),
    /// The process environment.
    Environment,
    /// An operator env file.
    EnvFile(PathBuf),
    /// The TOML file of `--config`.
    Toml(PathBuf),
    /// The file that a `_FILE` variable named.
    SecretFile(PathBuf),
    /// Generated or kept by `caracal up`.
    Managed,
    /// The built-in default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "from {flag}"),
            Self::Environment => f.write_str("from the environment"),
            Self::EnvFile(path) | Self::Toml(path) => write!(f, "from {}", path.display()),
            Self::SecretFile(path) => write!(f, "read from {}", path.display()),
            Self::Managed => f.write_str("managed by caracal up"),
            Self::Default => f.write_str("built-in default"),
        }
    }
}

/// A value and its origin. The text is wiped when dropped.
#[derive(Clone)]
pub struct Value {
    /// The text; never empty.
    pub text: Zeroizing<String>,
    /// Where it came from.
    pub origin: Origin,
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({})", self.origin)
    }
}

type Layer = BTreeMap<String, Value>;

/// All places, in order; and what the process is.
#[derive(Clone, Debug)]
pub struct Sources {
    run: Run,
    mode: Mode,
    port_offset: u16,
    outside: Vec<Layer>,
    managed: Layer,
}

impl Sources {
    /// Begins a set of places.
    pub fn builder(run: Run) -> Builder {
        Builder {
            run,
            default_mode: Mode::Stable,
            port_offset: 0,
            flags: Layer::new(),
            environment: Layer::new(),
            files: Vec::new(),
            toml: Layer::new(),
            managed: Layer::new(),
            errors: Vec::new(),
        }
    }

    /// Reads a service's values.
    pub fn reader(&self, service: Service) -> Reader<'_> {
        Reader::new(self, service)
    }

    /// The mode of the process.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// How the process runs.
    pub const fn run(&self) -> Run {
        self.run
    }

    /// What `--port-offset` adds to each default port.
    pub const fn port_offset(&self) -> u16 {
        self.port_offset
    }

    /// Whether an operator gave this variable (or its `_FILE` form); what `up` generates and defaults do not count.
    pub fn given(&self, name: &str) -> bool {
        self.find(name).is_some() || self.find(&format!("{name}_FILE")).is_some()
    }

    /// The variable's value; `None` when unset or empty and without default.
    pub fn value(&self, key: &Key) -> Result<Option<Value>, ConfigError> {
        if let Some(value) = self.find(key.name) {
            return Ok(Some(value.clone()));
        }
        if key.file_variant
            && let Some(named) = self.find(&format!("{}_FILE", key.name))
        {
            return read_secret_file(key, named).map(Some);
        }
        if let Some(value) = self.managed.get(key.name) {
            return Ok(Some(value.clone()));
        }
        let default = if self.run == Run::Up { key.default_up.or(key.default) } else { key.default };
        Ok(default.filter(|d| !d.is_empty()).map(|d| Value { text: Zeroizing::new(d.to_owned()), origin: Origin::Default }))
    }

    /// The highest place that defines the name decides; empty means unset.
    fn find(&self, name: &str) -> Option<&Value> {
        self.outside.iter().find_map(|layer| layer.get(name)).filter(|value| !value.text.is_empty())
    }
}

fn read_secret_file(key: &Key, named: &Value) -> Result<Value, ConfigError> {
    let path = PathBuf::from(named.text.as_str());
    let fail = |fault: String| ConfigError {
        variable: format!("{}_FILE", key.name),
        origin: Some(named.origin.clone()),
        fault,
        advice: format!("let it name a readable file that holds the value of {}, or set {} itself", key.name, key.name),
    };
    let text =
        fs::read_to_string(&path).map(Zeroizing::new).map_err(|e| fail(format!("{} cannot be read: {e}", path.display())))?;
    let text = Zeroizing::new(text.trim_end().to_owned());
    if text.is_empty() {
        return Err(fail(format!("{} is empty", path.display())));
    }
    Ok(Value { text, origin: Origin::SecretFile(path) })
}

/// Collects the places of [`Sources`].
#[derive(Debug)]
pub struct Builder {
    run: Run,
    default_mode: Mode,
    port_offset: u16,
    flags: Layer,
    environment: Layer,
    files: Vec<Layer>,
    toml: Layer,
    managed: Layer,
    errors: Vec<ConfigError>,
}

impl Builder {
    /// The mode when `CARACAL_MODE` is unset: a service takes `stable`, `up` what the build was stamped with.
    #[must_use]
    pub const fn default_mode(mut self, mode: Mode) -> Self {
        self.default_mode = mode;
        self
    }

    /// What `--port-offset` adds to each default port.
    #[must_use]
    pub const fn port_offset(mut self, offset: u16) -> Self {
        self.port_offset = offset;
        self
    }

    /// A flag that stands for a variable.
    #[must_use]
    pub fn flag(mut self, variable: &str, flag: &'static str, value: impl Into<String>) -> Self {
        insert(&mut self.flags, variable, value.into(), Origin::Flag(flag));
        self
    }

    /// Variables of the process; the caller passes `std::env::vars()`, a test what it likes.
    #[must_use]
    pub fn environment<K: AsRef<str>, V: Into<String>>(mut self, variables: impl IntoIterator<Item = (K, V)>) -> Self {
        for (name, value) in variables {
            insert(&mut self.environment, name.as_ref(), value.into(), Origin::Environment);
        }
        self
    }

    /// An operator env file; call in falling precedence. A missing or unreadable file and a malformed line are skipped.
    #[must_use]
    pub fn env_file(mut self, path: &Path) -> Self {
        if let Ok(text) = fs::read_to_string(path).map(Zeroizing::new) {
            let mut layer = Layer::new();
            for (name, value) in text.lines().filter_map(env_line) {
                insert(&mut layer, name, value, Origin::EnvFile(path.to_owned()));
            }
            self.files.push(layer);
        }
        self
    }

    /// The TOML file of `--config`: flat names in either case, values text, whole numbers, booleans or lists of texts. `known` says which names exist.
    #[must_use]
    pub fn toml_file(mut self, path: &Path, known: impl Fn(&str) -> bool) -> Self {
        let mut fail = |variable: &str, fault: String, advice: &str| {
            self.errors.push(ConfigError {
                variable: variable.to_owned(),
                origin: Some(Origin::Toml(path.to_owned())),
                fault,
                advice: advice.to_owned(),
            });
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(e) => {
                fail("--config", format!("cannot be read: {e}"), "name a readable TOML file");
                return self;
            }
        };
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(e) => {
                // The parser's own text quotes the line, which may hold a secret.
                let line = e.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
                fail("--config", format!("is not TOML at line {line}"), "correct that line");
                return self;
            }
        };
        for (name, value) in table {
            if !known(&name) {
                fail(&name, "is no variable of Caracal".into(), "correct the name or take the line out");
                continue;
            }
            match plain_text(&value) {
                Some(text) => insert(&mut self.toml, &name.to_ascii_uppercase(), text, Origin::Toml(path.to_owned())),
                None => fail(
                    &name,
                    format!("cannot be a {}", value.type_str()),
                    "use text, a whole number, a boolean or a list of texts",
                ),
            }
        }
        self
    }

    /// A value that `caracal up` generated or derived; loses against everything an operator gave.
    #[must_use]
    pub fn managed(mut self, variable: &str, value: impl Into<String>) -> Self {
        insert(&mut self.managed, variable, value.into(), Origin::Managed);
        self
    }

    /// Closes the set and settles the mode.
    pub fn build(self) -> Result<Sources, ConfigErrors> {
        let mut errors = self.errors;
        let mut outside = vec![self.flags, self.environment];
        outside.extend(self.files);
        outside.push(self.toml);
        let mut sources =
            Sources { run: self.run, mode: self.default_mode, port_offset: self.port_offset, outside, managed: self.managed };
        if let Some(value) = sources.find("CARACAL_MODE").or_else(|| sources.managed.get("CARACAL_MODE")).cloned() {
            match value.text.trim().to_ascii_lowercase().as_str() {
                "" => {}
                "dev" => sources.mode = Mode::Dev,
                "rc" => sources.mode = Mode::Rc,
                "stable" => sources.mode = Mode::Stable,
                other => errors.push(ConfigError {
                    variable: "CARACAL_MODE".into(),
                    origin: Some(value.origin.clone()),
                    fault: format!("{other:?} is no mode"),
                    advice: "set it to dev, rc or stable".into(),
                }),
            }
        }
        if errors.is_empty() { Ok(sources) } else { Err(ConfigErrors(errors)) }
    }
}

fn insert(layer: &mut Layer, name: &str, text: String, origin: Origin) {
    layer.insert(name.to_owned(), Value { text: Zeroizing::new(text), origin });
}

fn plain_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        toml::Value::Array(items) => items.iter().map(|i| i.as_str()).collect::<Option<Vec<_>>>().map(|texts| texts.join(",")),
        _ => None,
    }
}

/// `KEY=VALUE`, optionally after `export `, the value optionally quoted; comments and everything else is `None`.
fn env_line(line: &str) -> Option<(&str, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let name = name.trim_end();
    let fine = |(i, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit());
    if name.is_empty() || !name.chars().enumerate().all(fine) {
        return None;
    }
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote) {
            return inner.find(quote).map(|end| (name, inner[..end].to_owned()));
        }
    }
    Some((name, value.split(" #").next().unwrap_or_default().trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEK: Key = Key::new("SECRET_STORE_KEK", "").secret();
    const SIZE: Key = Key::new("SIZE", "").default("5").default_up("7");

    fn text(sources: &Sources, key: &Key) -> Option<(String, Origin)> {
        sources.value(key).unwrap().map(|v| (v.text.to_string(), v.origin))
    }

    #[test]
    fn the_nearest_place_wins_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (env, toml) = (dir.path().join("a.env"), dir.path().join("c.toml"));
        fs::write(&env, "# comment\nexport SIZE='4' # four\nnonsense\n1X=2\n").unwrap();
        fs::write(&toml, "size = 3\n").unwrap();
        let mut builder = Sources::builder(Run::Up);
        assert_eq!(text(&builder.build().unwrap(), &SIZE), Some(("7".into(), Origin::Default)));
        builder = Sources::builder(Run::Serve);
        assert_eq!(text(&builder.build().unwrap(), &SIZE), Some(("5".into(), Origin::Default)));
        let base = || Sources::builder(Run::Serve).managed("SIZE", "6").toml_file(&toml, |n| n == "size");
        assert_eq!(text(&base().build().unwrap(), &SIZE), Some(("3".into(), Origin::Toml(toml.clone()))));
        assert_eq!(text(&base().env_file(&env).build().unwrap(), &SIZE), Some(("4".into(), Origin::EnvFile(env.clone()))));
        let all = base().env_file(&env).environment([("SIZE", "2")]);
        assert_eq!(text(&all.build().unwrap(), &SIZE), Some(("2".into(), Origin::Environment)));
        let all = base().environment([("SIZE", "2")]).flag("SIZE", "--size", "1");
        assert_eq!(text(&all.build().unwrap(), &SIZE), Some(("1".into(), Origin::Flag("--size"))));
        let hidden = base().env_file(&env).environment([("SIZE", "")]);
        assert_eq!(text(&hidden.build().unwrap(), &SIZE), Some(("6".into(), Origin::Managed)), "empty hides the files");
    }

    #[test]
    fn the_plain_variable_wins_over_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kek");
        fs::write(&file, "from-file\n\n").unwrap();
        let name = file.to_str().unwrap();
        let read = |vars: &[(&'static str, &str)]| {
            let vars: Vec<_> = vars.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
            text(&Sources::builder(Run::Serve).environment(vars).managed("SECRET_STORE_KEK", "kept").build().unwrap(), &KEK)
        };
        assert_eq!(read(&[("SECRET_STORE_KEK_FILE", name)]), Some(("from-file".into(), Origin::SecretFile(file.clone()))));
        assert_eq!(
            read(&[("SECRET_STORE_KEK_FILE", name), ("SECRET_STORE_KEK", "plain")]),
            Some(("plain".into(), Origin::Environment))
        );
        let both = read(&[("SECRET_STORE_KEK_FILE", name), ("SECRET_STORE_KEK", "")]);
        assert_eq!(both, Some(("from-file".into(), Origin::SecretFile(file.clone()))));
        assert_eq!(read(&[]), Some(("kept".into(), Origin::Managed)));
    }

    #[test]
    fn an_unreadable_or_empty_secret_file_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kek");
        let error = |path: &Path| {
            let sources =
                Sources::builder(Run::Serve).environment([("SECRET_STORE_KEK_FILE", path.to_str().unwrap())]).build().unwrap();
            sources.value(&KEK).unwrap_err().to_string()
        };
        assert!(error(&file).starts_with("SECRET_STORE_KEK_FILE (from the environment): "));
        fs::write(&file, " \n").unwrap();
        assert!(error(&file).contains("is empty"));
    }

    #[test]
    fn modes_are_three() {
        let mode = |text: &str| Sources::builder(Run::Serve).environment([("CARACAL_MODE", text)]).build().map(|s| s.mode());
        assert_eq!(mode(" Dev ").unwrap(), Mode::Dev);
        assert_eq!(mode("").unwrap(), Mode::Stable);
        assert!(mode("prod").unwrap_err().to_string().contains("dev, rc or stable"));
    }

    #[test]
    fn a_toml_file_is_checked_by_name_and_quotes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let build = |text: &str| {
            fs::write(&path, text).unwrap();
            Sources::builder(Run::Serve).toml_file(&path, |n| n == "SIZE").build().map(|_| ()).unwrap_err().to_string()
        };
        assert!(build("SIEZ = 3").contains("SIEZ"));
        assert!(build("[SIZE]\na = 1").contains("cannot be a table"));
        let broken = build("A = 1\nSIZE = canary");
        assert!(broken.contains("line 2") && !broken.contains("canary"), "{broken}");
    }
}
