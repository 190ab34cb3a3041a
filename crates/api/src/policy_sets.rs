//! Policy sets, their versions, and which one governs (`policy.md` 2.2, 10.3, 10.4).

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, StatusCode};
use caracal_core::error::api as rows;
use caracal_core::id::{PolicySetId, PolicySetVersionId, PolicyVersionId, ZoneId};
use caracal_policy::bundle::{Program, manifest_sha256};
use caracal_policy::document;
use caracal_policy::warning::Warning;
use caracal_store::management::policies::announcement;
use caracal_store::management::{PolicySet, PolicySetVersion, PolicyVersion};
use caracal_web::Problem;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::{Admin, Change, No, path_id, store, taken};
use crate::lists::{Query, page};
use crate::service::Api;

#[derive(Deserialize)]
struct Create {
    name: String,
    description: Option<String>,
}

#[derive(Deserialize)]
struct Manifest {
    manifest: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    policy_version_id: String,
}

#[derive(Deserialize)]
struct Activate {
    version_id: String,
}

fn without_active(set: &PolicySet) -> Value {
    let mut row = serde_json::to_value(set).unwrap_or_default();
    if let Some(object) = row.as_object_mut() {
        object.remove("active_version_id");
    }
    row
}

pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    admin: Admin,
    Path(zone): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let zone = api.zone(&zone).await?;
    let input: Create = api.body.json(&headers, body).await?;
    if input.name.trim().is_empty() {
        return Err(Problem::because(rows::INVALID_BODY, "name must not be empty"));
    }
    let id: PolicySetId = api.world.mint();
    let set = api
        .change(Some(zone), move |door| {
            Box::pin(async move {
                let made = PolicySet::insert(door, zone, id, &input.name, input.description.as_deref(), &admin.actor).await;
                let set = taken(made, rows::POLICY_SET_NAME_CONFLICT)?;
                let detail = json!({"name": set.name});
                let change =
                    Change { action: "policy_set.create", entity: "policy_set", id: Some(id.to_string()), status: 201, detail };
                door.admin(admin.record(change));
                Ok(set)
            })
        })
        .await?;
    Ok((StatusCode::CREATED, Json(without_active(&set))))
}

pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    Path(zone): Path<String>,
    OriginalUri(uri): OriginalUri,
) -> Result<Json<Value>, Problem> {
    let zone = api.zone(&zone).await?;
    let asked = Query::of(&uri)?.page::<PolicySetId>(500, 500)?;
    let found = api.store.read(move |tx| Box::pin(async move { PolicySet::list(tx, zone, asked).await })).await.map_err(store)?;
    Ok(Json(page(found, asked, |s| (s.created_at, s.id))))
}

async fn set(api: &Api, zone: ZoneId, id: PolicySetId) -> Result<PolicySet, Problem> {
    let found = api.store.read(move |tx| Box::pin(async move { PolicySet::get(tx, zone, id).await })).await.map_err(store)?;
    found.ok_or_else(|| Problem::new(rows::POLICY_SET_NOT_FOUND))
}

pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    Path((zone, id)): Path<(String, String)>,
) -> Result<Json<PolicySet>, Problem> {
    let zone = api.zone(&zone).await?;
    set(&api, zone, path_id(&id, rows::POLICY_SET_NOT_FOUND)?).await.map(Json)
}

/// The documents of a manifest in order, each validated; or why not.
fn contract(zone: ZoneId, wanted: &[PolicyVersionId], found: &[(ZoneId, PolicyVersion)]) -> Result<Vec<(String, String)>, String> {
    let mut documents = Vec::with_capacity(wanted.len());
    for id in wanted {
        let Some((owner, version)) = found.iter().find(|(_, v)| v.id == *id) else {
            return Err("manifest references missing policy versions".to_owned());
        };
        if *owner != zone {
            return Err(format!("policy version {id} belongs to a different zone"));
        }
        if let Err(invalid) = document::lexical(&version.content) {
            let code = invalid.code.as_str();
            return Err(match code {
                "must_use_package_caracal_authz" => format!("policy version {id} must use package caracal.authz"),
                "must_be_data_document" => format!("policy version {id} must be a data document marked # caracal:data-document"),
                "data_document_must_not_define_result" => format!("policy version {id} must not define result"),
                code => match code.strip_prefix("data_document_rule_not_allowed:") {
                    Some(rule) => format!("policy version {id} defines {rule}, which is owned by the platform decision contract"),
                    None => format!("policy version {id} failed validation: {code}"),
                },
            });
        }
        documents.push((id.to_string(), version.content.clone()));
    }
    Ok(documents)
}

