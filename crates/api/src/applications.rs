//! Applications and their secrets (`api.md` 9).

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, StatusCode};
use caracal_core::error::api as rows;
use caracal_core::event::{AuditEvent, Verdict};
use caracal_core::id::{ApplicationId, ZoneId};
use caracal_crypto::secret::{Kind, Secret, Verifier};
use caracal_custody::{Custody, client_secret_ref};
use caracal_store::coordination::cascade;
use caracal_store::management::{Application, NewApplication, secrets};
use caracal_store::{Door, DoorError};
use caracal_web::Problem;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::admin::{Admin, Change, No, path_id, sealing, store, taken};
use crate::lists::{Query, page};
use crate::service::Api;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    registration_method: String,
    #[serde(default)]
    traits: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    name: Option<String>,
    client_secret: Option<Zeroizing<String>>,
    traits: Option<Vec<String>>,
}

fn name_of(text: &str) -> Result<String, Problem> {
    let name = text.trim();
    if (1..=200).contains(&name.chars().count()) {
        Ok(name.to_owned())
    } else {
        Err(Problem::because(rows::INVALID_APPLICATION, "name must have 1 to 200 characters"))
    }
}

fn traits_of(traits: Vec<String>) -> Result<Vec<String>, Problem> {
    let good = traits.len() <= 64 && traits.iter().all(|t| (1..=200).contains(&t.chars().count()));
    if good { Ok(traits) } else { Err(Problem::because(rows::INVALID_APPLICATION, "at most 64 traits of 1 to 200 characters")) }
}

fn with_secret(application: &Application, secret: &Secret) -> Value {
    let mut row = serde_json::to_value(application).unwrap_or_default();
    row["client_secret"] = secret.expose().into();
    row
}

async fn keep(
    door: &mut Door<'_>,
    custody: &Custody,
    zone: ZoneId,
    id: ApplicationId,
    secret: &Secret,
) -> Result<(), DoorError<No>> {
    let reference = client_secret_ref(zone, id);
    let sealed = custody.seal(&reference, secret.expose().as_bytes()).map_err(sealing)?;
    Ok(door.put_document(&reference, sealed).await?)
}

pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    admin: Admin,
    Path(zone): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let zone = api.zone(&zone).await?;
    let input: Create = api.body.invalid(rows::INVALID_APPLICATION).json(&headers, body).await?;
    if input.registration_method != "managed" {
        return Err(Problem::because(rows::INVALID_APPLICATION, "registration_method must be managed"));
    }
    let (name, traits) = (name_of(&input.name)?, traits_of(input.traits)?);
    if name.to_lowercase().starts_with("caracal.sys/") {
        return Err(Problem::new(rows::RESERVED_NAMESPACE));
    }
    let id: ApplicationId = api.world.mint();
    let secret = Secret::generated(Kind::Client, &api.world.random());
    let verifier = Verifier::keyed(api.custody.verifier_key(), &secret).to_text();
    let custody = api.custody.clone();
    let shown = secret.clone();
    let row = api
        .change(Some(zone), move |door| {
            Box::pin(async move {
                let new = NewApplication { id, zone, name, traits, verifier, by: admin.actor.clone() };
                let row = taken(Application::insert(door, new).await, rows::APPLICATION_NAME_TAKEN)?;
                keep(door, &custody, zone, id, &secret).await?;
                let detail = json!({"name": row.name});
                let change =
                    Change { action: "application.create", entity: "application", id: Some(id.to_string()), status: 201, detail };
                door.admin(admin.record(change));
                Ok(row)
            })
        })
        .await?;
    Ok((StatusCode::CREATED, Json(with_secret(&row, &shown))))
}

pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    Path(zone): Path<String>,
    OriginalUri(uri): OriginalUri,
) -> Result<Json<Value>, Problem> {
    let zone = api.zone(&zone).await?;
    let query = Query::of(&uri)?;
    let (asked, archived) = (query.page::<ApplicationId>(500, 500)?, query.archived()?);
    let found = api
        .store
        .read(move |tx| Box::pin(async move { Application::list(tx, zone, archived, asked).await }))
        .await
        .map_err(store)?;
    Ok(Json(page(found, asked, |a| (a.created_at, a.id))))
}

pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    Path((zone, id)): Path<(String, String)>,
) -> Result<Json<Application>, Problem> {
    let (zone, id) = (api.zone(&zone).await?, path_id(&id, rows::APPLICATION_NOT_FOUND)?);
    let found = api.store.read(move |tx| Box::pin(async move { Application::get(tx, zone, id).await })).await.map_err(store)?;
    found.map(Json).ok_or_else(|| Problem::new(rows::APPLICATION_NOT_FOUND))
}

