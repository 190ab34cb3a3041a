//! Audit's configuration (`audit.md` 2, `cli.md` 10.6).

use std::time::Duration;

use caracal_core::error::Service;
use caracal_host::config::{Common, ConfigErrors, Key, Sources};
use caracal_tlog::recheck::NamedKey;
use caracal_web::OperatorToken;
use secrecy::ExposeSecret;

const ONE: &[Service] = &[Service::Audit];

macro_rules! keys {
    ($($name:ident = $key:expr;)*) => {
        $(const $name: Key = $key.of(ONE);)*
        /// The table of Audit's own variables.
        pub const KEYS: &[Key] = &[$($name),*];
    };
}

keys! {
    ADMIN_TOKEN = Key::new("AUDIT_ADMIN_TOKEN", "Opens the operator routes; without it they do not exist.").secret();
    PREVIOUS = Key::new("AUDIT_HMAC_KEY_PREVIOUS", "Still verifies events and old chain links.").secret();
    RETENTION = Key::new("AUDIT_RETENTION_DAYS", "Ceiling of the retention setting, in days.").default("365");
    BATCH = Key::new("AUDIT_BATCH_MAX", "Most events taken in at once.").default("1000");
    ORIGIN = Key::new("AUDIT_LOG_ORIGIN", "First part of the names of new logs; fixed per log when it is made.");
    DLQ_MAX = Key::new("AUDIT_READY_DLQ_MAX", "Dead letters above which Audit is not ready; 0: off.").default("0");
    LAG_MAX = Key::new("AUDIT_READY_LAG_MAX", "Waiting events above which Audit is not ready; 0: off.").default("0");
}

/// Audit's values.
#[derive(Debug)]
pub struct Config {
    /// What every service reads.
    pub common: Common,
    /// Opens the operator routes.
    pub admin_token: OperatorToken,
    /// The key that signs the chain, and those that verify. Empty: nothing is verified (`dev`).
    pub keys: Vec<NamedKey>,
    /// Age beyond which an event is not taken in.
    pub retention: Duration,
    /// Most events taken in at once.
    pub batch: usize,
    /// First part of the names of new logs; `None`: made from the installation's id.
    pub origin: Option<String>,
    /// 0: off.
    pub ready_dlq_max: u64,
    /// 0: off.
    pub ready_lag_max: u64,
}

impl Config {
    /// Reads them.
    pub fn read(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut r = sources.reader(Service::Audit);
        let common = Common::read(&mut r);
        let admin_token = r.token_opt(&ADMIN_TOKEN);
        let previous = r.hmac_key_opt(&PREVIOUS);
        let days = r.integer::<u64>(&RETENTION, 1..=36_500);
        let batch = r.integer(&BATCH, 1..=100_000);
        let origin = r.string_opt(&ORIGIN);
        if let Some(Some(origin)) = &origin
            && (origin.contains(char::is_whitespace) || origin.contains('+') || origin.contains("://") || origin.ends_with('/'))
        {
            r.reject(&ORIGIN, "is no log name", "use a host and path without scheme, spaces, plus signs or a slash at the end");
        }
        let (ready_dlq_max, ready_lag_max) = (r.integer(&DLQ_MAX, 0..=u64::MAX), r.integer(&LAG_MAX, 0..=u64::MAX));
        let config = (|| {
            let common = common?;
            let previous = previous?;
            let keys = [common.audit_key.as_ref(), previous.as_ref()];
            Some(Self {
                keys: keys.into_iter().flatten().map(|key| NamedKey::new(key.expose_secret())).collect(),
                common,
                admin_token: OperatorToken::new(admin_token?),
                retention: Duration::from_secs(days? * 86_400),
                batch: batch?,
                origin: origin?,
                ready_dlq_max: ready_dlq_max?,
                ready_lag_max: ready_lag_max?,
            })
        })();
        r.finish(config)
    }
}

#[cfg(test)]
mod tests {
    use caracal_host::config::Run;

    use super::*;

    /// Acceptance row 1.
    #[test]
    fn what_starts_and_what_does_not() {
        let read = |vars: &[(&'static str, &str)]| {
            let vars = vars.iter().map(|(k, v)| (*k, (*v).to_owned()));
            Config::read(&Sources::builder(Run::Up).environment(vars).build().unwrap()).map_err(|e| e.to_string())
        };
        let dev = ("CARACAL_MODE", "dev");
        assert!(read(&[dev, ("AUDIT_READY_DLQ_MAX", "0")]).unwrap().keys.is_empty());
        assert!(read(&[]).unwrap_err().starts_with("AUDIT_HMAC_KEY"));
        assert!(read(&[dev, ("AUDIT_HMAC_KEY", &"ab".repeat(31))]).is_err());
        assert_eq!(
            read(&[("AUDIT_HMAC_KEY", &"ab".repeat(32)), ("AUDIT_HMAC_KEY_PREVIOUS", &"cd".repeat(32))]).unwrap().keys.len(),
            2
        );
        assert!(read(&[dev, ("AUDIT_LOG_ORIGIN", "https://x/")]).unwrap_err().contains("AUDIT_LOG_ORIGIN"));
    }
}
