//! Starting a Session (`coordinator.md` 4.2 to 4.6).

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use caracal_core::constraint::MAX_PATH;
use caracal_core::delegation::{Delegation, Status as EdgeStatus};
use caracal_core::error::coordinator as rows;
use caracal_core::event::{AuditEvent, Verdict};
use caracal_core::id::{ApplicationId, AuthorityRecordId, DelegationId, SessionId};
use caracal_core::message::Message;
use caracal_core::session::Lifecycle;
use caracal_store::coordination::delegations;
use caracal_store::coordination::receipts;
use caracal_store::coordination::sessions::{self, NewSession};
use caracal_store::management::{Application, Object as _};
use caracal_store::path;
use caracal_store::{Door, DoorError};
use caracal_web::{Issue, Problem, RequestId};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::caller::Runtime;
use crate::receipts::Repeatable;
use crate::service::{Coordinator, No, no};

/// Most live children of a Session.
const CHILDREN: u64 = 10;
/// Deepest Session.
const DEPTH: u32 = 10;

static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Authority {
    #[default]
    Inherit,
    None,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Task,
    Service,
}

#[derive(Deserialize)]
struct Input {
    application_id: String,
    #[serde(default, deserialize_with = "present")]
    subject_session_id: Option<String>,
    #[serde(default, deserialize_with = "present")]
    subject_token: Option<String>,
    parent_id: Option<String>,
    #[serde(default)]
    lifecycle: Kind,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default, deserialize_with = "present")]
    ttl_seconds: Option<i64>,
    #[serde(default)]
    parent_authority: Authority,
    #[serde(default, deserialize_with = "present")]
    inherit_parent_edge_id: Option<String>,
    #[serde(default)]
    metadata: Map<String, Value>,
}

/// What is optional and not nullable: `null` is refused.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// A start that is well-formed.
struct Start {
    runtime: Runtime,
    application: ApplicationId,
    record: AuthorityRecordId,
    parent: Option<SessionId>,
    lifecycle: Kind,
    labels: Vec<String>,
    ttl: i64,
    inherit: bool,
    edge: Option<DelegationId>,
    metadata: Map<String, Value>,
    request_id: String,
}

fn issue(field: &str, message: &str) -> Vec<Issue> {
    vec![Issue { path: vec![field.to_owned()], message: message.to_owned() }]
}

