//! All of a ledger again, from what is stored: each leaf rebuilt from its values, the chain, the tree, and what its emitter signed. What
//! differs is told by the codes of `audit.md` 18.13, and `signature_mismatch` for the last.

use caracal_core::digest::sha256;
use caracal_core::event::Event;
use caracal_core::time::Time;
use caracal_crypto::mac::{MacKey, constant_time_eq};

use crate::canonical::Canonical;
use crate::chain::{content, data_mac, link};
use crate::leaf::{EntrySecret, Place, leaf_bytes};
use crate::tree::{Frontier, Hash, leaf_hash};

/// A key, and the name that entries know it by.
#[derive(Clone, Debug)]
pub struct NamedKey {
    /// First four bytes of its SHA-256.
    pub id: [u8; 4],
    /// The key.
    pub key: MacKey,
}

impl NamedKey {
    /// From its bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let [a, b, c, d, ..] = sha256(&[bytes]);
        Self { id: [a, b, c, d], key: MacKey::from_bytes(bytes) }
    }
}

/// An entry as stored: all of it.
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
    /// Its HMAC, and the key that made it.
    pub hmac: Option<([u8; 4], Hash)>,
    /// The emitter's signature; nothing where there was no key.
    pub signature: Option<Hash>,
    /// SHA-256 of what the emitter signed and its [`data_mac`], where that is not what [`Event::to_data`] gives.
    pub foreign: Option<(Hash, Option<[u8; 16]>)>,
}

/// Ends of a ledger as its head has them.
#[derive(Clone, Debug)]
pub struct Head {
    /// The tree's right edge.
    pub frontier: Frontier,
    /// The last content hash.
    pub content: Option<Hash>,
    /// When the last entry was taken in; when the head was made, if there is none.
    pub ingested_at: Time,
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
    keys: &'k [NamedKey],
    frontier: Frontier,
    previous: Option<Hash>,
    last_ingested: Option<Time>,
    findings: Vec<Finding>,
}

impl<'k> Recheck<'k> {
    /// Begins at the first entry of a log. `keys` may have made HMACs and signatures; without one they are not looked at.
    pub fn new(origin: String, zone: String, keys: &'k [NamedKey]) -> Self {
        Self { origin, zone, keys, frontier: Frontier::default(), previous: None, last_ingested: None, findings: Vec::new() }
    }

    /// Takes the next entry.
    pub fn entry(&mut self, entry: &Stored) {
        if entry.seq != self.frontier.size() + 1 {
            self.found("entry_missing", entry.seq);
        }
        if entry.event.zone_id != self.zone {
            self.found("zone_mismatch", entry.seq);
        }
        if self.last_ingested.is_some_and(|last| entry.ingested_at < last) {
            self.found("time_order", entry.seq);
        }
        let place = Place { origin: &self.origin, seq: entry.seq, ingested_at: entry.ingested_at };
        let leaf = leaf_bytes(&Canonical::of(&entry.event), place, &entry.secret);
        if content(&leaf) != entry.content {
            self.found("leaf_changed", entry.seq);
        }
        if !self.keys.is_empty() {
            if !self.hmac_fits(entry) {
                self.found("chain_hmac_mismatch", entry.seq);
            }
            if !self.signature_fits(entry) {
                self.found("signature_mismatch", entry.seq);
            }
        }
        self.previous = Some(entry.content);
        self.last_ingested = Some(entry.ingested_at);
        self.frontier.append(leaf_hash(&leaf));
    }

    fn hmac_fits(&self, entry: &Stored) -> bool {
        entry.hmac.is_some_and(|(id, hmac)| {
            let mut named = self.keys.iter().filter(|k| k.id == id);
            named.any(|k| constant_time_eq(&hmac, &link(&k.key, &entry.content, self.previous.as_ref())))
        })
    }

    /// What an emitter of ours signed is made again and verified; of what others signed the digest is left, tied to the entry.
    fn signature_fits(&self, entry: &Stored) -> bool {
        let Some(signature) = entry.signature else { return false };
        match entry.foreign {
            None => self.keys.iter().any(|k| k.key.verify(&[&entry.event.to_data()], &signature)),
            Some((hash, mac)) => mac.is_some_and(|mac| {
                self.keys.iter().any(|k| constant_time_eq(&mac, &data_mac(&k.key, &entry.content, Some(&signature), &hash)))
            }),
        }
    }

    /// Notes what the caller found about an entry.
    pub fn found(&mut self, code: &'static str, seq: u64) {
        self.findings.push(Finding { code, seq });
    }

