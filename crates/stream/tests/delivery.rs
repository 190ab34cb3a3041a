//! Evidence on its way: sent from wherever it waits, let go when Audit has acknowledged it and never before, sent again to a Redis that
//! lost its memory.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::time::Duration;

use caracal_core::message::Stream;
use caracal_host::World;
use caracal_store::journal::{Consume, Entry, Outcome, Purpose, Spend, SpooledEvent};
use caracal_store::{Store, StoreConfig};
use caracal_stream::bus::{Bus, Delivered, Member, Membership};
use caracal_stream::delivery::Source;
use caracal_stream::spool::segments::Record;
use caracal_stream::spool::{Segments, Spool, SpoolConfig, SpoolError, Table};
use caracal_stream::{Delivery, EVIDENCE_GROUP};

const WAIT: Duration = Duration::from_millis(20);

fn event(world: &World, n: usize) -> SpooledEvent {
    SpooledEvent { id: world.mint(), data: format!("{{\"id\":\"e-{n}\"}}").into_bytes(), sig: "ab".repeat(32) }
}

async fn audit(bus: &Bus) -> Member {
    let membership = Membership {
        stream: Stream::AuditEvents,
        group: EVIDENCE_GROUP,
        name: "audit".to_owned(),
        keys: vec![],
        idle: Duration::from_hours(1),
    };
    bus.join(membership).await.unwrap()
}

fn data(found: &[Delivered]) -> Vec<String> {
    found.iter().map(|one| one.message.field("data").unwrap().to_owned()).collect()
}

async fn acknowledge(audit: &mut Member, found: &[Delivered]) {
    audit.acknowledge(&found.iter().map(|one| one.id).collect::<Vec<_>>()).await.unwrap();
}