pub(crate) async fn start(
    State(coordinator): State<Arc<Coordinator>>,
    Extension(id): Extension<RequestId>,
    Path(zone): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let runtime = coordinator.runtime(&zone, &headers).await?;
    let input: Input = coordinator.body.json(&headers, body).await?;
    let faulty = |field: &str, message: &str| coordinator.body.issues(issue(field, message));
    let labels: Vec<String> = input.labels.iter().map(|l| l.trim().to_owned()).collect();
    if labels.len() > 32 || labels.iter().any(|l| !(1..=64).contains(&l.chars().count())) {
        return Err(faulty("labels", "at most 32 labels of 1 to 64 characters"));
    }
    if input.lifecycle == Kind::Service && input.ttl_seconds.is_some() {
        return Err(faulty("ttl_seconds", "a service lives by its lease"));
    }
    if input.ttl_seconds.is_some_and(|ttl| !(1..=86_400).contains(&ttl)) {
        return Err(faulty("ttl_seconds", "must be 1 to 86400"));
    }
    for (field, value) in [
        ("application_id", Some(&input.application_id)),
        ("parent_id", input.parent_id.as_ref()),
        ("subject_session_id", input.subject_session_id.as_ref()),
        ("inherit_parent_edge_id", input.inherit_parent_edge_id.as_ref()),
    ] {
        if value.is_some_and(String::is_empty) {
            return Err(faulty(field, "must not be empty"));
        }
    }
    let application: ApplicationId = input.application_id.parse().map_err(|_| Problem::new(rows::APPLICATION_OWNERSHIP))?;
    if application != runtime.application {
        return Err(Problem::new(rows::APPLICATION_OWNERSHIP));
    }
    let ttl = input.ttl_seconds.unwrap_or(3600);
    let fields = json!({
        "principal": {"client_id": runtime.application, "subject": runtime.subject}, "application_id": application,
        "subject_authority_record_id": input.subject_session_id, "parent_id": input.parent_id,
        "lifecycle": if input.lifecycle == Kind::Task { "task" } else { "service" }, "labels": labels,
        "ttl_seconds": (input.lifecycle == Kind::Task).then_some(ttl),
        "parent_authority": if input.parent_authority == Authority::Inherit { "inherit" } else { "none" },
        "inherit_parent_edge_id": input.inherit_parent_edge_id, "metadata": input.metadata,
    });
    let repeatable = coordinator.repeatable(&headers, "session.start.v2", runtime.zone, application, &fields, true)?;
    // Attaching a Federated user needs federation, which this release does not mint: no proof can hold yet.
    if input.subject_token.is_some() {
        return Err(Problem::new(rows::INVALID_SUBJECT_PROOF));
    }
    let record = match input.subject_session_id {
        None => runtime.record,
        Some(text) => text.parse().map_err(|_| Problem::new(rows::SESSION_NOT_FOUND))?,
    };
    let parent = input.parent_id.map(|t| t.parse().map_err(|_| Problem::new(rows::PARENT_NOT_FOUND))).transpose()?;
    let edge = input.inherit_parent_edge_id.map(|t| t.parse().map_err(|_| Problem::new(rows::INHERIT_INACTIVE))).transpose()?;
    let start = Start {
        application,
        record,
        parent,
        lifecycle: input.lifecycle,
        labels,
        ttl,
        inherit: input.parent_authority == Authority::Inherit,
        edge,
        metadata: input.metadata,
        request_id: id.as_str().to_owned(),
        runtime,
    };
    let zone = start.runtime.zone;
    let owner = Arc::clone(&coordinator);
    let outcome = coordinator.change(zone, move |door| Box::pin(async move { owner.begin(door, start, repeatable).await })).await?;
    Ok(answer(outcome))
}

/// What a repeatable request answers: its body, and whether it is an earlier one.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) replayed: bool,
}

pub(crate) fn answer(answered: Answered) -> Response {
    let status = StatusCode::from_u16(answered.status).unwrap_or(StatusCode::OK);
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], answered.body).into_response();
    if answered.replayed {
        response.headers_mut().insert(REPLAYED.clone(), HeaderValue::from_static("true"));
    }
    response
}

