//! The spool as a table: evidence that is durable and not yet committed by Audit. Rows leave when Audit has committed them.

use caracal_core::id::EventId;

use crate::error::StoreError;
use crate::open::{Backend, Store};
use crate::sql::{Row, Tx, Value};
use crate::writer::Job;

/// A spooled event, in the order it was written.
#[derive(Clone, Debug)]
pub struct Spooled {
    /// Its place.
    pub seq: i64,
    /// Its id.
    pub id: EventId,
    /// The exact bytes that were signed.
    pub data: Vec<u8>,
    /// Hex HMAC; empty without a key.
    pub sig: String,
}

impl Store {
    /// The oldest spooled events.
    pub async fn spooled(&self, most: usize) -> Result<Vec<Spooled>, StoreError> {
        self.read(move |tx| {
            Box::pin(async move {
                let rows = tx.all("SELECT seq, event_id, data, sig FROM spool ORDER BY seq LIMIT $1", vec![most.into()]).await?;
                rows.iter().map(of_row).collect()
            })
        })
        .await
    }

    /// How many events wait, and how old the spool's first place is from its last.
    pub async fn spool_depth(&self) -> Result<u64, StoreError> {
        self.read(|tx| {
            Box::pin(async move {
                let row = tx.first("SELECT count(*) FROM spool", vec![]).await?;
                row.map_or(Ok(0), |row| row.count(0))
            })
        })
        .await
    }

    /// How many bytes of events wait, signatures with them.
    pub async fn spool_bytes(&self) -> Result<u64, StoreError> {
        self.read(|tx| {
            Box::pin(async move {
                let sql = "SELECT CAST(COALESCE(SUM(OCTET_LENGTH(data) + OCTET_LENGTH(sig)), 0) AS BIGINT) FROM spool";
                tx.first(sql, vec![]).await?.map_or(Ok(0), |row| row.count(0))
            })
        })
        .await
    }

    /// Lets go of these places: Audit has committed them.
    pub async fn release_spool(&self, seqs: Vec<i64>) -> Result<(), StoreError> {
        let delete = |tx: &Tx<'_>| match tx.dialect() {
            crate::Dialect::Sqlite => "DELETE FROM spool WHERE seq IN (SELECT value FROM json_each($1))",
            crate::Dialect::Postgres => "DELETE FROM spool WHERE seq = ANY($1)",
        };
        self.plain_write(move |tx| {
            Box::pin(async move {
                let sql = delete(tx);
                tx.execute(sql, vec![Value::Ints(seqs)]).await.map(|_| ())
            })
        })
        .await
    }

    /// A write that is no authority: positions, clean-up, leases. Runs to its end on a task of its own.
    pub(crate) async fn plain_write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx<'_>) -> futures::future::BoxFuture<'t, Result<T, StoreError>> + Send + 'static,
    {
        match self.backend() {
            Backend::Sqlite(db) => submit(&db.writer, work).await,
            Backend::Postgres(db) => write_postgres(db.pool.clone(), work).await,
        }
    }

    /// A write to the ledger: its own file and writer on SQLite, so that it never holds up the path's.
    pub(crate) async fn ledger_write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx<'_>) -> futures::future::BoxFuture<'t, Result<T, StoreError>> + Send + 'static,
    {
        match self.backend() {
            Backend::Sqlite(db) => submit(&db.ledger.writer, work).await,
            Backend::Postgres(db) => write_postgres(db.pool.clone(), work).await,
        }
    }
}

async fn submit<T, F>(writer: &crate::writer::Writer, work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: for<'t> FnOnce(&'t mut Tx<'_>) -> futures::future::BoxFuture<'t, Result<T, StoreError>> + Send + 'static,
{
    let (answer, wait) = tokio::sync::oneshot::channel();
    writer.submit(Box::new(PlainJob { work: Some(work), value: None, answer })).await?;
    wait.await.map_err(|_| StoreError::Unavailable("the writer has stopped".to_owned()))?
}

async fn write_postgres<T, F>(pool: sqlx::PgPool, work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: for<'t> FnOnce(&'t mut Tx<'_>) -> futures::future::BoxFuture<'t, Result<T, StoreError>> + Send + 'static,
{
    let run = tokio::spawn(async move {
        let mut transaction = pool.begin().await?;
        let value = work(&mut Tx::postgres(&mut transaction)).await?;
        transaction.commit().await?;
        Ok(value)
    });
    run.await.unwrap_or_else(|_| Err(StoreError::Unavailable("a write stopped in its middle".to_owned())))
}

struct PlainJob<T, F> {
    work: Option<F>,
    value: Option<T>,
    answer: tokio::sync::oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for PlainJob<T, F>
where
    T: Send + 'static,
    F: for<'t> FnOnce(&'t mut Tx<'_>) -> futures::future::BoxFuture<'t, Result<T, StoreError>> + Send + 'static,
{
    fn run<'t>(&'t mut self, tx: &'t mut Tx<'_>) -> futures::future::BoxFuture<'t, Result<(), StoreError>> {
        Box::pin(async move {
            let Some(work) = self.work.take() else { return Err(StoreError::Unavailable("a write ran twice".to_owned())) };
            self.value = Some(work(tx).await?);
            Ok(())
        })
    }

    fn done(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { value, answer, .. } = *self;
        let value = outcome.and_then(|()| value.ok_or_else(|| StoreError::Unavailable("a write gave no answer".to_owned())));
        let _ = answer.send(value);
    }
}

fn of_row(row: &Row) -> Result<Spooled, StoreError> {
    Ok(Spooled { seq: row.int(0)?, id: row.id(1)?, data: row.text(2)?.into_bytes(), sig: row.text(3)? })
}
