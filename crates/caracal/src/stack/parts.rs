//! The services, each put together from the ground it stands on. What another service gives it is an argument: a function call in one
//! process, HTTP among many.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caracal_audit::Audit;
use caracal_core::id::{InstallationId, ZoneId};
use caracal_core::message::Stream;
use caracal_crypto::verified::VerifiedMandates;
use caracal_egress::{Client, Guard, Settings, Trust};
use caracal_ephemeral::Memory;
use caracal_gateway::exchange::{Exchange, HttpExchange, HttpSettings};
use caracal_gateway::{Gateway, Parts as GatewayParts, consumed, evidence};
use caracal_host::Metrics;
use caracal_host::config::Common;
use caracal_stream::{Follower, Spool};
use caracal_web::mandate::{HttpKeys, KeySettings, Verifier};
use http_body_util::Full;
use url::Url;

use super::ground::{Ground, failed, mac_key, message_keys};
use crate::adapt::FromStore;
use crate::failure::Failure;

/// Most mandates that a process remembers as verified, or as just used.
pub(crate) const REMEMBERED: usize = 65_536;
/// How long a follower waits for something new, and how long after an error.
const FOLLOW: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(1));

/// Audit.
pub(crate) async fn audit(ground: &Ground, config: caracal_audit::Config) -> Result<Audit, Failure> {
    // This deployment's id is made at its first start.
    let installation: InstallationId = ground.store.installation(ground.world.mint()).await.map_err(|e| failed(&e))?;
    let audit = Audit::new(caracal_audit::Parts {
        config,
        world: ground.world.clone(),
        store: ground.store.clone(),
        bus: ground.bus.clone(),
        metrics: Metrics::new("audit"),
        origin: format!("caracal-{installation}.local/log"),
        stop: ground.supervisor.stop(),
    });
    caracal_audit::jobs(&audit, &ground.supervisor);
    Ok(audit)
}

/// What the Gateway is given by others.
pub(crate) struct Given {
    pub(crate) verifier: Verifier,
    pub(crate) exchange: Arc<dyn Exchange>,
    pub(crate) memory: Memory,
    pub(crate) spool: Spool,
    /// Keys that are fetched, to be forgotten when a message says that they changed.
    pub(crate) fetched: Option<Arc<HttpKeys>>,
    /// The ports of this process, which no upstream may be.
    pub(crate) ports: Vec<u16>,
}

/// The Gateway, its sets of revoked ids loaded and followed.
pub(crate) async fn gateway(ground: &Ground, config: caracal_gateway::Config, given: Given) -> Result<Gateway, Failure> {
    const HEARD: &[Stream] = &[Stream::SessionsRevoke, Stream::AgentsLifecycle, Stream::KeysInvalidate];
    let keys = message_keys(&config.common);
    let guard = Guard::upstreams(config.upstream_hosts.clone(), given.ports);
    let upstreams = Client::new(Settings::new(guard, Trust::new(config.common.extra_ca_file.clone())));
    let consumed: Arc<dyn consumed::Consumed> = if given.exchange.consumes() {
        Arc::new(consumed::Recent::new(REMEMBERED))
    } else {
        Arc::new(consumed::Shared::new(given.memory))
    };
    let metrics = Metrics::new("gateway");
    given.spool.show(&metrics);
    let gateway = Gateway::new(GatewayParts {
        config,
        world: ground.world.clone(),
        verifier: given.verifier,
        exchange: given.exchange,
        consumed,
        evidence: Arc::new(evidence::Spooled::new(given.spool, ground.audit_key.clone())),
        revocations: Arc::new(FromStore(ground.store.clone())),
        upstreams,
        metrics,
        supervisor: ground.supervisor.clone(),
    });
    // The place is remembered before the snapshot is read, so that nothing falls between the two.
    let follower = ground.bus.follow(HEARD, keys).await.map_err(|e| failed(&e))?;
    gateway.reload().await.map_err(|e| failed(&e))?;
    let sets = gateway.revocations();
    follow(ground, "gateway revocation stream", follower, move |stream, field| {
        if stream == Stream::KeysInvalidate {
            forget(given.fetched.as_deref(), field);
        } else {
            sets.apply(stream, |name| field(name).map(str::to_owned));
        }
    });
    gateway.jobs();
    Ok(gateway)
}

fn forget<'m>(keys: Option<&HttpKeys>, field: &dyn Fn(&str) -> Option<&'m str>) {
    if let (Some(keys), Some(zone)) = (keys, field("zone_id").and_then(|text| text.parse::<ZoneId>().ok())) {
        keys.forget(zone);
    }
}

/// Hears messages as long as the process lives.
fn follow(
    ground: &Ground,
    name: &'static str,
    follower: Follower,
    hear: impl for<'m> Fn(Stream, &dyn Fn(&str) -> Option<&'m str>) + Send + Sync + 'static,
) {
    let (follower, hear) = (Arc::new(tokio::sync::Mutex::new(follower)), Arc::new(hear));
    ground.supervisor.spawn(name, move |stop| {
        let (follower, hear) = (Arc::clone(&follower), Arc::clone(&hear));
        async move {
            let mut follower = follower.lock().await;
            loop {
                let heard = tokio::select! {
                    () = stop.wait() => return Ok::<_, Infallible>(()),
                    heard = follower.next(FOLLOW.0) => heard,
                };
                match heard {
                    Ok(messages) => messages.iter().for_each(|message| hear(message.stream, &|name| message.field(name))),
                    Err(error) => {
                        tracing::warn!(%error, "what others change is heard late");
                        stop.sleep(FOLLOW.1).await;
                    }
                }
            }
        }
    });
}

/// The STS as another process, seen by one that verifies mandates or exchanges them.
pub(crate) struct FarSts {
    url: Url,
    client: Client<Full<Bytes>>,
    pub(crate) keys: Arc<HttpKeys>,
}

impl FarSts {
    pub(crate) fn new(ground: &Ground, common: &Common, url: &Url, timeout: Duration) -> Self {
        let client = Client::new(Settings::new(Guard::internal(), Trust::new(common.extra_ca_file.clone())));
        let settings = KeySettings { timeout, ..KeySettings::default() };
        let keys = HttpKeys::new(client.clone(), url, settings, ground.world.clone(), || {});
        Self { url: url.clone(), client, keys: Arc::new(keys) }
    }

    /// Verifies mandates by the STS's key sets.
    pub(crate) fn verifier(&self, ground: &Ground) -> Verifier {
        Verifier::new(self.keys.clone(), Arc::new(VerifiedMandates::new(REMEMBERED)), ground.world.clone())
    }

    /// Exchanges mandates over HTTP, each call signed.
    pub(crate) fn exchange(&self, ground: &Ground, common: &Common, timeout: Duration) -> Result<Arc<dyn Exchange>, Failure> {
        let key = common.gateway_sts_key.as_ref().map(mac_key);
        let settings = HttpSettings { url: self.url.clone(), key, timeout };
        let exchange = HttpExchange::new(self.client.clone(), settings, ground.world.clone());
        Ok(Arc::new(exchange.map_err(|e| Failure::start(format!("STS_URL: {e}")))?))
    }

    /// Forgets keys when a message says that they changed.
    pub(crate) async fn follow(&self, ground: &Ground, common: &Common) -> Result<(), Failure> {
        let follower = ground.bus.follow(&[Stream::KeysInvalidate], message_keys(common)).await.map_err(|e| failed(&e))?;
        let keys = Arc::clone(&self.keys);
        follow(ground, "key changes", follower, move |_, field| forget(Some(&keys), field));
        Ok(())
    }
}
