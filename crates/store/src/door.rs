//! The write door: the only way to change authority.
//!
//! One transaction changes state, appends its outbox rows, records the admin-audit row, appends to the change log and raises the
//! zone's epoch under a new random mark. All commit or none. A repository that changes authority takes a [`Door`], and a `Door` is
//! handed out here alone, so that forgetting one of them is not possible.

use std::sync::Arc;

use caracal_core::admin::AdminCall;
use caracal_core::event::AuditEvent;
use caracal_core::id::{OutboxId, ZoneId};
use caracal_core::message::{Message, Producer, Stream};
use caracal_core::time::Time;
use caracal_crypto::mac::{MacKey, audit_signature};
use caracal_host::World;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::change::{Entity, ViewChange};
use crate::error::StoreError;
use crate::fence::Fence;
use crate::open::{Backend, Store};
use crate::postgres;
use crate::sql::{Dialect, Row, Sql, Tx, Value};
use crate::writer::Job;

mod admin;

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

/// A door that stands open: a transaction, and what must commit with it.
pub struct Door<'c> {
    tx: Tx<'c>,
    zone: Option<ZoneId>,
    producer: Producer,
    now: Time,
    world: World,
    audit_key: Option<Arc<MacKey>>,
    outbox: Vec<(OutboxId, Message, String)>,
    request_id: String,
    changed: Vec<Entity>,
    views: Vec<ViewChange>,
    events: Vec<AuditEvent>,
    admin: Option<AdminCall>,
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

    /// Tells other services, once this has committed; gives the id under which it waits in the outbox.
    pub fn announce(&mut self, message: Message) -> OutboxId {
        let id = self.world.mint();
        self.outbox.push((id, message, self.request_id.clone()));
        id
    }

    /// Puts an event into the ledger, once this has committed.
    pub fn evidence(&mut self, event: AuditEvent) {
        self.events.push(event);
    }

    /// Records the administrative call; without its record nothing of it commits.
    pub fn admin(&mut self, call: AdminCall) {
        self.request_id.clone_from(&call.request_id);
        self.admin = Some(call);
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
        if let Some(call) = self.admin.take() {
            self.append_admin(call).await?;
        }
        for event in std::mem::take(&mut self.events) {
            let data = event.to_data();
            let sig = self.audit_key.as_deref().map(|key| audit_signature(key, &data)).unwrap_or_default();
            let fields = vec![
                ("id".to_owned(), event.id.to_string()),
                ("data".to_owned(), String::from_utf8(data).unwrap_or_default()),
                ("sig".to_owned(), sig),
            ];
            let message = Message { stream: Stream::AuditEvents, fields, dedupe_key: None };
            self.outbox.push((self.world.mint(), message, event.request_id));
        }
        for (id, message, request_id) in std::mem::take(&mut self.outbox) {
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
            self.announce(message);
        }
        self.epoch = Some(epoch);
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