pub(crate) async fn patch(
    State(api): State<Arc<Api>>,
    admin: Admin,
    Path((zone, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Application>, Problem> {
    let zone = api.zone(&zone).await?;
    let id: ApplicationId = path_id(&id, rows::APPLICATION_NOT_FOUND)?;
    let input: Patch = api.body.invalid(rows::INVALID_APPLICATION).json(&headers, body).await?;
    let name = input.name.as_deref().map(name_of).transpose()?;
    let traits = input.traits.map(traits_of).transpose()?;
    let secret = match input.client_secret {
        None => None,
        Some(text) if (32..=1024).contains(&text.chars().count()) => Some(Secret::of(text.as_str())),
        Some(_) => return Err(Problem::because(rows::INVALID_APPLICATION, "client_secret must have 32 to 1024 characters")),
    };
    if name.is_none() && traits.is_none() && secret.is_none() {
        return Err(Problem::new(rows::NO_FIELDS));
    }
    // A supplied secret takes the slow hash, off the runtime's workers.
    let verifier = match secret.clone() {
        None => None,
        Some(secret) => {
            let salt = api.world.random();
            let made = tokio::task::spawn_blocking(move || Verifier::argon2(&secret, salt).to_text()).await;
            Some(made.map_err(|e| Problem::new(rows::INTERNAL).cause(e))?)
        }
    };
    let custody = api.custody.clone();
    api.change(Some(zone), move |door| {
        Box::pin(async move {
            let rotated = verifier.is_some();
            let updated = Application::update(door, zone, id, name, traits, verifier, &admin.actor).await;
            let row = taken(updated, rows::APPLICATION_NAME_TAKEN)?.ok_or_else(|| No::of(rows::APPLICATION_NOT_FOUND))?;
            if let Some(secret) = &secret {
                keep(door, &custody, zone, id, secret).await?;
            }
            let detail = json!({"name": row.name, "secret_rotated": rotated});
            let change =
                Change { action: "application.update", entity: "application", id: Some(id.to_string()), status: 200, detail };
            door.admin(admin.record(change));
            Ok(row)
        })
    })
    .await
    .map(Json)
}

pub(crate) async fn rotate(
    State(api): State<Arc<Api>>,
    admin: Admin,
    Path((zone, id)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let zone = api.zone(&zone).await?;
    let id: ApplicationId = path_id(&id, rows::APPLICATION_NOT_FOUND)?;
    let secret = Secret::generated(Kind::Client, &api.world.random());
    let verifier = Verifier::keyed(api.custody.verifier_key(), &secret).to_text();
    let (custody, shown) = (api.custody.clone(), secret.clone());
    let row = api
        .change(Some(zone), move |door| {
            Box::pin(async move {
                let updated = Application::update(door, zone, id, None, None, Some(verifier), &admin.actor).await?;
                let row = updated.ok_or_else(|| No::of(rows::APPLICATION_NOT_FOUND))?;
                keep(door, &custody, zone, id, &secret).await?;
                let detail = json!({"secret_rotated": true});
                let change = Change {
                    action: "application.rotate_secret",
                    entity: "application",
                    id: Some(id.to_string()),
                    status: 200,
                    detail,
                };
                door.admin(admin.record(change));
                Ok(row)
            })
        })
        .await?;
    Ok(Json(with_secret(&row, &shown)))
}

pub(crate) async fn reveal(
    State(api): State<Arc<Api>>,
    admin: Admin,
    Path((zone, id)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let zone = api.zone(&zone).await?;
    let id: ApplicationId = path_id(&id, rows::APPLICATION_NOT_FOUND)?;
    let custody = api.custody.clone();
    // The event that it was shown commits before it is.
    let secret = api
        .change(Some(zone), move |door| {
            Box::pin(async move {
                let row = Application::get(door.tx(), zone, id).await?.ok_or_else(|| No::of(rows::APPLICATION_NOT_FOUND))?;
                let reference = client_secret_ref(zone, id);
                let sealed =
                    secrets::document(door.tx(), &reference).await?.ok_or_else(|| No::of(rows::CLIENT_SECRET_NOT_STORED))?;
                let open = custody.open_sealed(&reference, &sealed).map_err(sealing)?;
                let text = String::from_utf8(open.to_vec()).map_err(sealing)?;
                let mut event = AuditEvent::new(
                    door.world().mint(),
                    zone.to_string(),
                    "credential_revealed",
                    Verdict::Allow,
                    "complete",
                    door.now(),
                )
                .with("credential", "application_client_secret")
                .with("application_id", id.to_string())
                .with("application_name", row.name)
                .with("actor", admin.actor.clone());
                event.request_id.clone_from(&admin.request_id);
                door.evidence(event);
                Ok(Zeroizing::new(text))
            })
        })
        .await?;
    Ok(Json(json!({"client_secret": secret.as_str()})))
}

pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    admin: Admin,
    Path((zone, id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let zone = api.zone(&zone).await?;
    let id: ApplicationId = path_id(&id, rows::APPLICATION_NOT_FOUND)?;
    api.change(Some(zone), move |door| {
        Box::pin(async move {
            if !Application::archive(door, zone, id, &admin.actor).await? {
                return Err(No::of(rows::APPLICATION_NOT_FOUND));
            }
            door.drop_document(&client_secret_ref(zone, id)).await?;
            let ended = cascade::end_application(door, zone, id, "application_archived", &admin.request_id).await?;
            let detail =
                json!({"sessions": ended.sessions.len(), "delegations": ended.edges.len(), "records": ended.records.len()});
            let change =
                Change { action: "application.archive", entity: "application", id: Some(id.to_string()), status: 204, detail };
            door.admin(admin.record(change));
            Ok(())
        })
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
