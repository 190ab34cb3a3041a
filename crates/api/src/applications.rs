//! Applications and their secrets (`api.md` 9).

use caracal_core::error::{Situation, api as rows};
use caracal_core::event::{AuditEvent, Verdict};
use caracal_core::id::{ApplicationId, ZoneId};
use caracal_crypto::secret::{Kind, Secret, Verifier};
use caracal_custody::{Custody, client_secret_ref};
use caracal_store::Door;
use caracal_store::coordination::cascade;
use caracal_store::management::{Application, ApplicationPatch, NewApplication, Object, secrets};
use caracal_web::Problem;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::actor::Actor;
use crate::call::{Call, No, Reply, json_of, no, sealing, taken, wrong};
use crate::document::given;
use crate::names::allowed;
use crate::objects::{Ending, Noun, tell_ended};
use crate::record::Note;
use crate::service::Api;
use crate::traits::{are_privileged, traits_of};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    registration_method: Method,
    #[serde(default)]
    traits: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Method {
    Managed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    client_secret: Option<Zeroizing<String>>,
    #[serde(default, deserialize_with = "given")]
    traits: Option<Vec<String>>,
}

impl Noun for Application {
    const MISSING: &'static Situation = rows::APPLICATION_NOT_FOUND;
    const ARCHIVE_LISTED: bool = true;

    /// A token of one zone does not see traits at all: an empty list would say that there are none.
    fn shown(&self, actor: &Actor) -> Value {
        let mut row = json_of(self);
        if actor.zone.is_some()
            && let Some(members) = row.as_object_mut()
        {
            members.remove("traits");
        }
        row
    }

    /// Who may not grant a privilege may not take over an application that has it.
    fn yields_to(&self, actor: &Actor) -> Result<(), Problem> {
        if actor.zone.is_some() && are_privileged(&self.traits) { Err(Problem::new(rows::TRAIT_FORBIDDEN)) } else { Ok(()) }
    }

    fn ends<'a>(&'a self, ending: &'a Ending, door: &'a mut Door<'_>, note: &'a mut Note) -> BoxFuture<'a, Result<(), No>> {
        Box::pin(async move {
            door.drop_document(&client_secret_ref(ending.zone, self.id)).await?;
            let reason = "application_archived";
            let ended = cascade::end_application(door, ending.zone, self.id, reason, &ending.request_id).await?;
            tell_ended(note, &ended);
            Ok(())
        })
    }
}

fn name_of(text: &str) -> Result<String, Problem> {
    let name = text.trim();
    if (1..=200).contains(&name.chars().count()) {
        Ok(name.to_owned())
    } else {
        Err(wrong(rows::INVALID_APPLICATION, "name", "must have 1 to 200 characters"))
    }
}

fn secret_of(text: &str) -> Result<Secret, Problem> {
    if (32..=1024).contains(&text.chars().count()) {
        Ok(Secret::of(text))
    } else {
        Err(wrong(rows::INVALID_APPLICATION, "client_secret", "must have 32 to 1024 characters"))
    }
}

fn with_secret(application: &Application, actor: &Actor, secret: &Secret) -> Value {
    let mut row = application.shown(actor);
    row["client_secret"] = secret.expose().into();
    row
}

/// A new secret, and what is stored of it.
fn generated(api: &Api) -> (Secret, String) {
    let secret = Secret::generated(Kind::Client, &api.world.random());
    let verifier = Verifier::keyed(api.custody.verifier_key(), &secret).to_text();
    (secret, verifier)
}

/// What is stored of a secret that somebody chose: the slow hash, few at a time, off the runtime's workers and outside the door.
async fn derived(api: &Api, secret: Secret) -> Result<String, Problem> {
    let _permit = api.derivations.acquire().await.map_err(|e| Problem::new(rows::INTERNAL).cause(e))?;
    let salt = api.world.random();
    let made = tokio::task::spawn_blocking(move || Verifier::argon2(&secret, salt).to_text()).await;
    made.map_err(|e| Problem::new(rows::INTERNAL).cause(e))
}

async fn keep(door: &mut Door<'_>, custody: &Custody, zone: ZoneId, id: ApplicationId, secret: &Secret) -> Result<(), No> {
    let reference = client_secret_ref(zone, id);
    let sealed = custody.seal(&reference, secret.expose().as_bytes()).map_err(sealing)?;
    Ok(door.put_document(&reference, sealed).await?)
}

