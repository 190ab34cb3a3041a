//! A call as its handler sees it, and everything that happens around the handler, in the order of `api.md` 4.4: who asks, may they,
//! is the path well formed, and afterwards what is recorded of a refusal.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::header::ALLOW;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use caracal_core::admin::AdminCall;
use caracal_core::error::{Situation, api as rows};
use caracal_core::id::{Id, ZoneId};
use caracal_core::message::Producer;
use caracal_store::management::Zone;
use caracal_store::{Door, DoorError, StoreError, Tx};
use caracal_web::bearer::{self, Scheme};
use caracal_web::peer::Peer;
use caracal_web::{Issue, Problem, RequestId};
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::actor::Actor;
use crate::document::{Document, shaped};
use crate::lists::Query;
use crate::names::is_platforms;
use crate::record::{Note, Touched, record};
use crate::routes::{Does, Route};
use crate::service::Api;

/// What a handler gives.
pub(crate) type Reply = Result<Response, Problem>;

/// A no inside the door.
pub(crate) type No = DoorError<Problem>;

/// A row of the catalogue, as a no inside the door.
pub(crate) fn no(row: &'static Situation) -> No {
    DoorError::Refused(Problem::new(row))
}

/// A row that a uniqueness rule refused is this conflict.
pub(crate) fn taken<T>(outcome: Result<T, StoreError>, row: &'static Situation) -> Result<T, No> {
    outcome.map_err(|e| if matches!(e, StoreError::Refused(_)) { no(row) } else { e.into() })
}

/// Something that could not be sealed or opened.
pub(crate) fn sealing(error: impl std::fmt::Display) -> No {
    DoorError::Refused(Problem::new(rows::SECRET_BACKEND).cause(error))
}

/// A field that does not fit its rule.
pub(crate) fn wrong(row: &'static Situation, field: &'static str, message: impl Into<String>) -> Problem {
    let message = message.into();
    Problem::because(row, format!("{field}: {message}")).issues(vec![Issue { path: vec![field.to_owned()], message }])
}

/// A failure of the store, as it is told.
pub(crate) fn store(error: StoreError) -> Problem {
    let row = match error {
        StoreError::Unavailable(_) => rows::STORE_UNAVAILABLE,
        StoreError::Unrecorded(_) => rows::AUDIT_UNAVAILABLE,
        _ => rows::INTERNAL,
    };
    Problem::new(row).cause(error)
}

/// A request's head: who asks for what.
#[derive(Clone)]
pub(crate) struct Head {
    pub(crate) actor: Actor,
    pub(crate) route: &'static Route,
    pub(crate) request_id: String,
    pub(crate) method: Method,
    pub(crate) path: String,
    params: Vec<(String, String)>,
    query: String,
}

