//! The routes, as a table. What a route may need, what is recorded of it and how it is answered follow from its row.

use axum::http::{Method, StatusCode};
use futures::future::BoxFuture;

use caracal_store::management::{Application, Policy, PolicySet, Provider, Resource};

use crate::call::{Call, Reply};
use crate::objects::{archive, get, list};
use crate::{admin_audit, applications, evidence, policies, policy_sets, providers, resources, zones};

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// Reads.
    Look,
    /// Shows a secret: a read that leaves evidence, and that only who may write may make.
    Reveal,
    /// Makes an object of the collection.
    Create,
    /// Changes an object.
    Update,
    /// Archives an object.
    Delete,
    /// Replaces an object's secret.
    Rotate,
    /// Another verb below an object.
    Act,
}

/// Which zones a route touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// None; every token may call it.
    Any,
    /// The one of the path.
    Zone,
    /// The deployment: tokens of one zone may not.
    Deployment,
}

/// A handler: parses, calls one function of the store, renders.
pub(crate) type Handler = fn(Call) -> BoxFuture<'static, Reply>;

/// A row of the table.
pub(crate) struct Route {
    /// Method.
    pub(crate) method: Method,
    /// Path, parameters in braces.
    pub(crate) path: &'static str,
    /// Whom it concerns.
    pub(crate) reach: Reach,
    /// What it does.
    pub(crate) does: Does,
    /// The collection of the object, as records name it.
    pub(crate) noun: &'static str,
    /// The parameter that names the object; none where the object is yet to be made.
    pub(crate) object: Option<&'static str>,
    /// What answers.
    pub(crate) handler: Handler,
}

impl Route {
    /// Whether it changes something, and so is recorded.
    pub(crate) const fn writes(&self) -> bool {
        !matches!(self.does, Does::Look | Does::Reveal)
    }

    /// The status of a success.
    pub(crate) const fn success(&self) -> StatusCode {
        match self.does {
            Does::Create => StatusCode::CREATED,
            Does::Delete => StatusCode::NO_CONTENT,
            Does::Act => StatusCode::ACCEPTED,
            Does::Look | Does::Reveal | Does::Update | Does::Rotate => StatusCode::OK,
        }
    }
}

macro_rules! routes {
    ($($method:ident $path:literal $reach:ident $does:ident $noun:literal $(($object:literal))? => $handler:expr;)*) => {
        /// Every route under `/v1`.
        pub(crate) static ROUTES: &[Route] = &[$(Route {
            method: Method::$method,
            path: $path,
            reach: Reach::$reach,
            does: Does::$does,
            noun: $noun,
            object: routes!(@object $($object)?),
            handler: |call| Box::pin($handler(call)),
        }),*];
    };
    (@object) => { None };
    (@object $object:literal) => { Some($object) };
}

