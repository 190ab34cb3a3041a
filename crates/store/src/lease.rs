//! Leases: one holder among processes, by the database's clock, with a generation that rises at each change of hands.

use std::time::Duration;

use crate::error::StoreError;
use crate::open::Store;
use crate::sql::{Dialect, Tx};

/// A lease that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Rises whenever the holder changes.
    pub generation: u64,
}

impl Store {
    /// Takes or renews a lease; `None` when somebody else holds it.
    pub async fn lease(&self, name: &'static str, holder: String, life: Duration) -> Result<Option<Held>, StoreError> {
        let clock = self.now_sql();
        let sqlite_now = self.world().now();
        self.plain_write(move |tx| {
            Box::pin(async move {
                let sql = format!(
                    "INSERT INTO leases (name, holder, generation, until) VALUES ($1, $2, 1, {clock} + $3) \
                     ON CONFLICT (name) DO UPDATE SET holder = $2, until = {clock} + $3, \
                     generation = leases.generation + CASE WHEN leases.holder = $2 THEN 0 ELSE 1 END \
                     WHERE leases.holder = $2 OR leases.until <= {clock} RETURNING generation"
                );
                let life = i64::try_from(life.as_micros()).unwrap_or(i64::MAX);
                let mut args = vec![name.into(), holder.into(), life.into()];
                if tx.dialect() == Dialect::Sqlite {
                    args.push(sqlite_now.into());
                }
                let row = tx.first(sql, args).await?;
                row.map(|row| Ok(Held { generation: row.count(0)? })).transpose()
            })
        })
        .await
    }

    /// Gives a lease back.
    pub async fn release(&self, name: &'static str, holder: String) -> Result<(), StoreError> {
        self.plain_write(move |tx: &mut Tx<'_>| {
            Box::pin(async move {
                tx.execute("UPDATE leases SET until = 0 WHERE name = $1 AND holder = $2", vec![name.into(), holder.into()])
                    .await
                    .map(|_| ())
            })
        })
        .await
    }

    /// SQLite has no trusted clock but the host's, which comes in as the fourth value.
    fn now_sql(&self) -> &'static str {
        self.dialect().pick("$4", "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
    }
}
