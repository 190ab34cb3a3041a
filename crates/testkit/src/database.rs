//! A database of its own for each test, on each backend, gone when the test ends.

use std::path::Path;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tempfile::TempDir;

/// One backend, empty: a directory, and for PostgreSQL the URL of a database that nobody else uses.
pub struct Database {
    dir: TempDir,
    postgres: Option<Created>,
}

struct Created {
    server: String,
    name: String,
    url: String,
}

impl Database {
    /// A directory for files of the test: SQLite's data directory, spools, secrets.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The PostgreSQL URL; `None` means the embedded backend in [`Self::dir`].
    pub fn url(&self) -> Option<&str> {
        self.postgres.as_ref().map(|created| created.url.as_str())
    }

    /// `sqlite` or `postgres`, for messages.
    pub fn name(&self) -> &'static str {
        if self.postgres.is_some() { "postgres" } else { "sqlite" }
    }
}

/// Every backend that this run can reach: SQLite always, PostgreSQL where `TEST_DATABASE_URL` is set.
pub async fn backends() -> Vec<Database> {
    let mut all = vec![sqlite()];
    all.extend(postgres().await);
    all
}

/// The embedded backend: an empty directory.
pub fn sqlite() -> Database {
    Database { dir: TempDir::new().expect("a temporary directory"), postgres: None }
}

/// A fresh PostgreSQL database, or `None` where `TEST_DATABASE_URL` is unset.
pub async fn postgres() -> Option<Database> {
    let server = crate::wait::variable("TEST_DATABASE_URL")?;
    let name = format!("caracal_test_{}", uuid::Uuid::new_v4().simple());
    let mut connection = PgConnection::connect(&server).await.expect("TEST_DATABASE_URL answers");
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.expect("may create databases");
    let mut url = url_of(&server);
    url.set_path(&name);
    let url = url.to_string();
    Some(Database { dir: TempDir::new().expect("a temporary directory"), postgres: Some(Created { server, name, url }) })
}

fn url_of(text: &str) -> url::Url {
    url::Url::parse(text).expect("TEST_DATABASE_URL is a URL")
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some(Created { server, name, .. }) = self.postgres.take() else { return };
        // The test's own runtime may be gone or busy; the clean-up brings its own.
        let cleanup = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async {
                let mut connection = PgConnection::connect(&server).await.ok()?;
                let drop = AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
                sqlx::raw_sql(drop).execute(&mut connection).await.ok()
            })
        });
        let _ = cleanup.join();
    }
}
