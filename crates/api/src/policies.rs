//! Policies and their versions (`policy.md` 2.1, 2.3).

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, StatusCode};
use caracal_core::error::api as rows;
use caracal_core::id::PolicyId;
use caracal_policy::bundle::{Program, content_sha256};
use caracal_policy::document::{self, Invalid};
use caracal_store::management::policies::SCHEMA;
use caracal_store::management::{NewPolicy, Policy, PolicyVersion};
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
    content: String,
}

#[derive(Deserialize)]
struct Content {
    content: String,
}

/// The text's own validation, off the runtime's workers.
async fn valid(text: String) -> Result<(), Problem> {
    let outcome = tokio::task::spawn_blocking(move || document::validate(&text)).await;
    outcome.map_err(|e| Problem::new(rows::INTERNAL).cause(e))?.map_err(|invalid| refusal(&invalid))
}

fn refusal(invalid: &Invalid) -> Problem {
    let problem = Problem::because(rows::INVALID_REGO, invalid.code.clone());
    match (invalid.line, invalid.column) {
        (None, None) => problem,
        (line, column) => problem.member("details", json!({"issues": [{"line": line, "column": column, "message": invalid.code}]})),
    }
}

fn empty(field: &'static str, text: &str) -> Result<(), Problem> {
    if text.is_empty() {
        let issue = caracal_web::Issue { path: vec![field.to_owned()], message: "must not be empty".to_owned() };
        return Err(Problem::because(rows::INVALID_BODY, "Request body failed validation").issues(vec![issue]));
    }
    Ok(())
}

pub(crate) async fn validate(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let input: Content = api.body.json(&headers, body).await?;
    empty("content", &input.content)?;
    valid(input.content.clone()).await.map_err(|problem| problem.member("valid", false))?;
    let text = input.content;
    let looked = tokio::task::spawn_blocking(move || {
        let preview = document::preview(&text);
        (preview, Program::compile(&[("document".to_owned(), text)]).map(|program| program.warnings().to_vec()).unwrap_or_default())
    });
    let (preview, warnings) = looked.await.map_err(|e| Problem::new(rows::INTERNAL).cause(e))?;
    Ok(Json(json!({
        "valid": true, "schema_version": SCHEMA, "input_schema_version": SCHEMA,
        "output_contract": {"package": "caracal.authz", "rule": "result", "decision": ["allow", "deny"], "evaluation_status": ["complete"]},
        "preview": preview, "warnings": warnings,
    })))
}

fn version_json(version: &PolicyVersion) -> Value {
    let mut row = serde_json::to_value(version).unwrap_or_default();
    if let Some(object) = row.as_object_mut() {
        object.remove("content");
        object.remove("created_by");
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
    empty("name", input.name.trim())?;
    empty("content", &input.content)?;
    if input.name.trim().to_lowercase().starts_with("caracal.sys/") {
        return Err(Problem::new(rows::RESERVED_NAMESPACE));
    }
    valid(input.content.clone()).await?;
    let id: PolicyId = api.world.mint();
    let sha = content_sha256(&input.content);
    let answer = api
        .change(Some(zone), move |door| {
            Box::pin(async move {
                let new = NewPolicy { id, zone, name: input.name, description: input.description, by: admin.actor.clone() };
                let policy = taken(Policy::insert(door, new).await, rows::POLICY_NAME_CONFLICT)?;
                let version = PolicyVersion::insert(door, zone, id, &input.content, &sha, &admin.actor).await?;
                let detail = json!({"name": policy.name, "content_sha256": sha});
                door.admin(admin.record(Change { action: "policy.create", entity: "policy", id: Some(id.to_string()), status: 201, detail }));
                Ok(json!({"id": id, "version_id": version.id, "zone_id": zone, "name": policy.name, "description": policy.description,
                    "version": version_json(&version)}))
            })
        })
        .await?;
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    Path(zone): Path<String>,
    OriginalUri(uri): OriginalUri,
) -> Result<Json<Value>, Problem> {
    let zone = api.zone(&zone).await?;
    let asked = Query::of(&uri)?.page::<PolicyId>(500, 500)?;
    let found = api.store.read(move |tx| Box::pin(async move { Policy::list(tx, zone, asked).await })).await.map_err(store)?;
    Ok(Json(page(found, asked, |p| (p.created_at, p.id))))
}

pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    Path((zone, id)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let zone = api.zone(&zone).await?;
    let id: PolicyId = path_id(&id, rows::POLICY_NOT_FOUND)?;
    let found = api
        .store
        .read(move |tx| {
            Box::pin(async move {
                let Some(policy) = Policy::get(tx, zone, id).await? else { return Ok(None) };
                let versions = PolicyVersion::of_policy(tx, zone, id).await?;
                Ok::<_, caracal_store::StoreError>(Some((policy, versions)))
            })
        })
        .await
        .map_err(store)?;
    let (policy, versions) = found.ok_or_else(|| Problem::new(rows::POLICY_NOT_FOUND))?;
    let mut row = serde_json::to_value(policy).unwrap_or_default();
    row["versions"] = serde_json::to_value(versions).unwrap_or_default();
    Ok(Json(row))
}

pub(crate) async fn add_version(
    State(api): State<Arc<Api>>,
    admin: Admin,
    Path((zone, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let zone = api.zone(&zone).await?;
    let id: PolicyId = path_id(&id, rows::POLICY_NOT_FOUND)?;
    let input: Content = api.body.json(&headers, body).await?;
    empty("content", &input.content)?;
    valid(input.content.clone()).await?;
    let sha = content_sha256(&input.content);
    let answer = api
        .change(Some(zone), move |door| {
            Box::pin(async move {
                Policy::get(door.tx(), zone, id).await?.ok_or_else(|| No::of(rows::POLICY_NOT_FOUND))?;
                let version = PolicyVersion::insert(door, zone, id, &input.content, &sha, &admin.actor).await?;
                let detail = json!({"version": version.version, "content_sha256": sha});
                let change =
                    Change { action: "policy.add_version", entity: "policy", id: Some(id.to_string()), status: 201, detail };
                door.admin(admin.record(change));
                let mut row = version_json(&version);
                row["version_id"] = json!(version.id);
                Ok(row)
            })
        })
        .await?;
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    admin: Admin,
    Path((zone, id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let zone = api.zone(&zone).await?;
    let id: PolicyId = path_id(&id, rows::POLICY_NOT_FOUND)?;
    api.change(Some(zone), move |door| {
        Box::pin(async move {
            if !Policy::archive(door, zone, id, &admin.actor).await? {
                return Err(No::of(rows::POLICY_NOT_FOUND));
            }
            let change =
                Change { action: "policy.archive", entity: "policy", id: Some(id.to_string()), status: 204, detail: json!({}) };
            door.admin(admin.record(change));
            Ok(())
        })
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
