//! Stacks of tests that run side by side do not meet.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use support::offset;

#[test]
fn no_two_stacks_are_given_the_same_port() {
    let offsets: Vec<u16> = (0..100).map(|_| offset()).collect();
    let ports: BTreeSet<u16> = offsets.iter().flat_map(|offset| [3000, 4000, 8080, 8081, 9090].map(|port| port + offset)).collect();
    assert_eq!(ports.len(), 500, "{offsets:?}");
}
