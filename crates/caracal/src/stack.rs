//! The whole stack in one process: five services on their listeners, one store, one supervisor.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use caracal_api::Api;
use caracal_audit::Audit;
use caracal_coordinator::Coordinator;
use caracal_core::id::InstallationId;
use caracal_crypto::mac::MacKey;
use caracal_crypto::seal::{Kek, Keks};
use caracal_crypto::verified::VerifiedMandates;
use caracal_custody::Custody;
use caracal_egress::{Client, Guard, Settings, Trust};
use caracal_gateway::{Gateway, Parts as GatewayParts, consumed, evidence};
use caracal_host::config::{Key, Sources};
use caracal_host::{Metrics, Supervisor, World};
use caracal_store::{Store, StoreConfig};
use caracal_sts::Sts;
use caracal_web::listener::{Limits, Listener};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::task::JoinHandle;

use crate::adapt::{FromStore, InProcess};
use crate::cli::ServiceName;
use crate::failure::Failure;

const KEK: Key = Key::new("SECRET_STORE_KEK", "Seals secrets at rest; 64 hex digits").secret();
const KEK_PREVIOUS: Key = Key::new("SECRET_STORE_KEK_PREVIOUS", "Still opens what it sealed, during a rotation").secret();
const BACKEND: Key = Key::new("CARACAL_SECRET_BACKEND", "Where sealed documents are kept").default("builtin");

/// How long requests may take to finish at the end.
const GRACE: Duration = Duration::from_secs(20);
/// How long the lease of a PostgreSQL database without Redis lives without its holder.
const LEASE: Duration = Duration::from_secs(15);

/// The five listeners, bound before anything is created.
pub(crate) struct Doors {
    listeners: Vec<(ServiceName, Listener)>,
}

impl Doors {
    /// Binds every port of a stack on loopback; `None` takes free ones.
    pub(crate) fn bind(offset: Option<u16>) -> Result<Self, Failure> {
        let mut listeners = Vec::with_capacity(5);
        for service in ServiceName::ALL {
            let port = offset.map_or(0, |offset| service.port() + offset);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let listener = Listener::bind(address, Limits::default(), None).map_err(|e| {
                Failure::start(format!(
                    "port {port} of the {} is taken ({e}); stop what listens there, or shift all ports with --port-offset N",
                    service.name()
                ))
            })?;
            listeners.push((service, listener));
        }
        Ok(Self { listeners })
    }

    /// The port a service listens on.
    pub(crate) fn port(&self, service: ServiceName) -> u16 {
        let found = self.listeners.iter().find(|(name, _)| *name == service);
        found.and_then(|(_, listener)| listener.address().ok()).map_or_else(|| service.port(), |address| address.port())
    }
}

/// What a stack is started with.
pub(crate) struct Plan {
    /// Every value, with its origin.
    pub(crate) sources: Sources,
    /// Directory of the databases.
    pub(crate) data: PathBuf,
    /// PostgreSQL, or SQLite.
    pub(crate) database_url: Option<String>,
    /// Redis, or in process.
    pub(crate) redis_url: Option<String>,
    /// The listeners.
    pub(crate) doors: Doors,
}

/// A running stack.
pub(crate) struct Stack {
    pub(crate) supervisor: Supervisor,
    pub(crate) store: Store,
    pub(crate) audit: Audit,
    pub(crate) audit_keys: Vec<MacKey>,
    serving: Vec<JoinHandle<()>>,
    lease: Option<String>,
}

fn store_failed(e: &impl ToString) -> Failure {
    Failure::start(e.to_string())
}

fn kek(sources: &Sources, key: &Key) -> Result<Option<Kek>, Failure> {
    let value = sources.value(key).map_err(|e| Failure::start(e.to_string()))?;
    value.map(|v| Kek::from_hex(v.text.trim()).map_err(|e| Failure::start(format!("{}: {e}", key.name)))).transpose()
}

/// Opens the store of a plan, before anything else is created. Says what to do when it cannot.
pub(crate) async fn open_store(
    plan_url: Option<String>,
    data: PathBuf,
    world: &World,
    audit_key: Option<MacKey>,
) -> Result<Store, Failure> {
    let config = StoreConfig { database_url: plan_url, dir: data, connections: 20 };
    Store::open(&config, world.clone(), audit_key).await.map_err(|e| store_failed(&e))
}

