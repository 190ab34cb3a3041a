use futures::poll;
use std::pin::pin;
use std::task::Poll;

use super::*;

fn epoch(answer: Poll<Result<Fresh, StoreError>>) -> Option<u64> {
    match answer {
        Poll::Ready(fresh) => Some(fresh.unwrap().stamp.epoch),
        Poll::Pending => None,
    }
}

/// "Who meets an unsettled one waits for that commit", and for no later one: back-to-back doors starve nobody.
#[tokio::test]
async fn a_request_waits_for_the_doors_that_had_raised_when_it_arrived() {
    let (world, _) = World::fixed(1);
    let (fence, zone) = (Fence::sqlite(world.clone()), world.mint());
    assert_eq!(epoch(poll!(pin!(fence.fresh(zone)))), Some(0), "nobody is waited for");
    fence.raise(zone, 1, vec![Entity::VIEW]);
    let mut first = pin!(fence.fresh(zone));
    assert_eq!(epoch(poll!(&mut first)), None);
    fence.raise(zone, 2, vec![Entity::GRAPH]);
    let mut second = pin!(fence.fresh(zone));
    assert_eq!(epoch(poll!(&mut second)), None);
    fence.settle(zone, true);
    assert_eq!(epoch(poll!(&mut second)), None, "its door is under way");
    assert_eq!(epoch(poll!(&mut first)), Some(1), "a door that came later is not waited for");
    fence.settle(zone, true);
    assert_eq!(epoch(poll!(&mut second)), Some(2));
}

/// The last rule of the journal holds inside one transaction too: a door's change counts before its commit.
#[test]
fn what_a_door_of_the_same_transaction_raised_counts() {
    let (world, _) = World::fixed(1);
    let (fence, zone) = (Fence::sqlite(world.clone()), world.mint());
    let stamp = fence.life(zone).at(0);
    fence.raise(zone, 1, vec![Entity::VIEW]);
    assert!(fence.good(zone, stamp, &[Entity::VIEW]), "nothing is applied before its commit");
    assert!(!fence.stands(zone, stamp, &[Entity::VIEW]));
    assert!(fence.stands(zone, stamp, &[Entity::GRAPH]));
    fence.settle(zone, true);
    assert!(!fence.good(zone, stamp, &[Entity::VIEW]));
}

#[test]
fn what_a_zone_cannot_remember_one_by_one_is_forgotten_as_a_whole() {
    let mut known = Known::default();
    let entity = |n: u64| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        Entity { kind: Kind::Session, id }
    };
    let before = known.stamp();
    known.apply(1, (0..=REMEMBERED as u64).map(entity));
    assert!(known.changed.is_empty() && !known.good(before, &[]), "everything older is taken as changed");
    assert!(known.good(known.stamp(), &[entity(0)]));
}
