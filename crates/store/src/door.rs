//! The write door: the only way to change authority.
//!
//! One transaction changes state, appends its outbox rows, records the admin-audit row, appends to the change log and raises the
//! zone's epoch under a new random mark. All commit or none. A repository that changes authority takes a [`Door`], and a `Door` is
//! handed out here alone, so that forgetting one of them is not possible.

use std::sync::Arc;

use caracal_core::event::{AuditEvent, PLATFORM};
use caracal_core::id::{AdminAuditId, OutboxId, ZoneId};
use caracal_core::message::{Message, Producer, Stream};
use caracal_core::time::Time;
use caracal_crypto::mac::{MacKey, audit_signature};
use caracal_host::World;
use futures::future::BoxFuture;
use serde_json::Value as Json;
use tokio::sync::oneshot;

use crate::change::{Entity, ViewChange};
use crate::error::StoreError;
use crate::fence::Fence;
use crate::open::{Backend, Store};
use crate::postgres;
use crate::sql::{Dialect, Row, Sql, Tx, Value};
use crate::writer::Job;

/// Why a door closed without a change.
#[derive(Debug, thiserror::Error)]
pub enum DoorError<E> {
    /// The domain said no; nothing was written.
    #[error("refused")]
    Refused(E),
    /// The store could not; nothing was written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An administrative change, as its record tells it (`api.md` 21).
#[derive(Clone, Debug)]
pub struct AdminAudit {
    /// Who: an admin token's id, `bootstrap`, or an application.
    pub actor: String,
    /// What kind of actor.
    pub actor_scope: &'static str,
    /// What was done: `zone.create`.
    pub action: &'static str,
    /// HTTP method and path.
    pub method: String,
    /// Path of the request.
    pub path: String,
    /// Status of the answer.
    pub status: u16,
    /// Kind of the object.
    pub entity_type: &'static str,
    /// Id of the object.
    pub entity_id: Option<String>,
    /// Correlation.
    pub request_id: String,
    /// What changed, without secrets.
    pub detail: Json,
}

/// A door that stands open: a transaction, and what must commit with it.
pub struct Door<'c> {
    tx: Tx<'c>,
    zone: Option<ZoneId>,
    producer: Producer,
    now: Time,
    world: World,
    audit_key: Option<Arc<MacKey>>,
    outbox: Vec<(Message, String)>,
    request_id: String,
    changed: Vec<Entity>,
    views: Vec<ViewChange>,
    events: Vec<AuditEvent>,
    admin: Option<AdminAudit>,
    /// The epoch of this change, once raised.
    epoch: Option<u64>,
}

impl<'c> Door<'c> {
    /// Trusted time: the database's.
    pub const fn now(&self) -> Time {
        self.now
    }

