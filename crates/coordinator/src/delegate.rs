//! Creating a Delegation: authority that can only shrink (`coordinator.md` 6.2 to 6.7).

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use caracal_core::constraint::{Authority, BadConstraint, Constraints, MAX_LIFE, MAX_PATH};
use caracal_core::delegation::{Delegation, Status};
use caracal_core::error::{Situation, coordinator as rows};
use caracal_core::id::{ApplicationId, DelegationId, ResourceId, SessionId};
use caracal_core::scope::Scopes;
use caracal_core::time::Time;
use caracal_store::coordination::{delegations, receipts, sessions};
use caracal_store::management::{Object as _, Resource};
use caracal_store::{Door, DoorError};
use caracal_web::{Issue, Problem, RequestId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::caller::Runtime;
use crate::receipts::Repeatable;
use crate::service::{Coordinator, No, no};
use crate::start::{Answered, answer, present, tell_created};

/// Live offers of other applications that one Session may hold.
const OFFERS: u64 = 64;

#[derive(Deserialize)]
struct Input {
    source_session_id: String,
    target_session_id: String,
    issuer_application_id: String,
    receiver_application_id: String,
    #[serde(default, deserialize_with = "present")]
    parent_edge_id: Option<String>,
    resource_id: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default, deserialize_with = "present")]
    constraints: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    constraints_json: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    ttl_seconds: Option<i64>,
    #[serde(default, deserialize_with = "present")]
    expires_at: Option<String>,
}

struct Create {
    runtime: Runtime,
    source: SessionId,
    target: SessionId,
    receiver: ApplicationId,
    parent: Option<DelegationId>,
    resource: Option<String>,
    scopes: Scopes,
    constraints: Constraints,
    explicit: Option<Time>,
    request_id: String,
}

fn constraint_row(code: &str) -> &'static Situation {
    match code {
        "invalid_resources" => rows::INVALID_RESOURCES,
        "invalid_max_depth" => rows::INVALID_MAX_DEPTH,
        "invalid_max_hops" => rows::INVALID_MAX_HOPS,
        "invalid_budget" => rows::INVALID_BUDGET,
        "invalid_ttl_seconds" => rows::INVALID_TTL,
        "invalid_policy_approved" => rows::INVALID_POLICY_APPROVED,
        "invalid_expires_at" => rows::INVALID_EXPIRES_AT,
        "invalid_broad_reason" => rows::INVALID_BROAD_REASON,
        _ => rows::INVALID_CONSTRAINT,
    }
}

fn bad_constraint(bad: BadConstraint) -> Problem {
    Problem::new(constraint_row(bad.0))
}

/// The two names of the constraints, merged: `constraints` wins key by key.
fn merged(first: Option<Value>, second: Option<Value>) -> Result<Map<String, Value>, Problem> {
    let object = |v: Option<Value>| match v {
        None => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(_) => Err(Problem::new(rows::INVALID_CONSTRAINT)),
    };
    let mut all = object(second)?;
    all.extend(object(first)?);
    Ok(all)
}

fn zulu(text: &str) -> Option<Time> {
    text.ends_with('Z').then(|| Time::parse_rfc3339(text)).flatten()
}

