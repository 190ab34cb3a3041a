//! Open ports, and what is served behind them until the process ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use caracal_gateway::Gateway;
use caracal_host::config::Common;
use caracal_host::jobs::Stop;
use caracal_web::listener::{Limits, Listener};
use tokio::task::JoinHandle;

use crate::cli::ServiceName;
use crate::failure::Failure;

/// The listeners of a process, bound before anything is created.
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

    /// Binds the port of one service, as its configuration says.
    pub(crate) fn one(service: ServiceName, common: &Common) -> Result<Self, Failure> {
        let tls = common.tls.as_ref().map(caracal_web::tls::load).transpose();
        let tls = tls.map_err(|e| Failure::start(format!("{e}; check TLS_CERT_FILE and TLS_KEY_FILE")))?;
        let listener = Listener::bind(common.address, Limits::default(), tls).map_err(|e| {
            Failure::start(format!(
                "cannot listen on {} for the {} ({e}); stop what listens there, or choose another --host or --port",
                common.address,
                service.name()
            ))
        })?;
        Ok(Self { listeners: vec![(service, listener)] })
    }

    /// The port a service listens on.
    pub(crate) fn port(&self, service: ServiceName) -> u16 {
        let found = self.listeners.iter().find(|(name, _)| *name == service);
        found.and_then(|(_, listener)| listener.address().ok()).map_or_else(|| service.port(), |address| address.port())
    }

    /// The ports of this process.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.listeners.iter().filter_map(|(_, listener)| listener.address().ok()).map(|address| address.port()).collect()
    }

    /// Opens the door of a service. What it gives ends when the last request has, or `grace` after the stop.
    pub(crate) fn open(&mut self, service: ServiceName, what: Served, stop: Stop, grace: Duration) -> Option<JoinHandle<()>> {
        let at = self.listeners.iter().position(|(name, _)| *name == service)?;
        let (_, listener) = self.listeners.swap_remove(at);
        Some(tokio::spawn(async move {
            match what {
                Served::Router(router) => listener.serve(router, stop, grace).await,
                Served::Gateway(gateway, limits) => listener.under(limits).serve(gateway, stop, grace).await,
            };
        }))
    }
}

/// What is behind a door.
pub(crate) enum Served {
    /// Routes.
    Router(axum::Router),
    /// The Gateway, which looks at its header before any router sees the path, under its own clocks.
    Gateway(Gateway, Limits),
}
