//! Keys over HTTP: how often the STS is asked, and what its absence means.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use caracal_core::id::{SigningKeyId, ZoneId};
use caracal_crypto::keys::{Jwks, SigningKey};
use caracal_egress::{Client, Guard, Settings, Trust};
use caracal_host::jobs::Stop;
use caracal_host::{FixedClock, World};
use caracal_web::mandate::{HttpKeys, KeySettings, KeySource, KeysError};
use caracal_web::{Limits, Listener};

struct Fixture {
    world: World,
    clock: Arc<FixedClock>,
    keys: Arc<HttpKeys>,
    asked: Arc<AtomicUsize>,
    answer: Arc<Mutex<(u16, String)>>,
}

fn fixture() -> Fixture {
    let (world, clock) = World::fixed(1);
    let asked = Arc::new(AtomicUsize::new(0));
    let answer = Arc::new(Mutex::new((404, String::new())));
    let (count, says) = (asked.clone(), answer.clone());
    let router = Router::new().route(
        "/base/.well-known/jwks.json",
        get(move || async move {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            let (status, body) = says.lock().unwrap().clone();
            (http::StatusCode::from_u16(status).unwrap(), body).into_response()
        }),
    );
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), Limits::default(), None).unwrap();
    let sts = format!("http://{}/base/", listener.address().unwrap()).parse().unwrap();
    tokio::spawn(listener.serve(router, Stop::new(), Duration::ZERO));
    let client = Client::new(Settings::new(Guard::internal(), Trust::new(None)));
    let settings = KeySettings { zones: 4, ..KeySettings::default() };
    let keys = Arc::new(HttpKeys::new(client, &sts, settings, world.clone(), || {}));
    Fixture { world, clock, keys, asked, answer }
}

impl Fixture {
    fn serve(&self, key: &SigningKey) -> String {
        *self.answer.lock().unwrap() = (200, serde_json::to_string(&Jwks::of([&key.public().unwrap()])).unwrap());
        key.id().to_string()
    }

    fn new_key(&self) -> SigningKey {
        SigningKey::generate(self.world.mint::<SigningKeyId>()).unwrap()
    }

    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::SeqCst)
    }
}

#[tokio::test]
async fn concurrent_misses_share_one_fetch_and_the_set_lives_five_minutes() {
    let f = fixture();
    let zone: ZoneId = f.world.mint();
    let kid = f.serve(&f.new_key());
    let many: Vec<_> = (0..20)
        .map(|_| {
            let (keys, kid) = (f.keys.clone(), kid.clone());
            tokio::spawn(async move { keys.fetch(zone, &kid).await.map(|_| ()) })
        })
        .collect();
    for one in many {
        one.await.unwrap().unwrap();
    }
    assert_eq!(f.asked(), 1);
    f.clock.advance(Duration::from_secs(299));
    assert!(f.keys.current(zone).is_some());
    f.clock.advance(Duration::from_secs(1));
    assert!(f.keys.current(zone).is_none(), "nothing stale");
    *f.answer.lock().unwrap() = (503, String::new());
    assert!(matches!(f.keys.fetch(zone, &kid).await, Err(KeysError::Unavailable(_))), "away is not unknown");
}

#[tokio::test]
async fn an_unknown_key_asks_again_once_per_cool_down() {
    let f = fixture();
    let zone: ZoneId = f.world.mint();
    let old = f.serve(&f.new_key());
    f.keys.fetch(zone, &old).await.unwrap();
    let new = f.serve(&f.new_key());
    assert!(f.keys.fetch(zone, &new).await.unwrap().has(&new), "a rotation is seen at once");
    assert_eq!(f.asked(), 2);
    for made_up in ["a", "b"] {
        assert!(!f.keys.fetch(zone, made_up).await.unwrap().has(made_up));
    }
    assert_eq!(f.asked(), 0, "within the cool-down nobody is asked");
    f.clock.advance(Duration::from_secs(30));
    f.keys.fetch(zone, "c").await.unwrap();
    assert_eq!(f.asked(), 1);
    f.keys.forget(zone);
    assert!(f.keys.current(zone).is_none());
}

#[tokio::test]
async fn made_up_zones_are_remembered_and_bounded() {
    let f = fixture();
    let zone: ZoneId = f.world.mint();
    for _ in 0..5 {
        assert_eq!(f.keys.fetch(zone, "k").await.unwrap_err(), KeysError::UnknownZone);
    }
    assert_eq!(f.asked(), 1);
    for _ in 0..20 {
        let made_up: ZoneId = f.world.mint();
        f.clock.advance(Duration::from_millis(1));
        assert_eq!(f.keys.fetch(made_up, "k").await.unwrap_err(), KeysError::UnknownZone);
    }
    assert_eq!(f.asked(), 20);
}

#[tokio::test]
async fn a_broken_key_set_is_no_key_set() {
    let f = fixture();
    for (status, body) in [(200, "{}"), (200, "nonsense"), (200, r#"{"keys":[]}"#), (302, ""), (500, "")] {
        *f.answer.lock().unwrap() = (status, body.to_owned());
        let error = f.keys.fetch(f.world.mint(), "k").await.unwrap_err();
        assert!(matches!(error, KeysError::Unavailable(_)), "{status} {body}");
    }
}
