//! One suite, both forms: what the memory promises to whoever asks it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::time::Duration;

use caracal_core::time::Time;
use caracal_ephemeral::{Kind, Memory, Presented, Taken};
use caracal_host::World;
use caracal_store::{Store, StoreConfig};
use caracal_testkit::Database;

struct Fixture {
    memory: Memory,
    /// Another replica, or the same process after a restart.
    other: Memory,
    names_the_first: bool,
    name: String,
    _database: Option<Database>,
}

async fn forms() -> Vec<Fixture> {
    let mut all = Vec::new();
    for database in caracal_testkit::backends().await {
        let config =
            StoreConfig { database_url: database.url().map(str::to_owned), dir: database.dir().to_owned(), connections: 4 };
        let store = Store::open(&config, World::system(), None).await.unwrap();
        let memory = Memory::embedded(store.journal().clone(), World::system());
        let other = Memory::embedded(store.journal().clone(), World::system());
        let name = database.name().to_owned();
        all.push(Fixture { memory, other, names_the_first: false, name, _database: Some(database) });
    }
    if let Some(url) = caracal_testkit::redis() {
        let memory = Memory::redis(&url, World::system()).await.unwrap();
        let other = Memory::redis(&url, World::system()).await.unwrap();
        all.push(Fixture { memory, other, names_the_first: true, name: "redis".into(), _database: None });
    }
    all
}

fn later(seconds: i64) -> Time {
    World::system().now().plus_secs(seconds)
}

fn presented<'a>(kind: Kind, id: &'a str, by: &'a str) -> Presented<'a> {
    Presented { kind, id, issued: later(1), until: later(60), by }
}

#[tokio::test]
async fn an_id_is_taken_once_for_all_replicas() {
    for f in forms().await {
        assert_eq!(f.memory.take(presented(Kind::Mandate, "a", "req-1")).await, Ok(Taken::First), "{}", f.name);
        let first = f.names_the_first.then(|| "req-1".to_owned());
        // Not even one that would be forgotten at once takes the first one's place.
        let short = Presented { until: later(-1), ..presented(Kind::Mandate, "a", "req-2") };
        assert_eq!(f.other.take(short).await, Ok(Taken::Seen(first.clone())), "{}", f.name);
        assert_eq!(f.other.take(presented(Kind::Mandate, "a", "req-3")).await, Ok(Taken::Seen(first)), "{}", f.name);
        for (kind, id) in [(Kind::Nonce, "a"), (Kind::Control, "a"), (Kind::Mandate, "b")] {
            assert_eq!(f.other.take(presented(kind, id, "req-3")).await, Ok(Taken::First), "{}: {kind:?} {id}", f.name);
        }
    }
}

#[tokio::test]
async fn of_many_at_once_exactly_one_is_first() {
    for f in forms().await {
        let mut racers = tokio::task::JoinSet::new();
        for n in 0..64 {
            let memory = if n % 2 == 0 { f.memory.clone() } else { f.other.clone() };
            racers.spawn(async move { memory.take(presented(Kind::Mandate, "raced", &n.to_string())).await.unwrap() });
        }
        let first = racers.join_all().await.into_iter().filter(|taken| *taken == Taken::First).count();
        assert_eq!(first, 1, "{}", f.name);
    }
}

#[tokio::test]
async fn a_window_counts_and_closes() {
    for f in forms().await {
        for expected in 1..=3 {
            assert_eq!(f.memory.count("w", Duration::from_millis(150)).await, Ok(expected), "{}", f.name);
        }
        assert_eq!(f.memory.count("v", Duration::from_mins(1)).await, Ok(1), "{}", f.name);
        // Every look counts too: only a closed window begins again with one.
        caracal_testkit::until("the window closes", Duration::from_secs(5), || async {
            match f.memory.count("w", Duration::from_millis(150)).await {
                Ok(1) => Ok(()),
                other => Err(format!("{}: {other:?}", f.name)),
            }
        })
        .await;
    }
}
