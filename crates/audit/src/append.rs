//! A zone's batch becomes entries: in the order of arrival, each following the one before in chain and tree.

use std::collections::HashMap;

use caracal_core::digest::{hex, sha256};
use caracal_core::id::EventId;
use caracal_core::time::Time;
use caracal_crypto::mac::MacKey;
use caracal_host::World;
use caracal_store::ledger::{Alert, Appending, DeadLetter, Head, Known, NewEntry};
use caracal_tlog::chain::{content, link};
use caracal_tlog::event::Event;
use caracal_tlog::leaf::{EntrySecret, Place, leaf_bytes};
use caracal_tlog::tree::{Frontier, leaf_hash};
use serde_json::Value;

use crate::judge::{Accepted, Judge, dead};

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

/// Makes entries of a batch, after this head.
#[allow(clippy::implicit_hasher, reason = "the store gives this map")]
pub fn entries(
    batch: &[Accepted],
    head: &Head,
    known: &HashMap<EventId, Known>,
    now: Time,
    judge: &Judge,
    world: &World,
    counts: &mut Counts,
) -> Result<Appending, String> {
    let mut frontier = Frontier::from_bytes(&head.frontier).map_err(|e| e.to_string())?;
    if frontier.size() + 1 != head.next_seq {
        return Err(format!("the tree has {} leaves and the next entry would be {}", frontier.size(), head.next_seq));
    }
    let dedupe_key = MacKey::from_bytes(&head.dedupe_key);
    // Ingestion never goes back, whatever the clock does.
    let ingested_at = now.max(head.last_ingested);
    let key = judge.keys.first();
    let mut previous = head.last_content;
    let mut seen: HashMap<EventId, Vec<u8>> = known.iter().map(|(id, k)| (*id, k.dedupe.clone())).collect();
    let mut appending = Appending::default();
    for accepted in batch {
        let event = &accepted.event;
        let dedupe = dedupe_key.tag(&[&event.identity()])[..16].to_vec();
        if let Some(before) = seen.get(&event.id) {
            if *before == dedupe {
                counts.duplicates += 1;
            } else {
                counts.tampered += 1;
                appending.alerts.push(mismatch(event, before, &dedupe));
                appending.dead.push(dead(&accepted.message, "tamper_on_replay"));
            }
            continue;
        }
        if accepted.oversize {
            appending.dead.push(dead(&accepted.message, "oversize_body"));
        }
        let secret = EntrySecret(world.random());
        let seq = frontier.size() + 1;
        let leaf = leaf_bytes(event, Place { origin: &head.origin, seq, ingested_at }, &secret);
        frontier.append(leaf_hash(&leaf));
        let hash = content(&leaf);
        let chain_hmac = key.map(|key| link(key, &hash, previous.as_ref()));
        let data_hash = sha256(&[accepted.message.data.as_deref().unwrap_or_default()]);
        appending.entries.push(NewEntry {
            seq,
            event_id: event.id,
            event_type: event.event_type.clone(),
            decision: event.decision.clone(),
            evaluation_status: event.evaluation_status.clone(),
            request_id: event.request_id.clone(),
            application_id: meta(event, "application_id"),
            session_id: meta(event, "agent_session_id"),
            delegation_id: meta(event, "delegation_edge_id"),
            record_id: meta(event, "session_id"),
            resource: meta(event, "resource"),
            labels: labels(event),
            fingerprint: meta(event, "subject_fingerprint").or_else(|| meta(event, "subject_fp")),
            trace_id: meta(event, "trace_id"),
            occurred_at: event.occurred_at,
            ingested_at,
            body: event.to_value().to_string().into_bytes(),
            secret: secret.0,
            content: hash,
            previous,
            chain_hmac,
            chain_key_id: judge.key_id.clone().filter(|_| key.is_some()),
            dedupe: dedupe.clone(),
            producer_sig: accepted.message.sig.clone(),
            data_hash,
        });
        seen.insert(event.id, dedupe);
        previous = Some(hash);
    }
    appending.frontier = frontier.to_bytes();
    counts.inserted = appending.entries.len() as u64;
    counts.dead = appending.dead.len() as u64;
    Ok(appending)
}

fn meta(event: &Event, key: &str) -> Option<String> {
    event.meta(key).filter(|t| !t.is_empty()).map(str::to_owned)
}

/// Labels between line feeds, so that one is found whole.
fn labels(event: &Event) -> Option<String> {
    let list = event.metadata.as_ref()?.get("agent_labels")?.as_array()?;
    let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
    (!texts.is_empty()).then(|| format!("\n{}\n", texts.join("\n")))
}

fn mismatch(event: &Event, stored: &[u8], incoming: &[u8]) -> Alert {
    Alert {
        zone: event.zone_id.clone(),
        event_id: event.id,
        kind: "content_mismatch_on_replay",
        detail: format!("stored={} incoming={}", hex(stored), hex(incoming)),
    }
}

/// What a batch that cannot be appended becomes, one by one.
pub fn refused(accepted: &Accepted, why: &str) -> DeadLetter {
    dead(&accepted.message, &format!("pg_permanent_error:{why}"))
}