pub(crate) async fn create(
    State(coordinator): State<Arc<Coordinator>>,
    Extension(id): Extension<RequestId>,
    Path(zone): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let runtime = coordinator.runtime(&zone, &headers).await?;
    let input: Input = coordinator.body.json(&headers, body).await?;
    let faulty = |field: &str, message: &str| {
        coordinator.body.issues(vec![Issue { path: vec![field.to_owned()], message: message.to_owned() }])
    };
    let named = [
        ("source_session_id", &input.source_session_id),
        ("target_session_id", &input.target_session_id),
        ("issuer_application_id", &input.issuer_application_id),
        ("receiver_application_id", &input.receiver_application_id),
    ];
    if let Some((field, _)) = named.iter().find(|(_, text)| text.is_empty()) {
        return Err(faulty(field, "must not be empty"));
    }
    if input.parent_edge_id.as_ref().is_some_and(String::is_empty) {
        return Err(faulty("parent_edge_id", "must not be empty"));
    }
    let plain = |s: &String| (1..=256).contains(&s.chars().count()) && !s.chars().any(char::is_whitespace);
    if input.scopes.len() > 256 || !input.scopes.iter().all(plain) {
        return Err(faulty("scopes", "at most 256 scopes of 1 to 256 characters without white space"));
    }
    if input.ttl_seconds.is_some_and(|ttl| !(1..=MAX_LIFE).contains(&ttl)) {
        return Err(faulty("ttl_seconds", "must be 1 to 86400"));
    }
    let explicit = match &input.expires_at {
        None => None,
        Some(text) => Some(zulu(text).ok_or_else(|| faulty("expires_at", "must be RFC 3339 with Z"))?),
    };
    let object = merged(input.constraints, input.constraints_json)?;
    let constraints = Constraints::read(&object, input.ttl_seconds).map_err(bad_constraint)?;
    let explicit = match explicit {
        Some(explicit) => Some(explicit),
        None => constraints.ends().map_err(bad_constraint)?,
    };
    if explicit.is_none() && constraints.ttl_seconds.is_none() {
        return Err(Problem::new(rows::DELEGATION_EXPIRY_REQUIRED));
    }
    if input.issuer_application_id != runtime.application.to_string() {
        return Err(Problem::new(rows::ISSUER_OWNERSHIP));
    }
    if input.source_session_id == input.target_session_id {
        return Err(Problem::new(rows::SELF_DELEGATION));
    }
    if input.resource_id.is_none() && constraints.resources.is_empty() {
        return Err(Problem::new(rows::BROAD_DELEGATION));
    }
    let scopes: Scopes = input.scopes.iter().map(String::as_str).collect();
    let fields = json!({
        "principal": {"client_id": runtime.application, "subject": runtime.subject}, "source": input.source_session_id,
        "target": input.target_session_id, "issuer": input.issuer_application_id, "receiver": input.receiver_application_id,
        "parent_edge_id": input.parent_edge_id, "resource_id": input.resource_id, "scopes": scopes, "constraints": constraints,
        "expires_at": input.expires_at, "ttl_seconds": constraints.ttl_seconds,
    });
    let repeatable = coordinator.repeatable(&headers, "delegation.create.v2", runtime.zone, runtime.application, &fields, false)?;
    let endpoint = || Problem::new(rows::ENDPOINT_NOT_FOUND);
    let create = Create {
        source: input.source_session_id.parse().map_err(|_| endpoint())?,
        target: input.target_session_id.parse().map_err(|_| endpoint())?,
        receiver: input.receiver_application_id.parse().map_err(|_| endpoint())?,
        parent: input.parent_edge_id.map(|t| t.parse().map_err(|_| Problem::new(rows::PARENT_DELEGATION_INACTIVE))).transpose()?,
        resource: input.resource_id,
        scopes,
        constraints,
        explicit,
        request_id: id.as_str().to_owned(),
        runtime,
    };
    let zone = create.runtime.zone;
    let owner = Arc::clone(&coordinator);
    let outcome = coordinator.change(zone, move |door| Box::pin(async move { owner.join(door, create, repeatable).await })).await?;
    Ok(answer(outcome))
}