    /// Clock and entropy, to mint ids.
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// The transaction, for reads and writes of repositories.
    pub const fn tx(&mut self) -> &mut Tx<'c> {
        &mut self.tx
    }

    /// Runs a statement; gives the number of rows it changed.
    pub async fn execute(&mut self, sql: impl Into<Sql>, args: Vec<Value>) -> Result<u64, StoreError> {
        self.tx.execute(sql, args).await
    }

    /// Every row.
    pub async fn all(&mut self, sql: impl Into<Sql>, args: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        self.tx.all(sql, args).await
    }

    /// The first row, if there is one.
    pub async fn first(&mut self, sql: impl Into<Sql>, args: Vec<Value>) -> Result<Option<Row>, StoreError> {
        self.tx.first(sql, args).await
    }

    /// An entity of authority changed: caches forget it, and decisions that read it decide again.
    pub fn changed(&mut self, entity: Entity) {
        if !self.changed.contains(&entity) {
            self.changed.push(entity);
        }
    }

    /// Something a zone's view is made of changed.
    pub fn view_changed(&mut self, change: ViewChange) {
        self.changed(Entity::VIEW);
        self.views.push(change);
    }

    /// Tells other services, once this has committed.
    pub fn announce(&mut self, message: Message) {
        self.outbox.push((message, self.request_id.clone()));
    }

    /// Puts an event into the ledger, once this has committed.
    pub fn evidence(&mut self, event: AuditEvent) {
        self.events.push(event);
    }

    /// Records the administrative change.
    pub fn admin(&mut self, record: AdminAudit) {
        self.request_id.clone_from(&record.request_id);
        self.admin = Some(record);
    }

    /// One at a time over all processes until this has committed: for what must be the only one of its name among all zones.
    pub async fn alone(&mut self) -> Result<(), StoreError> {
        match self.tx.dialect() {
            Dialect::Sqlite => Ok(()),
            Dialect::Postgres => postgres::lock_platform(&mut self.tx).await,
        }
    }

    /// A new zone begins its history here.
    pub fn found(&mut self, zone: ZoneId) {
        self.zone = Some(zone);
    }

    async fn close(&mut self) -> Result<(), StoreError> {
        if let (Some(zone), false) = (self.zone, self.changed.is_empty()) {
            self.raise(zone).await?;
        }
        if let Some(record) = self.admin.take() {
            self.append_admin(record).await?;
        }
        for event in std::mem::take(&mut self.events) {
            let data = event.to_data();
            let sig = self.audit_key.as_deref().map(|key| audit_signature(key, &data)).unwrap_or_default();
            let fields = vec![
                ("id".to_owned(), event.id.to_string()),
                ("data".to_owned(), String::from_utf8(data).unwrap_or_default()),
                ("sig".to_owned(), sig),
            ];
            self.outbox.push((Message { stream: Stream::AuditEvents, fields, dedupe_key: None }, event.request_id.clone()));
        }
        for (message, request_id) in std::mem::take(&mut self.outbox) {
            let id: OutboxId = self.world.mint();
            let payload = serde_json::to_string(&message.fields).unwrap_or_default();
            self.tx
                .execute(
                    "INSERT INTO outbox (id, producer, zone_id, topic, dedupe_key, payload, request_id, attempts, available_at, created_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8, $8) ON CONFLICT DO NOTHING",
                    vec![
                        Value::id(id),
                        self.producer.as_str().into(),
                        Value::opt_id(self.zone),
                        message.stream.name().into(),
                        message.dedupe_key.into(),
                        payload.into(),
                        request_id.into(),
                        self.now.into(),
                    ],
                )
                .await?;
        }
        Ok(())
    }

    async fn raise(&mut self, zone: ZoneId) -> Result<(), StoreError> {
        let mark = i64::from_be_bytes(self.world.random());
        let row = self
            .tx
            .first(
                "INSERT INTO zone_epochs (zone_id, epoch, mark) VALUES ($1, 1, $2) \
                 ON CONFLICT (zone_id) DO UPDATE SET epoch = zone_epochs.epoch + 1, mark = $2 RETURNING epoch",
                vec![Value::id(zone), mark.into()],
            )
            .await?;
        let epoch = row.ok_or_else(|| StoreError::inconsistent("zone_epochs", "epoch", "no row"))?.count(0)?;
        for entity in &self.changed {
            self.tx
                .execute(
                    "INSERT INTO change_log (zone_id, epoch, mark, kind, entity_id, at) VALUES ($1, $2, $3, $4, $5, $6)",
                    vec![
                        Value::id(zone),
                        epoch.into(),
                        mark.into(),
                        i64::from(entity.kind as u8).into(),
                        entity.id.to_vec().into(),
                        self.now.into(),
                    ],
                )
                .await?;
        }
        for view in std::mem::take(&mut self.views) {
            let message = Message::entity_changed(zone, view.entity, &view.id, view.change, epoch);
            self.outbox.push((message, self.request_id.clone()));
        }
        self.epoch = Some(epoch);
        Ok(())
    }

    /// The record's chain: each row names the SHA-256 of the one before it, so that a row cannot leave unseen (`api.md` 21.3).
    async fn append_admin(&mut self, record: AdminAudit) -> Result<(), StoreError> {
        let id: AdminAuditId = self.world.mint();
        // A zone's chain is held by the zone's lock; the one of no zone has a lock of its own, taken before the statement that reads.
        if self.zone.is_none() {
            self.alone().await?;
        }
        let last = if let Some(zone) = self.zone {
            let sql = "SELECT seq, record_sha256 FROM admin_audit WHERE zone_id = $1 ORDER BY seq DESC LIMIT 1";
            self.tx.first(sql, vec![Value::id(zone)]).await?
        } else {
            let sql = "SELECT seq, record_sha256 FROM admin_audit WHERE zone_id IS NULL ORDER BY seq DESC LIMIT 1";
            self.tx.first(sql, vec![]).await?
        };
        let (seq, previous) = match last {
            Some(row) => (row.int(0)? + 1, row.text(1)?),
            None => (1, String::new()),
        };
        let form = serde_json::json!({
            "id": id, "seq": seq, "zone_id": self.zone, "actor_id": record.actor, "actor_scope": record.actor_scope, "action": record.action,
            "method": record.method, "path": record.path, "status_code": record.status, "entity_type": record.entity_type,
            "entity_id": record.entity_id, "request_id": record.request_id, "detail": record.detail,
            "occurred_at": self.now.rfc3339_micros(), "previous_sha256": previous,
        });
        let digest = caracal_core::digest::sha256_hex(&caracal_core::jcs::canonical(&form));
        self.tx
            .execute(
                "INSERT INTO admin_audit (id, seq, zone_id, actor_id, action, entity_type, entity_id, request_id, record, previous_sha256, record_sha256, occurred_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
                vec![
                    Value::id(id),
                    seq.into(),
                    Value::opt_id(self.zone),
                    record.actor.clone().into(),
                    record.action.into(),
                    record.entity_type.into(),
                    record.entity_id.clone().into(),
                    record.request_id.clone().into(),
                    form.to_string().into(),
                    previous.into(),
                    digest.clone().into(),
                    self.now.into(),
                ],
            )
            .await?;
        let verdict = if record.status >= 400 { caracal_core::event::Verdict::Deny } else { caracal_core::event::Verdict::Allow };
        let ledger = self.zone.map_or_else(|| PLATFORM.to_owned(), |zone| zone.to_string());
        let mut event = AuditEvent::new(self.world.mint(), ledger, "admin_action", verdict, "complete", self.now)
            .with("record_id", id.to_string())
            .with("record_seq", seq)
            .with("record_sha256", digest)
            .with("actor_id", record.actor)
            .with("actor_scope", record.actor_scope)
            .with("action", record.action)
            .with("method", record.method)
            .with("path", record.path)
            .with("entity_type", record.entity_type)
            .with_some("entity_id", record.entity_id)
            .with("status_code", record.status);
        event.request_id = record.request_id;
        self.events.push(event);
        Ok(())
    }
}

