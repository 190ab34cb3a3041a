//! Zones (`api.md` 8).

use caracal_core::error::api as rows;
use caracal_core::id::ZoneId;
use caracal_store::coordination::cascade;
use caracal_store::management::{Application, NewZone, SigningKeyRow, Zone, ZonePatch};
use caracal_web::Problem;
use serde::Deserialize;
use serde_json::json;

use crate::call::{Call, No, Reply, json_of, no, sealing, taken, wrong};
use crate::document::given;
use crate::names::{allowed, free, slug};
use crate::objects::tell_ended;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    #[serde(default, deserialize_with = "given")]
    slug: Option<String>,
    #[serde(default)]
    dcr_enabled: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    slug: Option<String>,
    #[serde(default, deserialize_with = "given")]
    dcr_enabled: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    dcr_shutdown: Option<Shutdown>,
}

/// What happens to applications that registered themselves, when registration ends.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Shutdown {
    KeepLive,
    RevokeLive,
}

fn name_of(text: &str) -> Result<String, Problem> {
    let name = text.trim();
    if (1..=120).contains(&name.chars().count()) {
        Ok(name.to_owned())
    } else {
        Err(wrong(rows::INVALID_ZONE, "name", "must have 1 to 120 characters"))
    }
}

fn slug_of(text: String) -> Result<String, Problem> {
    let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if (1..=63).contains(&text.len()) && plain {
        Ok(text)
    } else {
        Err(wrong(rows::INVALID_ZONE, "slug", "must have 1 to 63 of a-z, 0-9 and -"))
    }
}

pub(crate) async fn create(mut call: Call) -> Reply {
    let input: Create = call.body(rows::INVALID_ZONE).await?;
    let name = name_of(&input.name)?;
    let given = input.slug.map(slug_of).transpose()?;
    allowed(&call.head.actor, &name)?;
    let id: ZoneId = call.api.world.mint();
    let (custody, actor) = (call.api.custody.clone(), call.head.actor.clone());
    let zone = call
        .change(None, move |door, note| {
            Box::pin(async move {
                // Two zones of one name get two slugs, whoever comes first.
                door.alone().await?;
                let slug = if let Some(slug) = given {
                    slug
                } else {
                    let base = slug(&name, "zone");
                    let used = Zone::slugs_like(door.tx(), &base).await?;
                    free(&base, &used, door.world())
                };
                allowed(&actor, &slug).map_err(No::Refused)?;
                let new = NewZone { id, name, slug, dcr_enabled: input.dcr_enabled, by: actor.stamp() };
                let zone = taken(Zone::insert(door, new).await, rows::ZONE_SLUG_CONFLICT)?;
                // The key comes with the zone, so that its JWKS is never missing.
                let (kid, sealed) = custody.new_signing_key().map_err(sealing)?;
                SigningKeyRow::insert(door, id, kid, sealed).await?;
                note.made(id);
                Ok(zone)
            })
        })
        .await?;
    call.answer(zone)
}

pub(crate) async fn list(call: Call) -> Reply {
    let query = call.query(&[])?;
    let asked = query.slice::<ZoneId>()?;
    let found = call.api.read(move |tx| Box::pin(async move { Zone::list(tx, asked).await })).await?;
    Ok(query.page(found, asked, |zone| (zone.stamps.created_at, zone.id), json_of))
}

pub(crate) async fn get(call: Call) -> Reply {
    let id: ZoneId = call.id("zone", rows::ZONE_NOT_FOUND)?;
    let found = call.api.read(move |tx| Box::pin(async move { Zone::get(tx, id).await })).await?;
    call.answer(found.ok_or_else(|| Problem::new(rows::ZONE_NOT_FOUND))?)
}

pub(crate) async fn dcr_status(call: Call) -> Reply {
    let id: ZoneId = call.id("zone", rows::ZONE_NOT_FOUND)?;
    let now = call.api.world.now();
    let found = call
        .api
        .read(move |tx| {
            Box::pin(async move {
                let Some(zone) = Zone::get(tx, id).await? else { return Ok(None) };
                Ok(Some((zone, Application::live_registered(tx, id, now).await?)))
            })
        })
        .await?;
    let (zone, live) = found.ok_or_else(|| Problem::new(rows::ZONE_NOT_FOUND))?;
    call.answer(json!({"id": zone.id, "dcr_enabled": zone.dcr_enabled, "live_dcr_applications": live}))
}

pub(crate) async fn patch(mut call: Call) -> Reply {
    let input: Patch = call.body(rows::INVALID_ZONE).await?;
    let patch = ZonePatch {
        name: input.name.as_deref().map(name_of).transpose()?,
        slug: input.slug.map(slug_of).transpose()?,
        dcr_enabled: input.dcr_enabled,
    };
    for name in patch.name.iter().chain(&patch.slug) {
        allowed(&call.head.actor, name)?;
    }
    if input.dcr_shutdown.is_some() && patch.dcr_enabled != Some(false) {
        return Err(Problem::new(rows::DCR_SHUTDOWN_NOT_APPLICABLE));
    }
    if patch == ZonePatch::default() {
        return Err(Problem::new(rows::NO_FIELDS));
    }
    let (id, by): (ZoneId, _) = (call.id("zone", rows::ZONE_NOT_FOUND)?, call.by());
    let zone = call
        .change(Some(id), move |door, _note| {
            Box::pin(async move {
                // Slugs are one at a time among all zones; elsewhere each zone has only its own lock.
                door.alone().await?;
                let updated = taken(Zone::update(door, id, patch, &by).await, rows::ZONE_SLUG_CONFLICT)?;
                updated.ok_or_else(|| no(rows::ZONE_NOT_FOUND))
            })
        })
        .await?;
    call.answer(zone)
}

pub(crate) async fn delete(call: Call) -> Reply {
    let id: ZoneId = call.id("zone", rows::ZONE_NOT_FOUND)?;
    let (by, request_id) = (call.by(), call.head.request_id.clone());
    call.change(Some(id), move |door, note| {
        Box::pin(async move {
            Zone::archive(door, id, &by).await?;
            let ended = cascade::end_zone(door, id, "zone_archived", &request_id).await?;
            tell_ended(note, &ended);
            Ok(())
        })
    })
    .await?;
    call.done()
}
