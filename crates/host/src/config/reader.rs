//! Typed values out of [`Sources`]. Each getter gives `Some` of what was asked, or notes an error and gives `None`; `finish` tells
//! all errors at once.
#![allow(clippy::option_option, reason = "outer: was it read without a fault; inner: is it set. Both are asked with `?`")]

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use secrecy::{SecretSlice, SecretString};
use url::Url;

use super::Service;
use super::error::{ConfigError, ConfigErrors};
use super::key::{Key, Mode, Run, default_port};
use super::parse::{parse_bool, parse_duration};
use super::sources::{Origin, Sources, Value};

/// Fewest bytes of an HMAC key.
const HMAC_KEY_BYTES_MIN: usize = 32;
/// Fewest bytes of an operator's token outside `dev`.
const TOKEN_BYTES_MIN: usize = 32;

/// Reads one service's configuration and remembers every fault.
#[derive(Debug)]
pub struct Reader<'s> {
    sources: &'s Sources,
    service: Service,
    errors: Vec<ConfigError>,
}

impl<'s> Reader<'s> {
    pub(super) const fn new(sources: &'s Sources, service: Service) -> Self {
        Self { sources, service, errors: Vec::new() }
    }

    /// The mode of the process.
    pub const fn mode(&self) -> Mode {
        self.sources.mode()
    }

    /// How the process runs.
    pub const fn run(&self) -> Run {
        self.sources.run()
    }

    /// Whose configuration this is.
    pub const fn service(&self) -> Service {
        self.service
    }

