//! Resources (`api.md` 13).
#![allow(clippy::option_option, reason = "absent, null and a value are three things in a PATCH")]

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, StatusCode};
use caracal_core::error::api as rows;
use caracal_core::id::{ProviderId, ResourceId};
use caracal_core::request::Operation;
use caracal_store::DoorError;
use caracal_store::management::{NewResource, Provider, Resource};
use caracal_web::Problem;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use url::Url;

use crate::admin::{Admin, Change, No, path_id, store, taken};
use crate::lists::{Query, page};
use crate::service::Api;
use crate::zones::{free, slug};

/// A member that may be absent, null, or there.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(d).map(Some)
}

#[derive(Deserialize)]
struct Input {
    name: Option<String>,
    identifier: Option<String>,
    #[serde(default, deserialize_with = "present")]
    upstream_url: Option<Option<String>>,
    scopes: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    credential_provider_id: Option<Option<String>>,
    operations: Option<Vec<Operation>>,
    operation_enforcement: Option<String>,
}

type Fault = (&'static caracal_core::error::Situation, String);

fn bad(text: impl Into<String>) -> Fault {
    (rows::INVALID_RESOURCE, text.into())
}

fn problem((row, text): Fault) -> Problem {
    Problem::because(row, text)
}

fn scopes(scopes: Vec<String>) -> Result<Vec<String>, Fault> {
    if !(1..=64).contains(&scopes.len()) {
        return Err(bad("scopes must have 1 to 64 members"));
    }
    for (i, scope) in scopes.iter().enumerate() {
        let plain = scope.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '"' && c != '\\');
        if !(1..=200).contains(&scope.chars().count()) || !plain {
            return Err(bad("a scope must have 1 to 200 characters without white space, quotes and backslashes"));
        }
        if scopes[..i].contains(scope) {
            return Err(bad("a scope occurs twice"));
        }
    }
    Ok(scopes)
}

fn upstream(text: Option<String>) -> Result<Option<String>, Fault> {
    let Some(text) = text.map(|t| t.trim().to_owned()) else { return Ok(None) };
    let good = Url::parse(&text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
    });
    if good { Ok(Some(text)) } else { Err(bad("upstream_url must be an http(s) URL without credentials and fragment")) }
}

fn identifier(text: String) -> Result<String, Fault> {
    let good = (1..=512).contains(&text.len())
        && !text.chars().any(char::is_whitespace)
        && Url::parse(&text).is_ok_and(|url| url.scheme() != "provider" && url.username().is_empty() && url.password().is_none());
    if good { Ok(text) } else { Err((rows::INVALID_RESOURCE_IDENTIFIER, "identifier must be an absolute URI".to_owned())) }
}

fn operations(given: Vec<Operation>, declared: &[String]) -> Result<Vec<Operation>, Fault> {
    if given.len() > 256 {
        return Err(bad("at most 256 operations"));
    }
    let mut kept: Vec<Operation> = Vec::with_capacity(given.len());
    for op in given {
        let op = Operation { method: op.method.trim().to_ascii_uppercase(), path: op.path.trim().to_owned(), scope: op.scope };
        let named = |row| (row, format!("operation {} {}", op.method, op.path));
        if op.method.is_empty() || op.path.is_empty() {
            return Err(named(rows::OPERATION_INCOMPLETE));
        }
        if op.method.len() > 16 || op.path.len() > 512 {
            return Err(bad("an operation's method has at most 16, its path at most 512 characters"));
        }
        if !op.path.starts_with('/') {
            return Err(named(rows::OPERATION_PATH));
        }
        if !declared.contains(&op.scope) {
            return Err(named(rows::OPERATION_SCOPE));
        }
        if kept.iter().any(|k| k.method == op.method && k.path == op.path) {
            return Err(named(rows::OPERATION_DUPLICATE));
        }
        kept.push(op);
    }
    Ok(kept)
}

