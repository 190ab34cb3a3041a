//! A zone's batch becomes entries: in the order of arrival, each following the one before in chain and tree.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use caracal_core::event::Event;
use caracal_core::id::EventId;
use caracal_core::time::Time;
use caracal_host::World;
use caracal_store::ledger::{Alert, Appending, DeadLetter, Entry, Head, NewEntry, NewHead};
use caracal_store::{Store, StoreError};
use caracal_tlog::canonical::Canonical;
use caracal_tlog::chain::{content, data_mac, link};
use caracal_tlog::event::Read;
use caracal_tlog::leaf::{EntrySecret, Place, leaf_bytes};
use caracal_tlog::recheck::NamedKey;
use caracal_tlog::tree::{Frontier, leaf_hash};
use serde_json::{Map, Value};

use crate::judge::{Accepted, dead};

/// The ledgers of all zones, for who appends.
#[derive(Clone)]
pub struct Ledger {
    store: Store,
    world: World,
    keys: Arc<[NamedKey]>,
    origin: Arc<str>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ledger({})", self.origin)
    }
}

impl Ledger {
    /// Ledgers whose new logs begin their names with `origin`; the first key makes the HMACs of the chain.
    pub fn new(store: Store, world: World, keys: &[NamedKey], origin: &str) -> Self {
        Self { store, world, keys: keys.into(), origin: origin.into() }
    }

    /// Appends a zone's batch: all of it or nothing.
    pub async fn append(&self, zone: &str, batch: Arc<[Accepted]>) -> Result<Counts, StoreError> {
        let first = NewHead { origin: format!("{}/{zone}", self.origin), frontier: Frontier::default().to_bytes() };
        let candidates = batch.iter().map(|a| a.read.event.id).collect();
        let (world, keys) = (self.world.clone(), Arc::clone(&self.keys));
        self.store
            .ledger_append(zone.to_owned(), first, candidates, move |head, known, now| {
                entries(&batch, head, known, now, &keys, &world)
            })
            .await
    }
}

/// What a batch was made of; counted once it is committed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Entries.
    pub inserted: u64,
    /// Copies of known events.
    pub duplicates: u64,
    /// Known ids with other content.
    pub tampered: u64,
    /// Dead letters.
    pub dead: u64,
}

/// Makes entries of a batch, after this head. `known` are the entries that its ids already have.
pub fn entries(
    batch: &[Accepted],
    head: &Head,
    known: &[Entry],
    now: Time,
    keys: &[NamedKey],
    world: &World,
) -> Result<(Appending, Counts), String> {
    let mut frontier = Frontier::from_bytes(&head.frontier).map_err(|e| e.to_string())?;
    if frontier.size() + 1 != head.next_seq {
        return Err(format!("the tree has {} leaves and the next entry would be {}", frontier.size(), head.next_seq));
    }
    // Ingestion never goes back, whatever the clock does.
    let mut appending = Appending { ingested_at: now.max(head.last_ingested), ..Appending::default() };
    let mut counts = Counts::default();
    let mut previous = head.last_content;
    let mut seen: HashMap<EventId, Arc<Canonical>> =
        known.iter().map(|entry| (entry.event.id, Canonical::of(&entry.event).into())).collect();
    for Accepted { read, message, foreign, signature } in batch {
        let Read { event, canonical, oversize } = read;
        if let Some(before) = seen.get(&event.id) {
            if before == canonical {
                counts.duplicates += 1;
            } else {
                counts.tampered += 1;
                appending.alerts.push(mismatch(event, before, canonical));
                appending.dead.push(dead(message, "tamper_on_replay"));
            }
            continue;
        }
        if *oversize {
            appending.dead.push(dead(message, "oversize_body"));
        }
        let secret = EntrySecret(world.random());
        let place = Place { origin: &head.origin, seq: frontier.size() + 1, ingested_at: appending.ingested_at };
        let leaf = leaf_bytes(canonical, place, &secret);
        frontier.append(leaf_hash(&leaf));
        let content = content(&leaf);
        let hmac = keys.first().map(|named| (named.id, link(&named.key, &content, previous.as_ref())));
        let mac = |hash: &[u8; 32]| keys.first().map(|named| data_mac(&named.key, &content, signature.as_ref(), hash));
        let foreign = foreign.map(|hash| (hash, mac(&hash)));
        seen.insert(event.id, Arc::clone(canonical));
        appending.entries.push(NewEntry {
            event: Arc::clone(event),
            secret: secret.0,
            content,
            hmac,
            signature: *signature,
            foreign,
        });
        previous = Some(content);
    }
    appending.frontier = frontier.to_bytes();
    counts.inserted = appending.entries.len() as u64;
    counts.dead = appending.dead.len() as u64;
    Ok((appending, counts))
}

/// Another event came under a known id. Says where they differ, not what they say.
fn mismatch(event: &Event, stored: &Canonical, incoming: &Canonical) -> Alert {
    let members = |canonical: &Canonical| serde_json::from_slice::<Map<String, Value>>(canonical.text()).unwrap_or_default();
    let (stored, incoming) = (members(stored), members(incoming));
    let names: BTreeSet<&str> =
        stored.keys().chain(incoming.keys()).filter(|name| stored.get(*name) != incoming.get(*name)).map(String::as_str).collect();
    Alert {
        zone: event.zone_id.clone(),
        event_id: event.id,
        kind: "content_mismatch_on_replay",
        detail: format!("differs in {}", names.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

/// What a batch that cannot be appended becomes, one by one.
pub fn refused(accepted: &Accepted, why: &str) -> DeadLetter {
    dead(&accepted.message, &format!("pg_permanent_error:{why}"))
}