impl Coordinator {
    async fn join(
        &self,
        door: &mut Door<'_>,
        mut create: Create,
        repeatable: Option<Repeatable>,
    ) -> Result<Answered, DoorError<No>> {
        let (zone, now) = (create.runtime.zone, door.now());
        let issuer = create.runtime.application;
        if let Some(repeatable) = &repeatable
            && let Some(found) = receipts::find(door.tx(), &repeatable.key, now).await?
        {
            repeatable.judge(&found).map_err(no)?;
            let id = serde_json::from_str::<Value>(&found.body).ok().and_then(|b| b["delegation_edge_id"].as_str()?.parse().ok());
            let usable = match id {
                Some(id) => delegations::get(door.tx(), zone, id).await?.is_some_and(|e| e.is_live(now)),
                None => false,
            };
            if !usable {
                return Err(no(rows::IDEMPOTENCY_INACTIVE));
            }
            return Ok(Answered { status: found.status, body: found.body, replayed: true });
        }
        if let Some(repeatable) = &repeatable
            && receipts::count(door.tx(), &repeatable.key, now).await? >= self.config.receipts_max
        {
            return Err(no(rows::RECEIPT_LIMIT));
        }
        let both = sessions::by_ids(door.tx(), zone, &[create.source, create.target]).await?;
        let live = |id| both.iter().find(|s| s.id == id).filter(|s| s.is_live(now));
        let (Some(source), Some(target)) = (live(create.source), live(create.target)) else {
            return Err(no(rows::ENDPOINT_NOT_FOUND));
        };
        if source.application != issuer || target.application != create.receiver {
            let owns_one = source.application == issuer || target.application == issuer;
            return Err(no(if owns_one { rows::APPLICATION_MISMATCH } else { rows::ENDPOINT_NOT_FOUND }));
        }
        if issuer != create.receiver && delegations::foreign_offers(door.tx(), zone, create.target, now).await? >= OFFERS {
            return Err(no(rows::OFFER_LIMIT));
        }
        let (resource_id, reachable) = self.resources(door, &mut create).await?;
        if !create.scopes.iter().all(|s| reachable.iter().any(|r| r.spec.scopes.iter().any(|d| d == s))) {
            return Err(no(rows::SCOPES_EXCEED_RESOURCE));
        }
        let resource = resource_id.and_then(|id| reachable.iter().find(|r| r.id == id)).map(|r| r.spec.identifier.clone());
        let parent = parent(door, &create).await?;
        let wanted = match (create.explicit, create.constraints.ttl_seconds) {
            (Some(explicit), _) => explicit,
            (None, Some(ttl)) => now.plus_secs(ttl),
            (None, None) => return Err(no(rows::DELEGATION_EXPIRY_REQUIRED)),
        };
        if create.explicit.is_some_and(|explicit| explicit > now.plus_secs(MAX_LIFE)) {
            return Err(no(rows::INVALID_EXPIRES_AT));
        }
        if wanted <= now {
            return Err(no(rows::DELEGATION_EXPIRED));
        }
        // A relative lifetime within the parent's is cut to the parent's end; an explicit end past it is refused below.
        let cut = parent.as_ref().filter(|_| create.explicit.is_none()).map(|p| p.authority.expires_at);
        let authority = Authority {
            scopes: create.scopes.clone(),
            resource,
            expires_at: cut.map_or(wanted, |end| wanted.min(end)),
            constraints: create.constraints.clone(),
        };
        if let Some(parent) = &parent {
            let depth = delegations::line(door.tx(), zone, parent.id).await?.len();
            if authority.within(&parent.authority).is_err() || depth >= MAX_PATH {
                return Err(no(rows::EXCEEDS_PARENT));
            }
        }
        if delegations::reaches(door.tx(), zone, create.target, create.source, now).await? {
            return Err(no(rows::CYCLE));
        }
        let edge = Delegation {
            id: door.world().mint(),
            parent: parent.as_ref().map(|p| p.id),
            source: create.source,
            target: create.target,
            issuer,
            receiver: create.receiver,
            resource_id,
            authority,
            status: Status::Active,
            version: 0,
            budget_spent: 0,
            presented: false,
            created_at: now,
            revoked_at: None,
        };
        delegations::insert(door, zone, &edge).await?;
        tell_created(door, &create.request_id, zone, &edge).await?;
        let body = created(zone, &edge, &reachable);
        if let Some(repeatable) = repeatable {
            receipts::keep(door, &repeatable.key, &repeatable.receipt(201, &body), repeatable.keep).await?;
        }
        Ok(Answered { status: 201, body: body.to_string(), replayed: false })
    }

