//! Policy sets, their versions, and which one governs (`policy.md` 2.2, 10.3, 10.4).

use caracal_core::error::api as rows;
use caracal_core::id::{OutboxId, PolicySetId, PolicySetVersionId, PolicyVersionId, ZoneId};
use caracal_core::time::Time;
use caracal_policy::bundle::{Program, manifest_sha256};
use caracal_policy::document;
use caracal_policy::warning::Warning;
use caracal_store::management::{Announcement, Governing, Object as _, PolicySet, PolicySetVersion, PolicyVersion};
use caracal_web::Problem;
use serde::Deserialize;
use serde_json::json;

use crate::call::{Call, Reply, json_of, no, taken};
use crate::document::given;
use crate::policies::{aside, description_of, name_of};

/// Most policy versions of a set's version.
const MANIFEST_MAX: usize = 256;

#[derive(Deserialize)]
struct Create {
    name: String,
    #[serde(default, deserialize_with = "given")]
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

fn contract_broken(text: impl Into<String>) -> Problem {
    Problem::because(rows::INVALID_POLICY_CONTRACT, text.into())
}

pub(crate) async fn create(mut call: Call) -> Reply {
    let zone = call.zone().await?;
    let input: Create = call.body(rows::INVALID_BODY).await?;
    let (name, description) = (name_of(input.name)?, description_of(input.description)?);
    let id: PolicySetId = call.api.world.mint();
    let by = call.by();
    let set = call
        .change(Some(zone), move |door, note| {
            Box::pin(async move {
                note.made(id);
                let fields = vec![("name", name.into()), ("description", description.into())];
                taken(PolicySet::make(door, zone, id, fields, &by).await, rows::POLICY_SET_NAME_CONFLICT)
            })
        })
        .await?;
    let mut row = json_of(&set);
    if let Some(members) = row.as_object_mut() {
        members.remove("active_version_id");
    }
    call.answer(row)
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

/// What an author should know about documents that go together; or why they do not.
async fn compiled(documents: Vec<(String, String)>) -> Result<Vec<Warning>, Problem> {
    let outcome = aside(move || Program::compile(&documents).map(|program| program.warnings().to_vec())).await?;
    outcome.map_err(|e| {
        let issue = json!({"policy_version_id": e.document, "line": e.line, "column": e.column, "message": e.message});
        Problem::because(rows::INVALID_POLICY_BUNDLE, e.message).member("details", json!({"issues": [issue]}))
    })
}

pub(crate) async fn add_version(mut call: Call) -> Reply {
    let zone = call.zone().await?;
    let id: PolicySetId = call.id("id", rows::POLICY_SET_NOT_FOUND)?;
    let input: Manifest = call.body(rows::INVALID_BODY).await?;
    let texts: Vec<&str> = input.manifest.iter().map(|e| e.policy_version_id.as_str()).collect();
    set(&call, zone, id).await?;
    if texts.is_empty() || texts.contains(&"") {
        return Err(contract_broken("manifest must reference at least one policy version"));
    }
    if texts.len() > MANIFEST_MAX {
        return Err(contract_broken("manifest exceeds maximum of 256 entries"));
    }
    if texts.iter().enumerate().any(|(i, t)| texts[..i].contains(t)) {
        return Err(contract_broken("manifest contains duplicate policy_version_id entries"));
    }
    let ids: Option<Vec<PolicyVersionId>> = texts.iter().map(|t| t.parse().ok()).collect();
    let ids = ids.ok_or_else(|| contract_broken("manifest references missing policy versions"))?;
    let (wanted, sha) = (ids.clone(), manifest_sha256(texts));
    let found = call.api.read(move |tx| Box::pin(async move { PolicyVersion::by_ids(tx, &wanted).await })).await?;
    let found = compiled(contract(zone, &ids, &found).map_err(contract_broken)?).await?;
    let by = call.by();
    let version = call
        .change(Some(zone), move |door, note| {
            Box::pin(async move {
                PolicySet::get(door.tx(), zone, id).await?.ok_or_else(|| no(rows::POLICY_SET_NOT_FOUND))?;
                let version = PolicySetVersion::insert(door, zone, id, &ids, &sha, &by).await?;
                note.made(version.id);
                Ok(version)
            })
        })
        .await?;
    let mut row = json_of(&version);
    if let Some(members) = row.as_object_mut() {
        members.remove("created_by");
        members.remove("created_via_operator");
    }
    row["version_id"] = json!(version.id);
    row["warnings"] = json!(found);
    call.answer(row)
}

async fn set(call: &Call, zone: ZoneId, id: PolicySetId) -> Result<PolicySet, Problem> {
    let found = call.api.read(move |tx| Box::pin(async move { PolicySet::get(tx, zone, id).await })).await?;
    found.ok_or_else(|| Problem::new(rows::POLICY_SET_NOT_FOUND))
}

pub(crate) async fn versions(call: Call) -> Reply {
    let zone = call.zone().await?;
    let id: PolicySetId = call.id("id", rows::POLICY_SET_NOT_FOUND)?;
    set(&call, zone, id).await?;
    let query = call.query(&[])?;
    let asked = query.slice::<PolicySetVersionId>()?;
    let found = call.api.read(move |tx| Box::pin(async move { PolicySetVersion::list(tx, zone, id, asked).await })).await?;
    Ok(query.page(found, asked, |v| (v.created_at, v.id), json_of))
}

pub(crate) async fn version(call: Call) -> Reply {
    let zone = call.zone().await?;
    let id: PolicySetId = call.id("id", rows::POLICY_SET_VERSION_NOT_FOUND)?;
    let version: PolicySetVersionId = call.id("version", rows::POLICY_SET_VERSION_NOT_FOUND)?;
    let found = call.api.read(move |tx| Box::pin(async move { PolicySetVersion::get(tx, zone, id, version).await })).await?;
    let found = found.ok_or_else(|| Problem::new(rows::POLICY_SET_VERSION_NOT_FOUND))?;
    let mut row = json_of(&found);
    row["manifest_json"] = found.manifest.iter().map(|id| json!({"policy_version_id": id})).collect();
    row["policies"] = json!(found.manifest);
    call.answer(row)
}

pub(crate) async fn activate(mut call: Call) -> Reply {
    let zone = call.zone().await?;
    let input: Activate = call.body(rows::INVALID_BODY).await?;
    let id: PolicySetId = call.id("id", rows::VERSION_NOT_FOUND)?;
    let version: PolicySetVersionId = input.version_id.parse().map_err(|_| Problem::new(rows::VERSION_NOT_FOUND))?;
    let read = call
        .api
        .read(move |tx| {
            Box::pin(async move {
                let Some(version) = PolicySetVersion::get(tx, zone, id, version).await? else { return Ok(None) };
                let found = PolicyVersion::by_ids(tx, &version.manifest).await?;
                Ok(Some((version, found)))
            })
        })
        .await?;
    let (found, texts) = read.ok_or_else(|| Problem::new(rows::VERSION_NOT_FOUND))?;
    // What becomes active has been parsed, folded and compiled before: checked again here, because the binary may be newer.
    compiled(contract(zone, &found.manifest, &texts).map_err(contract_broken)?).await?;
    let (by, request_id) = (call.by(), call.head.request_id.clone());
    let outbox = call
        .change(Some(zone), move |door, _note| {
            Box::pin(async move {
                PolicySet::get(door.tx(), zone, id).await?.ok_or_else(|| no(rows::POLICY_SET_BINDING_NOT_FOUND))?;
                Ok(PolicySet::activate(door, zone, &found, &by, &request_id).await?)
            })
        })
        .await?;
    let status_url = format!("/v1/zones/{zone}/policy-sets/{id}/activation-status?version_id={version}&outbox_id={outbox}");
    call.answer(json!({"activated": true, "version_id": version, "outbox_id": outbox, "status_url": status_url}))
}

pub(crate) async fn activation_status(call: Call) -> Reply {
    let zone = call.zone().await?;
    let id: PolicySetId = call.id("id", rows::POLICY_SET_BINDING_NOT_FOUND)?;
    let query = call.query(&[])?;
    let (asked, told) = (query.text("version_id", 128)?, query.text("outbox_id", 128)?);
    let outbox: Option<OutboxId> = told.as_deref().and_then(|text| text.parse().ok());
    let wanted = asked.clone();
    let (set, governing, announcement) = call
        .api
        .read(move |tx| {
            Box::pin(async move {
                let Some(set) = PolicySet::get(tx, zone, id).await? else { return Ok((None, None, None)) };
                let governing = Governing::of_zone(tx, zone).await?;
                let version = wanted.or_else(|| set.active_version_id.map(|v| v.to_string())).unwrap_or_default();
                // An id that is none of ours names no announcement.
                let found = if told.is_some() && outbox.is_none() {
                    None
                } else {
                    Announcement::find(tx, zone, id, &version, outbox).await?
                };
                Ok((Some(set), governing, found))
            })
        })
        .await?;
    let active = set.ok_or_else(|| Problem::new(rows::POLICY_SET_BINDING_NOT_FOUND))?.active_version_id;
    let version = asked.or_else(|| active.map(|v| v.to_string())).ok_or_else(|| Problem::new(rows::ACTIVE_VERSION_NOT_FOUND))?;
    let is_active = active.is_some_and(|active| active.to_string() == version);
    let state = match &announcement {
        None => "missing",
        Some(found) if !found.fits => "mismatch",
        Some(found) if found.published_at.is_some() => "dispatched",
        Some(found) if found.dead => "dead",
        Some(_) => "pending",
    };
    // The next exchange decides by what is active, because it asks the fence; the message only makes others quicker.
    let propagation = match (is_active, state) {
        (false, _) => "waiting_for_activation",
        (true, "dead" | "mismatch") => "failed",
        (true, "dispatched") => "loaded",
        (true, _) => "waiting_for_outbox",
    };
    let now = call.api.world.now();
    let sts = match &governing {
        None => json!({"state": "not_loaded", "loaded": false, "zone_id": zone}),
        Some(governing) => json!({
            "state": if governing.version.to_string() == version { "loaded" } else { "not_loaded" },
            "loaded": true, "zone_id": zone, "policy_set_version_id": governing.version, "manifest_sha256": governing.manifest_sha256,
            "loaded_at": governing.since.rfc3339_secs(), "age_seconds": now.secs_since(governing.since).max(0),
        }),
    };
    let governing = governing.filter(|governing| Some(governing.version) == active);
    call.answer(json!({
        "zone_id": zone, "policy_set_id": id, "version_id": version, "active": is_active, "active_version_id": active,
        "manifest_sha256": governing.map(|governing| governing.manifest_sha256), "propagation_status": propagation,
        "outbox": {
            "id": announcement.as_ref().map(|found| found.id), "state": state,
            "attempts": announcement.as_ref().map_or(0, |found| found.attempts),
            "last_error": announcement.as_ref().and_then(|found| found.last_error.clone()),
            "dispatched_at": announcement.as_ref().and_then(|found| found.published_at).map(Time::rfc3339_millis),
        },
        "sts": sts,
    }))
}