    /// The places read from.
    pub const fn sources(&self) -> &'s Sources {
        self.sources
    }

    /// Ends the reading: the configuration, or every fault found.
    pub fn finish<C>(mut self, config: Option<C>) -> Result<C, ConfigErrors> {
        match config {
            Some(config) if self.errors.is_empty() => Ok(config),
            _ => {
                if self.errors.is_empty() {
                    self.fault("configuration", None, "a value is missing".into(), "report this as a defect");
                }
                Err(ConfigErrors(self.errors))
            }
        }
    }

    /// Notes a fault of a variable that the service found by itself (a relation between two values, say).
    pub fn reject(&mut self, key: &Key, fault: impl Into<String>, advice: impl Into<String>) {
        let origin = self.sources.value(key).ok().flatten().map(|v| v.origin);
        self.fault(key.name, origin, fault.into(), &advice.into());
    }

    fn fault(&mut self, variable: &str, origin: Option<Origin>, fault: String, advice: &str) {
        self.errors.push(ConfigError { variable: variable.to_owned(), origin, fault, advice: advice.to_owned() });
    }

    /// The value as given: outer `None` after a fault, inner when unset.
    fn raw(&mut self, key: &Key) -> Option<Option<Value>> {
        match self.sources.value(key) {
            Ok(None) if key.required_when_published && self.mode().published() => {
                let how = missing_advice(key);
                self.fault(key.name, None, format!("is required when CARACAL_MODE is {}", self.mode().name()), &how);
                None
            }
            Ok(value) => Some(value),
            Err(error) => {
                self.errors.push(error);
                None
            }
        }
    }

    fn required<T>(&mut self, key: &Key, value: Option<Option<T>>) -> Option<T> {
        let value = value?;
        if value.is_none() {
            self.fault(key.name, None, "is required".into(), &missing_advice(key));
        }
        value
    }

    fn parsed<T>(&mut self, key: &Key, wanted: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
        let Some(value) = self.raw(key)? else { return Some(None) };
        let parsed = parse(&value.text);
        if parsed.is_none() {
            let shown = if key.secret { "its value".to_owned() } else { format!("{:?}", value.text.as_str()) };
            self.fault(key.name, Some(value.origin), format!("{shown} is not {wanted}"), &format!("set it to {wanted}"));
            return None;
        }
        Some(parsed)
    }

    /// Text, trimmed; required.
    pub fn string(&mut self, key: &Key) -> Option<String> {
        let value = self.string_opt(key);
        self.required(key, value)
    }

    /// Text, trimmed.
    pub fn string_opt(&mut self, key: &Key) -> Option<Option<String>> {
        self.parsed(key, "text", |t| Some(t.trim().to_owned()).filter(|t| !t.is_empty()))
    }

    /// A whole number within bounds, required (or by default).
    pub fn integer<T: TryFrom<u64>>(&mut self, key: &Key, bounds: RangeInclusive<u64>) -> Option<T> {
        let wanted = match (*bounds.start(), *bounds.end()) {
            (0, u64::MAX) => "a whole number".to_owned(),
            (least, u64::MAX) => format!("a whole number of at least {least}"),
            (least, most) => format!("a whole number from {least} to {most}"),
        };
        let value = self.parsed(key, &wanted, |t| {
            let t = t.trim();
            if !t.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            t.parse::<u64>().ok().filter(|n| bounds.contains(n)).and_then(|n| T::try_from(n).ok())
        });
        self.required(key, value)
    }

    /// A duration with unit, longer than nothing; required (or by default).
    pub fn duration(&mut self, key: &Key) -> Option<Duration> {
        let wanted = "a duration with unit such as 300ms, 5s or 1m30s";
        let value = self.parsed(key, wanted, |t| parse_duration(t.trim()).filter(|d| !d.is_zero()));
        self.required(key, value)
    }

    /// A whole number of milliseconds (for `*_MS` variables).
    pub fn millis(&mut self, key: &Key, bounds: RangeInclusive<u64>) -> Option<Duration> {
        self.integer::<u64>(key, bounds).map(Duration::from_millis)
    }

    /// A whole number of seconds (for `*_SECONDS` and `*_SEC` variables).
    pub fn seconds(&mut self, key: &Key, bounds: RangeInclusive<u64>) -> Option<Duration> {
        self.integer::<u64>(key, bounds).map(Duration::from_secs)
    }

    /// A boolean; unset without default is false.
    pub fn boolean(&mut self, key: &Key) -> Option<bool> {
        Some(self.boolean_opt(key)?.unwrap_or(false))
    }

    /// A boolean that may be unset.
    pub fn boolean_opt(&mut self, key: &Key) -> Option<Option<bool>> {
        self.parsed(key, "true or false", |t| parse_bool(t.trim()))
    }

    /// Words between commas, trimmed, lower-cased, empty ones dropped.
    pub fn hosts(&mut self, key: &Key) -> Option<Vec<String>> {
        Some(self.list(key)?.into_iter().map(|w| w.to_ascii_lowercase()).collect())
    }

    /// Words between commas, trimmed, empty ones dropped.
    pub fn list(&mut self, key: &Key) -> Option<Vec<String>> {
        let words = |t: &str| t.split(',').map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned).collect();
        Some(self.parsed(key, "a list with commas", |t| Some(words(t)))?.unwrap_or_default())
    }

    /// An absolute `http` or `https` address without credentials, query or fragment.
    pub fn url_opt(&mut self, key: &Key) -> Option<Option<Url>> {
        self.parsed(key, "an absolute http or https address without credentials, query or fragment", |t| {
            let url = Url::parse(t.trim()).ok()?;
            let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
            (matches!(url.scheme(), "http" | "https") && url.has_host() && plain).then_some(url)
        })
    }

    /// As [`Self::url_opt`]; required.
    pub fn url(&mut self, key: &Key) -> Option<Url> {
        let value = self.url_opt(key);
        self.required(key, value)
    }

    /// A secret text.
    pub fn secret_opt(&mut self, key: &Key) -> Option<Option<SecretString>> {
        Some(self.raw(key)?.map(|v| SecretString::from(v.text.as_str())))
    }

    /// A secret text; required.
    pub fn secret(&mut self, key: &Key) -> Option<SecretString> {
        let value = self.secret_opt(key);
        self.required(key, value)
    }

    /// A token that an operator presents: outside `dev` at least 32 bytes.
    pub fn token_opt(&mut self, key: &Key) -> Option<Option<SecretString>> {
        let Some(value) = self.raw(key)? else { return Some(None) };
        if self.mode().published() && value.text.len() < TOKEN_BYTES_MIN {
            let fault = format!("has {} bytes, too few to resist guessing", value.text.len());
            self.fault(
                key.name,
                Some(value.origin),
                fault,
                &format!("use at least {TOKEN_BYTES_MIN} random bytes: openssl rand -hex 32"),
            );
            return None;
        }
        Some(Some(SecretString::from(value.text.as_str())))
    }

    /// An HMAC key: hex, at least 32 bytes.
    pub fn hmac_key_opt(&mut self, key: &Key) -> Option<Option<SecretSlice<u8>>> {
        let Some(value) = self.raw(key)? else { return Some(None) };
        let bytes = hex::decode(value.text.trim()).ok().filter(|b| b.len() >= HMAC_KEY_BYTES_MIN);
        if bytes.is_none() {
            self.fault(
                key.name,
                Some(value.origin),
                "is not hex of at least 32 bytes".into(),
                "generate one: openssl rand -hex 32",
            );
            return None;
        }
        Some(bytes.map(SecretSlice::from))
    }

    /// As [`Self::hmac_key_opt`]; required.
    pub fn hmac_key(&mut self, key: &Key) -> Option<SecretSlice<u8>> {
        let value = self.hmac_key_opt(key);
        self.required(key, value)
    }

    /// The listener's address: `HOST` and `PORT`, or in `up` the loopback and the default port plus the offset.
    pub(super) fn address(&mut self, host: &Key, port: &Key) -> Option<SocketAddr> {
        let default_host = if self.run() == Run::Serve && self.explicitly_published() { "0.0.0.0" } else { "127.0.0.1" };
        let ip = self.parsed(host, "an IP address", |t| match t.trim() {
            "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
            t => t.trim_matches(['[', ']']).parse::<IpAddr>().ok(),
        })?;
        let ip = ip.or_else(|| default_host.parse().ok())?;
        let default_port = default_port(self.service);
        if self.run() == Run::Up {
            let moved = default_port.checked_add(self.sources.port_offset());
            if moved.is_none() {
                let fault = format!("moves the port of {} past 65535", self.service.name());
                self.fault("--port-offset", None, fault, "choose a smaller one");
            }
            return moved.map(|p| SocketAddr::new(ip, p));
        }
        let port = self.parsed(port, "a port from 0 to 65535", |t| t.trim().parse::<u16>().ok())?.unwrap_or(default_port);
        Some(SocketAddr::new(ip, port))
    }

    /// Whether the operator wrote a published mode down; an unset mode has published checks but a loopback listener.
    fn explicitly_published(&self) -> bool {
        self.sources.given("CARACAL_MODE") && self.mode().published()
    }
}

