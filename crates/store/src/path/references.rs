//! The references of an exchange: Authority record, Session, and the whole path of edges, in one snapshot.

use std::collections::HashMap;

use caracal_core::delegation::Delegation;
use caracal_core::id::{ApplicationId, AuthorityRecordId, DelegationId, SessionId, ZoneId};
use caracal_core::session::Session;
use caracal_core::time::Time;

use crate::change::Entity;
use crate::coordination::{delegations, sessions};
use crate::error::StoreError;
use crate::fence::Stamp;
use crate::open::Store;
use crate::sql::Value;

/// What an exchange names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Asked {
    /// An Authority record.
    pub record: Option<AuthorityRecordId>,
    /// A Session.
    pub session: Option<SessionId>,
    /// A Delegation.
    pub edge: Option<DelegationId>,
}

/// The recorded state of an Authority record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordStatus {
    /// It holds until it expires.
    Active,
    /// It was taken back.
    Revoked,
    /// Its time was over.
    Expired,
}

/// An Authority record as the path needs it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its id.
    pub id: AuthorityRecordId,
    /// Whether it is a Federated user's.
    pub is_user: bool,
    /// Whom it is about.
    pub subject: String,
    /// The Application that asked for it.
    pub application: ApplicationId,
    /// Its recorded state.
    pub status: RecordStatus,
    /// When it ends.
    pub expires_at: Time,
}

impl Record {
    /// Whether it holds now.
    pub fn is_live(&self, now: Time) -> bool {
        self.status == RecordStatus::Active && self.expires_at > now
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub struct References {
    /// As of when.
    pub stamp: Stamp,
    /// The zone's Delegation graph epoch in the same snapshot.
    pub graph_epoch: u64,
    /// The record, if it exists in the zone.
    pub record: Option<Record>,
    /// The Session, if it exists in the zone.
    pub session: Option<Session>,
    /// Edges from the root to the presented one; empty when the presented one does not exist or its line is broken.
    pub edges: Vec<Delegation>,
    /// The source of each edge and, last, the target.
    pub sessions: Vec<Session>,
    /// Everything that was read, present or not.
    pub read: Vec<Entity>,
}

impl References {
    /// Of an exchange that names nothing.
    pub fn nothing(stamp: Stamp) -> Self {
        Self { stamp, graph_epoch: 1, record: None, session: None, edges: Vec::new(), sessions: Vec::new(), read: Vec::new() }
    }
}

impl Store {
    /// Loads what an exchange names.
    pub async fn references(&self, zone: ZoneId, asked: Asked) -> Result<References, StoreError> {
        let life = self.fence().life(zone);
        self.read(move |tx| {
            Box::pin(async move {
                let sql = "SELECT e.epoch, z.graph_epoch FROM zones z LEFT JOIN zone_epochs e ON e.zone_id = z.id WHERE z.id = $1";
                let head = tx.first(sql, vec![Value::id(zone)]).await?;
                let (epoch, graph_epoch) = match &head {
                    Some(row) => (u64::try_from(row.opt_int(0)?.unwrap_or(0)).unwrap_or(0), row.count(1)?),
                    None => (0, 1),
                };
                let mut read = Vec::new();
                let record = match asked.record {
                    Some(id) => {
                        read.push(Entity::record(id));
                        record(tx, zone, id).await?
                    }
                    None => None,
                };
                let edges = match asked.edge {
                    Some(id) => {
                        read.extend([Entity::delegation(id), Entity::GRAPH]);
                        delegations::line(tx, zone, id).await?
                    }
                    None => Vec::new(),
                };
                let mut wanted: Vec<SessionId> = edges.iter().flat_map(|e| [e.source, e.target]).chain(asked.session).collect();
                wanted.sort_unstable();
                wanted.dedup();
                let found: HashMap<SessionId, Session> =
                    sessions::by_ids(tx, zone, &wanted).await?.into_iter().map(|s| (s.id, s)).collect();
                read.extend(edges.iter().map(|e| Entity::delegation(e.id)));
                read.extend(wanted.iter().map(|id| Entity::session(*id)));
                read.extend(found.values().filter(|s| s.subject.user.is_some()).map(|s| Entity::record(s.subject.record)));
                let along: Option<Vec<Session>> = edges
                    .iter()
                    .map(|e| e.source)
                    .chain(edges.last().map(|e| e.target))
                    .map(|id| found.get(&id).cloned())
                    .collect();
                let session = asked.session.and_then(|id| found.get(&id).cloned());
                let (edges, sessions) = along.map_or_else(Default::default, |along| (edges, along));
                read.sort_unstable();
                read.dedup();
                Ok(References { stamp: life.at(epoch), graph_epoch, record, session, edges, sessions, read })
            })
        })
        .await
    }
}

/// An Authority record of the zone.
pub async fn record(tx: &mut crate::Tx<'_>, zone: ZoneId, id: AuthorityRecordId) -> Result<Option<Record>, StoreError> {
    let sql = "SELECT id, subject_type, subject, application_id, status, expires_at FROM authority_records WHERE id = $1 AND zone_id = $2";
    let Some(row) = tx.first(sql, vec![Value::id(id), Value::id(zone)]).await? else { return Ok(None) };
    let status = match row.text(4)?.as_str() {
        "active" => RecordStatus::Active,
        "revoked" => RecordStatus::Revoked,
        "expired" => RecordStatus::Expired,
        other => return Err(StoreError::inconsistent("authority_records", "status", other)),
    };
    Ok(Some(Record {
        id: row.id(0)?,
        is_user: row.text(1)? == "user",
        subject: row.text(2)?,
        application: row.id(3)?,
        status,
        expires_at: row.time(5)?,
    }))
}
