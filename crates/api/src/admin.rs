//! Who asks, and what is recorded of a change.

use std::sync::Arc;

use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::Method;
use axum::http::request::Parts;
use caracal_core::error::{Situation, api as rows};
use caracal_core::id::{Id, ZoneId};
use caracal_core::message::Producer;
use caracal_store::management::Zone;
use caracal_store::{AdminAudit, Door, DoorError, StoreError};
use caracal_web::bearer::{self, Scheme};
use caracal_web::{Problem, RequestId};
use futures::future::BoxFuture;
use serde_json::Value;

use crate::service::Api;

/// An administrator, authenticated, with the request it came in.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) actor: String,
    method: String,
    path: String,
    pub(crate) request_id: String,
}

impl FromRequestParts<Arc<Api>> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let refused = || Problem::new(rows::INVALID_ADMIN_TOKEN);
        let presented = bearer::bearer(&parts.headers, Scheme::Exact).map_err(|_| refused())?;
        let right = api.config.admin_token.as_ref().is_some_and(|token| bearer::same_secret(presented, token));
        if !right {
            return Err(refused());
        }
        let path = parts.extensions.get::<OriginalUri>().map_or_else(|| parts.uri.path().to_owned(), |u| u.path().to_owned());
        let request_id = parts.extensions.get::<RequestId>().map(|id| id.as_str().to_owned()).unwrap_or_default();
        Ok(Self { actor: "admin:bootstrap".to_owned(), method: method_name(&parts.method), path, request_id })
    }
}

fn method_name(method: &Method) -> String {
    method.as_str().to_owned()
}

/// What a change is called and what it touched.
pub(crate) struct Change {
    pub(crate) action: &'static str,
    pub(crate) entity: &'static str,
    pub(crate) id: Option<String>,
    pub(crate) status: u16,
    pub(crate) detail: Value,
}

impl Admin {
    pub(crate) fn record(&self, change: Change) -> AdminAudit {
        AdminAudit {
            actor: self.actor.clone(),
            actor_scope: "global",
            action: change.action,
            method: self.method.clone(),
            path: self.path.clone(),
            status: change.status,
            entity_type: change.entity,
            entity_id: change.id,
            request_id: self.request_id.clone(),
            detail: change.detail,
        }
    }
}

/// A domain refusal inside the door: a row, and words.
#[derive(Debug)]
pub(crate) struct No(pub(crate) &'static Situation, pub(crate) Option<String>);

impl No {
    pub(crate) const fn of(row: &'static Situation) -> DoorError<Self> {
        DoorError::Refused(Self(row, None))
    }

    pub(crate) fn because(row: &'static Situation, text: impl Into<String>) -> DoorError<Self> {
        DoorError::Refused(Self(row, Some(text.into())))
    }
}

/// A row that a uniqueness rule refused is this conflict.
pub(crate) fn taken<T>(outcome: Result<T, StoreError>, row: &'static Situation) -> Result<T, DoorError<No>> {
    outcome.map_err(|e| if e.is_refused() { No::of(row) } else { e.into() })
}

/// Something that could not be sealed.
pub(crate) fn sealing(error: impl std::fmt::Display) -> DoorError<No> {
    No::because(rows::SECRET_BACKEND, format!("{error}"))
}

pub(crate) fn store(error: StoreError) -> Problem {
    match error {
        StoreError::Unavailable(_) => Problem::new(rows::STORE_UNAVAILABLE).cause(error),
        other => Problem::new(rows::INTERNAL).cause(other),
    }
}

impl Api {
    /// A change, inside the door.
    pub(crate) async fn change<T, F>(&self, zone: Option<ZoneId>, work: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Door<'_>) -> BoxFuture<'t, Result<T, DoorError<No>>> + Send + 'static,
    {
        self.store.door(zone, Producer::Api, work).await.map_err(|e| match e {
            DoorError::Refused(No(row, None)) => Problem::new(row),
            DoorError::Refused(No(row, Some(text))) => Problem::because(row, text),
            DoorError::Store(e) => store(e),
        })
    }

    /// A live zone of the path.
    pub(crate) async fn zone(&self, text: &str) -> Result<ZoneId, Problem> {
        let id: ZoneId = path_id(text, rows::ZONE_NOT_FOUND)?;
        let found = self.store.read(move |tx| Box::pin(async move { Zone::get(tx, id).await })).await.map_err(store)?;
        found.map(|_| id).ok_or_else(|| Problem::new(rows::ZONE_NOT_FOUND))
    }
}

/// An id of the path: malformed text is 400, text that is no id of ours names nothing.
pub(crate) fn path_id<I: Id>(text: &str, missing: &'static Situation) -> Result<I, Problem> {
    if !caracal_web::request_id::is_id(text) {
        return Err(Problem::new(rows::INVALID_PARAMS));
    }
    text.parse().map_err(|_| Problem::new(missing))
}
