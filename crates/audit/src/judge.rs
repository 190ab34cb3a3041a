//! One message: is it an event of ours (`audit.md` 5.2, steps 1 to 4)?

use std::time::Duration;

use caracal_core::digest::sha256;
use caracal_core::time::Time;
use caracal_store::ledger::DeadLetter;
use caracal_tlog::event::{Read, read};
use caracal_tlog::recheck::NamedKey;

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
    /// The event. Where its values were too large only their digest remains; the message then goes to the dead letters too.
    pub read: Read,
    /// The message.
    pub message: Message,
    /// SHA-256 of the exact bytes, where they are not those that are made again from the event.
    pub foreign: Option<[u8; 32]>,
    /// The signature; `None` where none was verified and what came is none.
    pub signature: Option<[u8; 32]>,
}

/// What a deployment accepts.
#[derive(Clone, Debug)]
pub struct Judge {
    /// Keys that may have signed, the one that signs the chain first; none: nothing is verified.
    pub keys: Vec<NamedKey>,
    /// Oldest event accepted.
    pub retention: Duration,
}

impl Judge {
    /// Judges a message at `now`.
    pub fn judge(&self, message: Message, now: Time) -> Result<Accepted, DeadLetter> {
        let Some(data) = &message.data else { return Err(dead(&message, "missing_data_field")) };
        let mut signature = [0; 32];
        let signature = hex::decode_to_slice(&message.sig, &mut signature).is_ok().then_some(signature);
        if !self.keys.is_empty() && !signature.is_some_and(|sig| self.keys.iter().any(|k| k.key.verify(&[data], &sig))) {
            return Err(dead(&message, "hmac_verify_failed"));
        }
        let read = read(data).map_err(|e| dead(&message, &e.to_string()))?;
        if read.event.occurred_at > now + AHEAD || read.event.occurred_at < now - self.retention {
            return Err(dead(&message, "outside_window"));
        }
        let foreign = (read.event.to_data() != *data).then(|| sha256(&[data]));
        Ok(Accepted { read, message, foreign, signature })
    }
}

/// The dead letter of a message.
pub fn dead(message: &Message, reason: &str) -> DeadLetter {
    DeadLetter { source: message.source.clone(), reason: reason.to_owned(), data: message.data.clone(), sig: message.sig.clone() }
}

#[cfg(test)]
mod tests {
    use caracal_crypto::mac::{MacKey, audit_signature};

    use super::*;

    /// Acceptance rows 7 and 8.
    #[test]
    fn what_is_put_aside_and_why() {
        let key = MacKey::from_bytes(&[7; 32]);
        let now = Time::from_secs(1_790_000_000);
        let judge = Judge { keys: vec![NamedKey::new(&[7; 32])], retention: Duration::from_hours(365 * 24) };
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
