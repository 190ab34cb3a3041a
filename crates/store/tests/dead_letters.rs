//! What cannot become evidence is kept: every message once, and none in another's place.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use caracal_host::World;
use caracal_store::ledger::DeadLetter;
use caracal_store::{Store, StoreConfig};

fn letter(data: &str) -> DeadLetter {
    DeadLetter { source: "spool 7".into(), reason: "bad_signature".into(), data: Some(data.into()), sig: "s".into() }
}

#[tokio::test]
async fn another_message_from_the_same_place_is_another_letter() {
    for database in caracal_testkit::backends().await {
        let config =
            StoreConfig { database_url: database.url().map(str::to_owned), dir: database.dir().to_owned(), connections: 2 };
        let store = Store::open(&config, World::system(), None).await.unwrap();
        for (data, waiting) in [("one", 1), ("one", 1), ("two", 2)] {
            store.ledger_dead_letters(vec![letter(data)]).await.unwrap();
            assert_eq!(store.ledger_dead_count().await.unwrap(), waiting, "{}: {data}", database.name());
        }
    }
}
