//! A client that hangs up, over HTTP and on each backend: in the middle of its request, right after it, in the middle of the answer. The
//! write is whole or absent, and the next request on every connection of the store is served.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::path::Path;

use caracal_client::{Admin, Places};
use caracal_host::World;
use caracal_store::{Store, StoreConfig, StoreError};
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use support::work::{LEDGER, Work, upstream};
use support::{TOKEN, offset, ready, up};

/// How much of an exchange a client waits for.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// It sends this many hundredths of its request.
    Sent(usize),
    /// It sends all of it and goes at once.
    Asked,
    /// It reads this many bytes of the answer.
    Answered(usize),
}

/// Sends a request and hangs up. A reset rather than a close: what the server still writes goes nowhere.
async fn hang_up(port: u16, token: &str, method: &str, path: &str, body: &Value, until: Until) {
    let body = body.to_string();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let sent = if let Until::Sent(hundredths) = until { request.len() * hundredths / 100 } else { request.len() };
    stream.write_all(&request.as_bytes()[..sent]).await.unwrap();
    if let Until::Answered(bytes) = until {
        let _ = stream.read_exact(&mut vec![0; bytes]).await;
    }
    stream.set_zero_linger().unwrap();
}

fn each() -> Vec<Until> {
    let sent = (5..100).step_by(19).map(Until::Sent);
    sent.chain([Until::Asked; 4]).chain([1, 40].map(Until::Answered)).collect()
}

/// Counts of each statement, in one snapshot.
async fn counts(store: &Store, sql: Vec<String>) -> Vec<u64> {
    let read = store.read::<_, StoreError, _>(move |tx| {
        Box::pin(async move {
            let mut all = Vec::new();
            for one in sql {
                all.push(tx.first(format!("SELECT count(*) FROM {one}"), vec![]).await?.unwrap().count(0)?);
            }
            Ok(all)
        })
    });
    read.await.unwrap()
}

async fn store(database: &caracal_testkit::Database, home: &Path) -> Store {
    let config = StoreConfig { database_url: database.url().map(str::to_owned), dir: home.join("stack/data"), connections: 2 };
    Store::open(&config, World::system(), None).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_leaves_a_write_whole_or_absent() {
    for database in caracal_testkit::backends().await {
        let home = tempfile::tempdir().unwrap();
        let offset = offset();
        let environment: Vec<_> = database.url().map(|url| ("DATABASE_URL", url)).into_iter().collect();
        let mut process = up(home.path(), offset, &environment);
        ready(offset, home.path()).await;
        let at = |port: u16| format!("http://localhost:{}", port + offset);
        let places = Places { sts: at(8080), coordinator: at(4000), gateway: at(8081) };
        let (url, _) = upstream().await;
        let work = Work::provision(Admin::new(at(3000), TOKEN.to_owned()), places, &url).await;
        let (zone, application) = (work.zone.clone(), work.agent.application().to_owned());
        let (api, coordinator, lifecycle) = (3000 + offset, 4000 + offset, work.lifecycle.expose());

        let owner = work.agent.start(&work.lifecycle, &["clerk"], None, false).await.unwrap();
        let mut checks: Vec<Vec<String>> = Vec::new();
        for (n, until) in each().into_iter().enumerate() {
            let body = json!({"name": format!("zone {n}")});
            hang_up(api, TOKEN, "POST", "/v1/zones", &body, until).await;
            let own = format!("'zone {n}'");
            checks.push(vec![
                format!("zones WHERE name = {own}"),
                format!("signing_keys k JOIN zones z ON z.id = k.zone_id WHERE z.name = {own}"),
                format!("zone_epochs e JOIN zones z ON z.id = e.zone_id WHERE z.name = {own}"),
                format!("admin_audit a JOIN zones z ON z.id = a.zone_id WHERE z.name = {own}"),
            ]);
            let body = json!({"name": format!("application {n}"), "registration_method": "managed"});
            hang_up(api, TOKEN, "POST", &format!("/v1/zones/{zone}/applications"), &body, until).await;
            let own = format!("'application {n}'");
            checks.push(vec![
                format!("applications WHERE name = {own}"),
                format!("change_log c JOIN applications a ON a.zone_id = c.zone_id AND a.created_at = c.at WHERE a.name = {own}"),
            ]);
            let body = json!({"application_id": application, "labels": [format!("label-{n}")], "ttl_seconds": 900});
            hang_up(coordinator, lifecycle, "POST", &format!("/zones/{zone}/agents"), &body, until).await;
            let own = format!("s.labels LIKE '%\"label-{n}\"%'");
            checks.push(vec![
                format!("sessions s WHERE {own}"),
                format!("change_log c JOIN sessions s ON s.id = c.entity_id WHERE {own}"),
            ]);
            let edge = work.agent.delegate(&work.lifecycle, &owner.id, &work.clerk.id, LEDGER, &["ledger:read"], 1).await.unwrap();
            hang_up(coordinator, lifecycle, "PATCH", &format!("/zones/{zone}/delegations/{}/revoke", edge.id), &json!({}), until)
                .await;
            let told = format!("outbox WHERE payload LIKE '%{}%'", edge.id);
            checks.push(vec![
                format!("{told} AND topic = 'caracal.sessions.revoke'"),
                format!("{told} AND payload LIKE '%delegation_revoked%' AND topic LIKE '%audit%'"),
            ]);
        }

        // Whoever comes next is served, on every connection.
        let mut next = JoinSet::new();
        for n in 0..40 {
            let (admin, zone) = (work.admin.clone(), zone.clone());
            next.spawn(async move {
                admin.application(&zone, &format!("next {n}")).await.unwrap();
                admin.call(Method::GET, &format!("/v1/zones/{zone}"), None).await.unwrap();
            });
        }
        next.join_all().await;
        assert_eq!(work.call(&work.mint().await, "/after").await.0, 200);

        let store = store(&database, home.path()).await;
        let (mut whole, mut absent) = (0, 0);
        for check in checks {
            let found = counts(&store, check.clone()).await;
            match (found.iter().all(|n| *n > 0), found.iter().all(|n| *n == 0)) {
                (true, _) => whole += 1,
                (_, true) => absent += 1,
                _ => panic!("{}: {found:?} of {check:?}", database.name()),
            }
        }
        assert!(whole > 0 && absent > 0, "{}: {whole} whole, {absent} absent", database.name());
        process.kill().unwrap();
        process.wait().unwrap();
    }
}