impl Head {
    /// A parameter of the path.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// A call.
pub(crate) struct Call {
    pub(crate) api: Arc<Api>,
    pub(crate) head: Arc<Head>,
    headers: HeaderMap,
    /// Behind a lock only so that a call can be looked at from several places: the body is read once, by its owner.
    body: Mutex<Body>,
    touched: Touched,
}

/// Answers a request of a route.
pub(crate) async fn dispatch(api: Arc<Api>, route: &'static Route, request: Request) -> Reply {
    let (mut parts, body) = request.into_parts();
    let actor = api.authenticate(&parts).await?;
    if route.does == Does::Reveal && parts.method == Method::HEAD {
        let get = HeaderValue::from_static("GET");
        return Err(Problem::new(rows::METHOD).header(ALLOW, get));
    }
    let head = Arc::new(head(&mut parts, actor, route).await?);
    let call = Call {
        api: Arc::clone(&api),
        head: Arc::clone(&head),
        headers: parts.headers,
        body: Mutex::new(body),
        touched: Touched::default(),
    };
    let reply = match call.admitted().await {
        Ok(()) => (route.handler)(call).await,
        Err(problem) => Err(problem),
    };
    if let Err(problem) = &reply {
        api.record_refusal(head, problem).await;
    }
    reply
}

/// Answers a request that no route is for.
pub(crate) async fn stray(api: Arc<Api>, row: &'static Situation, request: Request) -> Problem {
    let (parts, _) = request.into_parts();
    api.authenticate(&parts).await.err().unwrap_or_else(|| Problem::new(row))
}

async fn head(parts: &mut Parts, actor: Actor, route: &'static Route) -> Result<Head, Problem> {
    let raw = RawPathParams::from_request_parts(parts, &()).await.map_err(|_| Problem::new(rows::INVALID_PARAMS))?;
    Ok(Head {
        actor,
        route,
        request_id: request_id(parts),
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        params: raw.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
    })
}

fn request_id(parts: &Parts) -> String {
    parts.extensions.get::<RequestId>().map(|id| id.as_str().to_owned()).unwrap_or_default()
}

impl Api {
    /// Whose request it is.
    async fn authenticate(&self, parts: &Parts) -> Result<Actor, Problem> {
        let presented = bearer::bearer(&parts.headers, Scheme::Exact).ok();
        if let Some(actor) = presented.and_then(|token| self.bearers.actor(token)) {
            return Ok(actor);
        }
        self.numbers.auth_failures.inc();
        let address = parts.extensions.get::<Peer>().map(|peer| peer.client(&parts.headers, self.config.common.trust_proxy));
        if self.strangers.is_news(address, self.world.monotonic()) {
            let call = AdminCall {
                request_id: request_id(parts),
                method: parts.method.to_string(),
                path: parts.uri.path().chars().take(512).collect(),
                status: 401,
                ..AdminCall::default()
            };
            self.remember(None, call).await;
        }
        Err(Problem::new(rows::INVALID_ADMIN_TOKEN))
    }

    /// Records a refused write, and whatever an authenticated actor was denied.
    async fn record_refusal(&self, head: Arc<Head>, problem: &Problem) {
        let status = problem.status().as_u16();
        // What the store could not answer it cannot record either.
        if !(head.route.writes() || status == 403) || status == StatusCode::SERVICE_UNAVAILABLE.as_u16() {
            return;
        }
        let zone = head.param("zone").and_then(|text| text.parse::<ZoneId>().ok());
        self.remember(zone, record(&head, status, Note::default(), &Touched::default())).await;
    }

    /// Writes a record of a call that changed nothing; best effort, because the answer stands.
    async fn remember(&self, zone: Option<ZoneId>, call: AdminCall) {
        let known = match zone {
            Some(zone) => self.read(move |tx| Box::pin(async move { Zone::existed(tx, zone).await })).await.unwrap_or(false),
            None => false,
        };
        let work = self.store.door::<(), Problem, _>(zone.filter(|_| known), Producer::Api, move |door| {
            Box::pin(async move {
                door.admin(call);
                Ok(())
            })
        });
        if let Err(error) = work.await {
            self.numbers.audit_failures.inc();
            tracing::warn!(target: "caracal", %error, "a refused call was not recorded");
        }
    }

    /// Reads inside one snapshot.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, StoreError>> + Send + 'static,
    {
        self.store.read(work).await.map_err(store)
    }
}

impl Call {
    /// Whether the actor may, and whether the path is one.
    async fn admitted(&self) -> Result<(), Problem> {
        let (actor, zone) = (&self.head.actor, self.head.param("zone"));
        actor.may(self.head.route, zone).map_err(Problem::new)?;
        if !self.head.params.iter().all(|(_, value)| caracal_web::request_id::is_id(value)) {
            return Err(Problem::new(rows::INVALID_PARAMS));
        }
        if self.head.route.writes() && !actor.bootstrap && self.reserved_zone().await? {
            return Err(Problem::new(rows::SYSTEM_ZONE));
        }
        Ok(())
    }

