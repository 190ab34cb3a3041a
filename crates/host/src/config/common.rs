//! What every service reads (`cli.md` 10.1).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{SecretSlice, SecretString};

use super::Service;
use super::key::{Key, Mode, Run};
use super::reader::Reader;

const ACSG: &[Service] = &[Service::Api, Service::Coordinator, Service::Sts, Service::Gateway];
const ASG: &[Service] = &[Service::Api, Service::Sts, Service::Gateway];
const AS: &[Service] = &[Service::Api, Service::Sts];
const SG: &[Service] = &[Service::Sts, Service::Gateway];
const ACG: &[Service] = &[Service::Api, Service::Coordinator, Service::Gateway];

macro_rules! keys {
    ($($(#[$meta:meta])* $name:ident = $key:expr;)*) => {
        $($(#[$meta])* const $name: Key = $key;)*
        /// The table of the variables that every service may read; the mode is settled by [`super::Sources`].
        pub const COMMON: &[Key] = &[$($name),*];
    };
}

keys! {
    MODE = Key::new("CARACAL_MODE", "dev, rc or stable; rc and stable fail closed where dev is lenient.").default("stable");
    PORT = Key::new("PORT", "Port of the listener.");
    HOST = Key::new("HOST", "Address of the listener.");
    DATABASE_URL = Key::new("DATABASE_URL", "PostgreSQL; unset in `up`: SQLite in the data directory.").secret();
    REDIS_URL = Key::new("REDIS_URL", "Redis; unset in `up`: in-process bus and stores.").secret();
    STREAMS_KEY = Key::new("STREAMS_HMAC_KEY", "Signs messages between services.").of(ACSG).secret().published();
    STREAMS_KEY_PREVIOUS = Key::new("STREAMS_HMAC_KEY_PREVIOUS", "Still verifies messages.").of(ACSG).secret();
    REVOCATION_KEY = Key::new("REVOCATION_STREAMS_HMAC_KEY", "Signs revocations; what resource servers hold.").of(ACSG).secret();
    REVOCATION_KEY_PREVIOUS = Key::new("REVOCATION_STREAMS_HMAC_KEY_PREVIOUS", "Still verifies revocations.").of(SG).secret();
    AUDIT_KEY = Key::new("AUDIT_HMAC_KEY", "Signs audit events.").secret().published();
    GATEWAY_STS_KEY = Key::new("GATEWAY_STS_HMAC_KEY", "Authenticates the Gateway and the API to the STS.").of(ASG).secret().published();
    METRICS_BEARER = Key::new("METRICS_BEARER", "Bearer of /metrics; unset: open in dev, closed otherwise.").secret();
    LOG_LEVEL = Key::new("LOG_LEVEL", "debug, info, warn or error.").default("info");
    LOG_FIELD_BYTES = Key::new("CARACAL_LOG_MAX_FIELD_BYTES", "Longest value of a log field.").default("8192");
    TRUST_PROXY = Key::new("TRUST_PROXY", "Believe the forwarding headers of a proxy in front.").of(ACG).default("false");
    SHUTDOWN_GRACE = Key::new("SHUTDOWN_GRACE_MS", "How long running requests may take at the end.").default("15000").default_up("20000");
    PRIVATE_HOSTS = Key::new("CARACAL_PRIVATE_EGRESS_HOSTS", "Hosts whose private addresses may be dialled.").of(AS);
    EXTRA_CA = Key::new("CARACAL_TLS_EXTRA_CA_FILE", "PEM bundle trusted besides the system's.").of(ASG);
    DOCS = Key::new("API_ENABLE_DOCS", "Serve /openapi.json and /docs; unset: in dev only.").default_up("true");
    INSECURE_STS = Key::new("INSECURE_STS", "Refused outside dev.");
    INSECURE_HTTP = Key::new("INSECURE_HTTP", "Refused outside dev.");
    HOSTNAME = Key::new("HOSTNAME", "Name of this host in worker and consumer names.");
    TLS_CERT = Key::new("TLS_CERT_FILE", "Certificate chain of the listener, PEM.");
    TLS_KEY = Key::new("TLS_KEY_FILE", "Private key of the listener, PEM.");
    ENVIRONMENT = Key::new("CARACAL_ENV", "Name of the deployment in log lines.").default("development");
}

/// Files of the listener's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The values of [`COMMON`].
#[derive(Debug)]
pub struct Common {
    /// The mode of the process.
    pub mode: Mode,
    /// How the process runs.
    pub run: Run,
    /// Where to listen.
    pub address: SocketAddr,
    /// PostgreSQL; `None`: SQLite.
    pub database_url: Option<SecretString>,
    /// Redis; `None`: in process.
    pub redis_url: Option<SecretString>,
    /// Signs messages between services.
    pub streams_key: Option<SecretSlice<u8>>,
    /// Still verifies messages.
    pub streams_key_previous: Option<SecretSlice<u8>>,
    /// Signs revocations; [`Self::streams_key`] when unset.
    pub revocation_key: Option<SecretSlice<u8>>,
    /// Still verifies revocations.
    pub revocation_key_previous: Option<SecretSlice<u8>>,
    /// Signs audit events.
    pub audit_key: Option<SecretSlice<u8>>,
    /// Authenticates the Gateway and the API to the STS.
    pub gateway_sts_key: Option<SecretSlice<u8>>,
    /// Bearer of `/metrics`.
    pub metrics_bearer: Option<SecretString>,
    /// `debug`, `info`, `warn` or `error`.
    pub log_level: String,
    /// Longest value of a log field.
    pub log_field_bytes: usize,
    /// Believe forwarding headers.
    pub trust_proxy: bool,
    /// Time for running requests at the end.
    pub shutdown_grace: Duration,
    /// Hosts whose private addresses may be dialled.
    pub private_hosts: Vec<String>,
    /// PEM bundle trusted besides the system's.
    pub extra_ca_file: Option<PathBuf>,
    /// Serve the documentation routes.
    pub docs: bool,
    /// Name of this host.
    pub hostname: String,
    /// The listener's certificate.
    pub tls: Option<Tls>,
    /// Name of the deployment in log lines.
    pub environment: String,
}

impl Common {
    /// Reads them; `None` after a fault, which the reader remembers.
    pub fn read(r: &mut Reader<'_>) -> Option<Self> {
        let (mode, run) = (r.mode(), r.run());
        for key in [&INSECURE_STS, &INSECURE_HTTP] {
            // Only true-ish text is refused; what does not parse was never an instruction to be insecure.
            let set = r.sources().value(key).ok().flatten().and_then(|v| super::parse_bool(v.text.trim())).unwrap_or(false);
            if set && mode.published() {
                r.reject(key, format!("is not allowed when CARACAL_MODE is {}", mode.name()), "unset it, or set CARACAL_MODE=dev");
            }
        }
        let reads = |key: &Key| key.services.contains(&r.service());
        let (streams, revocations, gateway_sts) = (reads(&STREAMS_KEY), reads(&REVOCATION_KEY_PREVIOUS), reads(&GATEWAY_STS_KEY));
        let address = r.address(&HOST, &PORT);
        let database_url = if run == Run::Serve { r.secret(&DATABASE_URL).map(Some) } else { r.secret_opt(&DATABASE_URL) };
        let redis_url = if run == Run::Serve { r.secret(&REDIS_URL).map(Some) } else { r.secret_opt(&REDIS_URL) };
        let streams_key = if streams { r.hmac_key_opt(&STREAMS_KEY) } else { Some(None) };
        let streams_key_previous = if streams { r.hmac_key_opt(&STREAMS_KEY_PREVIOUS) } else { Some(None) };
        let mut revocation_key = if streams { r.hmac_key_opt(&REVOCATION_KEY) } else { Some(None) };
        if streams && matches!(revocation_key, Some(None)) {
            revocation_key =
                r.sources().value(&STREAMS_KEY).ok().flatten().and(Some(())).map_or(Some(None), |()| r.hmac_key_opt(&STREAMS_KEY));
        }
        let revocation_key_previous = if revocations { r.hmac_key_opt(&REVOCATION_KEY_PREVIOUS) } else { Some(None) };
        let audit_key = r.hmac_key_opt(&AUDIT_KEY);
        let gateway_sts_key = if gateway_sts { r.hmac_key_opt(&GATEWAY_STS_KEY) } else { Some(None) };
        let metrics_bearer = r.secret_opt(&METRICS_BEARER);
        let log_level = r.string(&LOG_LEVEL);
        let log_field_bytes = r.integer(&LOG_FIELD_BYTES, 64..=1 << 20);
        let trust_proxy = r.boolean(&TRUST_PROXY);
        let shutdown_grace = r.millis(&SHUTDOWN_GRACE, 1..=600_000);
        let private_hosts = r.hosts(&PRIVATE_HOSTS);
        let extra_ca_file = r.string_opt(&EXTRA_CA);
        let docs = r.boolean_opt(&DOCS);
        let hostname = r.string_opt(&HOSTNAME);
        let (certificate, key) = (r.string_opt(&TLS_CERT), r.string_opt(&TLS_KEY));
        let environment = r.string(&ENVIRONMENT);
        let tls = match (certificate?, key?) {
            (Some(certificate), Some(key)) => Some(Tls { certificate: certificate.into(), key: key.into() }),
            (None, None) => None,
            (given, _) => {
                let (has, lacks) = if given.is_some() { (&TLS_CERT, &TLS_KEY) } else { (&TLS_KEY, &TLS_CERT) };
                r.reject(has, format!("is set and {} is not", lacks.name), "set both or none");
                return None;
            }
        };
        Some(Self {
            mode,
            run,
            address: address?,
            database_url: database_url?,
            redis_url: redis_url?,
            streams_key: streams_key?,
            streams_key_previous: streams_key_previous?,
            revocation_key: revocation_key?,
            revocation_key_previous: revocation_key_previous?,
            audit_key: audit_key?,
            gateway_sts_key: gateway_sts_key?,
            metrics_bearer: metrics_bearer?,
            log_level: log_level?,
            log_field_bytes: log_field_bytes?,
            trust_proxy: trust_proxy?,
            shutdown_grace: shutdown_grace?,
            private_hosts: private_hosts?,
            extra_ca_file: extra_ca_file?.map(PathBuf::from),
            docs: docs?.unwrap_or(mode == Mode::Dev),
            hostname: hostname?.unwrap_or_else(system_hostname),
            tls,
            environment: environment?,
        })
    }
}

/// The system's own name for this host.
fn system_hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::sources::Sources;
    use super::*;

    fn read(run: Run, service: Service, vars: &[(&str, &str)]) -> Result<Common, String> {
        let vars = vars.iter().map(|(k, v)| (*k, (*v).to_owned()));
        let sources = Sources::builder(run).port_offset(100).environment(vars).build().map_err(|e| e.to_string())?;
        let mut reader = sources.reader(service);
        let common = Common::read(&mut reader);
        reader.finish(common).map_err(|e| e.to_string())
    }

    #[test]
    fn up_needs_nothing_in_dev() {
        let common = read(Run::Up, Service::Gateway, &[("CARACAL_MODE", "dev"), ("PORT", "1")]).unwrap();
        assert_eq!(common.address.to_string(), "127.0.0.1:8181", "up knows only the offset");
        assert!(common.docs && common.database_url.is_none() && common.streams_key.is_none());
    }

    #[test]
    fn serve_tells_everything_it_misses() {
        let error = read(Run::Serve, Service::Sts, &[]).unwrap_err();
        for name in ["DATABASE_URL", "REDIS_URL", "STREAMS_HMAC_KEY", "AUDIT_HMAC_KEY", "GATEWAY_STS_HMAC_KEY"] {
            assert!(error.contains(name), "{name} in {error}");
        }
        let error = read(Run::Serve, Service::Audit, &[]).unwrap_err();
        assert!(!error.contains("STREAMS_HMAC_KEY"), "Audit signs no messages: {error}");
    }

    #[test]
    fn the_listener_is_open_only_when_the_mode_says_so_in_words() {
        let key = "0f".repeat(32);
        let base = [
            ("DATABASE_URL", "postgres://a/b"),
            ("REDIS_URL", "redis://a"),
            ("STREAMS_HMAC_KEY", key.as_str()),
            ("AUDIT_HMAC_KEY", key.as_str()),
            ("GATEWAY_STS_HMAC_KEY", key.as_str()),
            ("PORT", "8181"),
        ];
        let with = |more: &[(&'static str, &'static str)]| {
            let all: Vec<_> = base.iter().copied().chain(more.iter().copied()).collect();
            read(Run::Serve, Service::Sts, &all)
        };
        let address = |more: &[(&'static str, &'static str)]| with(more).unwrap().address.to_string();
        assert_eq!(address(&[]), "127.0.0.1:8181");
        assert_eq!(address(&[("CARACAL_MODE", "rc")]), "0.0.0.0:8181");
        assert_eq!(address(&[("HOST", "::1")]), "[::1]:8181");
        assert!(with(&[("INSECURE_HTTP", "yes")]).unwrap_err().starts_with("INSECURE_HTTP"));
        assert!(with(&[("TLS_KEY_FILE", "k.pem")]).unwrap_err().contains("both or none"));
        assert!(with(&[]).unwrap().revocation_key.is_some(), "revocations follow the streams key");
        let shown = format!("{:?}", with(&[]).unwrap());
        assert!(!shown.contains("0f0f") && !shown.contains("postgres://"), "{shown}");
    }
}
