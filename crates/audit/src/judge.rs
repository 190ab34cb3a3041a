//! One message: is it an event of ours (`audit.md` 5.2, steps 1 to 4)?

use std::time::Duration;

use caracal_core::time::Time;
use caracal_crypto::mac::{MacKey, audit_verified};
use caracal_store::ledger::DeadLetter;
use caracal_tlog::event::Event;

/// How far an emitter's clock may be ahead.
const AHEAD: Duration = Duration::from_hours(24);

/// A message as its emitter left it.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where it waits: the emitter's place.
    pub source: String,
    /// The exact bytes; `None` when the message has none.
    pub data: Option<Vec<u8>>,
    /// Their signature.
    pub sig: String,
}

/// An event that may be appended.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The event.
    pub event: Event,
    /// The message.
    pub message: Message,
    /// Whether its values were too large and only their digest remains; the message then goes to the dead letters too.
    pub oversize: bool,
}

/// What a deployment accepts.
#[derive(Clone, Debug)]
pub struct Judge {
    /// Keys that may have signed; none: nothing is verified.
    pub keys: Vec<MacKey>,
    /// The name of the first key, as entries carry it.
    pub key_id: Option<String>,
    /// Oldest event accepted.
    pub retention: Duration,
}

impl Judge {
    /// Judges a message at `now`.
    pub fn judge(&self, message: Message, now: Time) -> Result<Accepted, DeadLetter> {
        let Some(data) = &message.data else { return Err(dead(&message, "missing_data_field")) };
        if !self.keys.is_empty() && !audit_verified(&self.keys, data, &message.sig) {
            return Err(dead(&message, "hmac_verify_failed"));
        }
        let (event, oversize) = Event::read(data).map_err(|e| dead(&message, &e.to_string()))?;
        if event.occurred_at > now + AHEAD || event.occurred_at < now - self.retention {
            return Err(dead(&message, "outside_window"));
        }
        Ok(Accepted { event, message, oversize })
    }
}

/// The dead letter of a message.
pub fn dead(message: &Message, reason: &str) -> DeadLetter {
    DeadLetter {
        source: message.source.clone(),
        reason: reason.to_owned(),
        data: message.data.as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned(),
        sig: message.sig.clone(),
    }
}

#[cfg(test)]
mod tests {
    use caracal_crypto::mac::audit_signature;

    use super::*;

    /// Acceptance rows 7 and 8.
    #[test]
    fn what_is_put_aside_and_why() {
        let key = MacKey::from_bytes(&[7; 32]);
        let now = Time::from_secs(1_790_000_000);
        let judge = Judge { keys: vec![key.clone()], key_id: None, retention: Duration::from_hours(365 * 24) };
        let event = |at: &str| format!(r#"{{"id":"0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10","zone_id":"z","occurred_at":"{at}"}}"#);
        let signed = |data: &str| audit_signature(&key, data.as_bytes());
        let reason = |data: Option<&str>, sig: String| {
            let message = Message { source: "s".into(), data: data.map(|d| d.as_bytes().to_vec()), sig };
            judge.judge(message, now).err().map(|d| d.reason)
        };
        let good = event("2026-09-21T14:13:20Z");
        assert_eq!(reason(Some(&good), signed(&good)), None);
        assert_eq!(reason(Some(&good), signed(&good).to_uppercase()), None, "upper-case hex is stored");
        assert_eq!(reason(None, String::new()).as_deref(), Some("missing_data_field"));
        for bad in [String::new(), "zz".into(), signed("other")] {
            assert_eq!(reason(Some(&good), bad).as_deref(), Some("hmac_verify_failed"));
        }
        for bad in ["nonsense", "{}", r#"{"id":"0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10","zone_id":""}"#] {
            assert!(reason(Some(bad), signed(bad)).unwrap().starts_with("json_parse_error:"), "{bad}");
        }
        for bad in [event("2026-09-22T14:13:21Z"), event("2025-09-20T00:00:00Z")] {
            assert_eq!(reason(Some(&bad), signed(&bad)).as_deref(), Some("outside_window"));
        }
    }
}
