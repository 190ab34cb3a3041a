//! The statements of a group: on PostgreSQL one a table, whatever the group's size; on SQLite, where a statement is a call and no
//! round trip, one a row.
//!
//! Where rows are locked, they are locked once for the whole group and in one order, so that two processes never wait in a circle:
//! ids that are used up first, then edges.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap};

use caracal_core::id::{DelegationId, Id, ZoneId};

use super::{Consume, Entry, NewRecord, Outcome, Spend, SpooledEvent};
use crate::error::StoreError;
use crate::sql::{Dialect, Tx, Value};

/// Writes the entries that still stand.
pub(super) async fn write(tx: &mut Tx<'_>, entries: &[Entry], fresh: &[bool]) -> Result<Vec<Outcome>, StoreError> {
    let mut outcomes: Vec<Outcome> = fresh.iter().map(|fresh| if *fresh { Outcome::Durable } else { Outcome::Stale }).collect();
    consume(tx, entries, &mut outcomes).await?;
    spend(tx, entries, &mut outcomes).await?;
    let standing: Vec<&Entry> = entries.iter().zip(&outcomes).filter(|(_, o)| **o == Outcome::Durable).map(|(e, _)| e).collect();
    insert_records(tx, &standing).await?;
    insert_events(tx, &standing).await?;
    Ok(outcomes)
}

