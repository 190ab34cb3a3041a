//! One suite for both buses: what is published is shared by the members of a group, acknowledged, given again when a member dies or
//! falls silent, heard by followers, and never believed without its signature.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use caracal_core::message::Stream;
use caracal_crypto::mac::{MacKey, origin_signature};
use caracal_host::World;
use caracal_stream::bus::{Bus, Delivered, EntryId, Member, Membership};
use caracal_stream::{Keys, Published};

const WAIT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_hours(1);
const STREAM: Stream = Stream::AgentsLifecycle;
const GROUP: &str = "readers";

async fn buses() -> Vec<Bus> {
    let mut all = vec![Bus::in_process(World::system())];
    if let Some(url) = caracal_testkit::redis() {
        all.push(Bus::redis(&url).await.unwrap());
    }
    all
}

fn key() -> MacKey {
    MacKey::from_bytes(&[1; 32])
}

fn message(n: usize) -> Published {
    let mut fields = vec![("event".to_owned(), "spawn".to_owned()), ("agent_session_id".to_owned(), format!("s-{n}"))];
    fields.push(("_sig".to_owned(), origin_signature(&key(), STREAM.name(), &fields)));
    Published { stream: STREAM, fields }
}

async fn member(bus: &Bus, name: &str, idle: Duration) -> Member {
    let membership = Membership { stream: STREAM, group: GROUP, name: name.to_owned(), keys: vec![key()], idle };
    bus.join(membership).await.unwrap()
}

fn sessions(messages: &[Arc<Published>]) -> Vec<String> {
    messages.iter().map(|message| message.field("agent_session_id").unwrap().to_owned()).collect()
}

fn read(found: &[Delivered]) -> Vec<String> {
    sessions(&found.iter().map(|one| one.message.clone()).collect::<Vec<_>>())
}

fn ids(found: &[Delivered]) -> Vec<EntryId> {
    found.iter().map(|one| one.id).collect()
}

