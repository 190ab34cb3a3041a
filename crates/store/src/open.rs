//! Opening the store, and reading from it.

use std::path::PathBuf;
use std::sync::Arc;

use caracal_core::time::Time;
use caracal_crypto::mac::MacKey;
use caracal_host::World;
use futures::future::BoxFuture;
use tokio::sync::Notify;

use crate::error::StoreError;
use crate::fence::Fence;
use crate::journal::Journal;
use crate::sql::{Dialect, Tx};
use crate::{migrate, postgres, sqlite};

/// Where state is kept.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// PostgreSQL, or `None` for SQLite in [`Self::dir`].
    pub database_url: Option<String>,
    /// Directory of `caracal.db` and `ledger.db`.
    pub dir: PathBuf,
    /// Most PostgreSQL connections.
    pub connections: u32,
}

/// State. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    world: World,
    backend: Backend,
    fence: Fence,
    journal: Journal,
    audit_key: Option<Arc<MacKey>>,
    outbox: Arc<Notify>,
    spool: Arc<Notify>,
}

pub(crate) enum Backend {
    Sqlite(sqlite::Db),
    Postgres(postgres::Db),
}

/// Work that reads, inside one snapshot.
pub(crate) type Reading<T, E> = Box<dyn for<'t> FnOnce(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send>;

impl Store {
    /// Opens or creates the databases and migrates them. `audit_key` signs events that travel by outbox.
    pub async fn open(config: &StoreConfig, world: World, audit_key: Option<MacKey>) -> Result<Self, StoreError> {
        let spool = Arc::new(Notify::new());
        let (backend, fence, journal) = if let Some(url) = &config.database_url {
            let pool = postgres::connect(url, config.connections).await?;
            migrate::postgres(&pool).await?;
            let fence = Fence::postgres(world.clone(), pool.clone());
            let journal = Journal::postgres(pool.clone(), fence.clone(), Arc::clone(&spool));
            (Backend::Postgres(postgres::Db { pool }), fence, journal)
        } else {
            let path = config.dir.join("caracal.db");
            let mut writer = sqlite::open_writer(&path)?;
            migrate::sqlite(&mut writer)?;
            let state = sqlite::open(&path, writer)?;
            let path = config.dir.join("ledger.db");
            let mut writer = sqlite::open_writer(&path)?;
            migrate::ledger(&mut writer)?;
            let ledger = sqlite::open(&path, writer)?;
            let fence = Fence::sqlite(world.clone());
            let journal = Journal::sqlite(state.writer.clone(), fence.clone(), Arc::clone(&spool));
            (Backend::Sqlite(sqlite::Db { writer: state.writer, readers: state.readers, ledger }), fence, journal)
        };
        let audit_key = audit_key.map(Arc::new);
        Ok(Self { inner: Arc::new(Inner { world, backend, fence, journal, audit_key, outbox: Arc::default(), spool }) })
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.inner.backend
    }

    /// Clock and entropy.
    pub fn world(&self) -> &World {
        &self.inner.world
    }

    /// The freshness fence.
    pub fn fence(&self) -> &Fence {
        &self.inner.fence
    }

    /// The path's group commit.
    pub fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    /// Which backend this is.
    pub fn dialect(&self) -> Dialect {
        match &self.inner.backend {
            Backend::Sqlite(_) => Dialect::Sqlite,
            Backend::Postgres(_) => Dialect::Postgres,
        }
    }

    /// The key that signs events travelling by outbox and spool.
    pub fn audit_key(&self) -> Option<Arc<MacKey>> {
        self.inner.audit_key.clone()
    }

    /// Signalled when outbox rows committed.
    pub fn outbox_signal(&self) -> Arc<Notify> {
        Arc::clone(&self.inner.outbox)
    }

    /// Signalled when spool rows committed.
    pub fn spool_signal(&self) -> Arc<Notify> {
        Arc::clone(&self.inner.spool)
    }

    pub(crate) fn outbox_waits(&self) {
        self.inner.outbox.notify_one();
    }

    /// Reads inside one snapshot, on a task of its own.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    {
        let work: Reading<T, E> = Box::new(work);
        match &self.inner.backend {
            Backend::Sqlite(db) => db.readers.read(work).await,
            Backend::Postgres(db) => read_postgres(db.pool.clone(), work).await,
        }
    }

    /// Reads the ledger inside one snapshot.
    pub async fn read_ledger<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx<'_>) -> BoxFuture<'t, Result<T, E>> + Send + 'static,
    {
        let work: Reading<T, E> = Box::new(work);
        match &self.inner.backend {
            Backend::Sqlite(db) => db.ledger.readers.read(work).await,
            Backend::Postgres(db) => read_postgres(db.pool.clone(), work).await,
        }
    }

    /// Trusted time: the database's clock.
    pub async fn now(&self) -> Result<Time, StoreError> {
        match &self.inner.backend {
            Backend::Sqlite(_) => Ok(self.inner.world.now()),
            Backend::Postgres(db) => {
                let mut conn = db.pool.acquire().await?;
                postgres::now(&mut Tx::postgres(&mut conn)).await
            }
        }
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.read(|tx| Box::pin(async move { tx.first("SELECT 1", vec![]).await.map(|_| ()) })).await
    }
}

async fn read_postgres<T: Send + 'static, E: From<StoreError> + Send + 'static>(
    pool: sqlx::PgPool,
    work: Reading<T, E>,
) -> Result<T, E> {
    let run = tokio::spawn(async move {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let mut transaction = pool.begin_with(begin).await.map_err(|e| E::from(e.into()))?;
        let value = work(&mut Tx::postgres(&mut transaction)).await;
        transaction.rollback().await.map_err(|e| E::from(e.into()))?;
        value
    });
    run.await.unwrap_or_else(|_| Err(StoreError::Unavailable("a read stopped in its middle".to_owned()).into()))
}

/// Whether a PostgreSQL database can be connected to; says what to do when not. Changes nothing.
pub async fn reachable(url: &str) -> Result<(), StoreError> {
    postgres::connect(url, 1).await?.close().await;
    Ok(())
}

impl Store {
    /// This deployment's id: what is stored, or `made` now.
    pub async fn installation(
        &self,
        made: caracal_core::id::InstallationId,
    ) -> Result<caracal_core::id::InstallationId, StoreError> {
        let now = self.now().await?;
        self.plain_write(move |tx| {
            Box::pin(async move {
                // Two first starts at once must not make two.
                if tx.dialect() == Dialect::Postgres {
                    postgres::lock_platform(tx).await?;
                }
                let found = tx.first("SELECT id FROM installation ORDER BY created_at LIMIT 1", vec![]).await?;
                if let Some(row) = found {
                    return row.id(0);
                }
                tx.execute("INSERT INTO installation (id, created_at) VALUES ($1, $2)", vec![crate::Value::id(made), now.into()])
                    .await?;
                Ok(made)
            })
        })
        .await
    }
}
