//! The service: what it stands on, and its router, made from the table of routes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::{MethodFilter, MethodRouter, any, on};
use caracal_core::error::{Service, api as rows};
use caracal_custody::Custody;
use caracal_host::{Metrics, World};
use caracal_store::Store;
use caracal_web::probes::{self, MetricsGate, Unready};
use caracal_web::read::Rules;
use caracal_web::{Face, shell};
use prometheus::IntCounter;
use tokio::sync::Semaphore;

use crate::actor::Bearers;
use crate::call::{dispatch, stray};
use crate::config::Config;
use crate::routes::ROUTES;

const FACE: Face = Face {
    service: Service::Api,
    not_found: rows::NOT_FOUND,
    method: rows::METHOD,
    internal: rows::INTERNAL,
    challenge: Some("Bearer realm=\"caracal-api\""),
};

/// The API with what it stands on.
pub struct Api {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) custody: Custody,
    pub(crate) world: World,
    pub(crate) body: Rules,
    pub(crate) bearers: Bearers,
    pub(crate) strangers: Strangers,
    /// Slow derivations at a time.
    pub(crate) derivations: Semaphore,
    pub(crate) numbers: Numbers,
    metrics: Metrics,
}

/// What is counted.
pub(crate) struct Numbers {
    pub(crate) auth_failures: IntCounter,
    pub(crate) audit_failures: IntCounter,
}

impl Api {
    /// An API on a store.
    pub fn new(config: Config, store: Store, custody: Custody, world: World) -> Arc<Self> {
        let bearers = Bearers::new(config.admin_token.clone());
        Arc::new(Self::with(config, store, custody, world, bearers))
    }

    pub(crate) fn with(config: Config, store: Store, custody: Custody, world: World, bearers: Bearers) -> Self {
        let body = Rules {
            bytes_max: config.body_limit,
            too_large: rows::TOO_LARGE,
            media_type: rows::MEDIA_TYPE,
            malformed: rows::INVALID_JSON,
            invalid: rows::INVALID_BODY,
        };
        let metrics = Metrics::new("api");
        let numbers = Numbers {
            auth_failures: metrics.counter("auth_failures_total", "Requests without a valid admin token"),
            audit_failures: metrics.counter("admin_audit_failures_total", "Refused calls that could not be recorded"),
        };
        let derivations = Semaphore::new(config.derivations);
        Self { config, store, custody, world, body, bearers, strangers: Strangers::default(), derivations, numbers, metrics }
    }
}

/// Addresses whose failure to authenticate was recorded within the last minute: a stranger may not fill the records.
#[derive(Default)]
pub(crate) struct Strangers(Mutex<HashMap<Option<IpAddr>, Duration>>);

/// Addresses that are remembered at a time; beyond them failures are only counted.
const STRANGERS_MAX: usize = 1024;
/// How long an address is remembered.
const MINUTE: Duration = Duration::from_mins(1);

impl Strangers {
    /// Whether a failure of this address is to be recorded.
    pub(crate) fn is_news(&self, address: Option<IpAddr>, now: Duration) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= STRANGERS_MAX {
            seen.retain(|_, at| now.saturating_sub(*at) < MINUTE);
        }
        if seen.get(&address).is_some_and(|at| now.saturating_sub(*at) < MINUTE) || seen.len() >= STRANGERS_MAX {
            return false;
        }
        seen.insert(address, now);
        true
    }
}

/// The API over HTTP.
pub fn service(api: &Arc<Api>) -> Router {
    let check = {
        let store = api.store.clone();
        move || {
            let store = store.clone();
            async move { store.ping().await.map_err(|_| Unready::on("database_unreachable", "database")) }
        }
    };
    let gate = MetricsGate::new(api.config.common.metrics_bearer.clone(), api.config.common.mode);
    let routes = routes(api)
        .merge(probes::routes(Service::Api, Unready::on("database_unreachable", "database"), check))
        .merge(probes::metrics_routes(Service::Api, gate, api.metrics.clone(), None, || async {}));
    shell(FACE, api.world.clone(), routes)
}

fn routes(api: &Arc<Api>) -> Router {
    let stray = |row| {
        let api = Arc::clone(api);
        move |request: Request| stray(Arc::clone(&api), row, request)
    };
    let mut paths: Vec<(&'static str, MethodRouter)> = Vec::new();
    for route in ROUTES {
        let Ok(method) = MethodFilter::try_from(route.method.clone()) else { continue };
        let api = Arc::clone(api);
        let handler = move |request: Request| dispatch(Arc::clone(&api), route, request);
        match paths.iter_mut().find(|(path, _)| *path == route.path) {
            Some((_, methods)) => *methods = std::mem::take(methods).on(method, handler),
            None => paths.push((route.path, on(method, handler))),
        }
    }
    let known =
        paths.into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods.fallback(stray(rows::METHOD))));
    known.route("/v1/{*rest}", any(stray(rows::NOT_FOUND)))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_stranger_is_told_of_once_a_minute_and_strangers_are_bounded() {
        let strangers = Strangers::default();
        let address = |n: u32| Some(IpAddr::from(Ipv4Addr::from(n)));
        let at = Duration::from_secs;
        assert!(strangers.is_news(address(1), at(0)));
        assert!(!strangers.is_news(address(1), at(59)));
        assert!(strangers.is_news(address(1), at(60)));
        let told = (2..5000).filter(|n| strangers.is_news(address(*n), at(61))).count();
        assert_eq!(told, STRANGERS_MAX - 1);
        assert!(strangers.is_news(address(9999), at(200)), "they are forgotten again");
    }
}