routes! {
    GET    "/v1/zones"                                                   Deployment Look   "zones" => zones::list;
    POST   "/v1/zones"                                                   Deployment Create "zones" => zones::create;
    GET    "/v1/zones/{zone}"                                            Zone       Look   "zones" ("zone") => zones::get;
    PATCH  "/v1/zones/{zone}"                                            Zone       Update "zones" ("zone") => zones::patch;
    DELETE "/v1/zones/{zone}"                                            Deployment Delete "zones" ("zone") => zones::delete;
    GET    "/v1/zones/{zone}/dcr-status"                                 Zone       Look   "zones" ("zone") => zones::dcr_status;

    GET    "/v1/zones/{zone}/applications"                               Zone       Look   "applications" => list::<Application>;
    POST   "/v1/zones/{zone}/applications"                               Zone       Create "applications" => applications::create;
    GET    "/v1/zones/{zone}/applications/{id}"                          Zone       Look   "applications" ("id") => get::<Application>;
    PATCH  "/v1/zones/{zone}/applications/{id}"                          Zone       Update "applications" ("id") => applications::patch;
    DELETE "/v1/zones/{zone}/applications/{id}"                          Zone       Delete "applications" ("id") => archive::<Application>;
    POST   "/v1/zones/{zone}/applications/{id}/rotate-secret"            Zone       Rotate "applications" ("id") => applications::rotate;
    GET    "/v1/zones/{zone}/applications/{id}/client-secret"            Zone       Reveal "applications" ("id") => applications::reveal;

    GET    "/v1/zones/{zone}/providers"                                  Zone       Look   "providers" => list::<Provider>;
    POST   "/v1/zones/{zone}/providers"                                  Zone       Create "providers" => providers::create;
    GET    "/v1/zones/{zone}/providers/{id}"                             Zone       Look   "providers" ("id") => get::<Provider>;
    PATCH  "/v1/zones/{zone}/providers/{id}"                             Zone       Update "providers" ("id") => providers::patch;
    DELETE "/v1/zones/{zone}/providers/{id}"                             Zone       Delete "providers" ("id") => archive::<Provider>;

    GET    "/v1/zones/{zone}/resources"                                  Zone       Look   "resources" => list::<Resource>;
    POST   "/v1/zones/{zone}/resources"                                  Zone       Create "resources" => resources::create;
    GET    "/v1/zones/{zone}/resources/{id}"                             Zone       Look   "resources" ("id") => get::<Resource>;
    PATCH  "/v1/zones/{zone}/resources/{id}"                             Zone       Update "resources" ("id") => resources::patch;
    DELETE "/v1/zones/{zone}/resources/{id}"                             Zone       Delete "resources" ("id") => archive::<Resource>;

    POST   "/v1/policies/validate"                                       Any        Look   "policies" => policies::validate;
    GET    "/v1/zones/{zone}/policies"                                   Zone       Look   "policies" => list::<Policy>;
    POST   "/v1/zones/{zone}/policies"                                   Zone       Create "policies" => policies::create;
    GET    "/v1/zones/{zone}/policies/{id}"                              Zone       Look   "policies" ("id") => policies::get;
    PATCH  "/v1/zones/{zone}/policies/{id}"                              Zone       Update "policies" ("id") => policies::patch::<Policy>;
    DELETE "/v1/zones/{zone}/policies/{id}"                              Zone       Delete "policies" ("id") => archive::<Policy>;
    POST   "/v1/zones/{zone}/policies/{id}/versions"                     Zone       Create "versions" => policies::add_version;

    GET    "/v1/zones/{zone}/policy-sets"                                Zone       Look   "policy-sets" => list::<PolicySet>;
    POST   "/v1/zones/{zone}/policy-sets"                                Zone       Create "policy-sets" => policy_sets::create;
    GET    "/v1/zones/{zone}/policy-sets/{id}"                           Zone       Look   "policy-sets" ("id") => get::<PolicySet>;
    PATCH  "/v1/zones/{zone}/policy-sets/{id}"                           Zone       Update "policy-sets" ("id") => policies::patch::<PolicySet>;
    DELETE "/v1/zones/{zone}/policy-sets/{id}"                           Zone       Delete "policy-sets" ("id") => archive::<PolicySet>;
    GET    "/v1/zones/{zone}/policy-sets/{id}/versions"                  Zone       Look   "versions" => policy_sets::versions;
    POST   "/v1/zones/{zone}/policy-sets/{id}/versions"                  Zone       Create "versions" => policy_sets::add_version;
    GET    "/v1/zones/{zone}/policy-sets/{id}/versions/{version}"        Zone       Look   "versions" ("version") => policy_sets::version;
    POST   "/v1/zones/{zone}/policy-sets/{id}/activate"                  Zone       Act    "policy-sets" ("id") => policy_sets::activate;
    GET    "/v1/zones/{zone}/policy-sets/{id}/activation-status"         Zone       Look   "policy-sets" ("id") => policy_sets::activation_status;

    GET    "/v1/zones/{zone}/audit"                                      Zone       Look   "audit" => evidence::list;
    GET    "/v1/zones/{zone}/audit/by-request/{request}"                 Zone       Look   "audit" => evidence::by_request;
    GET    "/v1/zones/{zone}/audit/by-request/{request}/explain"         Zone       Look   "audit" => evidence::explain;
    GET    "/v1/zones/{zone}/admin-audit"                                Zone       Look   "admin-audit" => admin_audit::of_zone;
    GET    "/v1/admin-audit"                                             Deployment Look   "admin-audit" => admin_audit::of_all;
}
