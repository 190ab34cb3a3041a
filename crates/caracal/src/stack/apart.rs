//! One service as a process of its own, on PostgreSQL and Redis. What it needs of another service it asks for over HTTP.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use caracal_api::Api;
use caracal_coordinator::Coordinator;
use caracal_crypto::verified::VerifiedMandates;
use caracal_host::World;
use caracal_host::config::{Common, Service, Sources};
use caracal_sts::Sts;

use super::Stack;
use super::doors::{Doors, Served};
use super::ground::{Ground, keks};
use super::parts::{self, FarSts, Given, REMEMBERED};
use crate::cli::ServiceName;
use crate::failure::Failure;

/// How long a key set may take to be fetched where no variable says it.
const FETCH: Duration = Duration::from_secs(5);

/// What became of a service's start: its ground, and what is behind its door.
struct Started {
    ground: Ground,
    doors: Doors,
    served: Served,
    grace: Duration,
}

impl Stack {
    /// Starts one service.
    pub(crate) async fn serve(service: ServiceName, sources: &Sources, world: World) -> Result<Self, Failure> {
        let started = match service {
            ServiceName::Api => api(sources, world).await,
            ServiceName::Sts => sts(sources, world).await,
            ServiceName::Coordinator => coordinator(sources, world).await,
            ServiceName::Gateway => gateway(sources, world).await,
            ServiceName::Audit => audit(sources, world).await,
        };
        let Started { ground, mut doors, served, grace } = started?;
        let serving = doors.open(service, served, ground.supervisor.stop(), grace).into_iter().collect();
        let Ground { supervisor, store, .. } = ground;
        Ok(Self { supervisor, store, audit_keys: Vec::new(), serving, evidence: None, lease: None })
    }
}

/// The door first, so that a taken port changes nothing; then the ground.
async fn begin(service: ServiceName, common: &Common, world: World) -> Result<(Doors, Ground), Failure> {
    let doors = Doors::one(service, common)?;
    Ok((doors, Ground::open(common, PathBuf::new(), world).await?))
}

/// Publishes what this process's doors leave behind.
fn dispatch(ground: &Ground, common: &Common) {
    let dispatcher = ground.dispatcher(common);
    dispatcher.jobs(&ground.supervisor);
    dispatcher.evidence().jobs(&ground.supervisor);
}

async fn api(sources: &Sources, world: World) -> Result<Started, Failure> {
    let config = caracal_api::Config::read(sources)?;
    let (keks, grace) = (keks(sources)?, config.common.shutdown_grace);
    let (doors, ground) = begin(ServiceName::Api, &config.common, world.clone()).await?;
    let custody = ground.custody(sources, keks).await?;
    dispatch(&ground, &config.common);
    let api = Api::new(config, ground.store.clone(), custody, world);
    Ok(Started { ground, doors, served: Served::Router(caracal_api::service(&api)), grace })
}

async fn sts(sources: &Sources, world: World) -> Result<Started, Failure> {
    let config = caracal_sts::Config::read(sources)?;
    let keks = keks(sources)?;
    let (doors, ground) = begin(ServiceName::Sts, &config.common, world.clone()).await?;
    let custody = ground.custody(sources, keks).await?;
    let (spool, emptying) = ground.spool(sources, Service::Sts).await?;
    let memory = ground.memory().await?;
    dispatch(&ground, &config.common);
    spool.jobs(&ground.supervisor);
    emptying.jobs(&ground.supervisor);
    let verified = Arc::new(VerifiedMandates::new(REMEMBERED));
    let sts = Sts::new(config, ground.store.clone(), spool.clone(), memory, custody, world, verified);
    spool.show(sts.metrics());
    sts.jobs(&ground.supervisor);
    Ok(Started { ground, doors, served: Served::Router(caracal_sts::service(&sts)), grace: caracal_sts::GRACE })
}

async fn coordinator(sources: &Sources, world: World) -> Result<Started, Failure> {
    let config = caracal_coordinator::Config::read(sources)?;
    let missing = |name: &str| Failure::start(format!("{name} is not set; the Coordinator verifies mandates of that STS"));
    let url = config.sts_url.clone().ok_or_else(|| missing("STS_URL"))?;
    let issuer = config.issuer.clone().ok_or_else(|| missing("ISSUER_URL"))?;
    let grace = config.common.shutdown_grace;
    let (doors, ground) = begin(ServiceName::Coordinator, &config.common, world.clone()).await?;
    let far = FarSts::new(&ground, &config.common, &url, FETCH);
    far.follow(&ground, &config.common).await?;
    dispatch(&ground, &config.common);
    let coordinator = Coordinator::new(config, ground.store.clone(), far.verifier(&ground), issuer, world);
    coordinator.jobs(&ground.supervisor);
    Ok(Started { ground, doors, served: Served::Router(caracal_coordinator::service(&coordinator)), grace })
}

async fn gateway(sources: &Sources, world: World) -> Result<Started, Failure> {
    let config = caracal_gateway::Config::read(sources)?;
    let url = config.sts_url.clone().ok_or_else(|| Failure::start("STS_URL is not set; the Gateway exchanges mandates there"))?;
    let (limits, timeout) = (config.limits, config.sts_timeout);
    let (doors, ground) = begin(ServiceName::Gateway, &config.common, world).await?;
    let far = FarSts::new(&ground, &config.common, &url, timeout);
    let exchange = far.exchange(&ground, &config.common, timeout)?;
    let (spool, emptying) = ground.spool(sources, Service::Gateway).await?;
    spool.jobs(&ground.supervisor);
    emptying.jobs(&ground.supervisor);
    let given = Given {
        verifier: far.verifier(&ground),
        exchange,
        memory: ground.memory().await?,
        spool,
        fetched: Some(far.keys),
        ports: doors.ports(),
    };
    let gateway = parts::gateway(&ground, config, given).await?;
    Ok(Started { ground, doors, served: Served::Gateway(gateway, limits), grace: caracal_gateway::DRAIN })
}

async fn audit(sources: &Sources, world: World) -> Result<Started, Failure> {
    let config = caracal_audit::Config::read(sources)?;
    let grace = config.common.shutdown_grace;
    let (doors, ground) = begin(ServiceName::Audit, &config.common, world).await?;
    let audit = parts::audit(&ground, config).await?;
    Ok(Started { ground, doors, served: Served::Router(caracal_audit::service(&audit)), grace })
}
