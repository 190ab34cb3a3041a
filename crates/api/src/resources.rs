//! Resources (`api.md` 13).
#![allow(clippy::option_option, reason = "absent, null and a value are three things in a PATCH")]

use caracal_core::error::api as rows;
use caracal_core::id::{ProviderId, ResourceId, ZoneId};
use caracal_core::request::Operation;
use caracal_store::Door;
use caracal_store::management::{Object as _, Provider, Resource, ResourceSpec};
use caracal_web::Problem;
use serde::Deserialize;
use url::Url;

use crate::call::{Call, No, Reply, no, taken, wrong};
use crate::document::{given, nullable};
use crate::names::{allowed, free, slug};

#[derive(Deserialize)]
struct Input {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    identifier: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    upstream_url: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    scopes: Option<Vec<String>>,
    #[serde(default, deserialize_with = "nullable")]
    credential_provider_id: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    operations: Option<Vec<Operation>>,
    #[serde(default, deserialize_with = "given")]
    operation_enforcement: Option<Enforcement>,
    /// Asks for a look at the upstream, which is skipped where no probe can be signed.
    #[serde(default, rename = "check", deserialize_with = "given")]
    _check: Option<bool>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Enforcement {
    Enforced,
    TransportUniform,
}

impl Enforcement {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::TransportUniform => "transport_uniform",
        }
    }
}

impl Input {
    /// The rules of each field by itself.
    fn judged(mut self) -> Result<Self, Problem> {
        let bad = |field, message: &str| Err(wrong(rows::INVALID_RESOURCE, field, message));
        if self.name.as_ref().is_some_and(|name| !(1..=200).contains(&name.chars().count())) {
            return bad("name", "must have 1 to 200 characters");
        }
        if self.identifier.as_ref().is_some_and(|text| !(1..=512).contains(&text.chars().count())) {
            return bad("identifier", "must have 1 to 512 characters");
        }
        if let Some(scopes) = &self.scopes {
            if !(1..=64).contains(&scopes.len()) {
                return bad("scopes", "must have 1 to 64 members");
            }
            let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '\\';
            if !scopes.iter().all(|scope| (1..=200).contains(&scope.chars().count()) && scope.chars().all(plain)) {
                return bad("scopes", "must have 1 to 200 characters each, without white space, quotes and backslashes");
            }
            if scopes.iter().enumerate().any(|(i, scope)| scopes[..i].contains(scope)) {
                return bad("scopes", "must not repeat one another");
            }
        }
        if let Some(Some(url)) = &mut self.upstream_url {
            url.trim().to_owned().clone_into(url);
            if !is_upstream(url) {
                return bad("upstream_url", "must be an http(s) URL without credentials and fragment");
            }
        }
        let sized = |op: &Operation| {
            let within = |text: &str, most| (1..=most).contains(&text.chars().count());
            within(&op.method, 16) && within(&op.path, 512) && within(&op.scope, 200)
        };
        if self.operations.as_ref().is_some_and(|all| all.len() > 256 || !all.iter().all(sized)) {
            return bad("operations", "must be at most 256, with method 1 to 16, path 1 to 512 and scope 1 to 200 characters");
        }
        if let Some(text) = self.identifier.as_deref().filter(|text| !is_identifier(text)) {
            return Err(wrong(rows::INVALID_RESOURCE_IDENTIFIER, "identifier", format!("{text} is no absolute URI of a resource")));
        }
        Ok(self)
    }

    /// The provider that is named, if it is one.
    fn provider(&self) -> Result<Option<Option<ProviderId>>, Problem> {
        let parse = |text: &String| text.parse().map_err(|_| Problem::new(rows::PROVIDER_NOT_FOUND));
        self.credential_provider_id.as_ref().map(|given| given.as_ref().map(parse).transpose()).transpose()
    }

    fn is_empty(&self) -> bool {
        self.name.is_none()
            && self.identifier.is_none()
            && self.upstream_url.is_none()
            && self.scopes.is_none()
            && self.credential_provider_id.is_none()
            && self.operations.is_none()
            && self.operation_enforcement.is_none()
    }

    /// The resource with what was sent in place of what it had.
    fn over(self, spec: ResourceSpec, provider: Option<Option<ProviderId>>) -> ResourceSpec {
        ResourceSpec {
            name: self.name.unwrap_or(spec.name),
            identifier: self.identifier.unwrap_or(spec.identifier),
            upstream_url: self.upstream_url.unwrap_or(spec.upstream_url),
            scopes: self.scopes.unwrap_or(spec.scopes),
            credential_provider_id: provider.unwrap_or(spec.credential_provider_id),
            operations: self.operations.unwrap_or(spec.operations),
            operation_enforcement: self.operation_enforcement.map_or(spec.operation_enforcement, |e| e.as_str().to_owned()),
        }
    }
}

fn is_upstream(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
    })
}

fn is_identifier(text: &str) -> bool {
    !text.chars().any(char::is_whitespace)
        && Url::parse(text).is_ok_and(|url| url.scheme() != "provider" && url.username().is_empty() && url.password().is_none())
}