impl Coordinator {
    /// Everything from the receipt to the events, in one transaction.
    async fn begin(&self, door: &mut Door<'_>, start: Start, repeatable: Option<Repeatable>) -> Result<Answered, DoorError<No>> {
        let now = door.now();
        let zone = start.runtime.zone;
        if let Some(repeatable) = &repeatable {
            if let Some(found) = receipts::find(door.tx(), &repeatable.key, now).await? {
                repeatable.judge(&found).map_err(no)?;
                let id = serde_json::from_str::<Value>(&found.body).ok().and_then(|b| b["agent_session_id"].as_str()?.parse().ok());
                let usable = match id {
                    Some(id) => sessions::get(door.tx(), zone, id).await?.is_some_and(|r| r.session.holds_slot(now)),
                    None => false,
                };
                if !usable {
                    return Err(no(rows::IDEMPOTENCY_INACTIVE));
                }
                return Ok(Answered { status: found.status, body: found.body, replayed: true });
            }
            if !repeatable.generated && receipts::count(door.tx(), &repeatable.key, now).await? >= self.config.receipts_max {
                return Err(no(rows::RECEIPT_LIMIT));
            }
        }
        let application = Application::get(door.tx(), zone, start.application).await?;
        if application.is_none_or(|a| a.expires_at.is_some_and(|end| end <= now)) {
            return Err(no(rows::APPLICATION_NOT_FOUND));
        }
        let record = path::record(door.tx(), zone, start.record).await?;
        if !record.is_some_and(|r| r.is_live(now) && !r.is_user && r.subject == start.application.to_string()) {
            return Err(no(rows::SESSION_NOT_FOUND));
        }
        let (in_zone, of_application) = sessions::slots(door.tx(), zone, start.application, now).await?;
        if in_zone >= self.config.per_zone {
            return Err(no(rows::ZONE_LIMIT));
        }
        if of_application >= self.config.per_application {
            return Err(no(rows::APPLICATION_LIMIT));
        }
        let mut depth = 0;
        if let Some(parent) = start.parent {
            let found = sessions::get(door.tx(), zone, parent).await?.map(|r| r.session);
            let parent =
                found.filter(|p| p.is_live(now) && p.application == start.application).ok_or_else(|| no(rows::PARENT_NOT_FOUND))?;
            if start.lifecycle == Kind::Service && matches!(parent.lifecycle, Lifecycle::Task { .. }) {
                return Err(no(rows::TASK_STARTS_SERVICE));
            }
            if sessions::children(door.tx(), parent.id).await? >= CHILDREN {
                return Err(no(rows::CHILDREN_LIMIT));
            }
            depth = parent.depth + 1;
            if depth > DEPTH {
                return Err(no(rows::DEPTH_LIMIT));
            }
        }
        let inherited = match start.parent.filter(|_| start.inherit) {
            Some(parent) => inheritance(door, &start, parent).await?,
            None => None,
        };
        let id: SessionId = door.world().mint();
        let lifecycle = match start.lifecycle {
            Kind::Task => Lifecycle::Task { ttl_seconds: start.ttl },
            Kind::Service => Lifecycle::Service { deadline: now + self.config.lease },
        };
        let new = NewSession {
            id,
            zone,
            application: start.application,
            record: start.record,
            user: false,
            parent: start.parent,
            depth,
            lifecycle,
            labels: start.labels.clone(),
            metadata: Value::Object(start.metadata),
        };
        sessions::insert(door, &new).await?;
        door.announce(Message::spawned(zone, id, start.application, start.parent));
        let mut event = AuditEvent::new(door.world().mint(), zone.to_string(), "session_started", Verdict::Allow, "complete", now)
            .with("agent_session_id", id.to_string())
            .with("application_id", start.application.to_string())
            .with("agent_lifecycle", lifecycle.as_str())
            .with("agent_labels", json!(start.labels))
            .with("agent_depth", depth)
            .with_some("agent_parent_id", start.parent.map(|p| p.to_string()))
            .with("authority_record_id", start.record.to_string());
        event.request_id.clone_from(&start.request_id);
        door.evidence(event);
        let edge = match (inherited, start.parent) {
            (Some(of), Some(parent)) => Some(mirror(door, &start.request_id, zone, &of, parent, id, start.application).await?),
            _ => None,
        };
        let (deadline, beat, generation) = match lifecycle {
            Lifecycle::Service { deadline } => (Some(deadline), Some(now), 1),
            Lifecycle::Task { .. } => (None, None, 0),
        };
        let body = json!({
            "agent_session_id": id, "zone_id": zone, "application_id": start.application, "parent_id": start.parent,
            "subject_authority_record_id": start.record, "lifecycle": lifecycle.as_str(), "labels": start.labels, "status": "active",
            "depth": depth, "ttl_seconds": (start.lifecycle == Kind::Task).then_some(start.ttl), "started_at": now.rfc3339_millis(),
            "last_heartbeat_at": beat.map(caracal_core::time::Time::rfc3339_millis),
            "heartbeat_deadline_at": deadline.map(caracal_core::time::Time::rfc3339_millis), "lease_generation": generation,
            "delegation_edge_id": edge,
        });
        if let Some(repeatable) = repeatable {
            receipts::keep(door, &repeatable.key, &repeatable.receipt(201, &body), repeatable.keep).await?;
        }
        Ok(Answered { status: 201, body: body.to_string(), replayed: false })
    }
}

