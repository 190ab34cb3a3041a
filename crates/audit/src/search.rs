//! `GET /api/audit/search` (`audit.md` 4): what operators ask a zone's ledger.

use std::collections::BTreeMap;

use caracal_core::digest::hex;
use caracal_core::error::audit as rows;
use caracal_core::time::Time;
use caracal_store::ledger::{Entry, Filter, Order};
use caracal_web::Problem;
use serde_json::{Value, json};

/// Most events of an answer.
const LIMIT_MAX: usize = 1000;
/// Events of an answer that names no limit.
const LIMIT: usize = 100;
/// Most types in one question.
const TYPES_MAX: usize = 16;
/// How far back a question without bounds looks, in seconds.
const WINDOW_SECS: i64 = 24 * 3600;

/// A question.
#[derive(Debug)]
pub struct Search {
    /// Whose ledger.
    pub zone: String,
    /// Which entries.
    pub filter: Filter,
    /// How many.
    pub limit: usize,
}

impl Search {
    /// Reads a query string.
    pub fn read(query: Option<&str>, now: Time) -> Result<Self, Problem> {
        let bad = |name: &str, why: &str| Problem::because(rows::BAD_QUERY, format!("{name} {why}"));
        let mut given: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if given.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(bad(&name, "occurs more than once"));
            }
        }
        let mut take = |name: &str| given.remove(name).filter(|v| !v.is_empty());
        let zone = take("zone_id").ok_or_else(|| bad("zone_id", "is required"))?;
        let time = |name: &str, value: Option<String>| {
            value.map(|text| Time::parse_rfc3339(&text).ok_or_else(|| bad(name, "is not an RFC 3339 time"))).transpose()
        };
        let (since, until) = (time("since", take("since"))?, time("until", take("until"))?);
        let by = take("by").unwrap_or_else(|| "occurred_at".to_owned());
        let (since, until) = match by.as_str() {
            "seq" => (None, None),
            "occurred_at" | "ingested_at" => {
                (Some(since.unwrap_or_else(|| now.minus_secs(WINDOW_SECS))), Some(until.unwrap_or(now)))
            }
            _ => return Err(bad("by", "is none of occurred_at, ingested_at, seq")),
        };
        let order = match take("order").as_deref() {
            None | Some("asc") => Order::Ledger,
            Some("desc") => Order::LedgerBackwards,
            Some(_) => return Err(bad("order", "is neither asc nor desc")),
        };
        let number = |name: &str, value: Option<String>| {
            value.map(|text| text.parse::<u64>().map_err(|_| bad(name, "is not a whole number"))).transpose()
        };
        let limit = match number("limit", take("limit"))? {
            None => LIMIT,
            Some(0) => return Err(bad("limit", "is not positive")),
            Some(n) => usize::try_from(n).unwrap_or(LIMIT_MAX).min(LIMIT_MAX),
        };
        let after_seq = number("cursor", take("cursor"))?;
        let event_types: Vec<String> =
            take("event_type").map(|t| t.split(',').map(|t| t.trim().to_owned()).collect()).unwrap_or_default();
        if event_types.len() > TYPES_MAX || event_types.iter().any(String::is_empty) {
            return Err(bad("event_type", "is not a list of 1 to 16 types"));
        }
        let event_id = take("event_id").map(|text| text.parse().map_err(|_| bad("event_id", "is not an event id"))).transpose()?;
        let filter = Filter {
            since,
            until,
            by_ingestion: by == "ingested_at",
            request_id: take("request_id"),
            decision: take("decision"),
            evaluation_status: take("evaluation_status"),
            event_types,
            application_id: take("application_id"),
            session_id: take("session_id"),
            record_id: take("authority_record_id"),
            resource: take("resource"),
            label: take("label"),
            fingerprint: take("subject_fingerprint"),
            trace_id: take("trace_id"),
            event_id,
            after_seq,
            after: None,
            order,
        };
        Ok(Self { zone, filter, limit })
    }
}

/// The answer. `size` is how many entries the log has.
pub fn answer(entries: &[Entry], size: u64) -> Value {
    let event = |entry: &Entry| {
        json!({
            "Event": entry.event.to_value(),
            "IngestedAt": entry.ingested_at.rfc3339_micros(),
            "ContentSHA256": hex(&entry.content),
            "PrevContentSHA256": entry.previous.map(|p| hex(&p)).unwrap_or_default(),
            "ChainHMAC": entry.hmac.map(|(_, hmac)| hex(&hmac)).unwrap_or_default(),
            "ChainSeq": entry.seq,
            "LeafIndex": entry.seq - 1,
        })
    };
    json!({
        "events": entries.iter().map(event).collect::<Vec<_>>(),
        "next_cursor": entries.last().map(|e| e.seq.to_string()).unwrap_or_default(),
        "checkpoint_size": size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Acceptance row 14, the questions.
    #[test]
    fn questions_are_read_strictly() {
        let now = Time::from_secs(1_790_000_000);
        let read = |query: &str| Search::read(Some(query), now);
        let plain = read("zone_id=z").unwrap();
        assert_eq!((plain.limit, plain.filter.since, plain.filter.until), (100, Some(now.minus_secs(86_400)), Some(now)));
        assert_eq!(read("zone_id=z&limit=5000").unwrap().limit, 1000);
        assert_eq!(
            read("zone_id=z&since=2026-01-01T00:00:00%2B02:00").unwrap().filter.since,
            Time::parse_rfc3339("2025-12-31T22:00:00Z")
        );
        assert_eq!(read("zone_id=z&by=seq&cursor=7").unwrap().filter.after_seq, Some(7));
        assert_eq!(read("zone_id=z&event_type=a,b").unwrap().filter.event_types, ["a", "b"]);
        for bad in [
            "",
            "zone_id=z&limit=0",
            "zone_id=z&limit=x",
            "zone_id=z&cursor=-1",
            "zone_id=z&since=yesterday",
            "zone_id=z&by=x",
            "zone_id=z&order=up",
            "zone_id=z&zone_id=y",
            "zone_id=z&event_id=x",
            "zone_id=z&event_type=a,,b",
        ] {
            assert_eq!(read(bad).unwrap_err().status().as_u16(), 400, "{bad}");
        }
    }
}