/// The next messages, waited for.
async fn something(member: &mut Member) -> Vec<Delivered> {
    let reading = async {
        loop {
            let found = member.read(10, WAIT).await.unwrap();
            if !found.is_empty() {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), reading).await.unwrap()
}

#[tokio::test]
async fn a_group_begins_with_the_past_and_shares_what_comes() {
    for bus in buses().await {
        let places = bus.publish(vec![message(1), message(2)]).await.unwrap();
        let (mut one, mut two) = (member(&bus, "one", LONG).await, member(&bus, "two", LONG).await);
        let first = one.read(1, WAIT).await.unwrap();
        assert_eq!((read(&first), ids(&first)), (vec!["s-1".to_owned()], places[..1].to_vec()), "{bus:?}");
        assert_eq!(read(&two.read(10, WAIT).await.unwrap()), ["s-2"], "{bus:?}");
        let more = bus.publish(vec![message(3)]).await.unwrap();
        assert!(more[0] > places[1]);
        assert_eq!(read(&one.read(10, WAIT).await.unwrap()), ["s-3"], "{bus:?}");
        assert!(one.read(10, WAIT).await.unwrap().is_empty() && two.read(10, WAIT).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn who_waits_is_woken_by_what_is_published() {
    for bus in buses().await {
        let mut one = member(&bus, "one", LONG).await;
        let waiting = tokio::spawn(async move { one.read(10, Duration::from_secs(5)).await.unwrap() });
        tokio::task::yield_now().await;
        bus.publish(vec![message(1)]).await.unwrap();
        assert_eq!(read(&waiting.await.unwrap()), ["s-1"], "{bus:?}");
    }
}

#[tokio::test]
async fn a_killed_member_leaves_its_messages_to_another_and_nothing_is_lost() {
    for bus in buses().await {
        bus.publish((1..=3).map(message).collect()).await.unwrap();
        let mut killed = member(&bus, "killed", LONG).await;
        let taken = killed.read(10, WAIT).await.unwrap();
        killed.acknowledge(&ids(&taken[..1])).await.unwrap();
        drop(killed);
        let mut patient = member(&bus, "patient", LONG).await;
        assert!(patient.read(10, WAIT).await.unwrap().is_empty(), "{bus:?}: not idle long enough");
        let mut heir = member(&bus, "heir", Duration::ZERO).await;
        let left = something(&mut heir).await;
        assert_eq!(read(&left), ["s-2", "s-3"], "{bus:?}");
        heir.acknowledge(&ids(&left)).await.unwrap();
        let mut late = member(&bus, "late", Duration::ZERO).await;
        assert!(late.read(10, WAIT).await.unwrap().is_empty(), "{bus:?}: acknowledged is over");
    }
}

#[tokio::test]
async fn a_member_that_comes_back_gets_again_what_it_left() {
    for bus in buses().await {
        bus.publish((1..=3).map(message).collect()).await.unwrap();
        let mut member_ = member(&bus, "one", LONG).await;
        let taken = member_.read(2, WAIT).await.unwrap();
        member_.acknowledge(&ids(&taken[1..])).await.unwrap();
        member_.again();
        assert_eq!(read(&member_.read(10, WAIT).await.unwrap()), ["s-1"], "{bus:?}: asked for again");
        assert_eq!(read(&member_.read(10, WAIT).await.unwrap()), ["s-3"], "{bus:?}: then what is new");
        drop(member_);
        let mut back = member(&bus, "one", LONG).await;
        let again = back.read(10, WAIT).await.unwrap();
        assert_eq!(read(&again), ["s-1", "s-3"], "{bus:?}: after a restart");
        assert!(back.read(10, WAIT).await.unwrap().is_empty(), "{bus:?}: once");
    }
}

#[tokio::test]
async fn progress_is_what_is_acknowledged_without_a_gap() {
    for bus in buses().await {
        let progress = async || bus.progress(STREAM, GROUP).await.unwrap();
        let before = progress().await;
        assert_eq!((before.through, before.behind), (EntryId::default(), 0), "{bus:?}: no group, no progress");
        let places = bus.publish((1..=3).map(message).collect()).await.unwrap();
        let mut one = member(&bus, "one", LONG).await;
        assert!(progress().await.through < places[0], "{bus:?}");
        let taken = one.read(10, WAIT).await.unwrap();
        assert!(progress().await.through < places[0], "{bus:?}: given is not acknowledged");
        one.acknowledge(&ids(&taken[1..])).await.unwrap();
        let gap = progress().await;
        assert!(gap.through < places[0], "{bus:?}: a gap holds everything behind it");
        assert_eq!(gap.behind, 1, "{bus:?}");
        one.acknowledge(&ids(&taken[..1])).await.unwrap();
        let done = progress().await;
        assert!(done.through >= places[2], "{bus:?}");
        assert_eq!((done.behind, &done.memory), (0, &before.memory), "{bus:?}");
    }
}

#[tokio::test]
async fn what_is_not_signed_is_dropped_for_good() {
    for bus in buses().await {
        let mut forged = message(1);
        forged.fields[1].1 = "s-9".to_owned();
        let mut bare = message(2);
        bare.fields.pop();
        let mut follower = bus.follow(&[STREAM], Keys { streams: vec![key()], revocations: vec![] }).await.unwrap();
        let places = bus.publish(vec![forged, bare, message(3)]).await.unwrap();
        let mut one = member(&bus, "one", LONG).await;
        let good = one.read(10, WAIT).await.unwrap();
        assert_eq!(read(&good), ["s-3"], "{bus:?}");
        one.acknowledge(&ids(&good)).await.unwrap();
        assert!(bus.progress(STREAM, GROUP).await.unwrap().through >= places[2], "{bus:?}: they hold up nobody");
        assert_eq!(sessions(&follower.next(WAIT).await.unwrap()), ["s-3"], "{bus:?}");
    }
}

#[tokio::test]
async fn a_follower_hears_everything_from_its_place_on_beside_every_group() {
    for bus in buses().await {
        bus.publish(vec![message(1)]).await.unwrap();
        let mut follower = bus.follow(&[Stream::SessionsRevoke, STREAM], Keys::default()).await.unwrap();
        bus.publish(vec![message(2)]).await.unwrap();
        let mut one = member(&bus, "one", LONG).await;
        assert_eq!(one.read(10, WAIT).await.unwrap().len(), 2);
        bus.publish(vec![message(3), Published { stream: Stream::KeysInvalidate, ..message(4) }]).await.unwrap();
        let mut heard = Vec::new();
        while heard.len() < 2 {
            heard.extend(follower.next(Duration::from_secs(5)).await.unwrap());
        }
        assert_eq!(sessions(&heard), ["s-2", "s-3"], "{bus:?}");
        assert!(follower.next(WAIT).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn of_what_is_acknowledged_nothing_is_cut_that_is_younger() {
    for bus in buses().await {
        bus.publish((1..=3).map(message).collect()).await.unwrap();
        bus.trim(STREAM, u64::MAX, Some(GROUP)).await.unwrap();
        let mut one = member(&bus, "one", LONG).await;
        assert_eq!(one.read(10, WAIT).await.unwrap().len(), 3, "{bus:?}");
    }
}

#[tokio::test]
async fn a_redis_that_was_emptied_is_another_memory_and_is_joined_again() {
    let Some(url) = caracal_testkit::redis() else { return };
    let bus = Bus::redis(&url).await.unwrap();
    bus.publish(vec![message(1)]).await.unwrap();
    let mut one = member(&bus, "one", LONG).await;
    assert_eq!(one.read(10, WAIT).await.unwrap().len(), 1);
    let memory = bus.progress(STREAM, GROUP).await.unwrap().memory;
    assert_eq!(bus.progress(STREAM, GROUP).await.unwrap().memory, memory, "it stays the same");
    let mut connection = redis::Client::open(&*url).unwrap().get_multiplexed_async_connection().await.unwrap();
    caracal_testkit::redis_forgets(&url);
    let emptied = bus.progress(STREAM, GROUP).await.unwrap();
    assert!(emptied.memory != memory && emptied.through == EntryId::default());
    bus.publish(vec![message(2)]).await.unwrap();
    assert_eq!(read(&something(&mut one).await), ["s-2"]);
    // A server of another run that inherited stream and mark is another memory too.
    let stranger = format!("memory:{}:x", "0".repeat(40));
    for words in
        [vec!["XGROUP", "DESTROY", STREAM.name(), &emptied.memory], vec!["XGROUP", "CREATE", STREAM.name(), &stranger, "$"]]
    {
        let mut cmd = redis::cmd(words[0]);
        cmd.arg(&words[1..]).query_async::<i64>(&mut connection).await.ok();
    }
    let promoted = bus.progress(STREAM, GROUP).await.unwrap().memory;
    assert!(promoted != emptied.memory && *promoted != *stranger, "{promoted}");
    assert_eq!(bus.progress(STREAM, GROUP).await.unwrap().memory, promoted);
}

/// Deleted by somebody, or evicted: whatever else Redis remembers, what stood in this stream is gone.
#[tokio::test]
async fn a_stream_that_was_deleted_is_another_memory() {
    let Some(url) = caracal_testkit::redis() else { return };
    let bus = Bus::redis(&url).await.unwrap();
    bus.publish(vec![message(1)]).await.unwrap();
    let memory = bus.progress(STREAM, GROUP).await.unwrap().memory;
    bus.told(STREAM).await.unwrap();
    assert!(!bus.forgot(STREAM).await.unwrap());
    let mut connection = redis::Client::open(&*url).unwrap().get_multiplexed_async_connection().await.unwrap();
    redis::cmd("DEL").arg(STREAM.name()).query_async::<()>(&mut connection).await.unwrap();
    // Others have published more than there was before, and it is acknowledged: nothing about its length or places tells.
    bus.publish((2..=9).map(message).collect()).await.unwrap();
    let mut one = member(&bus, "one", LONG).await;
    let found = one.read(10, WAIT).await.unwrap();
    one.acknowledge(&ids(&found)).await.unwrap();
    assert_ne!(bus.progress(STREAM, GROUP).await.unwrap().memory, memory);
    assert!(bus.forgot(STREAM).await.unwrap(), "the past must be told again");
}

#[tokio::test]
async fn who_refuses_is_told_at_once() {
    let refused = tokio::time::timeout(Duration::from_secs(5), Bus::redis("redis://127.0.0.1:1/")).await;
    let refused = refused.expect("it does not try again and again").unwrap_err();
    assert!(refused.to_string().contains("refused"), "{refused}");
    assert!(Bus::redis("http://nonsense").await.is_err());
}
