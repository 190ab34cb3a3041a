//! What the Coordinator is told (`coordinator.md` 17).

use std::time::Duration;

use caracal_core::error::Service;
use caracal_crypto::mac::MacKey;
use caracal_host::config::{Common, ConfigErrors, Key, Run, Sources};
use caracal_store::retention::Retention;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

const OF: &[Service] = &[Service::Coordinator];
const TOKEN: Key = Key::new("CARACAL_COORDINATOR_TOKEN", "Operator's token; empty: there is no operator").secret().of(OF);
const STS_URL: Key = Key::new("STS_URL", "Where the STS is, whose keys verify mandates; not needed in one process").of(OF);
const ISSUER: Key = Key::new("ISSUER_URL", "The issuer of mandates; in one process the STS's").of(OF);
const SCOPE: Key =
    Key::new("AGENT_COORDINATOR_SCOPE", "Scope that makes a mandate a lifecycle mandate").default("agent:lifecycle").of(OF);
const RECEIPTS: Key =
    Key::new("IDEMPOTENCY_HMAC_KEY", "Keys the digests of idempotency keys; hex, at least 32 bytes").secret().published().of(OF);
const PER_ZONE: Key = Key::new("MAX_AGENTS_PER_ZONE", "Sessions that may hold a slot in a zone").default("10000").of(OF);
const PER_APP: Key = Key::new("MAX_AGENTS_PER_APP", "Sessions that may hold a slot for an application").default("10000").of(OF);
const BODY: Key = Key::new("COORDINATOR_BODY_LIMIT_BYTES", "Largest request body").default("262144").of(OF);
const LEASE: Key = Key::new("SERVICE_AGENT_LEASE_SECONDS", "Life of a service's lease").default("120").of(OF);
const SWEEP: Key = Key::new("TTL_SWEEP_INTERVAL_MS", "How often Sessions whose time is over are ended").default("60000").of(OF);
const KEEP: Key = Key::new("IDEMPOTENCY_RETENTION_SECONDS", "How long an explicit key is remembered").default("604800").of(OF);
const KEEP_GENERATED: Key =
    Key::new("GENERATED_IDEMPOTENCY_RETENTION_SECONDS", "How long a generated key is remembered").default("3600").of(OF);
const RECEIPTS_MAX: Key =
    Key::new("IDEMPOTENCY_MAX_RECEIPTS_PER_SCOPE", "Keys an application may hold for an operation").default("10000").of(OF);
const OUTBOX: Key = Key::new("OUTBOX_RETENTION_DAYS", "How long published outbox rows are kept").default("7").of(OF);

/// Every key of this service beside the common ones.
pub const KEYS: &[Key] =
    &[STS_URL, ISSUER, TOKEN, SCOPE, RECEIPTS, PER_ZONE, PER_APP, BODY, LEASE, SWEEP, KEEP, KEEP_GENERATED, RECEIPTS_MAX, OUTBOX];

/// The configuration of the Coordinator.
#[derive(Debug)]
pub struct Config {
    /// What every service has.
    pub common: Common,
    /// Where the STS is; `None`: in this process.
    pub sts_url: Option<Url>,
    /// The issuer of mandates, verbatim; `None`: that of the STS in this process.
    pub issuer: Option<String>,
    /// The operator's token.
    pub operator_token: Option<SecretString>,
    /// The scope of a lifecycle mandate.
    pub scope: String,
    /// Keys the digests of idempotency keys; a random one where none is given (`dev`).
    pub receipts_key: Option<MacKey>,
    /// Slots of a zone.
    pub per_zone: u64,
    /// Slots of an application.
    pub per_application: u64,
    /// Largest request body.
    pub body_limit: usize,
    /// Life of a service's lease.
    pub lease: Duration,
    /// How often what is over is ended.
    pub sweep: Duration,
    /// Seconds an explicit key is remembered.
    pub keep: i64,
    /// Seconds a generated key is remembered.
    pub keep_generated: i64,
    /// Keys an application may hold for an operation.
    pub receipts_max: u64,
    /// How long the store keeps what is over.
    pub retention: Retention,
}

impl Config {
    /// Reads and checks every value.
    pub fn read(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut r = sources.reader(Service::Coordinator);
        let common = Common::read(&mut r);
        let apart = r.run() == Run::Serve;
        let sts_url = if apart { r.url(&STS_URL).map(Some) } else { r.url_opt(&STS_URL) };
        // The issuer is compared as text, so it stays as it was written.
        let checked = if apart { r.url(&ISSUER).map(Some) } else { r.url_opt(&ISSUER) };
        let issuer = checked.and_then(|_| r.string_opt(&ISSUER)).map(|text| text.map(|text| text.trim().to_owned()));
        let operator_token = r.token_opt(&TOKEN);
        let scope = r.string(&SCOPE);
        let receipts_key = r.hmac_key_opt(&RECEIPTS);
        let per_zone = r.integer(&PER_ZONE, 1..=10_000_000);
        let per_application = r.integer(&PER_APP, 1..=10_000_000);
        let body_limit = r.integer(&BODY, 1024..=64 * 1024 * 1024);
        let lease = r.seconds(&LEASE, 1..=86_400);
        let sweep = r.millis(&SWEEP, 10..=86_400_000);
        let keep = r.integer::<i64>(&KEEP, 3600..=31_536_000);
        let keep_generated = r.integer::<i64>(&KEEP_GENERATED, 3600..=31_536_000);
        let receipts_max = r.integer(&RECEIPTS_MAX, 100..=10_000_000);
        let outbox = r.integer::<u64>(&OUTBOX, 1..=3650);
        let built = (|| {
            Some(Self {
                common: common?,
                sts_url: sts_url?,
                issuer: issuer?,
                operator_token: operator_token?,
                scope: scope?,
                receipts_key: receipts_key?.map(|key| MacKey::from_bytes(key.expose_secret())),
                per_zone: per_zone?,
                per_application: per_application?,
                body_limit: body_limit?,
                lease: lease?,
                sweep: sweep?,
                keep: keep?,
                keep_generated: keep_generated?,
                receipts_max: receipts_max?,
                retention: Retention::of_outbox(Duration::from_hours(outbox? * 24)),
            })
        })();
        r.finish(built)
    }
}
