//! Zones (`api.md` 8).

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, StatusCode};
use caracal_core::error::api as rows;
use caracal_core::id::ZoneId;
use caracal_store::coordination::cascade;
use caracal_store::management::{NewZone, SigningKeyRow, Zone};
use caracal_web::Problem;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::{Admin, Change, No, path_id, sealing, store, taken};
use crate::lists::{Query, page};
use crate::service::Api;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    slug: Option<String>,
    #[serde(default)]
    dcr_enabled: bool,
}

/// Lower-cased, runs of anything else become `-`; empty becomes `fallback`.
pub(crate) fn slug(text: &str, fallback: &str) -> String {
    let mut out = String::new();
    for c in text.to_lowercase().chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            out.push(c);
        } else if !out.ends_with('-') {
            out.push('-');
        }
    }
    let out = out.trim_matches('-');
    if out.is_empty() { fallback.to_owned() } else { out.chars().take(56).collect() }
}

/// The first of `base`, `base-2`, … that is free.
pub(crate) fn free(base: &str, used: &[String]) -> String {
    if !used.iter().any(|u| u == base) {
        return base.to_owned();
    }
    // One more number than names in use: one of them is free.
    let numbers = 2..=used.len() + 2;
    numbers.map(|n| format!("{base}-{n}")).find(|candidate| !used.contains(candidate)).unwrap_or_else(|| base.to_owned())
}

pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    admin: Admin,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Zone>), Problem> {
    let input: Create = api.body.invalid(rows::INVALID_ZONE).json(&headers, body).await?;
    let name = input.name.trim().to_owned();
    let bad = |text: &'static str| Problem::because(rows::INVALID_ZONE, text);
    if !(1..=120).contains(&name.chars().count()) {
        return Err(bad("name must have 1 to 120 characters"));
    }
    let given = input.slug;
    if given.as_ref().is_some_and(|s| {
        !(1..=63).contains(&s.len()) || !s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    }) {
        return Err(bad("slug may hold a-z, 0-9 and -, at most 63"));
    }
    let id: ZoneId = api.world.mint();
    let custody = api.custody.clone();
    let zone = api
        .change(None, move |door| {
            Box::pin(async move {
                // Two zones of one name get two slugs, whoever comes first.
                door.alone().await?;
                let slug = if let Some(slug) = given {
                    slug
                } else {
                    let base = slug(&name, "zone");
                    free(&base, &Zone::slugs_like(door.tx(), &base).await?)
                };
                let new = NewZone { id, name, slug, dcr_enabled: input.dcr_enabled, by: admin.actor.clone() };
                let zone = taken(Zone::insert(door, new).await, rows::ZONE_SLUG_CONFLICT)?;
                // The key comes with the zone, so that its JWKS is never missing.
                let (kid, sealed) = custody.new_signing_key().map_err(sealing)?;
                SigningKeyRow::insert(door, id, kid, sealed).await?;
                let detail = json!({"name": zone.name, "slug": zone.slug, "kid": kid});
                door.admin(admin.record(Change {
                    action: "zone.create",
                    entity: "zone",
                    id: Some(id.to_string()),
                    status: 201,
                    detail,
                }));
                Ok(zone)
            })
        })
        .await?;
    Ok((StatusCode::CREATED, Json(zone)))
}

pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    OriginalUri(uri): OriginalUri,
) -> Result<Json<Value>, Problem> {
    let asked = Query::of(&uri)?.page::<ZoneId>(500, 500)?;
    let found = api.store.read(move |tx| Box::pin(async move { Zone::list(tx, asked).await })).await.map_err(store)?;
    Ok(Json(page(found, asked, |z| (z.created_at, z.id))))
}

pub(crate) async fn get(State(api): State<Arc<Api>>, _admin: Admin, Path(zone): Path<String>) -> Result<Json<Zone>, Problem> {
    let id: ZoneId = path_id(&zone, rows::ZONE_NOT_FOUND)?;
    let found = api.store.read(move |tx| Box::pin(async move { Zone::get(tx, id).await })).await.map_err(store)?;
    found.map(Json).ok_or_else(|| Problem::new(rows::ZONE_NOT_FOUND))
}

pub(crate) async fn delete(State(api): State<Arc<Api>>, admin: Admin, Path(zone): Path<String>) -> Result<StatusCode, Problem> {
    let id: ZoneId = path_id(&zone, rows::ZONE_NOT_FOUND)?;
    api.change(Some(id), move |door| {
        Box::pin(async move {
            if !Zone::archive(door, id, &admin.actor).await? {
                return Err(No::of(rows::ZONE_NOT_FOUND));
            }
            let ended = cascade::end_zone(door, id, "zone_archived", &admin.request_id).await?;
            let detail =
                json!({"sessions": ended.sessions.len(), "delegations": ended.edges.len(), "records": ended.records.len()});
            door.admin(admin.record(Change {
                action: "zone.archive",
                entity: "zone",
                id: Some(id.to_string()),
                status: 204,
                detail,
            }));
            Ok(())
        })
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