/// What a source and its spool promise, on a bus. `holds` tells whether the source still holds an event.
async fn promises<S: Source<Place: Clone>>(bus: &Bus, spool: &Spool, source: S, holds: impl AsyncFn() -> bool) {
    let world = World::system();
    let name = format!("{spool:?} on {bus:?}");
    let delivery = Delivery::new(source, bus.clone());
    let mut audit = audit(bus).await;
    spool.append((1..=3).map(|n| event(&world, n)).collect()).await.unwrap();
    assert_eq!(delivery.pass().await.unwrap(), 3, "{name}");
    let found = audit.read(10, WAIT).await.unwrap();
    assert_eq!(data(&found), [r#"{"id":"e-1"}"#, r#"{"id":"e-2"}"#, r#"{"id":"e-3"}"#], "{name}");
    assert_eq!(found[0].message.field("sig"), Some(&*"ab".repeat(32)));
    assert_eq!(delivery.pass().await.unwrap(), 0, "{name}: taken by the stream is not committed");
    assert!(holds().await, "{name}");
    acknowledge(&mut audit, &found).await;
    assert_eq!(delivery.pass().await.unwrap(), 3, "{name}");
    assert!(!holds().await, "{name}");
    assert!(audit.read(10, WAIT).await.unwrap().is_empty(), "{name}: sent once");
}

async fn buses() -> Vec<(Bus, Option<String>)> {
    let mut all = vec![(Bus::in_process(World::system()), None)];
    if let Some(url) = caracal_testkit::redis() {
        all.push((Bus::redis(&url).await.unwrap(), Some(url)));
    }
    all
}

fn segments(dir: &std::path::Path) -> Segments {
    Segments::open(SpoolConfig { dir: dir.to_owned(), max_bytes: 1 << 30 }, World::system()).unwrap()
}

#[tokio::test]
async fn evidence_is_let_go_when_it_is_committed_and_not_before() {
    for (bus, _) in buses().await {
        let dir = tempfile::tempdir().unwrap();
        let files = segments(dir.path());
        let spool = Spool::Segments(files.clone());
        promises(&bus, &spool, files.clone(), async || files.depth().uncommitted > 0).await;
    }
    for database in caracal_testkit::backends().await {
        for (bus, _) in buses().await {
            let world = World::system();
            let dir = database.dir().to_owned();
            let config = StoreConfig { database_url: database.url().map(str::to_owned), dir, connections: 4 };
            let store = Store::open(&config, world, None).await.unwrap();
            let table = Table::open(store.clone(), u64::MAX).await.unwrap();
            let spool = Spool::Table(table.clone());
            promises(&bus, &spool, table, async || !store.spooled(10).await.unwrap().is_empty()).await;
        }
    }
}

/// A Redis that lost its memory, or is another one, may never have had what was sent.
#[tokio::test]
async fn another_memory_is_sent_what_audit_has_not_committed() {
    let Some(url) = caracal_testkit::redis() else { return };
    let bus = Bus::redis(&url).await.unwrap();
    let (dir, world) = (tempfile::tempdir().unwrap(), World::system());
    let files = segments(dir.path());
    let delivery = Delivery::new(files.clone(), bus.clone());
    let spool = Spool::Segments(files.clone());
    spool.append((1..=2).map(|n| event(&world, n)).collect()).await.unwrap();
    delivery.pass().await.unwrap();
    let mut first = audit(&bus).await;
    let found = first.read(1, WAIT).await.unwrap();
    acknowledge(&mut first, &found).await;
    spool.append(vec![event(&world, 3)]).await.unwrap();
    delivery.pass().await.unwrap();
    caracal_testkit::redis_forgets(&url);
    // Somebody else's event stands behind ours in the new memory, and is acknowledged: ours are not, wherever they stood.
    let other = tempfile::tempdir().unwrap();
    let others = segments(other.path());
    Spool::Segments(others.clone()).append(vec![event(&world, 9)]).await.unwrap();
    Delivery::new(others, bus.clone()).pass().await.unwrap();
    let mut second = audit(&bus).await;
    let found = second.read(10, WAIT).await.unwrap();
    acknowledge(&mut second, &found).await;
    delivery.pass().await.unwrap();
    assert!(files.depth().uncommitted > 0, "nothing of ours was let go");
    let again = second.read(10, WAIT).await.unwrap();
    let again: Vec<String> = data(&again);
    assert!(again.contains(&r#"{"id":"e-2"}"#.to_owned()) && again.contains(&r#"{"id":"e-3"}"#.to_owned()), "{again:?}");
}

/// The stream alone is gone; others went on publishing, and Audit took theirs.
#[tokio::test]
async fn what_stood_in_a_deleted_stream_is_sent_again() {
    let Some(url) = caracal_testkit::redis() else { return };
    for others in [0, 1] {
        let bus = Bus::redis(&url).await.unwrap();
        caracal_testkit::redis_forgets(&url);
        let (dir, world) = (tempfile::tempdir().unwrap(), World::system());
        let files = segments(dir.path());
        let delivery = Delivery::new(files.clone(), bus.clone());
        Spool::Segments(files.clone()).append(vec![event(&world, 1)]).await.unwrap();
        delivery.pass().await.unwrap();
        let mut connection = redis::Client::open(&*url).unwrap().get_multiplexed_async_connection().await.unwrap();
        redis::cmd("DEL").arg(Stream::AuditEvents.name()).query_async::<()>(&mut connection).await.unwrap();
        let other = tempfile::tempdir().unwrap();
        let theirs = segments(other.path());
        Spool::Segments(theirs.clone()).append((0..others).map(|n| event(&world, 9 + n)).collect()).await.unwrap();
        Delivery::new(theirs, bus.clone()).pass().await.unwrap();
        let mut audit = audit(&bus).await;
        let found = audit.read(10, WAIT).await.unwrap();
        acknowledge(&mut audit, &found).await;
        delivery.pass().await.unwrap();
        assert!(files.depth().uncommitted > 0, "{others}: nothing of ours was let go");
        assert_eq!(data(&audit.read(10, WAIT).await.unwrap()), [r#"{"id":"e-1"}"#], "{others}");
    }
}

/// A process that starts remembers nothing it sent: it sends what Audit has not committed, once more.
#[tokio::test]
async fn a_new_start_sends_what_was_under_way() {
    for (bus, _) in buses().await {
        let (dir, world) = (tempfile::tempdir().unwrap(), World::system());
        let files = segments(dir.path());
        Spool::Segments(files.clone()).append(vec![event(&world, 1)]).await.unwrap();
        assert_eq!(Delivery::new(files.clone(), bus.clone()).pass().await.unwrap(), 1);
        files.close().await;
        let files = segments(dir.path());
        assert_eq!(Delivery::new(files.clone(), bus.clone()).pass().await.unwrap(), 1);
        assert_eq!(audit(&bus).await.read(10, WAIT).await.unwrap().len(), 2, "the event id makes that harmless");
    }
}

/// Where the spool is full, a decision is denied before anything is written for it.
#[tokio::test]
async fn what_the_spool_cannot_take_leaves_no_trace() {
    for database in caracal_testkit::backends().await {
        let world = World::system();
        let dir = database.dir().to_owned();
        let config = StoreConfig { database_url: database.url().map(str::to_owned), dir: dir.clone(), connections: 4 };
        let store = Store::open(&config, world.clone(), None).await.unwrap();
        let size = Record { data: event(&world, 1).data, sig: "ab".repeat(32) }.size() as u64;
        let files = Segments::open(SpoolConfig { dir: dir.join("spool"), max_bytes: 2 * size }, world.clone()).unwrap();
        is_bounded(&store, &Spool::Segments(files)).await;
        assert!(store.spooled(10).await.unwrap().is_empty(), "nothing went to the table");
        let event = event(&world, 1);
        let size = (event.data.len() + event.sig.len()) as u64;
        is_bounded(&store, &Spool::Table(Table::open(store.clone(), 2 * size).await.unwrap())).await;
        assert_eq!(store.spooled(10).await.unwrap().len(), 2);
        // A new start finds it as full, and what Audit commits makes room.
        let table = Table::open(store.clone(), 2 * size).await.unwrap();
        let spool = Spool::Table(table.clone());
        assert!(!spool.healthy());
        let bus = Bus::in_process(world.clone());
        let delivery = Delivery::new(table, bus.clone());
        delivery.pass().await.unwrap();
        assert_eq!(spool.append(vec![event.clone()]).await, Err(SpoolError::Full), "sent is not committed");
        let mut audit = audit(&bus).await;
        let found = audit.read(10, WAIT).await.unwrap();
        acknowledge(&mut audit, &found).await;
        delivery.pass().await.unwrap();
        assert!(spool.healthy());
        for _ in 0..2 {
            assert_eq!(spool.append(vec![event.clone()]).await, Ok(()));
        }
        assert_eq!(spool.append(vec![event]).await, Err(SpoolError::Full));
    }
}

/// A spool with room for two events.
async fn is_bounded(store: &Store, spool: &Spool) {
    let world = World::system();
    let id = format!("{spool:?}").into_bytes();
    let once = || Consume { purpose: Purpose::Nonce, id: id.clone(), until: world.now().plus_secs(60) };
    let entry = |spend| Entry { spend, events: vec![event(&world, 1)], ..Entry::default() };
    assert_eq!(spool.commit(store.journal(), entry(Spend::Nothing)).await, Ok(Outcome::Durable));
    // What is refused for another reason takes no room.
    let used = Consume { id: [&id[..], b" used"].concat(), ..once() };
    assert_eq!(
        store.journal().commit(Entry { spend: Spend::Id(used.clone()), ..Entry::default() }).await.unwrap(),
        Outcome::Durable
    );
    assert_eq!(spool.commit(store.journal(), entry(Spend::Id(used))).await, Ok(Outcome::Spent));
    assert_eq!(spool.commit(store.journal(), entry(Spend::Nothing)).await, Ok(Outcome::Durable));
    assert!(!spool.healthy(), "{spool:?}");
    assert_eq!(spool.commit(store.journal(), entry(Spend::Id(once()))).await, Err(SpoolError::Full), "{spool:?}");
    assert_eq!(spool.append(vec![event(&world, 1)]).await, Err(SpoolError::Full), "{spool:?}");
    let untouched = Entry { spend: Spend::Id(once()), ..Entry::default() };
    assert_eq!(store.journal().commit(untouched).await.unwrap(), Outcome::Durable, "{spool:?}: the id was not used up");
}