/// Which of the parent's edges a child takes a copy of (4.6).
async fn inheritance(door: &mut Door<'_>, start: &Start, parent: SessionId) -> Result<Option<Delegation>, DoorError<No>> {
    let now = door.now();
    let zone = start.runtime.zone;
    let inbound = delegations::inbound(door.tx(), zone, parent).await?;
    let mine: Vec<Delegation> = inbound.into_iter().filter(|e| e.receiver == start.application).collect();
    let chosen = if let Some(wanted) = start.edge {
        Some(mine.into_iter().find(|e| e.id == wanted && e.is_live(now)).ok_or_else(|| no(rows::INHERIT_INACTIVE))?)
    } else {
        // Offers of other applications count once they were presented; until then nobody asked for them.
        let (counting, offers): (Vec<_>, Vec<_>) = mine.into_iter().partition(|e| e.issuer == e.receiver || e.presented);
        let had_any = !counting.is_empty();
        let mut live: Vec<Delegation> = counting.into_iter().filter(|e| e.is_live(now)).collect();
        match (live.len(), had_any) {
            (1, _) => live.pop(),
            (0, true) => return Err(no(rows::INHERIT_INACTIVE)),
            (0, false) => {
                let mut offers: Vec<Delegation> = offers.into_iter().filter(|e| e.is_live(now)).collect();
                if offers.len() == 1 { offers.pop() } else { None }
            }
            _ => return Err(no(rows::INHERIT_AMBIGUOUS)),
        }
    };
    if let Some(edge) = &chosen
        && delegations::line(door.tx(), zone, edge.id).await?.len() >= MAX_PATH
    {
        return Err(no(rows::DEPTH_LIMIT));
    }
    Ok(chosen)
}

/// A copy of an edge, from parent to child.
async fn mirror(
    door: &mut Door<'_>,
    request_id: &str,
    zone: caracal_core::id::ZoneId,
    of: &Delegation,
    parent: SessionId,
    child: SessionId,
    application: ApplicationId,
) -> Result<DelegationId, DoorError<No>> {
    let edge = Delegation {
        id: door.world().mint(),
        parent: Some(of.id),
        source: parent,
        target: child,
        issuer: application,
        receiver: application,
        resource_id: of.resource_id,
        authority: of.authority.clone(),
        status: EdgeStatus::Active,
        version: 0,
        budget_spent: 0,
        presented: false,
        created_at: door.now(),
        revoked_at: None,
    };
    delegations::insert(door, zone, &edge).await?;
    tell_created(door, request_id, zone, &edge).await?;
    Ok(edge.id)
}

/// The message and the event of a new edge.
pub(crate) async fn tell_created(
    door: &mut Door<'_>,
    request_id: &str,
    zone: caracal_core::id::ZoneId,
    edge: &Delegation,
) -> Result<(), DoorError<No>> {
    let epoch = delegations::graph_epoch(door.tx(), zone).await?;
    door.announce(Message::edge_created(zone, edge.id, edge.source, edge.target, epoch));
    let mut event =
        AuditEvent::new(door.world().mint(), zone.to_string(), "delegation_created", Verdict::Allow, "complete", door.now())
            .with("delegation_edge_id", edge.id.to_string())
            .with("source_session_id", edge.source.to_string())
            .with("target_session_id", edge.target.to_string())
            .with("scopes", json!(edge.authority.scopes))
            .with_some("resource", edge.authority.resource.clone())
            .with("constraints", json!(edge.authority.constraints))
            .with("delegation_graph_epoch", epoch);
    request_id.clone_into(&mut event.request_id);
    door.evidence(event);
    Ok(())
}
