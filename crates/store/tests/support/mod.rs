//! A store with one zone and one Application in it, on each backend.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code, reason = "tests")]

use std::time::Duration;

use caracal_core::claims::SubjectType;
use caracal_core::constraint::{Authority, Constraints};
use caracal_core::delegation::{Delegation, Status};
use caracal_core::id::{ApplicationId, DelegationId, Id, SessionId, ZoneId};
use caracal_core::message::Producer;
use caracal_core::scope::Scopes;
use caracal_core::session::Lifecycle;
use caracal_host::World;
use caracal_store::change::Entity;
use caracal_store::coordination::{cascade, delegations, sessions};
use caracal_store::fence::Stamp;
use caracal_store::journal::{Entry, NewRecord, Reads};
use caracal_store::management::{Application, NewApplication, NewZone, Zone};
use caracal_store::{Store, StoreConfig, StoreError};
use caracal_testkit::{Database, until};
use sqlx::{Connection, PgConnection, Row};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub struct Fixture {
    pub store: Store,
    pub world: World,
    pub zone: ZoneId,
    pub application: ApplicationId,
    pub database: Database,
}

pub async fn open(database: &Database, connections: u32) -> Store {
    let config = StoreConfig { database_url: database.url().map(str::to_owned), dir: database.dir().to_owned(), connections };
    Store::open(&config, World::system(), None).await.unwrap_or_else(|e| panic!("{}: {e}", database.name()))
}

async fn fixture(database: Database, connections: u32) -> Fixture {
    let store = open(&database, connections).await;
    let world = World::system();
    let (zone, application) = (world.mint(), world.mint());
    let made = store.door::<_, (), _>(None, Producer::Api, move |door| {
        Box::pin(async move {
            let new = NewZone { id: zone, name: "z".into(), slug: zone.to_string(), dcr_enabled: false, by: "t".into() };
            Zone::insert(door, new).await?;
            Application::insert(door, new_application(application, zone, "a")).await?;
            Ok(())
        })
    });
    made.await.unwrap();
    Fixture { store, world, zone, application, database }
}

pub fn new_application(id: ApplicationId, zone: ZoneId, name: &str) -> NewApplication {
    NewApplication { id, zone, name: name.into(), traits: vec![], verifier: "v".into(), by: "t".into() }
}

/// One on each backend of this run.
pub async fn each() -> Vec<Fixture> {
    let mut all = Vec::new();
    for database in caracal_testkit::backends().await {
        all.push(fixture(database, 10).await);
    }
    all
}

/// On PostgreSQL alone; `None` where there is none.
pub async fn postgres(connections: u32) -> Option<Fixture> {
    Some(fixture(caracal_testkit::postgres().await?, connections).await)
}

impl Fixture {
    pub async fn session(&self, parent: Option<SessionId>) -> SessionId {
        let new = self.new_session(parent);
        let id = new.id;
        let door = self.store.door::<_, (), _>(Some(self.zone), Producer::Coordinator, move |door| {
            Box::pin(async move { Ok(sessions::insert(door, &new).await?) })
        });
        door.await.unwrap();
        id
    }

    pub fn new_session(&self, parent: Option<SessionId>) -> sessions::NewSession {
        sessions::NewSession {
            id: self.world.mint(),
            zone: self.zone,
            application: self.application,
            record: self.world.mint(),
            user: false,
            parent,
            depth: 0,
            lifecycle: Lifecycle::Task { ttl_seconds: 600 },
            labels: vec!["clerk".into()],
            metadata: serde_json::json!({}),
        }
    }

    pub async fn edge(
        &self,
        source: SessionId,
        target: SessionId,
        parent: Option<DelegationId>,
        budget: Option<i64>,
    ) -> DelegationId {
        let edge = self.new_edge(source, target, parent, budget);
        let (id, zone) = (edge.id, self.zone);
        let door = self.store.door::<_, (), _>(Some(zone), Producer::Coordinator, move |door| {
            Box::pin(async move { Ok(delegations::insert(door, zone, &edge).await?) })
        });
        door.await.unwrap();
        id
    }

    pub fn new_edge(&self, source: SessionId, target: SessionId, parent: Option<DelegationId>, budget: Option<i64>) -> Delegation {
        Delegation {
            id: self.world.mint(),
            parent,
            source,
            target,
            issuer: self.application,
            receiver: self.application,
            resource_id: None,
            authority: Authority {
                scopes: Scopes::of_text("a b"),
                resource: None,
                expires_at: self.world.now().plus_secs(300),
                constraints: Constraints { budget, ..Constraints::default() },
            },
            status: Status::Active,
            version: 0,
            budget_spent: 0,
            presented: false,
            created_at: self.world.now(),
            revoked_at: None,
        }
    }

    pub async fn revoke(&self, edge: DelegationId) -> cascade::Ended {
        let zone = self.zone;
        let door = self.store.door::<_, (), _>(Some(zone), Producer::Coordinator, move |door| {
            Box::pin(async move { Ok(cascade::revoke_edge(door, zone, edge, "r").await?.unwrap()) })
        });
        door.await.unwrap()
    }

    pub async fn end(&self, session: SessionId) {
        end(&self.store, self.zone, session).await;
    }

    pub async fn fresh(&self) -> Stamp {
        self.store.fence().fresh(self.zone).await.unwrap().stamp
    }

