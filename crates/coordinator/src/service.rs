//! The routes of the Coordinator.

use std::sync::Arc;

use axum::Router;
use axum::http::Uri;
use axum::routing::{get, patch, post};
use caracal_core::error::{Service, Situation, coordinator as rows};
use caracal_core::id::{Id, ZoneId};
use caracal_core::message::Producer;
use caracal_crypto::mac::MacKey;
use caracal_host::{Metrics, World};
use caracal_store::management::Page;
use caracal_store::{Door, DoorError, Store};
use caracal_web::mandate::Verifier;
use caracal_web::probes::{self, MetricsGate, Unready};
use caracal_web::read::Rules;
use caracal_web::{Face, Problem, shell};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::caller::store;
use crate::config::Config;
use crate::{delegate, edges, sessions, start};

const FACE: Face = Face {
    service: Service::Coordinator,
    not_found: rows::NOT_FOUND,
    method: rows::METHOD,
    internal: rows::INTERNAL,
    challenge: Some("Bearer realm=\"caracal-coordinator\""),
};

/// The Coordinator with what it stands on.
pub struct Coordinator {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) verifier: Verifier,
    pub(crate) issuer: String,
    pub(crate) world: World,
    pub(crate) body: Rules,
    pub(crate) receipts_key: MacKey,
    pub(crate) holder: String,
    metrics: Metrics,
}

/// A refusal inside the door.
#[derive(Debug)]
pub(crate) struct No(&'static Situation);

pub(crate) const fn no(row: &'static Situation) -> DoorError<No> {
    DoorError::Refused(No(row))
}

impl Coordinator {
    /// A Coordinator on a store, verifying mandates of `issuer`.
    pub fn new(config: Config, db: Store, verifier: Verifier, issuer: String, world: World) -> Arc<Self> {
        let body = Rules {
            bytes_max: config.body_limit,
            too_large: rows::TOO_LARGE,
            media_type: rows::MEDIA_TYPE,
            malformed: rows::INVALID_BODY,
            invalid: rows::INVALID_BODY,
        };
        let receipts_key = config.receipts_key.clone().unwrap_or_else(|| MacKey::from_bytes(&world.random::<32>()));
        let holder = format!("{}:{}", config.common.hostname, std::process::id());
        Arc::new(Self {
            config,
            store: db,
            verifier,
            issuer,
            world,
            body,
            receipts_key,
            holder,
            metrics: Metrics::new("coordinator"),
        })
    }

    /// A change, inside the door.
    pub(crate) async fn change<T, F>(&self, zone: ZoneId, work: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Door<'_>) -> BoxFuture<'t, Result<T, DoorError<No>>> + Send + 'static,
    {
        self.store.door(Some(zone), Producer::Coordinator, work).await.map_err(|e| match e {
            DoorError::Refused(No(row)) => Problem::new(row),
            DoorError::Store(e) => store(e),
        })
    }
}

/// The query of a list, each parameter at most once.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn of(uri: &Uri) -> Result<Self, Problem> {
        let pairs: Vec<(String, String)> =
            url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let repeated = pairs.iter().enumerate().any(|(i, (name, _))| pairs[..i].iter().any(|(n, _)| n == name));
        if repeated { Err(Problem::because(rows::INVALID_QUERY, "a parameter is repeated")) } else { Ok(Self(pairs)) }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(crate) fn page<I: Id>(&self) -> Result<Page<I>, Problem> {
        let limit = match self.get("limit") {
            None => 100,
            Some(text) => text.parse().ok().filter(|n| (1..=500).contains(n)).ok_or_else(|| Problem::new(rows::INVALID_QUERY))?,
        };
        let before = match self.get("cursor") {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| Problem::new(rows::INVALID_CURSOR))?),
        };
        Ok(Page { before, limit })
    }
}

/// A page: `next_cursor` is the last id when the page is full.
pub(crate) fn page(items: &[Value], limit: usize, last: Option<String>) -> Value {
    let next = last.filter(|_| items.len() == limit);
    json!({"items": items, "next_cursor": next})
}

/// The Coordinator over HTTP.
pub fn service(coordinator: &Arc<Coordinator>) -> Router {
    let check = {
        let own = Arc::clone(coordinator);
        move || {
            let own = Arc::clone(&own);
            // Dead outbox rows are told by gauges: one bad row must not take every replica out.
            async move { own.store.ping().await.map_err(|_| Unready::on("postgres_unreachable", "postgres")) }
        }
    };
    let gate = MetricsGate::new(coordinator.config.common.metrics_bearer.clone(), coordinator.config.common.mode);
    let routes = Router::new()
        .route("/zones/{zone}/agents", get(sessions::list).post(start::start))
        .route("/zones/{zone}/agents/{id}", get(sessions::get).delete(sessions::end))
        .route("/zones/{zone}/agents/{id}/children", get(sessions::children))
        .route("/zones/{zone}/delegations", post(delegate::create))
        .route("/zones/{zone}/delegations/active", get(edges::active))
        .route("/zones/{zone}/delegations/inbound/{session}", get(edges::inbound))
        .route("/zones/{zone}/delegations/inbound/{session}/{id}", get(edges::inbound_one))
        .route("/zones/{zone}/delegations/outbound/{session}", get(edges::outbound))
        .route("/zones/{zone}/delegations/{id}/revoke", patch(edges::revoke))
        .with_state(Arc::clone(coordinator))
        .merge(probes::routes(Service::Coordinator, Unready::on("postgres_unreachable", "postgres"), check))
        .merge(probes::metrics_routes(Service::Coordinator, gate, coordinator.metrics.clone(), None, || async {}));
    shell(FACE, coordinator.world.clone(), routes)
}
