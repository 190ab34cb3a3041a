//! A ledger read again from the store: every leaf rebuilt, chain and tree recomputed (`audit.md` 8).

use caracal_store::ledger::Entry;
use caracal_store::{Store, StoreError};
use caracal_tlog::leaf::EntrySecret;
use caracal_tlog::recheck::{self as tlog, Finding, NamedKey, Stored};
use caracal_tlog::tree::Frontier;

/// Entries read at once.
const PAGE: usize = 1000;

/// What a recheck found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recheck {
    /// Entries read.
    pub entries: u64,
    /// The tree's root.
    pub root: [u8; 32],
    /// What is wrong; nothing: nothing.
    pub findings: Vec<Finding>,
}

/// Rechecks a zone's ledger up to its head; `None` when the zone has none.
pub async fn recheck(store: &Store, zone: &str, keys: &[NamedKey]) -> Result<Option<Recheck>, StoreError> {
    let Some(head) = store.ledger_head(zone.to_owned()).await? else { return Ok(None) };
    let frontier =
        Frontier::from_bytes(&head.frontier).map_err(|e| StoreError::inconsistent("ledger_heads", "frontier", e.to_string()))?;
    let mut check = tlog::Recheck::new(head.origin, zone.to_owned(), keys);
    let (mut entries, mut after, mut beyond) = (0, None, None);
    'pages: loop {
        let page = store.ledger_in_order(zone.to_owned(), after, PAGE).await?;
        let full = page.len() == PAGE;
        for (place, entry) in page {
            after = Some(place);
            let Some(seq) = u64::try_from(place).ok().filter(|seq| *seq > 0) else {
                check.found("entry_unexpected", 0);
                continue;
            };
            if seq >= head.next_seq {
                beyond = Some(seq);
                break 'pages;
            }
            entries += 1;
            match entry {
                Some(entry) => check.entry(&stored(entry)),
                None => check.found("leaf_changed", seq),
            }
        }
        if !full {
            break;
        }
    }
    if frontier.size() + 1 != head.next_seq {
        check.found("sequence_mismatch", head.next_seq);
    }
    // What was appended meanwhile belongs to the next recheck; what a head never counted was not appended.
    if let Some(seq) = beyond {
        let now = store.ledger_head(zone.to_owned()).await?;
        if now.is_none_or(|now| seq >= now.next_seq) {
            check.found("entry_unexpected", seq);
        }
    }
    let root = frontier.root();
    let end = tlog::Head { frontier, content: head.last_content, ingested_at: head.last_ingested };
    Ok(Some(Recheck { entries, root, findings: check.finish(&end) }))
}

fn stored(entry: Entry) -> Stored {
    Stored {
        seq: entry.seq,
        ingested_at: entry.ingested_at,
        event: entry.event,
        secret: EntrySecret(entry.secret),
        content: entry.content,
        hmac: entry.hmac,
        signature: entry.signature,
        foreign: entry.foreign,
    }
}
