//! What the STS is told (`sts.md` 21).

use caracal_core::error::Service;
use caracal_crypto::mac::MacKey;
use caracal_host::config::{Common, ConfigErrors, Key, Reader, Run, Sources};
use secrecy::ExposeSecret as _;
use url::Url;

const STS: &[Service] = &[Service::Sts];

const ISSUER: Key =
    Key::new("ISSUER_URL", "Issuer of mandates: becomes `iss` verbatim. Absolute, without credentials, query or fragment").of(&[
        Service::Sts,
        Service::Coordinator,
        Service::Gateway,
        Service::Api,
    ]);
const MINT_RATE: Key =
    Key::new("STS_MINT_RATE_LIMIT_PER_MIN", "Mints a minute for each zone, resource and application").default("600000").of(STS);
const VERIFY: Key =
    Key::new("STS_SECRET_VERIFY_CONCURRENCY", "Slow derivations of client secrets at a time; 64 MiB each").default("2").of(STS);

/// Every key of this service beside the common ones.
pub const KEYS: &[Key] = &[ISSUER, MINT_RATE, VERIFY];

/// The configuration of the STS.
#[derive(Debug)]
pub struct Config {
    /// What every service has.
    pub common: Common,
    /// The issuer, verbatim.
    pub issuer: String,
    /// Mints a minute for each zone, resource and application.
    pub mint_rate: u32,
    /// Slow derivations at a time.
    pub verify_concurrency: usize,
    /// Authenticates the Gateway.
    pub gateway_key: Option<MacKey>,
}

/// Reads the issuer as every service does; `up` has a default on this machine.
pub fn issuer(r: &mut Reader<'_>, port: u16) -> Option<String> {
    let text = match r.run() {
        Run::Serve => r.string(&ISSUER)?,
        Run::Up => r.string_opt(&ISSUER)?.unwrap_or_else(|| format!("http://localhost:{port}")),
    };
    let text = text.trim().to_owned();
    let good = Url::parse(&text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    if !good {
        r.reject(
            &ISSUER,
            "is no absolute http(s) URL without credentials, query and fragment",
            "for example https://sts.example.com",
        );
        return None;
    }
    Some(text)
}

impl Config {
    /// Reads and checks every value.
    pub fn read(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut r = sources.reader(Service::Sts);
        let common = Common::read(&mut r);
        let port = common.as_ref().map_or(8080, |c| c.address.port());
        let issuer = issuer(&mut r, port);
        let mint_rate = r.integer(&MINT_RATE, 1..=u64::from(u32::MAX));
        let verify_concurrency = r.integer(&VERIFY, 1..=64);
        let built = (|| {
            let common = common?;
            let gateway_key = common.gateway_sts_key.as_ref().map(|key| MacKey::from_bytes(key.expose_secret()));
            Some(Self { common, issuer: issuer?, mint_rate: mint_rate?, verify_concurrency: verify_concurrency?, gateway_key })
        })();
        r.finish(built)
    }
}