fn missing_advice(key: &Key) -> String {
    if key.file_variant { format!("set {} or {}_FILE", key.name, key.name) } else { format!("set {}", key.name) }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const TEXT: Key = Key::new("TEXT", "");
    const COUNT: Key = Key::new("COUNT", "").default("5");
    const HMAC: Key = Key::new("HMAC", "").secret().published();
    const TOKEN: Key = Key::new("TOKEN", "").secret();
    const LINK: Key = Key::new("LINK", "");

    fn read<T>(vars: &[(&str, &str)], get: impl FnOnce(&mut Reader<'_>) -> Option<T>) -> Result<T, String> {
        let vars = vars.iter().map(|(k, v)| (*k, (*v).to_owned()));
        let sources = Sources::builder(Run::Serve).environment(vars).build().unwrap();
        let mut reader = sources.reader(Service::Gateway);
        let value = get(&mut reader);
        reader.finish(value).map_err(|e| e.to_string())
    }

    #[test]
    fn a_fault_names_variable_fault_and_remedy() {
        let wrong = read(&[("COUNT", "5 apples")], |r| r.integer::<u32>(&COUNT, 1..=10)).unwrap_err();
        assert_eq!(
            wrong,
            "COUNT (from the environment): \"5 apples\" is not a whole number from 1 to 10; set it to a whole number from 1 to 10"
        );
        assert!(read(&[("COUNT", "11")], |r| r.integer::<u32>(&COUNT, 1..=10)).is_err());
        assert!(read(&[("COUNT", "+3")], |r| r.integer::<u32>(&COUNT, 1..=10)).is_err());
        assert_eq!(read(&[], |r| r.integer::<u32>(&COUNT, 1..=10)), Ok(5));
        assert_eq!(read(&[], |r| r.string(&TEXT)).unwrap_err(), "TEXT: is required; set TEXT");
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let both = read(&[("COUNT", "x")], |r| {
            let (count, text) = (r.integer::<u32>(&COUNT, 1..=10), r.string(&TEXT));
            Some((count?, text?))
        });
        assert_eq!(both.unwrap_err().lines().count(), 2);
    }

    #[test]
    fn published_modes_require_what_dev_does_not() {
        let get = |r: &mut Reader<'_>| r.hmac_key_opt(&HMAC).map(|k| k.is_some());
        assert_eq!(read(&[("CARACAL_MODE", "dev")], get), Ok(false));
        assert!(read(&[], get).unwrap_err().contains("set HMAC or HMAC_FILE"));
        assert_eq!(read(&[("HMAC", &"0f".repeat(32))], get), Ok(true));
        assert!(read(&[("HMAC", &"0f".repeat(31))], get).is_err());
        let token = |r: &mut Reader<'_>| r.token_opt(&TOKEN).map(|t| t.map(|t| t.expose_secret().to_owned()));
        assert!(read(&[("TOKEN", "short")], token).is_err_and(|e| !e.contains("short")));
        assert_eq!(read(&[("TOKEN", "short"), ("CARACAL_MODE", "dev")], token), Ok(Some("short".into())));
    }

    #[test]
    fn links_are_plain() {
        for bad in ["ftp://a/", "https://u:p@a/", "https://a/?q", "https://a/#f", "/a", "a.b"] {
            assert!(read(&[("LINK", bad)], |r| r.url(&LINK)).is_err(), "{bad}");
        }
        assert!(read(&[("LINK", "https://a.b/base")], |r| r.url(&LINK)).is_ok());
    }
}
