//! A Redis that may have forgotten is not believed about what came before.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use caracal_core::time::Time;
use caracal_ephemeral::{Kind, Memory, Presented, Taken};
use caracal_host::World;

const SERVER: &str = "caracal:ephemeral:server";

fn mandate(id: &str, issued: Time) -> Presented<'_> {
    Presented { kind: Kind::Mandate, id, issued, until: World::system().now().plus_secs(60), by: "r" }
}

async fn raw(url: &str, words: &[&str]) -> Option<String> {
    let mut connection = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut cmd = redis::cmd(words[0]);
    for word in &words[1..] {
        cmd.arg(*word);
    }
    cmd.query_async(&mut connection).await.unwrap()
}

#[tokio::test]
async fn another_server_or_an_emptied_one_vouches_only_for_what_is_younger() {
    let Some(url) = caracal_testkit::redis() else { return };
    let world = World::system();
    let memory = Memory::redis(&url, world.clone()).await.unwrap();
    let mark = raw(&url, &["GET", SERVER]).await.unwrap();
    let old = world.now().plus_secs(1);
    assert_eq!(memory.take(mandate("used", old)).await, Ok(Taken::First));
    assert_eq!(raw(&url, &["GET", SERVER]).await.unwrap(), mark, "the same server keeps its mark");
    // A server of another run inherits data and mark (a promotion), or nothing (an empty restart).
    let stranger = format!("{} 1", "0".repeat(40));
    for change in [vec!["SET", SERVER, stranger.as_str()], vec!["FLUSHDB"], vec!["SET", SERVER, "nonsense"]] {
        raw(&url, &change).await;
        let before = Time::from_micros(world.now().as_micros());
        let id = change.join(" ");
        assert_eq!(memory.take(mandate(&id, before)).await, Ok(Taken::Unsure), "{change:?}");
        let younger = format!("{id} younger");
        assert_eq!(memory.take(mandate(&younger, world.now().plus_secs(2))).await, Ok(Taken::First), "{change:?}");
        assert!(matches!(memory.take(mandate(&younger, world.now().plus_secs(2))).await, Ok(Taken::Seen(_))), "{change:?}");
    }
}

#[tokio::test]
async fn a_replica_of_our_process_starting_later_does_not_make_the_memory_younger() {
    let Some(url) = caracal_testkit::redis() else { return };
    let first = Memory::redis(&url, World::system()).await.unwrap();
    let issued = World::system().now().plus_secs(1);
    assert_eq!(first.take(mandate("a", issued)).await, Ok(Taken::First));
    let second = Memory::redis(&url, World::system()).await.unwrap();
    assert_eq!(second.take(mandate("b", issued)).await, Ok(Taken::First));
}

#[tokio::test]
async fn who_does_not_answer_is_away() {
    assert!(Memory::redis("redis://127.0.0.1:1/", World::system()).await.is_err());
}

/// Time passes alike everywhere, but clocks differ: until when an id is kept is not Redis's clock to say.
#[tokio::test]
async fn a_server_whose_clock_is_ahead_forgets_nothing_early() {
    let Some(url) = caracal_testkit::redis() else { return };
    let (world, clock) = World::fixed(5);
    clock.set(World::system().now().plus_secs(-3600));
    let memory = Memory::redis(&url, world.clone()).await.unwrap();
    // Younger than the memory, and by Redis's clock over long ago.
    clock.set(World::system().now().plus_secs(-1800));
    let issued = World::system().now().plus_secs(60);
    for kind in [Kind::Mandate, Kind::Nonce, Kind::Control] {
        let presented = Presented { kind, id: "a", issued, until: world.now().plus_secs(60), by: "r" };
        assert_eq!(memory.take(presented).await, Ok(Taken::First), "{kind:?}");
        assert_eq!(memory.take(presented).await, Ok(Taken::Seen(Some("r".to_owned()))), "{kind:?}");
    }
    let left: u64 = raw(&url, &["PTTL", "seen:jti:a"]).await.unwrap().parse().unwrap();
    assert!(left > 60_000, "{left}: a verifier whose clock is behind may still take it");
}
