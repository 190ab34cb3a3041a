//! What a process is made of: the one place where clocks, stores and services meet. [`Ground`] is what services stand on, [`parts`] puts
//! each together, [`Doors`] opens their ports. [`Stack::start`] runs all five in one process, [`Stack::serve`] one of them.

mod apart;
mod doors;
mod evidence;
pub(crate) mod ground;
mod parts;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caracal_api::Api;
use caracal_coordinator::Coordinator;
use caracal_crypto::verified::VerifiedMandates;
use caracal_gateway::exchange::Exchange;
use caracal_host::config::{Service, Sources};
use caracal_host::{Supervisor, World};
use caracal_store::Store;
use caracal_sts::Sts;
use tokio::task::JoinHandle;

pub(crate) use self::doors::Doors;
use self::doors::Served;
use self::evidence::Evidence;
use self::ground::{Ground, failed};
use self::parts::{Given, REMEMBERED};
use crate::adapt::InProcess;
use crate::cli::ServiceName;
use crate::failure::Failure;

/// How long requests may take to finish at the end.
const GRACE: Duration = Duration::from_secs(20);
/// How long evidence may take to reach the ledger at the end.
const SETTLE: Duration = Duration::from_secs(10);
/// How long the lease of a PostgreSQL database without Redis lives without its holder.
const LEASE: Duration = Duration::from_secs(15);

/// What a stack is started with.
pub(crate) struct Plan {
    /// Every value, with its origin.
    pub(crate) sources: Sources,
    /// Directory of the databases.
    pub(crate) data: PathBuf,
    /// The listeners.
    pub(crate) doors: Doors,
}

/// A running process.
pub(crate) struct Stack {
    pub(crate) supervisor: Supervisor,
    pub(crate) store: Store,
    pub(crate) audit_keys: Vec<caracal_audit::NamedKey>,
    serving: Vec<JoinHandle<()>>,
    /// Where emitters and Audit share the process.
    evidence: Option<Evidence>,
    lease: Option<String>,
}

impl Stack {
    /// Starts every service in this process.
    pub(crate) async fn start(plan: Plan, world: World) -> Result<Self, Failure> {
        let Plan { sources, data, mut doors } = plan;
        let sts_config = caracal_sts::Config::read(&sources)?;
        let coordinator_config = caracal_coordinator::Config::read(&sources)?;
        let gateway_config = caracal_gateway::Config::read(&sources)?;
        let audit_config = caracal_audit::Config::read(&sources)?;
        let api_config = caracal_api::Config::read(&sources)?;
        let alone = sts_config.common.database_url.is_some() && sts_config.common.redis_url.is_none();
        let keks = ground::keks(&sources)?;
        let ground = Ground::open(&sts_config.common, data, world.clone()).await?;
        let lease = if alone { Some(only_process(&ground.store).await?) } else { None };
        let custody = ground.custody(&sources, keks).await?;
        let (spool, emptying) = ground.spool(&sources, Service::Sts).await?;
        let memory = ground.memory().await?;
        let dispatcher = ground.dispatcher(&api_config.common);

        let verified = Arc::new(VerifiedMandates::new(REMEMBERED));
        let issuer = sts_config.issuer.clone();
        let store = ground.store.clone();
        let sts = Sts::new(sts_config, store.clone(), spool.clone(), memory.clone(), custody.clone(), world.clone(), verified);
        sts.jobs(&ground.supervisor);
        spool.show(sts.metrics());
        let coordinator = Coordinator::new(coordinator_config, store.clone(), sts.verifier(), issuer, world.clone());
        coordinator.jobs(&ground.supervisor);
        let audit_keys = audit_config.keys.clone();
        let audit = parts::audit(&ground, audit_config).await?;
        let gateway_limits = gateway_config.limits;
        // Among processes an id is used up in the memory they share; in one alone, with the evidence of the exchange.
        let exchange: Arc<dyn Exchange> = Arc::new(InProcess { sts: sts.clone(), consumes: !ground.bus.is_shared() });
        let ports = doors.ports();
        let given = Given { verifier: sts.verifier(), exchange, memory, spool: spool.clone(), fetched: None, ports };
        let gateway = parts::gateway(&ground, gateway_config, given).await?;
        let api = Api::new(api_config, store.clone(), custody, world);

        spool.jobs(&ground.supervisor);
        emptying.jobs(&ground.supervisor);
        dispatcher.jobs(&ground.supervisor);
        let evidence = Evidence { bus: ground.bus.clone(), spool: emptying, outbox: dispatcher.evidence(), audit };
        evidence.outbox.jobs(&ground.supervisor);
        if let Some(holder) = lease.clone() {
            keep_lease(&ground, holder);
        }
        let served = [
            (ServiceName::Api, Served::Router(caracal_api::service(&api)), GRACE),
            (ServiceName::Sts, Served::Router(caracal_sts::service(&sts)), GRACE),
            (ServiceName::Coordinator, Served::Router(caracal_coordinator::service(&coordinator)), GRACE),
            (ServiceName::Audit, Served::Router(caracal_audit::service(&evidence.audit)), GRACE),
            (ServiceName::Gateway, Served::Gateway(gateway, gateway_limits), caracal_gateway::DRAIN),
        ];
        let stop = ground.supervisor.stop();
        let serving = served.into_iter().filter_map(|(name, what, grace)| doors.open(name, what, stop.clone(), grace)).collect();
        Ok(Self { supervisor: ground.supervisor, store, audit_keys, serving, evidence: Some(evidence), lease })
    }

