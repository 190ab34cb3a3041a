//! Two processes on one PostgreSQL and one Redis: exchanges race revocations. After a revocation was answered nothing is minted below
//! it, on either process, and no record is younger than it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::fs;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use caracal_client::{Admin, Caracal, Places};
use caracal_host::World;
use caracal_store::{Store, StoreConfig, StoreError};
use serde_json::json;

use support::{TOKEN, offset, ready, up};

const LEDGER: &str = "resource://ledger";
/// Exchanges that are raced, over all rounds.
const EXCHANGES: usize = 10_000;
/// Exchanges under way at once on each process.
const WORKERS: usize = 4;
/// Exchanges of one worker in a round, at most.
const PER_ROUND: usize = 40;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Default)]
struct Tally {
    tried: AtomicUsize,
    minted: AtomicUsize,
    /// Mints that began after the revocation was answered and succeeded.
    late: AtomicUsize,
}

async fn records(store: &Store) -> u64 {
    store
        .read::<_, StoreError, _>(|tx| {
            Box::pin(async move { tx.first("SELECT count(*) FROM authority_records", vec![]).await?.unwrap().count(0) })
        })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_revocation_was_answered_nothing_is_minted_anywhere() {
    let (Some(database), Some(redis)) = (caracal_testkit::postgres().await, caracal_testkit::redis()) else { return };
    let home = tempfile::tempdir().unwrap();
    let (one, two) = (home.path().join("one"), home.path().join("two"));
    fs::create_dir_all(&one).unwrap();
    fs::create_dir_all(&two).unwrap();
    let environment = [("DATABASE_URL", database.url().unwrap()), ("REDIS_URL", redis.as_str()), ("ISSUER_URL", "http://sts.test")];
    let first = offset();
    let _first = Running(up(&one, first, &environment));
    ready(first, &one).await;
    // The second process has the first one's keys, as two replicas have.
    fs::create_dir_all(two.join("stack")).unwrap();
    let copied = std::process::Command::new("cp").arg("-a").arg(one.join("stack/secrets")).arg(two.join("stack/secrets")).status();
    assert!(copied.unwrap().success());
    let second = offset();
    let _second = Running(up(&two, second, &environment));
    ready(second, &two).await;

    let admin = Admin::new(format!("http://localhost:{}", 3000 + first), TOKEN.to_owned());
    let zone = admin.zone("Race").await.unwrap();
    let (application, secret) = admin.application(&zone, "racer").await.unwrap();
    let provider = admin.bearer_provider(&zone, "key", "sk-real").await.unwrap();
    admin.resource(&zone, LEDGER, "http://127.0.0.1:9/", &["ledger:read"], &provider).await.unwrap();
    let grants = json!({LEDGER: {"application": "app", "roles": {"clerk": ["ledger:read"]}}});
    let document = format!(
        "# caracal:data-document\npackage caracal.authz\nimport rego.v1\napp_ids := {}\ngrants := {grants}\n",
        json!({"app": application})
    );
    admin.govern(&zone, "rules", &document).await.unwrap();
    let agent = |offset: u16| {
        let at = |port: u16| format!("http://localhost:{}", port + offset);
        let places = Places { sts: at(8080), coordinator: at(4000), gateway: at(8081) };
        Caracal::new(places, &zone, &application, secret.clone())
    };
    let agents = [agent(first), agent(second)];
    let config = StoreConfig { database_url: database.url().map(str::to_owned), dir: database.dir().to_owned(), connections: 2 };
    let store = Store::open(&config, World::system(), None).await.unwrap();

    let tally = Arc::new(Tally::default());
    let mut round = 0_usize;
    let mut lifecycle = agents[0].bootstrap(&[LEDGER]).await.unwrap();
    while tally.tried.load(Ordering::SeqCst) < EXCHANGES {
        round += 1;
        if round.is_multiple_of(50) {
            lifecycle = agents[0].bootstrap(&[LEDGER]).await.unwrap();
        }
        // What is revoked through one process is minted on both.
        let (near, far) = (&agents[round % 2], &agents[(round + 1) % 2]);
        let owner = near.start(&lifecycle, &["clerk"], None, false).await.unwrap();
        let clerk = far.start(&lifecycle, &["clerk"], None, false).await.unwrap();
        let edge = near.delegate(&lifecycle, &owner.id, &clerk.id, LEDGER, &["ledger:read"], 3).await.unwrap();
        let answered = Arc::new(AtomicBool::new(false));
        let workers: Vec<_> = (0..WORKERS * 2)
            .map(|n| {
                let (agent, session, edge) = (agents[n % 2].clone(), clerk.id.clone(), edge.id.clone());
                let (tally, answered) = (tally.clone(), answered.clone());
                tokio::spawn(async move {
                    let mut after = 0;
                    for _ in 0..PER_ROUND {
                        let late = answered.load(Ordering::SeqCst);
                        tally.tried.fetch_add(1, Ordering::SeqCst);
                        let minted = agent.mint(LEDGER, &["ledger:read"], &session, &edge).await.is_ok();
                        tally.minted.fetch_add(usize::from(minted), Ordering::SeqCst);
                        tally.late.fetch_add(usize::from(minted && late), Ordering::SeqCst);
                        after += usize::from(late);
                        if after == 3 {
                            break;
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis((round as u64 * 13) % 90)).await;
        if round.is_multiple_of(2) {
            near.revoke(&lifecycle, &edge.id).await.unwrap();
        } else {
            far.end(&lifecycle, &clerk.id).await.unwrap();
        }
        answered.store(true, Ordering::SeqCst);
        let then = records(&store).await;
        for worker in workers {
            worker.await.unwrap();
        }
        assert_eq!(records(&store).await, then, "round {round}: a record is younger than the revocation of what it stands on");
    }
    let (tried, minted, late) =
        (tally.tried.load(Ordering::SeqCst), tally.minted.load(Ordering::SeqCst), tally.late.load(Ordering::SeqCst));
    println!("{round} rounds, {tried} exchanges, {minted} minted");
    assert_eq!(late, 0, "minted after the answer of the revocation");
    assert!(minted > tried / 10, "the race was run: {minted} of {tried}");
}
