//! The routes of the API.

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use caracal_core::error::{Service, api as rows};
use caracal_custody::Custody;
use caracal_host::{Metrics, World};
use caracal_store::Store;
use caracal_web::probes::{self, MetricsGate, Unready};
use caracal_web::read::Rules;
use caracal_web::{Face, shell};

use crate::config::Config;
use crate::{applications, evidence, policies, policy_sets, providers, resources, zones};

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
    metrics: Metrics,
}

impl Api {
    /// An API on a store.
    pub fn new(config: Config, store: Store, custody: Custody, world: World) -> Arc<Self> {
        let body = Rules {
            bytes_max: config.body_limit,
            too_large: rows::TOO_LARGE,
            media_type: rows::MEDIA_TYPE,
            malformed: rows::INVALID_JSON,
            invalid: rows::INVALID_BODY,
        };
        Arc::new(Self { config, store, custody, world, body, metrics: Metrics::new("api") })
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
    let zone = Router::new()
        .route("/", get(zones::get).delete(zones::delete))
        .route("/applications", get(applications::list).post(applications::create))
        .route("/applications/{id}", get(applications::get).patch(applications::patch).delete(applications::delete))
        .route("/applications/{id}/rotate-secret", post(applications::rotate))
        .route("/applications/{id}/client-secret", get(applications::reveal))
        .route("/providers", get(providers::list).post(providers::create))
        .route("/providers/{id}", get(providers::get).patch(providers::patch).delete(providers::delete))
        .route("/resources", get(resources::list).post(resources::create))
        .route("/resources/{id}", get(resources::get).patch(resources::patch).delete(resources::delete))
        .route("/policies", get(policies::list).post(policies::create))
        .route("/policies/{id}", get(policies::get).delete(policies::delete))
        .route("/policies/{id}/versions", post(policies::add_version))
        .route("/policy-sets", get(policy_sets::list).post(policy_sets::create))
        .route("/policy-sets/{id}", get(policy_sets::get).delete(policy_sets::delete))
        .route("/policy-sets/{id}/versions", get(policy_sets::versions).post(policy_sets::add_version))
        .route("/policy-sets/{id}/versions/{version}", get(policy_sets::version))
        .route("/policy-sets/{id}/activate", post(policy_sets::activate))
        .route("/policy-sets/{id}/activation-status", get(policy_sets::activation_status))
        .route("/audit", get(evidence::list))
        .route("/audit/by-request/{request}", get(evidence::by_request))
        .route("/audit/by-request/{request}/explain", get(evidence::explain))
        .route("/admin-audit", get(evidence::admin_list));
    let routes = Router::new()
        .route("/v1/zones", get(zones::list).post(zones::create))
        .route("/v1/policies/validate", post(policies::validate))
        .nest("/v1/zones/{zone}", zone)
        .with_state(Arc::clone(api))
        .merge(probes::routes(Service::Api, Unready::on("database_unreachable", "database"), check))
        .merge(probes::metrics_routes(Service::Api, gate, api.metrics.clone(), None, || async {}));
    shell(FACE, api.world.clone(), routes)
}