async fn compiled(documents: Vec<(String, String)>) -> Result<Vec<Warning>, Problem> {
    let outcome = tokio::task::spawn_blocking(move || Program::compile(&documents)).await;
    match outcome.map_err(|e| Problem::new(rows::INTERNAL).cause(e))? {
        Ok(program) => Ok(program.warnings().to_vec()),
        Err(e) => {
            let issue = json!({"policy_version_id": e.document, "line": e.line, "column": e.column, "message": e.message});
            Err(Problem::because(rows::INVALID_POLICY_BUNDLE, e.message).member("details", json!({"issues": [issue]})))
        }
    }
}

pub(crate) async fn add_version(
    State(api): State<Arc<Api>>,
    admin: Admin,
    Path((zone, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let zone = api.zone(&zone).await?;
    let id: PolicySetId = path_id(&id, rows::POLICY_SET_NOT_FOUND)?;
    let input: Manifest = api.body.json(&headers, body).await?;
    set(&api, zone, id).await?;
    let bad = |text: String| Problem::because(rows::INVALID_POLICY_CONTRACT, text);
    if input.manifest.is_empty() {
        return Err(bad("manifest must reference at least one policy version".to_owned()));
    }
    if input.manifest.len() > 256 {
        return Err(bad("manifest exceeds maximum of 256 entries".to_owned()));
    }
    let texts: Vec<&str> = input.manifest.iter().map(|e| e.policy_version_id.as_str()).collect();
    if texts.iter().enumerate().any(|(i, t)| texts[..i].contains(t)) {
        return Err(bad("manifest contains duplicate policy_version_id entries".to_owned()));
    }
    let ids: Option<Vec<PolicyVersionId>> = texts.iter().map(|t| t.parse().ok()).collect();
    let ids = ids.ok_or_else(|| bad("manifest references missing policy versions".to_owned()))?;
    let wanted = ids.clone();
    let found = api.store.read(move |tx| Box::pin(async move { PolicyVersion::by_ids(tx, &wanted).await })).await.map_err(store)?;
    let documents = contract(zone, &ids, &found).map_err(bad)?;
    let warnings = compiled(documents).await?;
    let sha = manifest_sha256(texts);
    let version = api
        .change(Some(zone), move |door| {
            Box::pin(async move {
                PolicySet::get(door.tx(), zone, id).await?.ok_or_else(|| No::of(rows::POLICY_SET_NOT_FOUND))?;
                let version = PolicySetVersion::insert(door, zone, id, &ids, &sha, &admin.actor).await?;
                let detail = json!({"version": version.version, "manifest_sha256": sha});
                let change = Change {
                    action: "policy_set.add_version",
                    entity: "policy_set",
                    id: Some(id.to_string()),
                    status: 201,
                    detail,
                };
                door.admin(admin.record(change));
                Ok(version)
            })
        })
        .await?;
    let mut row = serde_json::to_value(&version).unwrap_or_default();
    row["version_id"] = json!(version.id);
    row["warnings"] = json!(warnings);
    Ok((StatusCode::CREATED, Json(row)))
}

pub(crate) async fn versions(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    Path((zone, id)): Path<(String, String)>,
    OriginalUri(uri): OriginalUri,
) -> Result<Json<Value>, Problem> {
    let zone = api.zone(&zone).await?;
    let id: PolicySetId = path_id(&id, rows::POLICY_SET_NOT_FOUND)?;
    set(&api, zone, id).await?;
    let asked = Query::of(&uri)?.page::<PolicySetVersionId>(500, 500)?;
    let found = api
        .store
        .read(move |tx| Box::pin(async move { PolicySetVersion::list(tx, zone, id, asked).await }))
        .await
        .map_err(store)?;
    Ok(Json(page(found, asked, |v| (v.created_at, v.id))))
}

pub(crate) async fn version(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    Path((zone, id, version)): Path<(String, String, String)>,
) -> Result<Json<Value>, Problem> {
    let zone = api.zone(&zone).await?;
    let id: PolicySetId = path_id(&id, rows::POLICY_SET_VERSION_NOT_FOUND)?;
    let version: PolicySetVersionId = path_id(&version, rows::POLICY_SET_VERSION_NOT_FOUND)?;
    let found = api
        .store
        .read(move |tx| Box::pin(async move { PolicySetVersion::get(tx, zone, id, version).await }))
        .await
        .map_err(store)?;
    let found = found.ok_or_else(|| Problem::new(rows::POLICY_SET_VERSION_NOT_FOUND))?;
    let mut row = serde_json::to_value(&found).unwrap_or_default();
    row["manifest_json"] = found.manifest.iter().map(|id| json!({"policy_version_id": id})).collect();
    row["policies"] = json!(found.manifest);
    Ok(Json(row))
}

pub(crate) async fn activate(
    State(api): State<Arc<Api>>,
    admin: Admin,
    Path((zone, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let zone = api.zone(&zone).await?;
    let id: PolicySetId = path_id(&id, rows::POLICY_SET_NOT_FOUND)?;
    let input: Activate = api.body.json(&headers, body).await?;
    let version: PolicySetVersionId = input.version_id.parse().map_err(|_| Problem::new(rows::VERSION_NOT_FOUND))?;
    let read = api
        .store
        .read(move |tx| {
            Box::pin(async move {
                let Some(version) = PolicySetVersion::get(tx, zone, id, version).await? else { return Ok(None) };
                let found = PolicyVersion::by_ids(tx, &version.manifest).await?;
                Ok::<_, caracal_store::StoreError>(Some((version, found)))
            })
        })
        .await
        .map_err(store)?;
    let (found, texts) = read.ok_or_else(|| Problem::new(rows::VERSION_NOT_FOUND))?;
    // What becomes active has been parsed, folded and compiled before: checked again here, because the binary may be newer.
    let documents =
        contract(zone, &found.manifest, &texts).map_err(|text| Problem::because(rows::INVALID_POLICY_CONTRACT, text))?;
    compiled(documents).await?;
    api.change(Some(zone), move |door| {
        Box::pin(async move {
            PolicySet::get(door.tx(), zone, id).await?.ok_or_else(|| No::of(rows::POLICY_SET_NOT_FOUND))?;
            PolicySet::activate(door, zone, &found, &admin.actor, &admin.request_id).await?;
            let detail = json!({"policy_set_version_id": found.id, "manifest_sha256": found.manifest_sha256});
            let change =
                Change { action: "policy_set.activate", entity: "policy_set", id: Some(id.to_string()), status: 202, detail };
            door.admin(admin.record(change));
            Ok(())
        })
    })
    .await?;
    let told = api.store.read(move |tx| Box::pin(async move { announcement(tx, zone, id).await })).await.map_err(store)?;
    let outbox = told.map(|(id, ..)| id.to_string()).unwrap_or_default();
    let status_url = format!("/v1/zones/{zone}/policy-sets/{id}/activation-status?version_id={version}&outbox_id={outbox}");
    let answer = json!({"activated": true, "version_id": version, "outbox_id": outbox, "status_url": status_url});
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

pub(crate) async fn activation_status(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    Path((zone, id)): Path<(String, String)>,
    OriginalUri(uri): OriginalUri,
) -> Result<Json<Value>, Problem> {
    let zone = api.zone(&zone).await?;
    let id: PolicySetId = path_id(&id, rows::POLICY_SET_NOT_FOUND)?;
    let query = Query::of(&uri)?;
    let found = set(&api, zone, id).await?;
    let asked: Option<PolicySetVersionId> = match query.get("version_id") {
        Some(text) => Some(text.parse().map_err(|_| Problem::new(rows::VERSION_NOT_FOUND))?),
        None => found.active_version_id,
    };
    let version = asked.ok_or_else(|| Problem::new(rows::ACTIVE_VERSION_NOT_FOUND))?;
    let active = found.active_version_id;
    let (manifest, told) = api
        .store
        .read(move |tx| {
            Box::pin(async move {
                let manifest = match active {
                    Some(active) => PolicySetVersion::get(tx, zone, id, active).await?.map(|v| v.manifest_sha256),
                    None => None,
                };
                Ok::<_, caracal_store::StoreError>((manifest, announcement(tx, zone, id).await?))
            })
        })
        .await
        .map_err(store)?;
    let (outbox_id, outbox, attempts) = told.map_or((None, "missing", 0), |(id, state, n)| (Some(id), state, n));
    let is_active = active == Some(version);
    // The next exchange decides by what is active, because it asks the fence; the message only makes others quicker.
    let propagation = match (is_active, outbox) {
        (false, _) => "waiting_for_activation",
        (true, "dead") => "failed",
        (true, "dispatched") => "loaded",
        (true, _) => "waiting_for_outbox",
    };
    Ok(Json(json!({
        "zone_id": zone, "policy_set_id": id, "version_id": version, "active": is_active, "active_version_id": active,
        "manifest_sha256": manifest, "propagation_status": propagation,
        "outbox": {"id": outbox_id, "state": outbox, "attempts": attempts, "last_error": null, "dispatched_at": null},
        "sts": {"state": if is_active { "loaded" } else { "not_loaded" }, "loaded": is_active, "zone_id": zone, "policy_set_version_id": active},
    })))
}

pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    admin: Admin,
    Path((zone, id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let zone = api.zone(&zone).await?;
    let id: PolicySetId = path_id(&id, rows::POLICY_SET_NOT_FOUND)?;
    api.change(Some(zone), move |door| {
        Box::pin(async move {
            if !PolicySet::archive(door, zone, id, &admin.actor).await? {
                return Err(No::of(rows::POLICY_SET_NOT_FOUND));
            }
            let change = Change {
                action: "policy_set.archive",
                entity: "policy_set",
                id: Some(id.to_string()),
                status: 204,
                detail: json!({}),
            };
            door.admin(admin.record(change));
            Ok(())
        })
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