/// What a caller hands in: runs inside the open door.
type Work<T, E> = Box<dyn for<'t> FnOnce(&'t mut Door<'_>) -> BoxFuture<'t, Result<T, DoorError<E>>> + Send>;

impl Store {
    /// Opens the door for a change of `zone` (or of the deployment), does `work` and commits, or changes nothing.
    ///
    /// The transaction runs to its end on a task of its own: dropping this future leaves it whole.
    pub async fn door<T, E, F>(&self, zone: Option<ZoneId>, producer: Producer, work: F) -> Result<T, DoorError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: for<'t> FnOnce(&'t mut Door<'_>) -> BoxFuture<'t, Result<T, DoorError<E>>> + Send + 'static,
    {
        let work: Work<T, E> = Box::new(work);
        match self.backend() {
            Backend::Sqlite(db) => {
                let (answer, wait) = oneshot::channel();
                let job = DoorJob { store: self.clone(), zone, producer, work: Some(work), result: None, raised: None, answer };
                db.writer.submit(Box::new(job)).await?;
                wait.await.map_err(|_| StoreError::Unavailable("the writer has stopped".to_owned()))?
            }
            Backend::Postgres(db) => {
                let (store, pool) = (self.clone(), db.pool.clone());
                let run = tokio::spawn(async move {
                    let mut transaction = pool.begin().await.map_err(StoreError::from)?;
                    let now = {
                        let mut tx = Tx::postgres(&mut transaction);
                        if let Some(zone) = zone {
                            postgres::lock(&mut tx, zone).await?;
                        }
                        postgres::now(&mut tx).await?
                    };
                    let mut door = store.open_door(Tx::postgres(&mut transaction), zone, producer, now);
                    let value = work(&mut door).await?;
                    door.close().await?;
                    drop(door);
                    transaction.commit().await.map_err(StoreError::from)?;
                    store.outbox_waits();
                    Ok(value)
                });
                run.await.unwrap_or_else(|_| Err(StoreError::Unavailable("a write stopped in its middle".to_owned()).into()))
            }
        }
    }