    /// Ends at the head as stored.
    pub fn finish(mut self, head: &Head) -> Vec<Finding> {
        let (size, ends) = (head.frontier.size(), self.frontier.size());
        if size != ends {
            self.found("entry_missing", ends.min(size) + 1);
            return self.findings;
        }
        if head.frontier.root() != self.frontier.root() {
            self.found("root_mismatch", size);
        }
        if head.content != self.previous {
            self.found("chain_content_mismatch", size);
        }
        if self.last_ingested.is_some_and(|last| last != head.ingested_at) {
            self.found("time_order", size);
        }
        self.findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaf::tests::{ORIGIN, example};

    const BYTES: [u8; 32] = [7; 32];

    fn ledger() -> (Vec<Stored>, Head) {
        let key = NamedKey::new(&BYTES);
        let (mut previous, mut frontier) = (None, Frontier::default());
        let entries: Vec<Stored> = example()
            .into_iter()
            .zip(1..)
            .map(|((event, ingested_at, secret), seq)| {
                let leaf = leaf_bytes(&Canonical::of(&event), Place { origin: ORIGIN, seq, ingested_at }, &secret);
                frontier.append(leaf_hash(&leaf));
                let content = content(&leaf);
                let hmac = Some((key.id, link(&key.key, &content, previous.as_ref())));
                previous = Some(content);
                let signature = Some(key.key.tag(&[&event.to_data()]));
                Stored { seq, ingested_at, event, secret, content, hmac, signature, foreign: None }
            })
            .collect();
        let head = Head { frontier, content: previous, ingested_at: entries[2].ingested_at };
        (entries, head)
    }

    fn codes(entries: &[Stored], head: &Head, key: &[u8]) -> Vec<&'static str> {
        let keys = [NamedKey::new(key)];
        let mut recheck = Recheck::new(ORIGIN.into(), "0195f2a9-1b22-7c3d-9e4f-5a6b7c8d9e0f".into(), &keys);
        for entry in entries {
            recheck.entry(entry);
        }
        recheck.finish(head).into_iter().map(|f| f.code).collect()
    }

    #[test]
    fn an_untouched_ledger_has_no_finding_and_each_attack_its_own() {
        let (entries, head) = ledger();
        assert!(codes(&entries, &head, &BYTES).is_empty());
        let attack = |change: &dyn Fn(&mut Vec<Stored>)| {
            let mut changed = entries.clone();
            change(&mut changed);
            codes(&changed, &head, &BYTES)
        };
        let changed = ["leaf_changed", "signature_mismatch", "root_mismatch"];
        assert_eq!(attack(&|e| e[1].event.decision = "deny".into()), changed);
        assert_eq!(attack(&|e| e[1].event.metadata = None), changed);
        assert_eq!(attack(&|e| e[1].secret.0[0] ^= 1), ["leaf_changed", "root_mismatch"]);
        assert_eq!(attack(&|e| e[1].ingested_at = e[0].ingested_at), ["leaf_changed", "root_mismatch"]);
        assert_eq!(attack(&|e| e[1].content[0] ^= 1), ["leaf_changed", "chain_hmac_mismatch", "chain_hmac_mismatch"]);
        assert_eq!(attack(&|e| e[1].hmac = None), ["chain_hmac_mismatch"]);
        assert_eq!(attack(&|e| e[1].hmac = e[1].hmac.map(|(_, tag)| ([0; 4], tag))), ["chain_hmac_mismatch"]);
        assert_eq!(attack(&|e| e[1].signature = None), ["signature_mismatch"]);
        assert_eq!(attack(&|e| e[1].signature = e[0].signature), ["signature_mismatch"]);
        assert_eq!(attack(&|e| e[1].foreign = Some((sha256(&[&e[1].event.to_data()]), None))), ["signature_mismatch"]);
        assert!(attack(&|e| drop(e.remove(1))).contains(&"entry_missing"));
        assert_eq!(attack(&|e| drop(e.pop())), ["entry_missing"]);
        assert!(attack(&|e| e.swap(0, 1)).contains(&"entry_missing"));
        assert!(attack(&|e| e.insert(1, e[0].clone())).contains(&"entry_missing"));
        assert!(attack(&|e| e[2].event.zone_id = "z".into()).contains(&"zone_mismatch"));
        assert!(codes(&entries, &head, &[8; 32]).contains(&"chain_hmac_mismatch"));
        // A rewrite of one entry with the key in hand, HMAC, signature and all, is left to the tree.
        let rewritten = attack(&|e| {
            let key = NamedKey::new(&BYTES);
            e[2].event.decision = "deny".into();
            let place = Place { origin: ORIGIN, seq: 3, ingested_at: e[2].ingested_at };
            e[2].content = content(&leaf_bytes(&Canonical::of(&e[2].event), place, &e[2].secret));
            e[2].hmac = Some((key.id, link(&key.key, &e[2].content, Some(&e[1].content))));
            e[2].signature = Some(key.key.tag(&[&e[2].event.to_data()]));
        });
        assert_eq!(rewritten, ["root_mismatch", "chain_content_mismatch"]);
    }

    #[test]
    fn each_part_of_the_head_is_looked_at() {
        let (entries, head) = ledger();
        assert_eq!(codes(&entries, &Head { content: None, ..head.clone() }, &BYTES), ["chain_content_mismatch"]);
        assert_eq!(codes(&entries, &Head { ingested_at: Time::EPOCH, ..head.clone() }, &BYTES), ["time_order"]);
        assert_eq!(codes(&entries, &Head { frontier: Frontier::default(), ..head }, &BYTES), ["entry_missing"]);
    }
}
