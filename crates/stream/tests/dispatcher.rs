//! From a committed change to whoever listens, on every backend.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use caracal_core::id::{SessionId, ZoneId};
use caracal_core::message::{Anchor, Message, Producer, Stream};
use caracal_crypto::mac::{MacKey, origin_verified};
use caracal_host::World;
use caracal_store::management::{NewZone, Zone};
use caracal_store::{Store, StoreConfig};
use caracal_stream::bus::Follower;
use caracal_stream::{Bus, Dispatcher, Keys, Published};

struct Fixture {
    store: Store,
    world: World,
    bus: Bus,
    follower: Follower,
    _database: caracal_testkit::Database,
}

/// Each database with each bus.
async fn fixtures() -> Vec<Fixture> {
    let mut all = Vec::new();
    for shared in [false, true] {
        for database in caracal_testkit::backends().await {
            let world = World::system();
            let bus = match caracal_testkit::redis() {
                Some(url) if shared => Bus::redis(&url).await.unwrap(),
                None if shared => continue,
                _ => Bus::in_process(world.clone()),
            };
            let config =
                StoreConfig { database_url: database.url().map(str::to_owned), dir: database.dir().to_owned(), connections: 8 };
            let store = Store::open(&config, world.clone(), None).await.unwrap();
            let follower = bus.follow(&[Stream::SessionsRevoke], Keys::default()).await.unwrap();
            all.push(Fixture { store, world, bus, follower, _database: database });
        }
    }
    all
}

fn keys() -> Keys {
    Keys { streams: vec![MacKey::from_bytes(&[1; 32])], revocations: vec![MacKey::from_bytes(&[2; 32])] }
}

impl Fixture {
    fn dispatcher(&self) -> Dispatcher {
        Dispatcher::new(self.store.clone(), keys(), self.bus.clone(), self.world.clone())
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

    async fn ends(&mut self) -> Vec<Arc<Published>> {
        self.follower.next(Duration::from_millis(20)).await.unwrap()
    }
}

#[tokio::test]
async fn a_committed_change_is_heard_once_and_signed_with_the_key_of_resource_servers() {
    for mut f in fixtures().await {
        let dispatcher = f.dispatcher();
        let (zone, session) = f.revoke().await;
        while dispatcher.pass().await.unwrap() > 0 {}
        let ends = f.ends().await;
        assert_eq!(ends.len(), 1);
        assert_eq!(
            (ends[0].field("zone_id"), ends[0].field("agent_session_id")),
            (Some(&*zone.to_string()), Some(&*session.to_string()))
        );
        assert!(ends[0].field("outbox_id").is_some());
        assert!(origin_verified(&[MacKey::from_bytes(&[2; 32])], "caracal.sessions.revoke", &ends[0].fields));
        assert!(!origin_verified(&[MacKey::from_bytes(&[1; 32])], "caracal.sessions.revoke", &ends[0].fields));
        assert!(f.store.outbox_waiting(10).await.unwrap().iter().all(|row| row.topic == "caracal.audit.events"));
        assert_eq!(dispatcher.pass().await.unwrap(), 0);
        assert!(f.ends().await.is_empty());
    }
}

#[tokio::test]
async fn of_two_processes_on_one_bus_one_dispatches() {
    for mut f in fixtures().await {
        if !f.bus.is_shared() {
            continue;
        }
        let (first, second) = (f.dispatcher(), f.dispatcher());
        f.revoke().await;
        assert!(first.pass().await.unwrap() > 0);
        f.revoke().await;
        assert_eq!(second.pass().await.unwrap(), 0, "the other holds the lease");
        assert_eq!(f.ends().await.len(), 1);
    }
}

/// Acceptance row 15, the part of resource servers: they have nothing but these streams.
#[tokio::test]
async fn a_redis_without_its_past_is_told_the_last_day_again() {
    let Some(url) = caracal_testkit::redis() else { return };
    for database in caracal_testkit::backends().await {
        let world = World::system();
        let config =
            StoreConfig { database_url: database.url().map(str::to_owned), dir: database.dir().to_owned(), connections: 8 };
        let store = Store::open(&config, world.clone(), None).await.unwrap();
        let bus = Bus::redis(&url).await.unwrap();
        let follower = bus.follow(&[Stream::SessionsRevoke], Keys::default()).await.unwrap();
        let mut f = Fixture { store, world, bus, follower, _database: database };
        let (_, session) = f.revoke().await;
        let drain = async |f: &Fixture| {
            // Another process each time: what the last one remembers does not help.
            let dispatcher = f.dispatcher();
            let stop = caracal_host::jobs::Stop::new();
            while dispatcher.pass().await.unwrap() > 0 {}
            stop.ask();
            dispatcher.run(&stop).await;
        };
        drain(&f).await;
        assert_eq!(f.ends().await.len(), 1);
        drain(&f).await;
        assert!(f.ends().await.is_empty(), "a memory that was told is not told again");
        caracal_testkit::redis_forgets(&url);
        drain(&f).await;
        let ends = f.ends().await;
        assert_eq!(ends.len(), 1);
        assert_eq!(ends[0].field("agent_session_id"), Some(&*session.to_string()));
        caracal_testkit::redis_forgets(&url);
    }
}
