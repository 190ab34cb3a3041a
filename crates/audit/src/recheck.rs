//! A ledger read again from the store: every leaf rebuilt, chain and tree recomputed (`audit.md` 8).

use caracal_crypto::mac::MacKey;
use caracal_store::ledger::{Filter, Order};
use caracal_store::{Store, StoreError};
use caracal_tlog::event::Event;
use caracal_tlog::leaf::EntrySecret;
use caracal_tlog::recheck::{Finding, Stored};
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
pub async fn recheck(store: &Store, zone: &str, keys: &[MacKey]) -> Result<Option<Recheck>, StoreError> {
    let Some(head) = store.ledger_head(zone.to_owned()).await? else { return Ok(None) };
    let frontier =
        Frontier::from_bytes(&head.frontier).map_err(|e| StoreError::inconsistent("ledger_heads", "frontier", e.to_string()))?;
    let mut check = caracal_tlog::recheck::Recheck::new(head.origin.clone(), zone.to_owned(), keys);
    let (mut entries, mut after) = (0, 0);
    'pages: loop {
        let filter = Filter { after_seq: Some(after), order: Order::Ledger, ..Filter::default() };
        let page = store.ledger_entries(zone.to_owned(), filter, PAGE).await?;
        let full = page.len() == PAGE;
        for entry in page {
            after = entry.seq;
            // What came after the head was read belongs to the next recheck.
            if entry.seq >= head.next_seq {
                break 'pages;
            }
            entries += 1;
            let Ok(event) = Event::stored(&entry.event) else {
                check.found("leaf_not_canonical", entry.seq);
                continue;
            };
            // A column that differs from the event would hide the entry from whoever searches by it.
            let says = [&event.event_type, &event.decision, &event.evaluation_status, &event.request_id];
            if says.into_iter().zip(&entry.found_by).any(|(said, found)| said != found)
                || event.occurred_at != entry.occurred_at
                || event.id != entry.event_id
            {
                check.found("field_changed", entry.seq);
            }
            check.entry(&Stored {
                seq: entry.seq,
                ingested_at: entry.ingested_at,
                event,
                secret: EntrySecret(entry.secret),
                content: entry.content,
                previous: entry.previous,
                hmac: entry.chain_hmac,
            });
        }
        if !full {
            break;
        }
    }
    Ok(Some(Recheck { entries, root: frontier.root(), findings: check.finish(&frontier, head.last_content) }))
}
