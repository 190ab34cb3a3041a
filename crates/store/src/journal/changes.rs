//! What changed since a group's decisions were read, on PostgreSQL: asked inside the zones' locks.

use std::collections::HashMap;

use caracal_core::id::ZoneId;

use super::{Entry, Reads};
use crate::change::Entity;
use crate::error::StoreError;
use crate::fence::{Fence, Held, change};
use crate::sql::{Tx, Value};

/// The change logs of a group's zones.
pub(super) struct Changes(HashMap<ZoneId, Log>);

/// What a zone's change log holds since the oldest decision of a group.
struct Log {
    /// The history this process knows; `None` when the database has another.
    history: Option<Held>,
    /// Where the database stands.
    epoch: u64,
    /// Decisions older than this epoch cannot be judged by the log.
    pruned_before: u64,
    changed: HashMap<Entity, u64>,
}

impl Log {
    /// Whether the log can judge this decision: it was read in the history that stands here, and nothing since is pruned.
    fn holds(&self, reads: &Reads) -> bool {
        self.history.is_some_and(|held| held.is_of(reads.stamp)) && (self.pruned_before..=self.epoch).contains(&reads.stamp.epoch)
    }

    fn hits(&self, reads: &Reads) -> bool {
        reads.entities.iter().any(|entity| self.changed.get(entity).is_some_and(|at| *at > reads.stamp.epoch))
    }
}

impl Changes {
    /// Reads the logs of all zones that a decision of this group read.
    pub(super) async fn since(tx: &mut Tx<'_>, fence: &Fence, entries: &[Entry]) -> Result<Self, StoreError> {
        let mut oldest: HashMap<ZoneId, u64> = HashMap::new();
        for entry in entries {
            if let (Some(zone), Some(reads)) = (entry.zone, &entry.reads) {
                oldest.entry(zone).and_modify(|e| *e = (*e).min(reads.stamp.epoch)).or_insert(reads.stamp.epoch);
            }
        }
        let mut logs = HashMap::with_capacity(oldest.len());
        if oldest.is_empty() {
            return Ok(Self(logs));
        }
        let held: HashMap<ZoneId, Held> = oldest.keys().map(|zone| (*zone, fence.held(*zone))).collect();
        let epoch = |epoch: u64| i64::try_from(epoch).unwrap_or(i64::MAX);
        let args = vec![
            Value::id_list(oldest.keys().copied()),
            Value::Ints(oldest.values().map(|since| epoch(*since)).collect()),
            Value::Ints(oldest.keys().filter_map(|zone| held.get(zone)).map(|held| epoch(held.epoch)).collect()),
        ];
        let rows = tx
            .all(
                "SELECT e.zone_id, e.pruned_before, e.epoch, e.mark, \
                 (SELECT h.mark FROM change_log h WHERE h.zone_id = w.zone AND h.epoch = w.held LIMIT 1), c.epoch, c.kind, c.entity_id \
                 FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS w(zone, since, held) JOIN zone_epochs e ON e.zone_id = w.zone \
                 LEFT JOIN change_log c ON c.zone_id = w.zone AND c.epoch > w.since",
                args,
            )
            .await?;
        for row in &rows {
            let zone: ZoneId = row.id(0)?;
            let Some(held) = held.get(&zone) else { continue };
            let (pruned_before, epoch) = (row.count(1)?, row.count(2)?);
            // What we know must be part of what the database has; a primary that lost or replaced it judges nothing of ours.
            let ours = match held.epoch {
                0 => true,
                at if at == epoch => row.int(3)? == held.mark,
                at => at < epoch && row.opt_int(4)? == Some(held.mark),
            };
            let history = ours.then_some(*held);
            let log = logs.entry(zone).or_insert_with(|| Log { history, epoch, pruned_before, changed: HashMap::new() });
            if let Some((at, entity)) = change(row, 5)? {
                let latest = log.changed.entry(entity).or_default();
                *latest = (*latest).max(at);
            }
        }
        Ok(Self(logs))
    }

    /// Whether nothing that the entry's decision read has changed. A zone without a history judges nothing.
    pub(super) fn spare(&self, entry: &Entry) -> bool {
        match (entry.zone, &entry.reads) {
            (Some(zone), Some(reads)) => self.0.get(&zone).is_some_and(|log| log.holds(reads) && !log.hits(reads)),
            _ => true,
        }
    }
}