    fn open_door<'c>(&self, tx: Tx<'c>, zone: Option<ZoneId>, producer: Producer, now: Time) -> Door<'c> {
        Door {
            tx,
            zone,
            producer,
            now,
            world: self.world().clone(),
            audit_key: self.audit_key(),
            outbox: Vec::new(),
            request_id: String::new(),
            changed: Vec::new(),
            views: Vec::new(),
            events: Vec::new(),
            admin: None,
            epoch: None,
        }
    }
}

struct DoorJob<T, E> {
    store: Store,
    zone: Option<ZoneId>,
    producer: Producer,
    work: Option<Work<T, E>>,
    result: Option<Result<T, DoorError<E>>>,
    raised: Option<(Fence, ZoneId)>,
    answer: oneshot::Sender<Result<T, DoorError<E>>>,
}

impl<T: Send + 'static, E: Send + 'static> Job for DoorJob<T, E> {
    fn run<'t>(&'t mut self, tx: &'t mut Tx<'_>) -> BoxFuture<'t, Result<(), StoreError>> {
        Box::pin(async move {
            let Some(work) = self.work.take() else { return Err(StoreError::Unavailable("a write ran twice".to_owned())) };
            let now = self.store.world().now();
            let crate::sql::Conn::Sqlite(conn) = &mut tx.conn else { return Err(StoreError::Unavailable("not SQLite".to_owned())) };
            let mut door = self.store.open_door(Tx::sqlite(conn), self.zone, self.producer, now);
            match work(&mut door).await {
                Ok(value) => {
                    door.close().await?;
                    if let (Some(zone), Some(epoch)) = (door.zone, door.epoch) {
                        let fence = self.store.fence().clone();
                        fence.raise(zone, epoch, std::mem::take(&mut door.changed));
                        self.raised = Some((fence, zone));
                    }
                    self.result = Some(Ok(value));
                    Ok(())
                }
                Err(e) => {
                    self.result = Some(Err(e));
                    Err(StoreError::Refused("rolled back".to_owned()))
                }
            }
        })
    }

    fn done(self: Box<Self>, outcome: Result<(), StoreError>) {
        if let Some((fence, zone)) = self.raised {
            fence.settle(zone, outcome.is_ok());
        }
        let answer = match (self.result, outcome) {
            (Some(Ok(value)), Ok(())) => {
                self.store.outbox_waits();
                Ok(value)
            }
            (Some(Err(e)), _) => Err(e),
            (_, Err(e)) => Err(e.into()),
            (None, Ok(())) => Err(StoreError::Unavailable("a write gave no answer".to_owned()).into()),
        };
        let _ = self.answer.send(answer);
    }
}