/// Operations as they are kept: method upper case, no white space around, each once, each of a declared scope.
fn operations(given: Vec<Operation>, declared: &[String]) -> Result<Vec<Operation>, Problem> {
    let mut kept: Vec<Operation> = Vec::with_capacity(given.len());
    for op in given {
        let op = Operation { method: op.method.trim().to_uppercase(), path: op.path.trim().to_owned(), scope: op.scope };
        let named = |row| Err(Problem::because(row, format!("operation {} {}", op.method, op.path)));
        if op.method.is_empty() || op.path.is_empty() {
            return named(rows::OPERATION_INCOMPLETE);
        }
        if !op.path.starts_with('/') {
            return named(rows::OPERATION_PATH);
        }
        if !declared.contains(&op.scope) {
            return named(rows::OPERATION_SCOPE);
        }
        if kept.iter().any(|k| k.method == op.method && k.path == op.path) {
            return named(rows::OPERATION_DUPLICATE);
        }
        kept.push(op);
    }
    Ok(kept)
}

/// What must hold of the whole.
fn whole(mut spec: ResourceSpec) -> Result<ResourceSpec, Problem> {
    if spec.credential_provider_id.is_none() {
        return Err(Problem::new(rows::CREDENTIAL_PROVIDER_REQUIRED));
    }
    if spec.upstream_url.is_none() {
        return Err(Problem::new(rows::UPSTREAM_URL_REQUIRED));
    }
    spec.operations = operations(spec.operations, &spec.scopes)?;
    Ok(spec)
}

/// A provider that is named is a live one of the zone.
async fn known(door: &mut Door<'_>, zone: ZoneId, provider: Option<ProviderId>) -> Result<(), No> {
    if let Some(provider) = provider {
        Provider::get(door.tx(), zone, provider).await?.ok_or_else(|| no(rows::PROVIDER_NOT_FOUND))?;
    }
    Ok(())
}

pub(crate) async fn create(mut call: Call) -> Reply {
    let zone = call.zone().await?;
    let input: Input = call.body(rows::INVALID_RESOURCE).await?;
    if input.scopes.is_none() {
        return Err(wrong(rows::INVALID_RESOURCE, "scopes", "is required"));
    }
    if input.name.is_none() && input.identifier.is_none() {
        return Err(wrong(rows::INVALID_RESOURCE, "name", "or identifier is required"));
    }
    let input = input.judged()?;
    if let Some(identifier) = &input.identifier {
        allowed(&call.head.actor, identifier)?;
    }
    let provider = input.provider()?;
    let id: ResourceId = call.api.world.mint();
    let (by, most) = (call.by(), call.api.config.resources_max);
    let row = call
        .change(Some(zone), move |door, note| {
            Box::pin(async move {
                known(door, zone, provider.flatten()).await?;
                let identifier = if let Some(given) = &input.identifier {
                    given.clone()
                } else {
                    let base = format!("resource://{}", slug(input.name.as_deref().unwrap_or_default(), "resource"));
                    let used = Resource::identifiers_like(door.tx(), zone, &base).await?;
                    free(&base, &used, door.world())
                };
                let empty = ResourceSpec {
                    name: identifier.clone(),
                    identifier,
                    upstream_url: None,
                    scopes: Vec::new(),
                    credential_provider_id: None,
                    operations: Vec::new(),
                    operation_enforcement: Enforcement::Enforced.as_str().to_owned(),
                };
                let spec = whole(input.over(empty, provider)).map_err(No::Refused)?;
                if most > 0 && Resource::count(door.tx(), zone).await? >= most {
                    return Err(no(rows::RESOURCE_QUOTA));
                }
                note.made(id);
                taken(Resource::insert(door, zone, id, spec, &by).await, rows::RESOURCE_IDENTIFIER_CONFLICT)
            })
        })
        .await?;
    call.answer(row)
}

pub(crate) async fn patch(mut call: Call) -> Reply {
    let zone = call.zone().await?;
    let id: ResourceId = call.id("id", rows::RESOURCE_NOT_FOUND)?;
    let input: Input = call.body(rows::INVALID_RESOURCE).await?;
    let input = input.judged()?;
    let provider = input.provider()?;
    let (actor, by) = (call.head.actor.clone(), call.by());
    let row = call
        .change(Some(zone), move |door, _note| {
            Box::pin(async move {
                known(door, zone, provider.flatten()).await?;
                let row = Resource::get(door.tx(), zone, id).await?.ok_or_else(|| no(rows::RESOURCE_NOT_FOUND))?;
                let nothing = input.is_empty();
                let spec = input.over(row.spec, provider);
                allowed(&actor, &spec.identifier).map_err(No::Refused)?;
                let spec = whole(spec).map_err(No::Refused)?;
                if nothing {
                    return Err(no(rows::NO_FIELDS));
                }
                let updated = taken(Resource::update(door, zone, id, spec, &by).await, rows::RESOURCE_IDENTIFIER_CONFLICT)?;
                updated.ok_or_else(|| no(rows::RESOURCE_NOT_FOUND))
            })
        })
        .await?;
    call.answer(row)
}
