//! Policies and their versions (`policy.md` 2.1, 2.3).

use caracal_core::error::{Situation, api as rows};
use caracal_core::id::PolicyId;
use caracal_policy::bundle::{Program, content_sha256};
use caracal_policy::document::{self, Invalid};
use caracal_store::management::policies::SCHEMA;
use caracal_store::management::{Object as _, Policy, PolicyVersion};
use caracal_web::Problem;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::{Call, Reply, json_of, no, taken, wrong};
use crate::document::{given, nullable};
use crate::names::allowed;
use crate::objects::Noun;

#[derive(Deserialize)]
struct Create {
    name: String,
    #[serde(default, deserialize_with = "given")]
    description: Option<String>,
    content: String,
}

#[derive(Deserialize)]
struct Content {
    content: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::option_option, reason = "absent, null and a value are three things in a PATCH")]
struct Patch {
    #[serde(default, deserialize_with = "nullable")]
    description: Option<Option<String>>,
}

/// A name of a policy or set, within its bounds.
pub(crate) fn name_of(name: String) -> Result<String, Problem> {
    if !name.trim().is_empty() && name.chars().count() <= 200 {
        Ok(name)
    } else {
        Err(wrong(rows::INVALID_BODY, "name", "must have 1 to 200 characters"))
    }
}

/// A description within its bounds.
pub(crate) fn description_of(text: Option<String>) -> Result<Option<String>, Problem> {
    if text.as_ref().is_none_or(|text| text.chars().count() <= 2000) {
        Ok(text)
    } else {
        Err(wrong(rows::INVALID_BODY, "description", "must have at most 2000 characters"))
    }
}

fn content_of(text: String) -> Result<String, Problem> {
    if text.is_empty() { Err(wrong(rows::INVALID_BODY, "content", "must not be empty")) } else { Ok(text) }
}

/// Work that takes its time, off the runtime's workers.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Problem::new(rows::INTERNAL).cause(e))
}

/// A text that is a data document.
async fn valid(text: String) -> Result<String, Problem> {
    let (text, outcome) = aside(move || {
        let outcome = document::validate(&text);
        (text, outcome)
    })
    .await?;
    outcome.map(|()| text).map_err(|invalid| refusal(&invalid))
}

fn refusal(invalid: &Invalid) -> Problem {
    let problem = Problem::because(rows::INVALID_REGO, invalid.code.clone());
    match (invalid.line, invalid.column) {
        (None, None) => problem,
        (line, column) => problem.member("details", json!({"issues": [{"line": line, "column": column, "message": invalid.code}]})),
    }
}

pub(crate) async fn validate(mut call: Call) -> Reply {
    let input: Content = call.body(rows::INVALID_BODY).await?;
    let text = valid(content_of(input.content)?).await.map_err(|problem| problem.member("valid", false))?;
    let (preview, warnings) = aside(move || {
        let preview = document::preview(&text);
        (preview, Program::compile(&[("document".to_owned(), text)]).map(|program| program.warnings().to_vec()).unwrap_or_default())
    })
    .await?;
    call.answer(json!({
        "valid": true, "schema_version": SCHEMA, "input_schema_version": SCHEMA,
        "output_contract": {"package": "caracal.authz", "rule": "result", "decision": ["allow", "deny"], "evaluation_status": ["complete"]},
        "preview": preview, "warnings": warnings,
    }))
}

fn version_json(version: &PolicyVersion) -> Value {
    let mut row = json_of(version);
    if let Some(members) = row.as_object_mut() {
        for hidden in ["content", "created_by", "created_via_operator", "archived_at"] {
            members.remove(hidden);
        }
    }
    row
}

pub(crate) async fn create(mut call: Call) -> Reply {
    let zone = call.zone().await?;
    let input: Create = call.body(rows::INVALID_BODY).await?;
    let (name, description) = (name_of(input.name)?, description_of(input.description)?);
    let content = content_of(input.content)?;
    allowed(&call.head.actor, &name)?;
    let content = valid(content).await?;
    let id: PolicyId = call.api.world.mint();
    let (sha, by) = (content_sha256(&content), call.by());
    let made = call
        .change(Some(zone), move |door, note| {
            Box::pin(async move {
                let fields = vec![("name", name.into()), ("description", description.into())];
                let policy = taken(Policy::make(door, zone, id, fields, &by).await, rows::POLICY_NAME_CONFLICT)?;
                let version = PolicyVersion::insert(door, zone, id, &content, &sha, &by).await?;
                note.made(id);
                Ok(json!({"id": id, "version_id": version.id, "zone_id": zone, "name": policy.name, "description": policy.description,
                    "version": version_json(&version)}))
            })
        })
        .await?;
    call.answer(made)
}

pub(crate) async fn get(call: Call) -> Reply {
    let zone = call.zone().await?;
    let id: PolicyId = call.id("id", rows::POLICY_NOT_FOUND)?;
    let found = call
        .api
        .read(move |tx| {
            Box::pin(async move {
                let Some(policy) = Policy::get(tx, zone, id).await? else { return Ok(None) };
                Ok(Some((policy, PolicyVersion::of_policy(tx, zone, id).await?)))
            })
        })
        .await?;
    let (policy, versions) = found.ok_or_else(|| Problem::new(rows::POLICY_NOT_FOUND))?;
    let mut row = json_of(&policy);
    row["versions"] = json_of(&versions);
    call.answer(row)
}

/// Changes what a policy or a set is described as; nothing else of it changes.
pub(crate) async fn patch<T: Noun>(mut call: Call) -> Reply {
    let zone = call.zone().await?;
    let id: T::Id = call.id("id", T::MISSING)?;
    let input: Patch = call.body(rows::INVALID_BODY).await?;
    let description = input.description.map(description_of).transpose()?;
    let (by, missing): (_, &'static Situation) = (call.by(), T::MISSING);
    let row = call
        .change(Some(zone), move |door, _note| {
            Box::pin(async move {
                T::get(door.tx(), zone, id).await?.ok_or_else(|| no(missing))?;
                let description = description.ok_or_else(|| no(rows::NO_FIELDS))?;
                let changed = T::change(door, zone, id, vec![("description", description.into())], &by).await?;
                changed.ok_or_else(|| no(missing))
            })
        })
        .await?;
    call.answer(row.shown(&call.head.actor))
}

pub(crate) async fn add_version(mut call: Call) -> Reply {
    let zone = call.zone().await?;
    let id: PolicyId = call.id("id", rows::POLICY_NOT_FOUND)?;
    let input: Content = call.body(rows::INVALID_BODY).await?;
    let content = valid(content_of(input.content)?).await?;
    let (sha, by) = (content_sha256(&content), call.by());
    let made = call
        .change(Some(zone), move |door, note| {
            Box::pin(async move {
                // A new version is a change of its policy.
                Policy::change(door, zone, id, Vec::new(), &by).await?.ok_or_else(|| no(rows::POLICY_NOT_FOUND))?;
                let version = PolicyVersion::insert(door, zone, id, &content, &sha, &by).await?;
                note.made(version.id);
                let mut row = version_json(&version);
                row["version_id"] = json!(version.id);
                Ok(row)
            })
        })
        .await?;
    call.answer(made)
}
