//! Providers (`api.md` 11).

use caracal_core::error::{Situation, api as rows};
use caracal_core::id::ProviderId;
use caracal_custody::provider_ref;
use caracal_provider::{Config, Kind};
use caracal_store::Door;
use caracal_store::management::{NewProvider, Object as _, Provider};
use caracal_web::Problem;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::call::{Call, No, Reply, no, sealing, taken, wrong};
use crate::document::given;
use crate::names::{allowed, free, slug};
use crate::objects::{Ending, Noun};
use crate::record::Note;

#[derive(Deserialize)]
struct Input {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    identifier: Option<String>,
    #[serde(default, deserialize_with = "given")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "given")]
    config_json: Option<Map<String, Value>>,
    #[serde(default)]
    check: bool,
}

impl Noun for Provider {
    const MISSING: &'static Situation = rows::PROVIDER_NOT_FOUND;
    const ARCHIVE_LISTED: bool = true;

    /// Resources that name it stay, and fail closed.
    fn ends<'a>(&'a self, ending: &'a Ending, door: &'a mut Door<'_>, _note: &'a mut Note) -> BoxFuture<'a, Result<(), No>> {
        Box::pin(async move { Ok(door.drop_document(&provider_ref(ending.zone, self.id)).await?) })
    }
}

/// What a body chooses beside its configuration; blank counts as absent.
struct Chosen {
    name: Option<String>,
    identifier: Option<String>,
    kind: Option<Kind>,
}

impl Chosen {
    fn of(input: &mut Input) -> Result<Self, Problem> {
        let text = |value: &mut Option<String>| value.take().map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let (name, identifier) = (text(&mut input.name), text(&mut input.identifier));
        if name.as_ref().is_some_and(|name| name.chars().count() > 200) {
            return Err(wrong(rows::INVALID_PROVIDER, "name", "must have 1 to 200 characters"));
        }
        let kind = input.kind.as_deref().map(|word| {
            let known = "must be none, caracal_mandate, bearer_token or api_key";
            Kind::of(word).ok_or_else(|| wrong(rows::INVALID_PROVIDER, "kind", known))
        });
        Ok(Self { name, identifier, kind: kind.transpose()? })
    }

    /// The identifier's own form, judged after everything else of the body.
    fn judged(self) -> Result<Self, Problem> {
        let fits = |text: &String| {
            let rest = text.strip_prefix("provider://").unwrap_or_default();
            let part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            rest.len() <= 200 && rest.split('-').all(part)
        };
        if self.identifier.as_ref().is_none_or(fits) {
            Ok(self)
        } else {
            Err(wrong(rows::INVALID_PROVIDER_IDENTIFIER, "identifier", "must be provider:// and a slug"))
        }
    }
}

pub(crate) async fn create(mut call: Call) -> Reply {
    let zone = call.zone().await?;
    let mut input: Input = call.body(rows::INVALID_PROVIDER).await?;
    let chosen = Chosen::of(&mut input)?;
    let kind = chosen.kind.ok_or_else(|| wrong(rows::INVALID_PROVIDER, "kind", "is required"))?;
    if chosen.name.is_none() && chosen.identifier.is_none() {
        return Err(wrong(rows::INVALID_PROVIDER, "name", "or identifier is required"));
    }
    let Chosen { name, identifier, .. } = chosen.judged()?;
    let (config, secrets) = Config::read(kind, input.config_json.unwrap_or_default(), false)
        .map_err(|e| Problem::because(rows::INVALID_PROVIDER_CONFIG, e.to_string()))?;
    if input.check {
        return Err(Problem::new(rows::PROVIDER_CHECK_UNSUPPORTED));
    }
    let id: ProviderId = call.api.world.mint();
    let (custody, actor) = (call.api.custody.clone(), call.head.actor.clone());
    let row = call
        .change(Some(zone), move |door, note| {
            Box::pin(async move {
                let identifier = if let Some(given) = identifier {
                    given
                } else {
                    let name = name.as_deref().unwrap_or_default();
                    let base = format!("provider://{}", slug(name.strip_prefix("provider://").unwrap_or(name), "provider"));
                    let used = Provider::identifiers_like(door.tx(), zone, &base).await?;
                    free(&base, &used, door.world())
                };
                allowed(&actor, &identifier).map_err(No::Refused)?;
                let new = NewProvider {
                    id,
                    zone,
                    name: name.unwrap_or_else(|| identifier.clone()),
                    identifier,
                    kind: kind.as_str(),
                    config: config.public(),
                    secret_keys: secrets.keys().cloned().collect(),
                    by: actor.stamp(),
                };
                let row = taken(Provider::insert(door, new).await, rows::PROVIDER_IDENTIFIER_CONFLICT)?;
                if !secrets.is_empty() {
                    let sealed = custody.seal_provider(zone, id, &secrets).map_err(sealing)?;
                    door.put_document(&provider_ref(zone, id), sealed).await?;
                }
                note.made(id);
                Ok(row)
            })
        })
        .await?;
    call.answer(row)
}

pub(crate) async fn patch(mut call: Call) -> Reply {
    let zone = call.zone().await?;
    let id: ProviderId = call.id("id", rows::PROVIDER_NOT_FOUND)?;
    let mut input: Input = call.body(rows::INVALID_PROVIDER).await?;
    let Chosen { name, identifier, kind: wanted } = Chosen::of(&mut input)?.judged()?;
    if let Some(identifier) = &identifier {
        allowed(&call.head.actor, identifier)?;
    }
    if wanted.is_some() && input.config_json.is_none() {
        return Err(Problem::new(rows::PROVIDER_CONFIG_REQUIRED));
    }
    let (custody, by) = (call.api.custody.clone(), call.by());
    let row = call
        .change(Some(zone), move |door, _note| {
            Box::pin(async move {
                let mut row = Provider::get(door.tx(), zone, id).await?.ok_or_else(|| no(rows::PROVIDER_NOT_FOUND))?;
                let nothing = name.is_none() && identifier.is_none() && input.config_json.is_none();
                row.name = name.unwrap_or(row.name);
                row.identifier = identifier.unwrap_or(row.identifier);
                if let Some(given) = input.config_json {
                    let bad = |text: String| No::Refused(Problem::because(rows::INVALID_PROVIDER_CONFIG, text));
                    let stored = Kind::of(&row.kind);
                    // A kind that is sent asks for everything anew; without one, what is sealed stays unless it is sent again.
                    let kind = wanted.or(stored).ok_or_else(|| bad("the stored kind is not served here".to_owned()))?;
                    let sealed = wanted.is_none() && !row.secret_config_keys.is_empty();
                    let (config, secrets) = Config::read(kind, given, sealed).map_err(|e| bad(e.to_string()))?;
                    kind.as_str().clone_into(&mut row.kind);
                    row.config_json = config.public();
                    if !secrets.is_empty() {
                        row.secret_config_keys = secrets.keys().cloned().collect();
                        let sealed = custody.seal_provider(zone, id, &secrets).map_err(sealing)?;
                        door.put_document(&provider_ref(zone, id), sealed).await?;
                    } else if !sealed {
                        row.secret_config_keys = Vec::new();
                        door.drop_document(&provider_ref(zone, id)).await?;
                    }
                }
                if nothing {
                    return Err(no(rows::NO_FIELDS));
                }
                let updated = taken(row.update(door, &by).await, rows::PROVIDER_IDENTIFIER_CONFLICT)?;
                updated.ok_or_else(|| no(rows::PROVIDER_NOT_FOUND))
            })
        })
        .await?;
    call.answer(row)
}
