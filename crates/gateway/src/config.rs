//! The Gateway's configuration (`gateway.md` 19, `cli.md` 10.3).

use std::time::Duration;

use caracal_core::error::Service;
use caracal_host::config::{Common, ConfigErrors, Key, Run, Sources};
use caracal_web::{Limits, OperatorToken};
use url::Url;

const ONE: &[Service] = &[Service::Gateway];

macro_rules! keys {
    ($($name:ident = $key:expr;)*) => {
        $(const $name: Key = $key.of(ONE);)*
        /// The table of the Gateway's own variables.
        pub const KEYS: &[Key] = &[$($name),*];
    };
}

keys! {
    STS_URL = Key::new("STS_URL", "Where the STS is; not needed in one process.");
    STS_TIMEOUT = Key::new("STS_TIMEOUT", "How long an exchange or a key fetch may take.").default("5s");
    UPSTREAM_TIMEOUT = Key::new("UPSTREAM_TIMEOUT", "How long an upstream may take to the head of its answer.").default("30s");
    READ_HEADER_TIMEOUT = Key::new("READ_HEADER_TIMEOUT", "How long a head may take to arrive.").default("5s");
    READ_TIMEOUT = Key::new("READ_TIMEOUT", "How long a request may take to arrive.").default("45s");
    WRITE_TIMEOUT = Key::new("WRITE_TIMEOUT", "How long a caller may take no byte of an answer.").default("60s");
    IDLE_TIMEOUT = Key::new("IDLE_TIMEOUT", "How long a connection may wait for its next request.").default("120s");
    STREAM_IDLE_TIMEOUT = Key::new("STREAM_IDLE_TIMEOUT", "How long an upstream may be silent within an answer.").default("60s");
    MAX_REQUEST_BYTES = Key::new("MAX_REQUEST_BYTES", "Largest request body.").default("10485760");
    MAX_INFLIGHT = Key::new("GATEWAY_MAX_INFLIGHT", "Most calls at once; 0: no bound.").default("4096");
    MAX_STREAMS = Key::new("GATEWAY_MAX_STREAMS_PER_APP", "Most streaming answers of one application; 0: no bound.").default("256");
    ALLOWLIST = Key::new("UPSTREAM_HOST_ALLOWLIST", "Hosts that upstreams may have; empty: any.");
    JTI_FAIL_OPEN = Key::new("JTI_FAIL_OPEN", "In dev: let calls pass when used mandates cannot be remembered.").default("false");
    ADMIN_TOKEN = Key::new("CARACAL_ADMIN_TOKEN", "Opens the reload route.").secret();
    ISSUER_URL = Key::new("ISSUER_URL", "The issuer of mandates, to check iss and aud.");
}

/// The Gateway's values.
#[derive(Debug)]
pub struct Config {
    /// What every service reads.
    pub common: Common,
    /// Where the STS is; `None`: in this process.
    pub sts_url: Option<Url>,
    /// `STS_TIMEOUT`.
    pub sts_timeout: Duration,
    /// `UPSTREAM_TIMEOUT`.
    pub upstream_timeout: Duration,
    /// `STREAM_IDLE_TIMEOUT`.
    pub stream_idle: Duration,
    /// `MAX_REQUEST_BYTES`.
    pub body_bytes_max: u64,
    /// `GATEWAY_MAX_INFLIGHT`; 0: off.
    pub inflight_max: usize,
    /// `GATEWAY_MAX_STREAMS_PER_APP`; 0: off.
    pub streams_max: usize,
    /// `UPSTREAM_HOST_ALLOWLIST`.
    pub upstream_hosts: Vec<String>,
    /// `JTI_FAIL_OPEN`.
    pub jti_fail_open: bool,
    /// Opens the reload route.
    pub admin_token: OperatorToken,
    /// The issuer of mandates, verbatim.
    pub issuer: Option<String>,
    /// Clocks of the listener.
    pub limits: Limits,
}

