//! What the API is told (`api.md` 3).

use caracal_core::error::Service;
use caracal_host::config::{Common, ConfigErrors, Key, Sources};
use secrecy::SecretString;

const TOKEN: Key =
    Key::new("CARACAL_ADMIN_TOKEN", "Bootstrap administrator's token; at least 32 bytes outside dev").secret().of(&[Service::Api]);
const BODY: Key = Key::new("API_BODY_LIMIT_BYTES", "Largest request body").default("1048576").of(&[Service::Api]);

const RESOURCES: Key =
    Key::new("API_MAX_RESOURCES_PER_ZONE", "Live resources a zone may have; 0 is no limit").default("100000").of(&[Service::Api]);
const DERIVATIONS: Key =
    Key::new("API_SECRET_DERIVE_CONCURRENCY", "Slow derivations of supplied client secrets at a time; 64 MiB each")
        .default("2")
        .of(&[Service::Api]);

/// Every key of this service beside the common ones.
pub const KEYS: &[Key] = &[TOKEN, BODY, RESOURCES, DERIVATIONS];

/// The configuration of the API.
#[derive(Debug)]
pub struct Config {
    /// What every service has.
    pub common: Common,
    /// The bootstrap administrator's token; without one nobody can manage anything.
    pub admin_token: Option<SecretString>,
    /// Largest request body.
    pub body_limit: usize,
    /// Live resources a zone may have; 0 is no limit.
    pub resources_max: u64,
    /// Slow derivations of supplied client secrets at a time.
    pub derivations: usize,
}

impl Config {
    /// Reads and checks every value.
    pub fn read(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut r = sources.reader(Service::Api);
        let common = Common::read(&mut r);
        let admin_token = r.token_opt(&TOKEN);
        let body_limit = r.integer(&BODY, 1024..=64 * 1024 * 1024);
        let resources_max = r.integer(&RESOURCES, 0..=10_000_000);
        let derivations = r.integer(&DERIVATIONS, 1..=64);
        let built = (|| {
            Some(Self {
                common: common?,
                admin_token: admin_token?,
                body_limit: body_limit?,
                resources_max: resources_max?,
                derivations: derivations?,
            })
        })();
        r.finish(built)
    }
}
