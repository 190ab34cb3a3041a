//! Operators at work at the same time, over HTTP, on each backend.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use caracal_client::{Admin, ClientError};
use http::Method;
use serde_json::json;
use tokio::task::JoinSet;

use support::{TOKEN, offset, ready, up};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_side_by_side_each_get_what_they_asked_for() {
    for database in caracal_testkit::backends().await {
        let dir = tempfile::tempdir().unwrap();
        let offset = offset();
        let environment: Vec<_> = database.url().map(|url| ("DATABASE_URL", url)).into_iter().collect();
        let mut running = up(dir.path(), offset, &environment);
        ready(offset, dir.path()).await;
        let admin = || Admin::new(format!("http://localhost:{}", 3000 + offset), TOKEN.to_owned());

        let mut zones = JoinSet::new();
        for _ in 0..24 {
            let admin = admin();
            zones.spawn(async move { admin.call(Method::POST, "/v1/zones", Some(&json!({"name": "One name"}))).await });
        }
        let zones: Vec<_> = zones.join_all().await.into_iter().map(Result::unwrap).collect();
        let slugs: BTreeSet<_> = zones.iter().map(|zone| zone["slug"].as_str().unwrap()).collect();
        assert_eq!(slugs.len(), 24, "{}: {slugs:?}", database.name());
        assert!(slugs.contains("one-name") && slugs.contains("one-name-24"), "{slugs:?}");

        let mut applications = JoinSet::new();
        for n in 0..96 {
            let (admin, zone) = (admin(), zones[n % 8]["id"].as_str().unwrap().to_owned());
            applications.spawn(async move { admin.application(&zone, &format!("application {n}")).await.map(|_| ()) });
        }
        for outcome in applications.join_all().await {
            outcome.unwrap_or_else(|e| panic!("{}: {e}", database.name()));
        }

        match admin().call(Method::POST, "/v1/zones", Some(&json!({"name": "a\0b"}))).await {
            Err(ClientError::Refused { status: 400, description, .. }) => assert!(description.contains("U+0000"), "{description}"),
            other => panic!("{}: {other:?}", database.name()),
        }
        running.kill().unwrap();
        running.wait().unwrap();
    }
}