pub(crate) async fn create(mut call: Call) -> Reply {
    let zone = call.zone().await?;
    let input: Create = call.body(rows::INVALID_APPLICATION).await?;
    let Method::Managed = input.registration_method;
    let name = name_of(&input.name)?;
    allowed(&call.head.actor, &name)?;
    let traits = traits_of(input.traits, &call.head.actor)?;
    let id: ApplicationId = call.api.world.mint();
    let (secret, verifier) = generated(&call.api);
    let (custody, by, shown) = (call.api.custody.clone(), call.by(), secret.clone());
    let row = call
        .change(Some(zone), move |door, note| {
            Box::pin(async move {
                let new = NewApplication { id, zone, name, traits, verifier, by };
                let row = taken(Application::insert(door, new).await, rows::APPLICATION_NAME_TAKEN)?;
                keep(door, &custody, zone, id, &secret).await?;
                note.made(id);
                Ok(row)
            })
        })
        .await?;
    call.answer(with_secret(&row, &call.head.actor, &shown))
}

pub(crate) async fn patch(mut call: Call) -> Reply {
    let zone = call.zone().await?;
    let id: ApplicationId = call.id("id", rows::APPLICATION_NOT_FOUND)?;
    let input: Patch = call.body(rows::INVALID_APPLICATION).await?;
    let name = input.name.as_deref().map(name_of).transpose()?;
    let secret = input.client_secret.as_deref().map(|text| secret_of(text)).transpose()?;
    if let Some(name) = &name {
        allowed(&call.head.actor, name)?;
    }
    let traits = input.traits.map(|traits| traits_of(traits, &call.head.actor)).transpose()?;
    let nothing = name.is_none() && traits.is_none() && secret.is_none();
    let verifier = match secret.clone() {
        Some(secret) => Some(derived(&call.api, secret).await?),
        None => None,
    };
    let (custody, actor) = (call.api.custody.clone(), call.head.actor.clone());
    let row = call
        .change(Some(zone), move |door, _note| {
            Box::pin(async move {
                let row = Application::get(door.tx(), zone, id).await?.ok_or_else(|| no(rows::APPLICATION_NOT_FOUND))?;
                row.yields_to(&actor).map_err(No::Refused)?;
                if nothing {
                    return Err(no(rows::NO_FIELDS));
                }
                let patch = ApplicationPatch { name, traits, verifier };
                let updated = Application::update(door, zone, id, patch, &actor.stamp()).await;
                let row = taken(updated, rows::APPLICATION_NAME_TAKEN)?.ok_or_else(|| no(rows::APPLICATION_NOT_FOUND))?;
                if let Some(secret) = &secret {
                    keep(door, &custody, zone, id, secret).await?;
                }
                Ok(row)
            })
        })
        .await?;
    call.answer(row.shown(&call.head.actor))
}

pub(crate) async fn rotate(call: Call) -> Reply {
    let zone = call.zone().await?;
    let id: ApplicationId = call.id("id", rows::APPLICATION_NOT_FOUND)?;
    let (secret, verifier) = generated(&call.api);
    let (custody, actor, shown) = (call.api.custody.clone(), call.head.actor.clone(), secret.clone());
    let row = call
        .change(Some(zone), move |door, _note| {
            Box::pin(async move {
                let row = Application::get(door.tx(), zone, id).await?.ok_or_else(|| no(rows::APPLICATION_NOT_FOUND))?;
                row.yields_to(&actor).map_err(No::Refused)?;
                let patch = ApplicationPatch { verifier: Some(verifier), ..ApplicationPatch::default() };
                let updated = Application::update(door, zone, id, patch, &actor.stamp()).await?;
                keep(door, &custody, zone, id, &secret).await?;
                updated.ok_or_else(|| no(rows::APPLICATION_NOT_FOUND))
            })
        })
        .await?;
    call.answer(with_secret(&row, &call.head.actor, &shown))
}

pub(crate) async fn reveal(call: Call) -> Reply {
    let zone = call.zone().await?;
    let id: ApplicationId = call.id("id", rows::APPLICATION_NOT_FOUND)?;
    let (custody, actor, request_id) = (call.api.custody.clone(), call.head.actor.clone(), call.head.request_id.clone());
    // The event that it was shown commits before it is.
    let secret = call
        .door(Some(zone), move |door| {
            Box::pin(async move {
                let row = Application::get(door.tx(), zone, id).await?.ok_or_else(|| no(rows::APPLICATION_NOT_FOUND))?;
                row.yields_to(&actor).map_err(No::Refused)?;
                let reference = client_secret_ref(zone, id);
                let sealed = secrets::document(door.tx(), &reference).await?.ok_or_else(|| no(rows::CLIENT_SECRET_NOT_STORED))?;
                let open = custody.open_sealed(&reference, &sealed).map_err(sealing)?;
                let text = std::str::from_utf8(&open).map_err(sealing)?;
                let secret = Zeroizing::new(text.to_owned());
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
                .with("actor", actor.stamp());
                event.request_id = request_id;
                door.evidence(event);
                Ok(secret)
            })
        })
        .await?;
    call.answer(json!({"client_secret": secret.as_str()}))
}
