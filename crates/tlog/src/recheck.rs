//! All of a ledger again, from what is stored: each leaf rebuilt from its values, the chain, the tree. What differs is told by the codes
//! of `audit.md` 18.13.

use caracal_core::time::Time;
use caracal_crypto::mac::{MacKey, constant_time_eq};

use crate::chain::{content, link};
use crate::event::Event;
use crate::leaf::{EntrySecret, Place, leaf_bytes};
use crate::tree::{Frontier, Hash, leaf_hash};

/// An entry as stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its place.
    pub seq: u64,
    /// When it was taken in.
    pub ingested_at: Time,
    /// What it says.
    pub event: Event,
    /// Its secret.
    pub secret: EntrySecret,
    /// Its content hash.
    pub content: Hash,
    /// The content hash before.
    pub previous: Option<Hash>,
    /// Its HMAC.
    pub hmac: Option<Hash>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The code.
    pub code: &'static str,
    /// The entry.
    pub seq: u64,
}

/// Rechecks a ledger entry by entry, in order.
#[derive(Debug)]
pub struct Recheck<'k> {
    origin: String,
    zone: String,
    keys: &'k [MacKey],
    frontier: Frontier,
    previous: Option<Hash>,
    last_ingested: Option<Time>,
    findings: Vec<Finding>,
}

impl<'k> Recheck<'k> {
    /// Begins at the first entry of a log. `keys` may have made the HMACs; without one they are not looked at.
    pub fn new(origin: String, zone: String, keys: &'k [MacKey]) -> Self {
        Self { origin, zone, keys, frontier: Frontier::default(), previous: None, last_ingested: None, findings: Vec::new() }
    }

    /// Takes the next entry.
    pub fn entry(&mut self, entry: &Stored) {
        let mut find = |code| self.findings.push(Finding { code, seq: entry.seq });
        if entry.seq != self.frontier.size() + 1 {
            find("entry_missing");
        }
        if entry.event.zone_id != self.zone {
            find("zone_mismatch");
        }
        if self.last_ingested.is_some_and(|last| entry.ingested_at < last) {
            find("time_order");
        }
        let place = Place { origin: &self.origin, seq: entry.seq, ingested_at: entry.ingested_at };
        let leaf = leaf_bytes(&entry.event, place, &entry.secret);
        let rebuilt = content(&leaf);
        if rebuilt != entry.content {
            find("leaf_changed");
        }
        if entry.previous != self.previous {
            find("chain_link_broken");
        }
        let fits = |hmac: &Hash, key: &MacKey| constant_time_eq(hmac, &link(key, &entry.content, entry.previous.as_ref()));
        if !self.keys.is_empty() && !entry.hmac.is_some_and(|hmac| self.keys.iter().any(|key| fits(&hmac, key))) {
            find("chain_hmac_mismatch");
        }
        self.previous = Some(entry.content);
        self.last_ingested = Some(entry.ingested_at);
        self.frontier.append(leaf_hash(&leaf));
    }

    /// Notes what the caller found about an entry.
    pub fn found(&mut self, code: &'static str, seq: u64) {
        self.findings.push(Finding { code, seq });
    }

    /// Ends at the head as stored: its size, root and last content hash.
    pub fn finish(mut self, head: &Frontier, last: Option<Hash>) -> Vec<Finding> {
        if self.frontier.size() == head.size() && last != self.previous {
            self.findings.push(Finding { code: "chain_content_mismatch", seq: head.size() });
        }
        if self.frontier.size() != head.size() {
            self.findings.push(Finding { code: "entry_missing", seq: self.frontier.size() + 1 });
        } else if self.frontier.root() != head.root() {
            self.findings.push(Finding { code: "root_mismatch", seq: head.size() });
        }
        self.findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaf::tests::{ORIGIN, example};

    fn ledger(key: &MacKey) -> (Vec<Stored>, Frontier) {
        let (mut previous, mut frontier) = (None, Frontier::default());
        let entries = example()
            .into_iter()
            .zip(1..)
            .map(|((event, ingested_at, secret), seq)| {
                let leaf = leaf_bytes(&event, Place { origin: ORIGIN, seq, ingested_at }, &secret);
                frontier.append(leaf_hash(&leaf));
                let content = content(&leaf);
                let hmac = Some(link(key, &content, previous.as_ref()));
                let stored = Stored { seq, ingested_at, event, secret, content, previous, hmac };
                previous = Some(content);
                stored
            })
            .collect();
        (entries, frontier)
    }

    fn codes(entries: &[Stored], head: &Frontier, key: &MacKey) -> Vec<&'static str> {
        let zone = "0195f2a9-1b22-7c3d-9e4f-5a6b7c8d9e0f".to_owned();
        let keys = [key.clone()];
        let mut recheck = Recheck::new(ORIGIN.into(), zone, &keys);
        for entry in entries {
            recheck.entry(entry);
        }
        recheck.finish(head, entries.last().map(|e| e.content)).into_iter().map(|f| f.code).collect()
    }

    #[test]
    fn an_untouched_ledger_has_no_finding_and_each_attack_its_own() {
        let key = MacKey::from_bytes(&[7; 32]);
        let (entries, head) = ledger(&key);
        assert!(codes(&entries, &head, &key).is_empty());
        let attack = |change: &dyn Fn(&mut Vec<Stored>)| {
            let mut changed = entries.clone();
            change(&mut changed);
            codes(&changed, &head, &key)
        };
        assert_eq!(attack(&|e| e[1].event.decision = "deny".into()), ["leaf_changed", "root_mismatch"]);
        assert_eq!(attack(&|e| e[1].event.metadata = None), ["leaf_changed", "root_mismatch"]);
        assert_eq!(attack(&|e| e[1].hmac = None), ["chain_hmac_mismatch"]);
        assert!(attack(&|e| drop(e.remove(1))).contains(&"entry_missing"));
        assert_eq!(attack(&|e| drop(e.pop())), ["entry_missing"]);
        assert!(attack(&|e| e[2].event.zone_id = "z".into()).contains(&"zone_mismatch"));
        assert!(codes(&entries, &head, &MacKey::from_bytes(&[8; 32])).contains(&"chain_hmac_mismatch"));
        // A rewrite of one entry with the key in hand, links and all, is left to the tree.
        let rewritten = attack(&|e| {
            e[2].event.decision = "deny".into();
            let place = Place { origin: ORIGIN, seq: 3, ingested_at: e[2].ingested_at };
            e[2].content = content(&leaf_bytes(&e[2].event, place, &e[2].secret));
            e[2].hmac = Some(link(&key, &e[2].content, e[2].previous.as_ref()));
        });
        assert_eq!(rewritten, ["root_mismatch"]);
    }
}
