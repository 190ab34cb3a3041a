//! The outbox as its dispatcher sees it: rows that committed with their change and wait to be published (`streams.md` 9.2).

use std::time::Duration;

use caracal_core::id::OutboxId;
use caracal_core::time::Time;

use crate::error::StoreError;
use crate::open::Store;
use crate::sql::{Row, Value};

/// A row that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Its id, published as `outbox_id`.
    pub id: OutboxId,
    /// The stream's name.
    pub topic: String,
    /// Published with it.
    pub dedupe_key: Option<String>,
    /// The message's fields.
    pub fields: Vec<(String, String)>,
    /// Failed attempts so far.
    pub attempts: u32,
}

/// Which rows are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those of this topic.
    Only(&'static str),
    /// Those of every other topic.
    Except(&'static str),
}

impl Store {
    /// The oldest rows that are due, in id order.
    pub async fn outbox_waiting(&self, most: usize) -> Result<Vec<Waiting>, StoreError> {
        self.outbox_waiting_of(Which::All, most).await
    }

    /// The oldest rows of some topics that are due, in id order, so that one stalled reader does not hide the others' rows.
    pub async fn outbox_waiting_of(&self, which: Which, most: usize) -> Result<Vec<Waiting>, StoreError> {
        let now = self.now().await?;
        let (condition, topic) = match which {
            Which::All => ("", None),
            Which::Only(topic) => ("AND topic = $3 ", Some(topic)),
            Which::Except(topic) => ("AND topic <> $3 ", Some(topic)),
        };
        let sql = format!(
            "SELECT id, topic, dedupe_key, payload, attempts FROM outbox \
             WHERE published_at IS NULL AND dead = 0 AND available_at <= $1 {condition}ORDER BY id LIMIT $2"
        );
        self.read(move |tx| {
            Box::pin(async move {
                let mut args = vec![now.into(), most.into()];
                args.extend(topic.map(Value::from));
                tx.all(sql, args).await?.iter().map(of_row).collect()
            })
        })
        .await
    }

    /// These rows are published.
    pub async fn outbox_published(&self, ids: Vec<OutboxId>) -> Result<(), StoreError> {
        let now = self.now().await?;
        self.plain_write(move |tx| {
            Box::pin(async move {
                let sql = format!("UPDATE outbox SET published_at = $2 WHERE id IN {}", tx.dialect().ids(1));
                tx.execute(sql, vec![Value::id_list(ids), now.into()]).await.map(|_| ())
            })
        })
        .await
    }

    /// Rows of a topic that were published since `since` wait again: whoever had them has lost them. How many.
    pub async fn outbox_again(&self, topic: &'static str, since: Time) -> Result<u64, StoreError> {
        self.plain_write(move |tx| {
            Box::pin(async move {
                let sql = "UPDATE outbox SET published_at = NULL WHERE topic = $1 AND published_at >= $2";
                tx.execute(sql, vec![topic.into(), since.into()]).await
            })
        })
        .await
    }

    /// This row failed; it is due again after `pause`, or dead.
    pub async fn outbox_failed(&self, id: OutboxId, error: String, pause: Option<Duration>) -> Result<(), StoreError> {
        let now = self.now().await?;
        self.plain_write(move |tx| {
            Box::pin(async move {
                let (available, dead): (Time, bool) = pause.map_or((now, true), |pause| (now + pause, false));
                tx.execute(
                    "UPDATE outbox SET attempts = attempts + 1, last_error = $2, available_at = $3, dead = $4 WHERE id = $1",
                    vec![Value::id(id), error.into(), available.into(), dead.into()],
                )
                .await
                .map(|_| ())
            })
        })
        .await
    }

    /// Rows that wait and rows that are dead, of one producer.
    pub async fn outbox_counts(&self, producer: &'static str) -> Result<(u64, u64), StoreError> {
        self.read(move |tx| {
            Box::pin(async move {
                let row = tx
                    .first(
                        "SELECT count(*) FILTER (WHERE dead = 0), count(*) FILTER (WHERE dead = 1) FROM outbox WHERE published_at IS NULL AND producer = $1",
                        vec![producer.into()],
                    )
                    .await?;
                row.map_or(Ok((0, 0)), |row| Ok((row.count(0)?, row.count(1)?)))
            })
        })
        .await
    }
}

fn of_row(row: &Row) -> Result<Waiting, StoreError> {
    Ok(Waiting {
        id: row.id(0)?,
        topic: row.text(1)?,
        dedupe_key: row.opt_text(2)?,
        fields: row.json(3, "outbox", "payload")?,
        attempts: u32::try_from(row.int(4)?).unwrap_or(u32::MAX),
    })
}