    async fn reserved_zone(&self) -> Result<bool, Problem> {
        let Some(zone) = self.head.param("zone").and_then(|text| text.parse().ok()) else { return Ok(false) };
        let found = self.api.read(move |tx| Box::pin(async move { Zone::get(tx, zone).await })).await?;
        Ok(found.is_some_and(|zone| is_platforms(&zone.name) || is_platforms(&zone.slug)))
    }

    /// Who asks, as rows name it.
    pub(crate) fn by(&self) -> String {
        self.head.actor.stamp()
    }

    /// An id of the path; text that is no id of ours names nothing.
    pub(crate) fn id<I: Id>(&self, name: &str, missing: &'static Situation) -> Result<I, Problem> {
        self.head.param(name).and_then(|text| text.parse().ok()).ok_or_else(|| Problem::new(missing))
    }

    /// The zone of the path, which is live.
    pub(crate) async fn zone(&self) -> Result<ZoneId, Problem> {
        let id: ZoneId = self.id("zone", rows::ZONE_NOT_FOUND)?;
        let found = self.api.read(move |tx| Box::pin(async move { Zone::get(tx, id).await })).await?;
        found.map(|_| id).ok_or_else(|| Problem::new(rows::ZONE_NOT_FOUND))
    }

    /// The query; only these parameters choose what is listed.
    pub(crate) fn query(&self, filters: &[&str]) -> Result<Query, Problem> {
        Query::of(&self.head.path, &self.head.query, filters)
    }

    /// The body, read strictly: one value, no member twice, of the wanted shape.
    pub(crate) async fn body<T: DeserializeOwned>(&mut self, invalid: &'static Situation) -> Result<T, Problem> {
        let rules = self.api.body.invalid(invalid);
        let body = std::mem::take(self.body.get_mut().unwrap_or_else(PoisonError::into_inner));
        let Document(value) = rules.json(&self.headers, body).await?;
        self.touched = Touched::by(&value);
        shaped(value).map_err(|issue| rules.issues(vec![issue]))
    }

    /// A change with its record, inside the door. A change of a zone needs the zone to be live.
    pub(crate) async fn change<T, F>(&self, zone: Option<ZoneId>, work: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Door<'_>, &'t mut Note) -> BoxFuture<'t, Result<T, No>> + Send + 'static,
    {
        let (head, touched) = (Arc::clone(&self.head), self.touched.clone());
        self.door(zone, move |door| {
            Box::pin(async move {
                let mut note = Note::default();
                let value = work(door, &mut note).await?;
                door.admin(record(&head, head.route.success().as_u16(), note, &touched));
                Ok(value)
            })
        })
        .await
    }

    /// Work inside the door of a live zone, or of none.
    pub(crate) async fn door<T, F>(&self, zone: Option<ZoneId>, work: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Door<'_>) -> BoxFuture<'t, Result<T, No>> + Send + 'static,
    {
        let done = self.api.store.door(zone, Producer::Api, move |door| {
            Box::pin(async move {
                // Looked at again under the zone's lock: it may have been archived since.
                if let Some(zone) = zone {
                    Zone::get(door.tx(), zone).await?.ok_or_else(|| no(rows::ZONE_NOT_FOUND))?;
                }
                work(door).await
            })
        });
        done.await.map_err(|e| match e {
            DoorError::Refused(problem) => problem,
            DoorError::Store(e) => store(e),
        })
    }

    /// The answer of a success.
    #[allow(clippy::unnecessary_wraps, reason = "it is the last line of every handler")]
    pub(crate) fn answer<T: Serialize>(&self, body: T) -> Reply {
        Ok((self.head.route.success(), axum::Json(body)).into_response())
    }

    /// The answer of a success that has nothing to say.
    #[allow(clippy::unnecessary_wraps, reason = "it is the last line of every handler")]
    pub(crate) fn done(&self) -> Reply {
        Ok(self.head.route.success().into_response())
    }
}

/// A row as JSON.
pub(crate) fn json_of<T: Serialize>(row: &T) -> Value {
    serde_json::to_value(row).unwrap_or_default()
}