impl Stack {
    /// Starts every service.
    pub(crate) async fn start(plan: Plan, world: World) -> Result<Self, Failure> {
        let Plan { sources, data, database_url, redis_url, doors } = plan;
        let told = |e: caracal_host::config::ConfigErrors| Failure::start(e.to_string());
        let sts_config = caracal_sts::Config::read(&sources).map_err(told)?;
        let coordinator_config = caracal_coordinator::Config::read(&sources).map_err(told)?;
        let gateway_config = caracal_gateway::Config::read(&sources).map_err(told)?;
        let audit_config = caracal_audit::Config::read(&sources).map_err(told)?;
        let api_config = caracal_api::Config::read(&sources).map_err(told)?;
        let audit_key = sts_config.common.audit_key.as_ref().map(|key| MacKey::from_bytes(key.expose_secret()));
        let audit_keys = audit_config.keys.clone();
        let keks = match kek(&sources, &KEK)? {
            Some(current) => Keks::new(current, kek(&sources, &KEK_PREVIOUS)?),
            None => return Err(Failure::start("SECRET_STORE_KEK is not set; generate one with: openssl rand -hex 32")),
        };
        let backend = sources.value(&BACKEND).map_err(|e| Failure::start(e.to_string()))?.map(|v| v.text.to_string());
        let alone = database_url.is_some() && redis_url.is_none();
        let store = open_store(database_url, data, &world, audit_key.clone()).await?;
        let lease = if alone { Some(only_process(&store).await?) } else { None };
        let custody = Custody::open(&store, keks, world.clone(), backend.as_deref().unwrap_or(caracal_custody::BUILTIN))
            .await
            .map_err(|e| store_failed(&e))?;
        let supervisor = Supervisor::new(world.clone());
        let verified = Arc::new(VerifiedMandates::new(65_536));
        let issuer = sts_config.issuer.clone();
        let sts = Sts::new(sts_config, store.clone(), custody.clone(), world.clone(), verified);

        let coordinator = Coordinator::new(coordinator_config, store.clone(), sts.verifier(), issuer, world.clone());
        coordinator.jobs(&supervisor);

        let installation: InstallationId = installation(&store, &world).await?;
        let audit = Audit::new(caracal_audit::Parts {
            config: audit_config,
            world: world.clone(),
            store: store.clone(),
            metrics: Metrics::new("audit"),
            origin: format!("caracal-{installation}.local/log"),
            stop: supervisor.stop(),
        });
        caracal_audit::jobs(&audit, &supervisor);

        let gateway_limits = gateway_config.limits;
        let own_ports = ServiceName::ALL.iter().map(|service| doors.port(*service)).collect();
        let trust = Trust::new(gateway_config.common.extra_ca_file.clone());
        let upstreams = Client::new(Settings::new(Guard::upstreams(gateway_config.upstream_hosts.clone(), own_ports), trust));
        let gateway = Gateway::new(GatewayParts {
            config: gateway_config,
            world: world.clone(),
            verifier: sts.verifier(),
            exchange: Arc::new(InProcess(sts.clone())),
            consumed: Arc::new(consumed::Recent::new(65_536)),
            evidence: Arc::new(evidence::Journalled::new(store.journal().clone(), audit_key)),
            revocations: Arc::new(FromStore(store.clone())),
            upstreams,
            metrics: Metrics::new("gateway"),
            supervisor: supervisor.clone(),
        });
        gateway.reload().await.map_err(|e| store_failed(&e))?;
        gateway.jobs();

        crate::events::start(&api_config.common, &store, &gateway, redis_url.map(SecretString::from), &world, &supervisor).await?;
        let api = Api::new(api_config, store.clone(), custody, world.clone());

        let mut serving = Vec::with_capacity(5);
        for (name, listener) in doors.listeners {
            let stop = supervisor.stop();
            serving.push(match name {
                ServiceName::Api => serve(listener, caracal_api::service(&api), stop),
                ServiceName::Sts => serve(listener, caracal_sts::service(&sts), stop),
                ServiceName::Coordinator => serve(listener, caracal_coordinator::service(&coordinator), stop),
                ServiceName::Audit => serve(listener, caracal_audit::service(&audit), stop),
                ServiceName::Gateway => {
                    let gateway = gateway.clone();
                    tokio::spawn(async move {
                        listener.under(gateway_limits).serve(gateway, stop, caracal_gateway::DRAIN).await;
                    })
                }
            });
        }
        if let Some(holder) = lease.clone() {
            keep_lease(&store, &supervisor, holder);
        }
        Ok(Self { supervisor, store, audit, audit_keys, serving, lease })
    }

    /// Stops: no new requests, those running finish, evidence is taken in, the lease is given back.
    pub(crate) async fn stop(self) {
        self.supervisor.stop().ask();
        for one in self.serving {
            let _ = one.await;
        }
        let _ = self.audit.ingestor().pass().await;
        self.supervisor.shutdown(GRACE).await;
        if let Some(holder) = self.lease {
            let _ = self.store.release(ONLY, holder).await;
        }
    }
}

fn serve(listener: Listener, router: axum::Router, stop: caracal_host::Stop) -> JoinHandle<()> {
    tokio::spawn(async move {
        listener.serve(router, stop, GRACE).await;
    })
}

const ONLY: &str = "caracal.up";

/// PostgreSQL without Redis is one process: its consumed ids and events are in that process's reach alone.
async fn only_process(store: &Store) -> Result<String, Failure> {
    let holder = format!("pid {} on this database", std::process::id());
    match store.lease(ONLY, holder.clone(), LEASE).await.map_err(|e| store_failed(&e))? {
        Some(_) => Ok(holder),
        None => Err(Failure::start(
            "another caracal runs on this database; without Redis there can be one: stop it, wait 15 s if it was killed, or give both --redis-url",
        )),
    }
}

fn keep_lease(store: &Store, supervisor: &Supervisor, holder: String) {
    let (store, all) = (store.clone(), supervisor.stop());
    supervisor.every("stack.lease", LEASE / 3, move |_stop| {
        let (store, holder, all) = (store.clone(), holder.clone(), all.clone());
        async move {
            if let Ok(None) = store.lease(ONLY, holder, LEASE).await {
                tracing::error!(target: "caracal", "another process took this database over; stopping");
                all.ask();
            }
            Ok::<(), std::convert::Infallible>(())
        }
    });
}

/// This deployment's id, made at its first start.
async fn installation(store: &Store, world: &World) -> Result<InstallationId, Failure> {
    store.installation(world.mint()).await.map_err(|e| store_failed(&e))
}