/// Uses up ids; whoever comes second is [`Outcome::Spent`], also within the group.
async fn consume(tx: &mut Tx<'_>, entries: &[Entry], outcomes: &mut [Outcome]) -> Result<(), StoreError> {
    let mut wanted: HashMap<(u8, &[u8]), (usize, &Consume)> = HashMap::new();
    for (at, (entry, outcome)) in entries.iter().zip(outcomes.iter_mut()).enumerate() {
        let (Spend::Id(id), Outcome::Durable) = (&entry.spend, *outcome) else { continue };
        match wanted.entry(id.key()) {
            Slot::Occupied(_) => *outcome = Outcome::Spent,
            Slot::Vacant(slot) => {
                slot.insert((at, id));
            }
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let mut ids: Vec<&Consume> = wanted.values().map(|(_, id)| *id).collect();
    ids.sort_unstable_by_key(|id| id.key());
    let taken = match tx.dialect() {
        Dialect::Sqlite => {
            let sql =
                "INSERT INTO consumed_ids (purpose, id, until) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING purpose, id";
            let mut taken = Vec::with_capacity(ids.len());
            for id in ids {
                taken.extend(tx.all(sql, vec![i64::from(id.purpose as u8).into(), id.id.clone().into(), id.until.into()]).await?);
            }
            taken
        }
        Dialect::Postgres => {
            let sql = "INSERT INTO consumed_ids (purpose, id, until) SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[]) \
                       ON CONFLICT DO NOTHING RETURNING purpose, id";
            let args = vec![
                Value::Ints(ids.iter().map(|id| i64::from(id.purpose as u8)).collect()),
                Value::Blobs(ids.iter().map(|id| id.id.clone()).collect()),
                Value::Ints(ids.iter().map(|id| id.until.as_micros()).collect()),
            ];
            tx.all(sql, args).await?
        }
    };
    if taken.len() == wanted.len() {
        return Ok(());
    }
    let taken = taken.iter().map(|row| Ok((row.int(0)?, row.bytes(1)?))).collect::<Result<BTreeSet<_>, StoreError>>()?;
    for (at, id) in wanted.into_values() {
        if !taken.contains(&(i64::from(id.purpose as u8), id.id.clone())) {
            outcomes[at] = Outcome::Spent;
        }
    }
    Ok(())
}

/// Counts against budgets, in the order of the group, and marks what is presented for the first time. An exhausted edge nearest the
/// root is named.
async fn spend(tx: &mut Tx<'_>, entries: &[Entry], outcomes: &mut [Outcome]) -> Result<(), StoreError> {
    let asks = |entry: &Entry| !entry.presented.is_empty() || matches!(&entry.spend, Spend::Budgets(edges) if !edges.is_empty());
    let mut edges: BTreeSet<DelegationId> = BTreeSet::new();
    for (entry, outcome) in entries.iter().zip(outcomes.iter()) {
        if *outcome == Outcome::Durable && asks(entry) {
            edges.extend(&entry.presented);
            if let Spend::Budgets(budgets) = &entry.spend {
                edges.extend(budgets);
            }
        }
    }
    if edges.is_empty() {
        return Ok(());
    }
    let (ids, held) = (tx.dialect().ids(1), tx.dialect().pick("", " ORDER BY id FOR NO KEY UPDATE"));
    let sql = format!("SELECT id, budget, budget_spent, presented FROM delegations WHERE id IN {ids}{held}");
    let mut left: HashMap<DelegationId, i64> = HashMap::new();
    let mut presented: BTreeSet<DelegationId> = BTreeSet::new();
    for row in tx.all(sql, vec![Value::id_list(edges)]).await? {
        let id = row.id(0)?;
        if let Some(budget) = row.opt_int(1)? {
            left.insert(id, budget - row.int(2)?);
        }
        if row.flag(3)? {
            presented.insert(id);
        }
    }
    let mut counts: HashMap<DelegationId, i64> = HashMap::new();
    let mut shown: BTreeSet<DelegationId> = BTreeSet::new();
    for (entry, outcome) in entries.iter().zip(outcomes) {
        if *outcome != Outcome::Durable {
            continue;
        }
        if let Spend::Budgets(edges) = &entry.spend {
            if let Some(edge) = edges.iter().find(|edge| left.get(edge).is_some_and(|left| *left < 1)) {
                *outcome = Outcome::Exhausted(*edge);
                continue;
            }
            for edge in edges {
                if let Some(left) = left.get_mut(edge) {
                    *left -= 1;
                    *counts.entry(*edge).or_default() += 1;
                }
            }
        }
        shown.extend(entry.presented.iter().filter(|edge| !presented.contains(edge)));
    }
    if !counts.is_empty() {
        let sql = tx.dialect().pick(
            "UPDATE delegations SET budget_spent = budget_spent + spent.value FROM json_each($1) edge JOIN json_each($2) spent USING (key) \
             WHERE delegations.id = unhex(edge.value)",
            "UPDATE delegations SET budget_spent = budget_spent + spent FROM unnest($1::bytea[], $2::bigint[]) AS t(edge, spent) WHERE id = edge",
        );
        let (edges, spent): (Vec<DelegationId>, Vec<i64>) = counts.into_iter().unzip();
        tx.execute(sql, vec![Value::id_list(edges), Value::Ints(spent)]).await?;
    }
    if !shown.is_empty() {
        let sql = format!("UPDATE delegations SET presented = 1 WHERE id IN {ids}");
        tx.execute(sql, vec![Value::id_list(shown)]).await?;
    }
    Ok(())
}

async fn insert_records(tx: &mut Tx<'_>, entries: &[&Entry]) -> Result<(), StoreError> {
    let records: Vec<(ZoneId, &NewRecord)> = entries.iter().filter_map(|e| e.zone.zip(e.record.as_ref())).collect();
    if records.is_empty() {
        return Ok(());
    }
    match tx.dialect() {
        Dialect::Sqlite => {
            let sql = "INSERT INTO authority_records (id, zone_id, subject_type, subject, application_id, parent_id, status, expires_at, authenticated_at) \
                       VALUES ($1, $2, $3, $4, $5, $6, 'active', $7, $8)";
            for (zone, r) in records {
                let args = vec![
                    Value::id(r.id),
                    Value::id(zone),
                    r.subject_type.as_str().into(),
                    (&r.subject).into(),
                    Value::id(r.application),
                    Value::opt_id(r.parent),
                    r.expires_at.into(),
                    r.at.into(),
                ];
                tx.execute(sql, args).await?;
            }
        }
        Dialect::Postgres => {
            let args = vec![
                Value::id_list(records.iter().map(|(_, r)| r.id)),
                Value::id_list(records.iter().map(|(zone, _)| *zone)),
                Value::Texts(records.iter().map(|(_, r)| r.subject_type.as_str().to_owned()).collect()),
                Value::Texts(records.iter().map(|(_, r)| r.subject.clone()).collect()),
                Value::id_list(records.iter().map(|(_, r)| r.application)),
                Value::Blobs(records.iter().map(|(_, r)| r.parent.map(|p| p.to_bytes().to_vec()).unwrap_or_default()).collect()),
                Value::Ints(records.iter().map(|(_, r)| r.expires_at.as_micros()).collect()),
                Value::Ints(records.iter().map(|(_, r)| r.at.as_micros()).collect()),
            ];
            let sql = "INSERT INTO authority_records (id, zone_id, subject_type, subject, application_id, parent_id, status, expires_at, authenticated_at) \
                       SELECT a, b, c, d, e, nullif(f, ''::bytea), 'active', g, h \
                       FROM unnest($1::bytea[], $2::bytea[], $3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::bigint[], $8::bigint[]) AS t(a, b, c, d, e, f, g, h)";
            tx.execute(sql, args).await?;
        }
    }
    Ok(())
}

async fn insert_events(tx: &mut Tx<'_>, entries: &[&Entry]) -> Result<(), StoreError> {
    let events: Vec<&SpooledEvent> = entries.iter().flat_map(|e| &e.events).collect();
    if events.is_empty() {
        return Ok(());
    }
    let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
    match tx.dialect() {
        Dialect::Sqlite => {
            let sql = "INSERT INTO spool (event_id, data, sig) VALUES ($1, $2, $3)";
            for e in events {
                tx.execute(sql, vec![Value::id(e.id), text(&e.data).into(), (&e.sig).into()]).await?;
            }
        }
        Dialect::Postgres => {
            let args = vec![
                Value::id_list(events.iter().map(|e| e.id)),
                Value::Texts(events.iter().map(|e| text(&e.data)).collect()),
                Value::Texts(events.iter().map(|e| e.sig.clone()).collect()),
            ];
            let sql = "INSERT INTO spool (event_id, data, sig) SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[])";
            tx.execute(sql, args).await?;
        }
    }
    Ok(())
}