fn enforcement(text: Option<&str>) -> Result<&'static str, Fault> {
    match text {
        None | Some("enforced") => Ok("enforced"),
        Some("transport_uniform") => Ok("transport_uniform"),
        Some(_) => Err(bad("operation_enforcement must be enforced or transport_uniform")),
    }
}

fn refused(fault: Fault) -> DoorError<No> {
    No::because(fault.0, fault.1)
}

fn provider_id(text: Option<String>) -> Result<Option<ProviderId>, Fault> {
    text.map(|t| t.parse().map_err(|_| (rows::PROVIDER_NOT_FOUND, "unknown provider".to_owned()))).transpose()
}

pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    admin: Admin,
    Path(zone): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Resource>), Problem> {
    let zone = api.zone(&zone).await?;
    let input: Input = api.body.invalid(rows::INVALID_RESOURCE).json(&headers, body).await?;
    let name = input.name.map(|n| n.trim().to_owned()).filter(|n| !n.is_empty());
    if name.as_ref().is_some_and(|n| n.chars().count() > 200) {
        return Err(problem(bad("name must have 1 to 200 characters")));
    }
    let scopes = scopes(input.scopes.unwrap_or_default()).map_err(problem)?;
    let upstream_url = upstream(input.upstream_url.flatten()).map_err(problem)?;
    let given = input.identifier.filter(|i| !i.is_empty()).map(identifier).transpose().map_err(problem)?;
    if name.is_none() && given.is_none() {
        return Err(problem(bad("name or identifier is required")));
    }
    let provider = provider_id(input.credential_provider_id.flatten()).map_err(problem)?;
    let enforcement = enforcement(input.operation_enforcement.as_deref()).map_err(problem)?;
    let operations = operations(input.operations.unwrap_or_default(), &scopes);
    let id: ResourceId = api.world.mint();
    let row = api
        .change(Some(zone), move |door| {
            Box::pin(async move {
                let Some(provider) = provider else { return Err(No::of(rows::CREDENTIAL_PROVIDER_REQUIRED)) };
                Provider::get(door.tx(), zone, provider).await?.ok_or_else(|| No::of(rows::PROVIDER_NOT_FOUND))?;
                if upstream_url.is_none() {
                    return Err(No::of(rows::UPSTREAM_URL_REQUIRED));
                }
                let operations = operations.map_err(refused)?;
                let identifier = if let Some(given) = given {
                    given
                } else {
                    let base = format!("resource://{}", slug(name.as_deref().unwrap_or_default(), "resource"));
                    free(&base, &Resource::identifiers_like(door.tx(), zone, &base).await?)
                };
                let new = NewResource {
                    id,
                    zone,
                    name: name.unwrap_or_else(|| identifier.clone()),
                    identifier,
                    upstream_url,
                    scopes,
                    provider: Some(provider),
                    operations,
                    enforcement,
                    by: admin.actor.clone(),
                };
                let row = taken(Resource::insert(door, new).await, rows::RESOURCE_IDENTIFIER_CONFLICT)?;
                let detail = json!({"identifier": row.identifier, "scopes": row.scopes});
                let change =
                    Change { action: "resource.create", entity: "resource", id: Some(id.to_string()), status: 201, detail };
                door.admin(admin.record(change));
                Ok(row)
            })
        })
        .await?;
    Ok((StatusCode::CREATED, Json(row)))
}

pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    Path(zone): Path<String>,
    OriginalUri(uri): OriginalUri,
) -> Result<Json<Value>, Problem> {
    let zone = api.zone(&zone).await?;
    let query = Query::of(&uri)?;
    let (asked, archived) = (query.page::<ResourceId>(500, 500)?, query.archived()?);
    let found =
        api.store.read(move |tx| Box::pin(async move { Resource::list(tx, zone, archived, asked).await })).await.map_err(store)?;
    Ok(Json(page(found, asked, |r| (r.created_at, r.id))))
}

pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    Path((zone, id)): Path<(String, String)>,
) -> Result<Json<Resource>, Problem> {
    let (zone, id) = (api.zone(&zone).await?, path_id(&id, rows::RESOURCE_NOT_FOUND)?);
    let found = api.store.read(move |tx| Box::pin(async move { Resource::get(tx, zone, id).await })).await.map_err(store)?;
    found.map(Json).ok_or_else(|| Problem::new(rows::RESOURCE_NOT_FOUND))
}

pub(crate) async fn patch(
    State(api): State<Arc<Api>>,
    admin: Admin,
    Path((zone, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Resource>, Problem> {
    let zone = api.zone(&zone).await?;
    let id: ResourceId = path_id(&id, rows::RESOURCE_NOT_FOUND)?;
    let input: Input = api.body.invalid(rows::INVALID_RESOURCE).json(&headers, body).await?;
    let nothing = input.name.is_none()
        && input.identifier.is_none()
        && input.upstream_url.is_none()
        && input.scopes.is_none()
        && input.credential_provider_id.is_none()
        && input.operations.is_none()
        && input.operation_enforcement.is_none();
    api.change(Some(zone), move |door| {
        Box::pin(async move {
            let mut row = Resource::get(door.tx(), zone, id).await?.ok_or_else(|| No::of(rows::RESOURCE_NOT_FOUND))?;
            if nothing {
                return Err(No::of(rows::NO_FIELDS));
            }
            if let Some(name) = input.name {
                name.trim().clone_into(&mut row.name);
                if !(1..=200).contains(&row.name.chars().count()) {
                    return Err(refused(bad("name must have 1 to 200 characters")));
                }
            }
            if let Some(text) = input.identifier {
                row.identifier = identifier(text).map_err(refused)?;
            }
            if let Some(url) = input.upstream_url {
                row.upstream_url = upstream(url).map_err(refused)?;
            }
            if let Some(given) = input.scopes {
                row.scopes = scopes(given).map_err(refused)?;
            }
            if let Some(given) = input.credential_provider_id {
                row.credential_provider_id = provider_id(given).map_err(refused)?;
            }
            let Some(provider) = row.credential_provider_id else { return Err(No::of(rows::CREDENTIAL_PROVIDER_REQUIRED)) };
            Provider::get(door.tx(), zone, provider).await?.ok_or_else(|| No::of(rows::PROVIDER_NOT_FOUND))?;
            if row.upstream_url.is_none() {
                return Err(No::of(rows::UPSTREAM_URL_REQUIRED));
            }
            row.operations = operations(input.operations.unwrap_or(row.operations), &row.scopes).map_err(refused)?;
            if input.operation_enforcement.is_some() {
                enforcement(input.operation_enforcement.as_deref()).map_err(refused)?.clone_into(&mut row.operation_enforcement);
            }
            let updated = taken(Resource::update(door, &row, &admin.actor).await, rows::RESOURCE_IDENTIFIER_CONFLICT)?;
            let row = updated.ok_or_else(|| No::of(rows::RESOURCE_NOT_FOUND))?;
            let detail = json!({"identifier": row.identifier, "scopes": row.scopes});
            let change = Change { action: "resource.update", entity: "resource", id: Some(id.to_string()), status: 200, detail };
            door.admin(admin.record(change));
            Ok(row)
        })
    })
    .await
    .map(Json)
}

pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    admin: Admin,
    Path((zone, id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let zone = api.zone(&zone).await?;
    let id: ResourceId = path_id(&id, rows::RESOURCE_NOT_FOUND)?;
    api.change(Some(zone), move |door| {
        Box::pin(async move {
            if !Resource::archive(door, zone, id, &admin.actor).await? {
                return Err(No::of(rows::RESOURCE_NOT_FOUND));
            }
            let change =
                Change { action: "resource.archive", entity: "resource", id: Some(id.to_string()), status: 204, detail: json!({}) };
            door.admin(admin.record(change));
            Ok(())
        })
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