    pub fn good(&self, stamp: Stamp, of: &[Entity]) -> bool {
        self.store.fence().good(self.zone, stamp, of)
    }

    pub fn record(&self) -> NewRecord {
        let now = self.world.now();
        NewRecord {
            id: self.world.mint(),
            subject_type: SubjectType::Application,
            subject: "s".into(),
            application: self.application,
            parent: None,
            expires_at: now.plus_secs(60),
            at: now,
        }
    }

    /// A mint that was decided on these entities as of `stamp`.
    pub fn mint(&self, stamp: Stamp, entities: Vec<Entity>) -> Entry {
        Entry { zone: Some(self.zone), reads: Some(Reads { stamp, entities }), record: Some(self.record()), ..Entry::default() }
    }

    pub async fn count(&self, table: &'static str) -> u64 {
        let count = self.store.read::<_, StoreError, _>(move |tx| {
            Box::pin(async move { tx.first(format!("SELECT count(*) FROM {table}"), vec![]).await?.unwrap().count(0) })
        });
        count.await.unwrap()
    }

    pub async fn raw(&self) -> PgConnection {
        PgConnection::connect(self.database.url().unwrap()).await.unwrap()
    }

    pub async fn run(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&mut self.raw().await).await.unwrap();
    }

    pub fn lock_key(&self) -> i64 {
        i64::from_be_bytes(self.zone.to_bytes()[8..].try_into().unwrap())
    }

    /// Waits until this many wait for a lock in this database.
    pub async fn waiting(&self, many: i64) {
        let mut look = self.raw().await;
        for _ in 0..1000 {
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
            if sqlx::query(waiting).fetch_one(&mut look).await.unwrap().get::<i64, _>(0) >= many {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("fewer than {many} wait for a lock");
    }

    /// Every connection of the store is at rest, in no transaction, and does what it is asked next.
    pub async fn no_transaction_is_open(&self) {
        if self.database.url().is_some() {
            until("no connection is in a transaction", Duration::from_secs(10), || async {
                let mut look = self.raw().await;
                let open = "SELECT state || ': ' || query FROM pg_stat_activity WHERE datname = current_database() \
                            AND application_name = 'caracal' AND (state <> 'idle' OR xact_start IS NOT NULL)";
                let row = sqlx::query(open).fetch_optional(&mut look).await.unwrap();
                row.map_or(Ok(()), |row| Err(row.get::<String, _>(0)))
            })
            .await;
        } else {
            // Another connection to the file may write: nobody else is in the middle of it.
            let one = rusqlite::Connection::open(self.database.dir().join("caracal.db")).unwrap();
            one.busy_timeout(Duration::from_secs(5)).unwrap();
            one.execute_batch("BEGIN IMMEDIATE; ROLLBACK").unwrap();
        }
        // All connections at once: each begins a snapshot of its own, which sees the last write.
        let (holder, mark) = (self.world.mint::<SessionId>().to_string(), self.world.mint::<SessionId>().to_string());
        let name: &'static str = Box::leak(mark.into_boxed_str());
        self.store.lease(name, holder.clone(), Duration::from_mins(1)).await.unwrap().unwrap();
        let most = if self.database.url().is_some() { 10 } else { 4 };
        let together = std::sync::Arc::new(tokio::sync::Barrier::new(most));
        let reads = (0..most).map(|_| {
            let together = together.clone();
            self.store.read::<_, StoreError, _>(move |tx| {
                Box::pin(async move {
                    together.wait().await;
                    tx.first("SELECT holder FROM leases WHERE name = $1", vec![name.into()]).await?.unwrap().text(0)
                })
            })
        });
        let seen = tokio::time::timeout(Duration::from_secs(10), futures::future::join_all(reads)).await.unwrap();
        assert!(seen.iter().all(|s| s.as_ref().is_ok_and(|s| *s == holder)), "{}: {seen:?}", self.database.name());
    }

    /// From here on a query of the fence takes its snapshot and then waits until what this gives is dropped.
    pub async fn gate(&self) -> PgConnection {
        self.run(
            "ALTER TABLE zone_epochs RENAME TO zone_epochs_real; \
             CREATE VIEW zone_epochs AS SELECT z.* FROM zone_epochs_real z, (SELECT pg_advisory_xact_lock_shared(77)) gate",
        )
        .await;
        let mut closed = self.raw().await;
        sqlx::query("SELECT pg_advisory_lock(77)").execute(&mut closed).await.unwrap();
        closed
    }

    /// Holds one connection of the store's pool until the sender is dropped.
    pub async fn busy(&self) -> (oneshot::Sender<()>, JoinHandle<()>) {
        let (go_on, resumed) = oneshot::channel::<()>();
        let (reached, busy) = oneshot::channel();
        let store = self.store.clone();
        let holder = tokio::spawn(async move {
            let read = store.read::<_, StoreError, _>(move |_| {
                Box::pin(async move {
                    reached.send(()).unwrap();
                    let _ = resumed.await;
                    Ok(())
                })
            });
            read.await.unwrap();
        });
        busy.await.unwrap();
        (go_on, holder)
    }
}

pub async fn end(store: &Store, zone: ZoneId, session: SessionId) {
    let door = store.door::<_, (), _>(Some(zone), Producer::Coordinator, move |door| {
        Box::pin(async move { Ok(cascade::end_sessions(door, zone, &[session], cascade::Manner::Terminated, "r", "r").await?) })
    });
    door.await.unwrap();
}