impl Config {
    /// Reads them.
    pub fn read(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut r = sources.reader(Service::Gateway);
        let common = Common::read(&mut r);
        let published = r.mode().published();
        let sts_url = if r.run() == Run::Serve { r.url(&STS_URL).map(Some) } else { r.url_opt(&STS_URL) };
        if let Some(Some(url)) = &sts_url
            && published
            && url.scheme() == "http"
            && !internal(url)
        {
            r.reject(&STS_URL, "is plain http to a host that is not internal", "use https, or a name without a dot");
        }
        let (sts_timeout, upstream_timeout) = (r.duration(&STS_TIMEOUT), r.duration(&UPSTREAM_TIMEOUT));
        let (header, read) = (r.duration(&READ_HEADER_TIMEOUT), r.duration(&READ_TIMEOUT));
        if let (Some(sts), Some(upstream), Some(read)) = (sts_timeout, upstream_timeout, read)
            && read <= sts + upstream
        {
            r.reject(
                &READ_TIMEOUT,
                "is not longer than STS_TIMEOUT and UPSTREAM_TIMEOUT together",
                "raise it, or lower the other two",
            );
        }
        let (write, idle, stream_idle) = (r.duration(&WRITE_TIMEOUT), r.duration(&IDLE_TIMEOUT), r.duration(&STREAM_IDLE_TIMEOUT));
        let body_bytes_max = r.integer(&MAX_REQUEST_BYTES, 1..=u64::MAX);
        let inflight_max = r.integer(&MAX_INFLIGHT, 0..=1 << 20);
        let streams_max = r.integer(&MAX_STREAMS, 0..=1 << 20);
        let upstream_hosts = r.hosts(&ALLOWLIST);
        let jti_fail_open = r.boolean(&JTI_FAIL_OPEN);
        if jti_fail_open == Some(true) && published {
            r.reject(&JTI_FAIL_OPEN, "would let mandates be used twice", "unset it, or set CARACAL_MODE=dev");
        }
        let admin_token = r.token_opt(&ADMIN_TOKEN);
        // The issuer is compared as text, so it stays as it was written.
        let issuer = r.url_opt(&ISSUER_URL).and_then(|_| r.string_opt(&ISSUER_URL));
        let config = (|| {
            Some(Self {
                common: common?,
                sts_url: sts_url?,
                sts_timeout: sts_timeout?,
                upstream_timeout: upstream_timeout?,
                stream_idle: stream_idle?,
                body_bytes_max: body_bytes_max?,
                inflight_max: inflight_max?,
                streams_max: streams_max?,
                upstream_hosts: upstream_hosts?,
                jti_fail_open: jti_fail_open?,
                admin_token: OperatorToken::new(admin_token?),
                issuer: issuer?,
                limits: Limits { header: header?, read: read?, write: write?, idle: idle?, ..Limits::default() },
            })
        })();
        r.finish(config)
    }
}

/// Hosts that plain http may reach in published modes.
fn internal(url: &Url) -> bool {
    url.host_str().is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]") || !host.contains(['.', ':']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &[(&'static str, &str)]) -> Result<Config, String> {
        let key = "0123456789abcdef".repeat(4);
        let base = [
            ("DATABASE_URL", "postgres://a/b"),
            ("REDIS_URL", "redis://a"),
            ("STREAMS_HMAC_KEY", key.as_str()),
            ("AUDIT_HMAC_KEY", key.as_str()),
            ("GATEWAY_STS_HMAC_KEY", key.as_str()),
            ("STS_URL", "https://sts.example.com"),
        ];
        let all = base.iter().chain(more).map(|(k, v)| (*k, (*v).to_owned()));
        Config::read(&Sources::builder(Run::Serve).environment(all).build().unwrap()).map_err(|e| e.to_string())
    }

    /// Acceptance row 85, and 17's second half.
    #[test]
    fn what_stops_the_start_names_its_variable() {
        read(&[]).unwrap();
        read(&[("STS_URL", "http://sts:8080")]).unwrap();
        for (name, value) in [
            ("PORT", "x"),
            ("READ_TIMEOUT", "30s"),
            ("STS_URL", "http://sts.example.com"),
            ("TLS_CERT_FILE", "c.pem"),
            ("STREAMS_HMAC_KEY", "abcd"),
            ("UPSTREAM_TIMEOUT", "30"),
            ("JTI_FAIL_OPEN", "true"),
            ("CARACAL_ADMIN_TOKEN", "short"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(name), "{name}: {error}");
        }
    }
}
