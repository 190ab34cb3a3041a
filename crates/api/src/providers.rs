//! Providers (`api.md` 11).

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, StatusCode};
use caracal_core::error::api as rows;
use caracal_core::id::ProviderId;
use caracal_custody::provider_ref;
use caracal_provider::{Config, Kind};
use caracal_store::management::{NewProvider, Provider};
use caracal_web::Problem;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::admin::{Admin, Change, No, path_id, sealing, store, taken};
use crate::lists::{Query, page};
use crate::service::Api;
use crate::zones::{free, slug};

#[derive(Deserialize)]
struct Input {
    name: Option<String>,
    identifier: Option<String>,
    kind: Option<String>,
    config_json: Option<Map<String, Value>>,
}

fn text(value: Option<String>) -> Option<String> {
    value.map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())
}

fn identifier(text: &str) -> Result<String, Problem> {
    let rest = text.strip_prefix("provider://").unwrap_or_default();
    let good = !rest.is_empty()
        && rest.len() <= 200
        && rest.split('-').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    if good {
        Ok(text.to_owned())
    } else {
        Err(Problem::because(rows::INVALID_PROVIDER_IDENTIFIER, "identifier must be provider:// and a slug"))
    }
}

fn kind(word: &str) -> Result<Kind, Problem> {
    Kind::of(word).ok_or_else(|| {
        Problem::because(rows::INVALID_PROVIDER, "kind must be none, caracal_mandate, bearer_token or api_key in this release")
    })
}

pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    admin: Admin,
    Path(zone): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Provider>), Problem> {
    let zone = api.zone(&zone).await?;
    let input: Input = api.body.invalid(rows::INVALID_PROVIDER).json(&headers, body).await?;
    let word = input.kind.ok_or_else(|| Problem::because(rows::INVALID_PROVIDER, "kind is required"))?;
    let kind = kind(&word)?;
    let (name, given) = (text(input.name), text(input.identifier));
    if name.is_none() && given.is_none() {
        return Err(Problem::because(rows::INVALID_PROVIDER, "name or identifier is required"));
    }
    if name.as_ref().is_some_and(|n| n.chars().count() > 200) {
        return Err(Problem::because(rows::INVALID_PROVIDER, "name must have 1 to 200 characters"));
    }
    let given = given.as_deref().map(identifier).transpose()?;
    let (config, secrets) = Config::read(kind, input.config_json.unwrap_or_default(), false)
        .map_err(|e| Problem::because(rows::INVALID_PROVIDER_CONFIG, e.to_string()))?;
    let id: ProviderId = api.world.mint();
    let custody = api.custody.clone();
    let row = api
        .change(Some(zone), move |door| {
            Box::pin(async move {
                let identifier = if let Some(given) = given {
                    given
                } else {
                    let base = format!("provider://{}", slug(name.as_deref().unwrap_or_default(), "provider"));
                    free(&base, &Provider::identifiers_like(door.tx(), zone, &base).await?)
                };
                let mut secret_keys: Vec<String> = secrets.keys().cloned().collect();
                secret_keys.sort_unstable();
                let new = NewProvider {
                    id,
                    zone,
                    name: name.unwrap_or_else(|| identifier.clone()),
                    identifier,
                    kind: kind.as_str(),
                    config: config.public(),
                    secret_keys,
                    by: admin.actor.clone(),
                };
                let row = taken(Provider::insert(door, new).await, rows::PROVIDER_IDENTIFIER_CONFLICT)?;
                if !secrets.is_empty() {
                    let sealed = custody.seal_provider(zone, id, &secrets).map_err(sealing)?;
                    door.put_document(&provider_ref(zone, id), sealed).await?;
                }
                let detail = json!({"identifier": row.identifier, "kind": row.kind});
                let change =
                    Change { action: "provider.create", entity: "provider", id: Some(id.to_string()), status: 201, detail };
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
    let (asked, archived) = (query.page::<ProviderId>(500, 500)?, query.archived()?);
    let found =
        api.store.read(move |tx| Box::pin(async move { Provider::list(tx, zone, archived, asked).await })).await.map_err(store)?;
    Ok(Json(page(found, asked, |p| (p.created_at, p.id))))
}

pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    Path((zone, id)): Path<(String, String)>,
) -> Result<Json<Provider>, Problem> {
    let (zone, id) = (api.zone(&zone).await?, path_id(&id, rows::PROVIDER_NOT_FOUND)?);
    let found = api.store.read(move |tx| Box::pin(async move { Provider::get(tx, zone, id).await })).await.map_err(store)?;
    found.map(Json).ok_or_else(|| Problem::new(rows::PROVIDER_NOT_FOUND))
}

pub(crate) async fn patch(
    State(api): State<Arc<Api>>,
    admin: Admin,
    Path((zone, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Provider>, Problem> {
    let zone = api.zone(&zone).await?;
    let id: ProviderId = path_id(&id, rows::PROVIDER_NOT_FOUND)?;
    let input: Input = api.body.invalid(rows::INVALID_PROVIDER).json(&headers, body).await?;
    let (name, given) = (text(input.name), text(input.identifier).as_deref().map(identifier).transpose()?);
    if input.kind.is_some() && input.config_json.is_none() {
        return Err(Problem::new(rows::PROVIDER_CONFIG_REQUIRED));
    }
    let wanted = input.kind.as_deref().map(kind).transpose()?;
    if name.is_none() && given.is_none() && input.config_json.is_none() {
        return Err(Problem::new(rows::NO_FIELDS));
    }
    let custody = api.custody.clone();
    api.change(Some(zone), move |door| {
        Box::pin(async move {
            let mut row = Provider::get(door.tx(), zone, id).await?.ok_or_else(|| No::of(rows::PROVIDER_NOT_FOUND))?;
            let stored = Kind::of(&row.kind);
            row.name = name.unwrap_or(row.name);
            row.identifier = given.unwrap_or(row.identifier);
            if let Some(config) = input.config_json {
                let kind = wanted
                    .or(stored)
                    .ok_or_else(|| No::because(rows::INVALID_PROVIDER_CONFIG, "the stored kind is not of this release"))?;
                let same = Some(kind) == stored;
                let (config, secrets) =
                    Config::read(kind, config, same).map_err(|e| No::because(rows::INVALID_PROVIDER_CONFIG, e.to_string()))?;
                kind.as_str().clone_into(&mut row.kind);
                row.config_json = config.public();
                if !secrets.is_empty() {
                    row.secret_config_keys = secrets.keys().cloned().collect();
                    let sealed = custody.seal_provider(zone, id, &secrets).map_err(sealing)?;
                    door.put_document(&provider_ref(zone, id), sealed).await?;
                } else if !same {
                    row.secret_config_keys = Vec::new();
                    door.drop_document(&provider_ref(zone, id)).await?;
                }
            }
            let updated = taken(Provider::update(door, &row, &admin.actor).await, rows::PROVIDER_IDENTIFIER_CONFLICT)?;
            let row = updated.ok_or_else(|| No::of(rows::PROVIDER_NOT_FOUND))?;
            let detail = json!({"identifier": row.identifier, "kind": row.kind});
            let change = Change { action: "provider.update", entity: "provider", id: Some(id.to_string()), status: 200, detail };
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
    let id: ProviderId = path_id(&id, rows::PROVIDER_NOT_FOUND)?;
    api.change(Some(zone), move |door| {
        Box::pin(async move {
            if !Provider::archive(door, zone, id, &admin.actor).await? {
                return Err(No::of(rows::PROVIDER_NOT_FOUND));
            }
            door.drop_document(&provider_ref(zone, id)).await?;
            let change =
                Change { action: "provider.archive", entity: "provider", id: Some(id.to_string()), status: 204, detail: json!({}) };
            door.admin(admin.record(change));
            Ok(())
        })
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
