//! What writes left in a database whose writers were hung up on, looked at from outside of them.

use std::future::Future;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};

use crate::{Database, polled, until};

/// Besides its own row, a write leaves these.
const PARTS: [&str; 3] = ["outbox", "change_log", "admin_audit"];
/// How many of these parts there are.
const THERE: &str =
    "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM change_log) + (SELECT count(*) FROM admin_audit) AS there";
/// The largest number that [`hung_up`] makes a write from.
pub const MOST_WRITES: usize = 60;
/// Long enough for whatever is under way.
const LIMIT: Duration = Duration::from_secs(10);

/// Hangs up on a write at each of its awaits, until one is let through; gives what that one came to.
///
/// `write` makes one from a number that no other has, and leaves one row more in `rows` (a table, and which of its rows). Whatever the
/// moment, every write there is has all of its parts; none that was begun is taken back; nobody is left inside a transaction.
pub async fn hung_up<F: Future>(database: &Database, rows: &str, mut write: impl FnMut(usize) -> F) -> F::Output {
    database.count_begun().await;
    let none = database.parts(rows).await;
    // The first goes through, to know what a whole one is; later ones start counting from there.
    let _ = write(0).await;
    let one = database.parts(rows).await;
    let whole: Vec<i64> = one.iter().zip(&none).map(|(after, before)| after - before).collect();
    assert!(whole[0] == 1 && whole[1..].iter().any(|part| *part > 0), "{rows}: no write of one row with other parts: {whole:?}");
    let (mut times, mut completed) = (0, 0);
    for n in 1..=MOST_WRITES {
        let done = polled(write(n), times).await;
        database.writes_are_whole(rows, &one, &whole).await;
        database.at_rest().await;
        let landed = database.writes_are_whole(rows, &one, &whole).await;
        times += 1;
        if let Some(value) = done {
            completed += 1;
            if landed > completed {
                return value;
            }
            // How often a write is polled differs from one to the next: all who hung up came too early. Again.
            times = 0;
        }
    }
    panic!("{}: nobody who hung up on {rows} had begun, or none was let through", database.name());
}

impl Database {
    /// How many writes there are since `before`, each of them `whole`.
    async fn writes_are_whole(&self, rows: &str, before: &[i64], whole: &[i64]) -> i64 {
        let now = self.parts(rows).await;
        let writes = now[0] - before[0];
        for (part, (now, (before, whole))) in now.iter().zip(before.iter().zip(whole)).enumerate() {
            let name = if part == 0 { rows } else { PARTS[part - 1] };
            assert_eq!(now - before, writes * whole, "{}: {writes} writes to {rows}, but not in {name}", self.name());
        }
        writes
    }

    /// Rows of a write's parts, in one snapshot.
    async fn parts(&self, rows: &str) -> Vec<i64> {
        let each = std::iter::once(rows).chain(PARTS).map(|part| format!("(SELECT count(*) FROM {part})"));
        let sql = format!("SELECT {}", each.collect::<Vec<_>>().join(", "));
        if self.url().is_some() {
            let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut self.look().await).await.unwrap();
            (0..=PARTS.len()).map(|part| row.get(part)).collect()
        } else {
            self.file().query_row(&sql, [], |row| (0..=PARTS.len()).map(|part| row.get(part)).collect()).unwrap()
        }
    }

    /// PostgreSQL: counts the parts that were written, committed or not: a sequence is never rolled back. SQLite's one writer is a thread
    /// of its own, which nobody hangs up on.
    async fn count_begun(&self) {
        if self.url().is_none() {
            return;
        }
        let triggers = PARTS
            .map(|part| format!("CREATE OR REPLACE TRIGGER begun AFTER INSERT ON {part} FOR EACH ROW EXECUTE FUNCTION begun();"));
        let sql = format!(
            "CREATE SEQUENCE IF NOT EXISTS begun MINVALUE 0; SELECT setval('begun', there) FROM ({THERE}) t; \
             CREATE OR REPLACE FUNCTION begun() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM nextval('begun'); RETURN NULL; END $$; {}",
            triggers.concat()
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.look().await).await.unwrap();
    }

    /// Waits until no connection is inside a transaction, and everything that was begun is there.
    async fn at_rest(&self) {
        if self.url().is_some() {
            let look = &tokio::sync::Mutex::new(self.look().await);
            until("no connection is in a transaction, and what was begun is there", LIMIT, || async {
                let sql = format!(
                    "SELECT coalesce((SELECT string_agg(state || ': ' || query, '; ') FROM pg_stat_activity \
                       WHERE datname = current_database() AND application_name = 'caracal' AND (state <> 'idle' OR xact_start IS NOT NULL)), \
                       (SELECT 'taken back: ' || (last_value - there) FROM begun, ({THERE}) t WHERE last_value <> there))"
                );
                let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut *look.lock().await).await.unwrap();
                row.get::<Option<String>, _>(0).map_or(Ok(()), Err)
            })
            .await;
        } else {
            // Truncates the log only if nobody writes, and nobody reads an older snapshot.
            let busy = || async {
                let busy: i64 = self.file().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
                if busy == 0 { Ok(()) } else { Err("busy") }
            };
            until("no connection is in a transaction", LIMIT, busy).await;
        }
    }

    async fn look(&self) -> PgConnection {
        PgConnection::connect(self.url().unwrap()).await.unwrap()
    }

    fn file(&self) -> rusqlite::Connection {
        let file = rusqlite::Connection::open(self.dir().join("caracal.db")).unwrap();
        file.busy_timeout(Duration::from_secs(1)).unwrap();
        file
    }
}