    /// Brings into the ledger what was told so far.
    pub(crate) async fn settle(&self) -> Result<(), String> {
        match &self.evidence {
            Some(evidence) => evidence.settle().await,
            None => Ok(()),
        }
    }

    /// Stops: no new requests, those running finish, evidence is taken in, the lease is given back.
    pub(crate) async fn stop(self) {
        self.supervisor.stop().ask();
        let Self { supervisor, store, serving, evidence, lease, .. } = self;
        for one in serving {
            let _ = one.await;
        }
        supervisor.shutdown(GRACE).await;
        if let Some(evidence) = evidence {
            match tokio::time::timeout(SETTLE, evidence.settle()).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => tracing::warn!(why, "evidence waits for the next start"),
                Err(_) => tracing::warn!("evidence waits for the next start"),
            }
        }
        if let Some(holder) = lease {
            let _ = store.release(ONLY, holder).await;
        }
    }
}

const ONLY: &str = "caracal.up";

/// PostgreSQL without Redis is one process: its consumed ids and events are in that process's reach alone.
async fn only_process(store: &Store) -> Result<String, Failure> {
    let holder = format!("pid {} on this database", std::process::id());
    match store.lease(ONLY, holder.clone(), LEASE).await.map_err(|e| failed(&e))? {
        Some(_) => Ok(holder),
        None => Err(Failure::start(
            "another caracal runs on this database; without Redis there can be one: stop it, wait 15 s if it was killed, or give both --redis-url",
        )),
    }
}

/// Keeps the lease, and stops the process that no longer has it: another may hold it by then.
fn keep_lease(ground: &Ground, holder: String) {
    let (store, world, all) = (ground.store.clone(), ground.world.clone(), ground.supervisor.stop());
    let kept = Arc::new(Mutex::new(world.monotonic()));
    ground.supervisor.every("stack.lease", LEASE / 3, move |_stop| {
        let (store, world, holder, all, kept) = (store.clone(), world.clone(), holder.clone(), all.clone(), Arc::clone(&kept));
        async move {
            let asked = world.monotonic();
            let lost = match store.lease(ONLY, holder, LEASE).await {
                Ok(Some(_)) => {
                    *kept.lock().unwrap_or_else(PoisonError::into_inner) = asked;
                    None
                }
                Ok(None) => Some("another process took this database over"),
                // Whoever cannot ask for as long as the lease lives does not have it.
                Err(_) => {
                    let kept = *kept.lock().unwrap_or_else(PoisonError::into_inner);
                    (world.monotonic().saturating_sub(kept) >= LEASE)
                        .then_some("the database did not answer for as long as its lease lives")
                }
            };
            if let Some(why) = lost {
                tracing::error!(target: "caracal", "{why}; stopping");
                all.ask();
            }
            Ok::<(), std::convert::Infallible>(())
        }
    });
}
