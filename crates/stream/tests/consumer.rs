//! A consumer group: repetition, death between effect and acknowledgement, dead letters, forged messages, a Redis without memory.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Mutex;
use std::time::Duration;

use caracal_core::message::Stream;
use caracal_crypto::mac::{MacKey, origin_signature};
use caracal_stream::consumer::{Consumer, Handled, Membership, Pass};
use caracal_stream::{Published, RedisBus};

const WAIT: Duration = Duration::from_millis(20);

fn key() -> MacKey {
    MacKey::from_bytes(&[1; 32])
}

fn message(n: usize) -> Published {
    let mut fields = vec![("event".to_owned(), "spawn".to_owned()), ("agent_session_id".to_owned(), format!("s-{n}"))];
    fields.push(("_sig".to_owned(), origin_signature(&key(), Stream::AgentsLifecycle.name(), &fields)));
    Published { stream: Stream::AgentsLifecycle, fields }
}

async fn member(url: &str, name: &str, idle: Duration) -> Consumer {
    let member = Membership {
        stream: Stream::AgentsLifecycle,
        group: "gateway".to_owned(),
        name: name.to_owned(),
        keys: vec![key()],
        from_start: true,
        idle,
    };
    Consumer::join(url, member).await.unwrap()
}

async fn dead(url: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut connection = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    redis::cmd("XRANGE").arg("caracal.agents.lifecycle.dead").arg("-").arg("+").query_async(&mut connection).await.unwrap()
}

#[tokio::test]
async fn each_message_has_its_effect_once_though_a_member_dies_before_it_acknowledges() {
    let Some(url) = caracal_testkit::redis() else { return };
    let bus = RedisBus::connect(&url).await.unwrap();
    bus.add_all(&[message(1), message(2), message(1)]).await.unwrap();
    let seen = Mutex::new(Vec::new());
    let mut first = member(&url, "first", Duration::from_hours(1)).await;
    let died = tokio::time::timeout(
        Duration::from_millis(200),
        first.pass(WAIT, |message| {
            seen.lock().unwrap().push(message.field("agent_session_id").unwrap().to_owned());
            std::future::pending()
        }),
    );
    assert!(died.await.is_err());
    drop(first);
    let note = |message: Published| {
        seen.lock().unwrap().push(message.field("agent_session_id").unwrap().to_owned());
        std::future::ready(Handled::Done)
    };
    let mut patient = member(&url, "patient", Duration::from_hours(1)).await;
    assert_eq!(patient.pass(WAIT, note).await.unwrap(), Pass::default(), "not idle long enough");
    let mut second = member(&url, "second", Duration::from_millis(1)).await;
    assert_eq!(second.pass(WAIT, note).await.unwrap(), Pass { done: 3, ..Pass::default() });
    assert_eq!(second.pass(WAIT, note).await.unwrap(), Pass::default());
    assert_eq!(*seen.lock().unwrap(), ["s-1", "s-1", "s-2", "s-1"]);
}

#[tokio::test]
async fn five_failures_set_a_message_aside_and_no_other() {
    let Some(url) = caracal_testkit::redis() else { return };
    let bus = RedisBus::connect(&url).await.unwrap();
    bus.add_all(&[message(1), message(2), message(3)]).await.unwrap();
    let mut consumer = member(&url, "only", Duration::ZERO).await;
    let mut total = Pass::default();
    let mut tried = 0;
    for _ in 0..8 {
        let handle = |message: Published| {
            std::future::ready(match message.field("agent_session_id") {
                Some("s-1") => {
                    tried += 1;
                    Handled::Retry("not\nnow".to_owned())
                }
                Some("s-2") => Handled::Dead("never".to_owned()),
                _ => Handled::Done,
            })
        };
        let pass = consumer.pass(WAIT, handle).await.unwrap();
        total.done += pass.done;
        total.retried += pass.retried;
        total.dead += pass.dead;
    }
    assert_eq!((total, tried), (Pass { done: 1, retried: 4, dead: 2, unsigned: 0 }, 5));
    let letters = dead(&url).await;
    assert_eq!(letters.len(), 2);
    let (_, last) = &letters[1];
    assert_eq!(last.iter().map(|(k, _)| k.as_str()).collect::<Vec<_>>(), ["original_id", "error", "values", "_sig"]);
    assert_eq!(last[1].1, "not now");
    assert_eq!(last[3].1, origin_signature(&key(), "caracal.agents.lifecycle.dead", last));
}

#[tokio::test]
async fn what_is_not_signed_is_never_applied_and_a_redis_without_memory_is_joined_again() {
    let Some(url) = caracal_testkit::redis() else { return };
    let bus = RedisBus::connect(&url).await.unwrap();
    let mut forged = message(1);
    forged.fields[1].1 = "s-9".to_owned();
    let mut bare = message(2);
    bare.fields.pop();
    bus.add_all(&[forged, bare, message(3)]).await.unwrap();
    let mut consumer = member(&url, "only", Duration::from_secs(1)).await;
    let done = |_| std::future::ready(Handled::Done);
    assert_eq!(consumer.pass(WAIT, done).await.unwrap(), Pass { done: 1, unsigned: 2, ..Pass::default() });
    let mut connection = redis::Client::open(&*url).unwrap().get_multiplexed_async_connection().await.unwrap();
    redis::cmd("FLUSHDB").query_async::<()>(&mut connection).await.unwrap();
    bus.add_all(&[message(4)]).await.unwrap();
    assert_eq!(consumer.pass(WAIT, done).await.unwrap(), Pass::default());
    assert_eq!(consumer.pass(WAIT, done).await.unwrap(), Pass { done: 1, ..Pass::default() });
}
