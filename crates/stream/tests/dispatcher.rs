//! From a committed change to whoever listens, on every backend.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::{Arc, Mutex};

use caracal_core::id::{SessionId, ZoneId};
use caracal_core::message::{Anchor, Message, Producer};
use caracal_crypto::mac::{MacKey, origin_verified};
use caracal_host::World;
use caracal_store::management::{NewZone, Zone};
use caracal_store::{Store, StoreConfig};
use caracal_stream::{Dispatcher, Keys, Published, RedisBus};

struct Fixture {
    store: Store,
    world: World,
    heard: Arc<Mutex<Vec<Published>>>,
    _database: caracal_testkit::Database,
}

async fn fixtures() -> Vec<Fixture> {
    let mut all = Vec::new();
    for database in caracal_testkit::backends().await {
        let world = World::system();
        let config =
            StoreConfig { database_url: database.url().map(str::to_owned), dir: database.dir().to_owned(), connections: 8 };
        let store = Store::open(&config, world.clone(), None).await.unwrap();
        all.push(Fixture { store, world, heard: Arc::default(), _database: database });
    }
    all
}

fn keys() -> Keys {
    Keys { streams: Some(MacKey::from_bytes(&[1; 32])), revocations: Some(MacKey::from_bytes(&[2; 32])) }
}

impl Fixture {
    fn dispatcher(&self, redis: Option<RedisBus>) -> Dispatcher {
        let dispatcher = Dispatcher::new(self.store.clone(), keys(), redis, false, self.world.clone());
        let heard = self.heard.clone();
        dispatcher.subscribe(move |message| heard.lock().unwrap().push(message.clone()));
        dispatcher
    }

    /// A change that announces the end of a Session.
    async fn revoke(&self) -> (ZoneId, SessionId) {
        let (zone, session) = (self.world.mint(), self.world.mint());
        self.store
            .door::<_, (), _>(None, Producer::Coordinator, move |door| {
                Box::pin(async move {
                    let new = NewZone { id: zone, name: "z".into(), slug: zone.to_string(), dcr_enabled: false, by: "t".into() };
                    Zone::insert(door, new).await?;
                    door.announce(Message::revoked(zone, Anchor::Session(session), "requested"));
                    Ok(())
                })
            })
            .await
            .unwrap();
        (zone, session)
    }

    fn ends(&self) -> Vec<Published> {
        self.heard.lock().unwrap().iter().filter(|m| m.stream.name() == "caracal.sessions.revoke").cloned().collect()
    }
}

#[tokio::test]
async fn a_committed_change_is_heard_once_and_signed_with_the_key_of_resource_servers() {
    for f in fixtures().await {
        let dispatcher = f.dispatcher(None);
        let (zone, session) = f.revoke().await;
        while dispatcher.pass().await.unwrap_or(0) > 0 {}
        let ends = f.ends();
        assert_eq!(ends.len(), 1);
        assert_eq!(
            (ends[0].field("zone_id"), ends[0].field("agent_session_id")),
            (Some(&*zone.to_string()), Some(&*session.to_string()))
        );
        assert!(origin_verified(&[MacKey::from_bytes(&[2; 32])], "caracal.sessions.revoke", &ends[0].fields));
        assert!(!origin_verified(&[MacKey::from_bytes(&[1; 32])], "caracal.sessions.revoke", &ends[0].fields));
        assert!(f.store.outbox_waiting(10).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn redis_has_it_before_it_is_marked_and_only_one_process_dispatches() {
    let Some(url) = caracal_testkit::redis() else { return };
    for f in fixtures().await {
        let bus = RedisBus::connect(&url).await.unwrap();
        let (first, second) = (f.dispatcher(Some(bus.clone())), f.dispatcher(Some(bus)));
        let (_, session) = f.revoke().await;
        assert!(first.pass().await.unwrap_or(0) > 0);
        f.revoke().await;
        assert_eq!(second.pass().await.unwrap_or(9), 0, "the other holds the lease");
        let client = redis::Client::open(url.as_str()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let entries: redis::streams::StreamRangeReply =
            redis::cmd("XRANGE").arg("caracal.sessions.revoke").arg("-").arg("+").query_async(&mut connection).await.unwrap();
        let mine =
            entries.ids.iter().find(|e| e.get::<String>("agent_session_id").as_deref() == Some(&*session.to_string())).unwrap();
        let fields: Vec<(String, String)> = mine.map.keys().map(|k| (k.clone(), mine.get(k).unwrap())).collect();
        assert!(origin_verified(&[MacKey::from_bytes(&[2; 32])], "caracal.sessions.revoke", &fields));
        assert!(fields.iter().any(|(k, _)| k == "outbox_id"));
    }
}
