//! What custody promises, on every backend: the right key or no start, and nothing opened for what it was not sealed for.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use caracal_core::id::{ProviderId, SigningKeyId, ZoneId};
use caracal_core::message::Producer;
use caracal_crypto::seal::{Kek, Keks};
use caracal_custody::{BUILTIN, Custody, CustodyError, SecretDocument, provider_ref};
use caracal_host::World;
use caracal_store::{Store, StoreConfig};
use caracal_testkit::Database;

fn kek(last: &str) -> Kek {
    Kek::from_hex(&format!("101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e{last}")).unwrap()
}

async fn stores() -> Vec<(Store, World, Database)> {
    let mut all = Vec::new();
    for database in caracal_testkit::backends().await {
        let world = World::system();
        let config =
            StoreConfig { database_url: database.url().map(str::to_owned), dir: database.dir().to_owned(), connections: 2 };
        all.push((Store::open(&config, world.clone(), None).await.unwrap(), world, database));
    }
    all
}

async fn open(store: &Store, world: &World, keks: Keks) -> Result<Custody, CustodyError> {
    Custody::open(store, keks, world.clone(), BUILTIN).await
}

async fn put(store: &Store, reference: String, sealed: Vec<u8>) {
    let write = store.door::<_, (), _>(None, Producer::Api, move |door| {
        Box::pin(async move { Ok(door.put_document(&reference, sealed).await?) })
    });
    write.await.unwrap();
}

fn said<T>(outcome: Result<T, CustodyError>) -> String {
    outcome.err().map(|e| e.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn a_start_needs_every_key_that_something_is_sealed_under() {
    for (store, world, database) in stores().await {
        let first = open(&store, &world, Keks::new(kek("30"), None)).await.unwrap();
        let refused = said(open(&store, &world, Keks::new(kek("31"), None)).await);
        assert!(refused.contains("SECRET_STORE_KEK"), "{}: {refused}", database.name());
        // During a rotation new documents are sealed under the new key, and old ones stay.
        let rotating = open(&store, &world, Keks::new(kek("31"), Some(kek("30")))).await.unwrap();
        assert_eq!(first.verifier_key().tag(&[b"x"]), rotating.verifier_key().tag(&[b"x"]), "one verifier key for good");
        put(&store, "a".into(), rotating.seal("a", b"new").unwrap()).await;
        assert_ne!(said(open(&store, &world, Keks::new(kek("30"), None)).await), "", "{}: one document of many", database.name());
        assert_ne!(said(open(&store, &world, Keks::new(kek("31"), None)).await), "", "{}", database.name());
        assert_eq!(said(open(&store, &world, Keks::new(kek("31"), Some(kek("30")))).await), "");
    }
}

#[tokio::test]
async fn another_backend_is_not_taken_silently() {
    for (store, world, _database) in stores().await {
        let refused = said(Custody::open(&store, Keks::new(kek("30"), None), world.clone(), "vault").await);
        assert!(refused.contains("vault") && refused.contains(BUILTIN), "{refused}");
    }
}

#[tokio::test]
async fn a_signing_key_opens_for_its_own_row_alone() {
    for (store, world, _database) in stores().await {
        let custody = open(&store, &world, Keks::new(kek("30"), None)).await.unwrap();
        let (id, sealed) = custody.new_signing_key().unwrap();
        assert_eq!(custody.signing_key(id, &sealed).unwrap().id(), id);
        let other: SigningKeyId = world.mint();
        assert!(custody.signing_key(other, &sealed).is_err(), "rows cannot be swapped");
        let der = custody.signing_key(id, &sealed).unwrap().to_pkcs8().unwrap();
        let fixed = custody.seal("caracal/secrets/zoneSigningKey", &der).unwrap();
        assert!(custody.signing_key(id, &fixed).is_err(), "a purpose that names no row opens for none");
    }
}

#[tokio::test]
async fn a_provider_document_opens_for_its_own_provider_alone() {
    for (store, world, _database) in stores().await {
        let custody = open(&store, &world, Keks::new(kek("30"), None)).await.unwrap();
        let (zone, provider): (ZoneId, ProviderId) = (world.mint(), world.mint());
        let secrets = SecretDocument::from([("api_key".to_owned(), "canary".to_owned().into())]);
        let sealed = custody.seal_provider(zone, provider, &secrets).unwrap();
        assert!(!sealed.windows(6).any(|w| w == b"canary"));
        assert_eq!(custody.provider_secrets(zone, provider, Some(&sealed)).unwrap(), secrets);
        assert!(custody.provider_secrets(zone, provider, None).unwrap().is_empty());
        assert!(custody.provider_secrets(world.mint(), provider, Some(&sealed)).is_err(), "another zone");
        assert!(custody.provider_secrets(zone, world.mint(), Some(&sealed)).is_err(), "another provider");
        let odd = custody.seal(&provider_ref(zone, provider), br#"{"api_key": 5}"#).unwrap();
        let said = said(custody.provider_secrets(zone, provider, Some(&odd)));
        assert_eq!(said, "sealed material is not readable: provider document");
    }
}