    /// Every named resource, found; identifiers take the place of row ids.
    async fn resources(
        &self,
        door: &mut Door<'_>,
        create: &mut Create,
    ) -> Result<(Option<ResourceId>, Vec<Resource>), DoorError<No>> {
        let zone = create.runtime.zone;
        let mut found: Vec<Resource> = Vec::new();
        let mut one = None;
        if let Some(named) = &create.resource {
            let resource = resource(door, zone, named).await?.ok_or_else(|| no(rows::RESOURCE_NOT_FOUND))?;
            one = Some(resource.id);
            found.push(resource);
        }
        let mut listed = Vec::with_capacity(create.constraints.resources.len());
        for named in &create.constraints.resources {
            let resource = resource(door, zone, named).await?.ok_or_else(|| no(rows::RESOURCE_NOT_FOUND))?;
            listed.push(resource.spec.identifier.clone());
            if !found.iter().any(|r| r.id == resource.id) {
                found.push(resource);
            }
        }
        if let (Some(id), false) = (one, listed.is_empty())
            && !found.iter().any(|r| r.id == id && listed.contains(&r.spec.identifier))
        {
            return Err(no(rows::DELEGATION_RESOURCE_MISMATCH));
        }
        create.constraints.resources = listed;
        Ok((one, found))
    }
}

async fn resource(door: &mut Door<'_>, zone: caracal_core::id::ZoneId, named: &str) -> Result<Option<Resource>, DoorError<No>> {
    if let Ok(id) = named.parse()
        && let Some(found) = Resource::get(door.tx(), zone, id).await?
    {
        return Ok(Some(found));
    }
    Ok(Resource::by_identifier(door.tx(), zone, named).await?)
}

/// The inbound edge of the source that the new one narrows (6.5).
async fn parent(door: &mut Door<'_>, create: &Create) -> Result<Option<Delegation>, DoorError<No>> {
    let now = door.now();
    let inbound = delegations::inbound(door.tx(), create.runtime.zone, create.source).await?;
    if let Some(wanted) = create.parent {
        let found = inbound.into_iter().find(|e| e.id == wanted && e.is_live(now));
        return found.map(Some).ok_or_else(|| no(rows::PARENT_DELEGATION_INACTIVE));
    }
    // Offers that nobody took do not narrow, and do not widen by lapsing.
    let counting: Vec<Delegation> = inbound.into_iter().filter(|e| e.issuer == e.receiver || e.presented).collect();
    let had_any = !counting.is_empty();
    let mut live: Vec<Delegation> = counting.into_iter().filter(|e| e.is_live(now)).collect();
    match live.len() {
        0 if had_any => Err(no(rows::PARENT_DELEGATION_INACTIVE)),
        0 => Ok(None),
        1 => Ok(live.pop()),
        _ => Err(no(rows::PARENT_AMBIGUOUS)),
    }
}

fn created(zone: caracal_core::id::ZoneId, edge: &Delegation, reachable: &[Resource]) -> Value {
    let rooted = if edge.parent.is_some() { "parent_authority_narrowed" } else { "source_authority_root" };
    let mut body = crate::edges::shown(zone, edge, edge.created_at);
    let extra = json!({
        "delegation_edge_id": edge.id,
        "warnings": if edge.resource_id.is_none() { json!(["resource_null_delegation_broadens_resource_matching"]) } else { json!([]) },
        "allow_reason": ["same_zone_endpoints_active", "resource_scope_checked", rooted, "typed_constraints_validated"],
        "effective_authority": {
            "source_session_id": edge.source, "target_session_id": edge.target, "parent_edge_id": edge.parent, "resource_id": edge.resource_id,
            "resources": reachable.iter().map(|r| r.spec.identifier.as_str()).collect::<Vec<_>>(), "scopes": edge.authority.scopes,
            "expires_at": edge.authority.expires_at.rfc3339_millis(), "max_hops": edge.authority.constraints.hops(),
            "ttl_seconds": edge.authority.constraints.ttl_seconds, "broad": false,
            "parent_edges_considered": edge.parent.into_iter().collect::<Vec<_>>(),
        },
    });
    if let (Some(body), Value::Object(extra)) = (body.as_object_mut(), extra) {
        body.remove("id");
        body.extend(extra);
    }
    body
}
