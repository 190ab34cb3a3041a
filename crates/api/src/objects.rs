//! What every managed object's routes have in common: list, get, archive.

use caracal_core::error::{Situation, api as rows};
use caracal_core::id::ZoneId;
use caracal_store::Door;
use caracal_store::coordination::cascade::Ended;
use caracal_store::management::{Object, Policy, PolicySet, Resource};
use caracal_web::Problem;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::actor::Actor;
use crate::call::{Call, No, Reply, json_of, no};
use crate::record::Note;

/// A managed object, as this service serves it.
pub(crate) trait Noun: Object {
    /// The row of one that is not there.
    const MISSING: &'static Situation;
    /// Whether archived ones can be listed.
    const ARCHIVE_LISTED: bool;

    /// As this actor sees it.
    fn shown(&self, _actor: &Actor) -> Value {
        json_of(self)
    }

    /// Whether this actor may change it.
    fn yields_to(&self, _actor: &Actor) -> Result<(), Problem> {
        Ok(())
    }

    /// What ends with it.
    fn ends<'a>(&'a self, _call: &'a Ending, _door: &'a mut Door<'_>, _note: &'a mut Note) -> BoxFuture<'a, Result<(), No>> {
        Box::pin(async { Ok(()) })
    }
}

/// What an object's end has to know.
pub(crate) struct Ending {
    pub(crate) zone: ZoneId,
    pub(crate) request_id: String,
}

impl Noun for Resource {
    const MISSING: &'static Situation = rows::RESOURCE_NOT_FOUND;
    const ARCHIVE_LISTED: bool = true;
}

impl Noun for Policy {
    const MISSING: &'static Situation = rows::POLICY_NOT_FOUND;
    const ARCHIVE_LISTED: bool = false;
}

impl Noun for PolicySet {
    const MISSING: &'static Situation = rows::POLICY_SET_NOT_FOUND;
    const ARCHIVE_LISTED: bool = false;
}

pub(crate) async fn list<T: Noun>(call: Call) -> Reply {
    let zone = call.zone().await?;
    let query = call.query(if T::ARCHIVE_LISTED { &["status"] } else { &[] })?;
    let archived = T::ARCHIVE_LISTED && query.word("status", &["active", "archived"])?.as_deref() == Some("archived");
    let asked = query.slice::<T::Id>()?;
    let found = call.api.read(move |tx| Box::pin(async move { T::list(tx, zone, archived, asked).await })).await?;
    let place = |row: &T| {
        let (id, stamps) = row.head();
        (stamps.created_at, id)
    };
    Ok(query.page(found, asked, place, |row| row.shown(&call.head.actor)))
}

pub(crate) async fn get<T: Noun>(call: Call) -> Reply {
    let zone = call.zone().await?;
    let id = call.id("id", T::MISSING)?;
    let found = call.api.read(move |tx| Box::pin(async move { T::get(tx, zone, id).await })).await?;
    let found = found.ok_or_else(|| Problem::new(T::MISSING))?;
    call.answer(found.shown(&call.head.actor))
}

pub(crate) async fn archive<T: Noun>(call: Call) -> Reply {
    let zone = call.zone().await?;
    let id: T::Id = call.id("id", T::MISSING)?;
    let (actor, ending) = (call.head.actor.clone(), Ending { zone, request_id: call.head.request_id.clone() });
    call.change(Some(zone), move |door, note| {
        Box::pin(async move {
            let row = T::get(door.tx(), zone, id).await?.ok_or_else(|| no(T::MISSING))?;
            row.yields_to(&actor).map_err(No::Refused)?;
            T::archive(door, zone, id, &actor.stamp()).await?;
            row.ends(&ending, door, note).await
        })
    })
    .await?;
    call.done()
}

/// Tells the record what ended.
pub(crate) fn tell_ended(note: &mut Note, ended: &Ended) {
    note.tell("revoked_authority_records", ended.records.len());
    note.tell("terminated_sessions", ended.sessions.len());
    note.tell("revoked_delegations", ended.edges.len());
}
