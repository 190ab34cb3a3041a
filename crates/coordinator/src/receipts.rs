//! Idempotency keys: the same request twice has one effect (`coordinator.md` 7).

use axum::http::{HeaderMap, HeaderName};
use caracal_core::digest::sha256;
use caracal_core::error::coordinator as rows;
use caracal_core::id::{ApplicationId, ZoneId};
use caracal_core::jcs;
use caracal_store::coordination::receipts::{Receipt, ReceiptKey};
use caracal_web::Problem;
use serde_json::Value;

use crate::service::Coordinator;

static KEY: HeaderName = HeaderName::from_static("idempotency-key");
static KIND: HeaderName = HeaderName::from_static("idempotency-key-kind");

/// A request that may be repeated.
#[derive(Clone, Debug)]
pub(crate) struct Repeatable {
    pub(crate) key: ReceiptKey,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) keep: i64,
    pub(crate) generated: bool,
}

impl Repeatable {
    /// What an earlier answer means for this request.
    pub(crate) fn judge(&self, receipt: &Receipt) -> Result<(), &'static caracal_core::error::Situation> {
        if receipt.fingerprint == self.fingerprint { Ok(()) } else { Err(rows::IDEMPOTENCY_CONFLICT) }
    }

    /// The receipt of this answer.
    pub(crate) fn receipt(&self, status: u16, body: &Value) -> Receipt {
        Receipt { fingerprint: self.fingerprint.clone(), status, body: body.to_string() }
    }
}

impl Coordinator {
    /// The request's key, if it has one.
    pub(crate) fn repeatable(
        &self,
        headers: &HeaderMap,
        operation: &'static str,
        zone: ZoneId,
        scope: ApplicationId,
        fields: &Value,
        kind_counts: bool,
    ) -> Result<Option<Repeatable>, Problem> {
        let mut keys = headers.get_all(&KEY).iter();
        let Some(first) = keys.next() else { return Ok(None) };
        if keys.next().is_some() {
            return Err(Problem::new(rows::IDEMPOTENCY_KEY_MULTIPLE));
        }
        let invalid = || Problem::new(rows::IDEMPOTENCY_KEY_INVALID);
        let key = std::str::from_utf8(first.as_bytes()).map_err(|_| invalid())?;
        if key.is_empty() || key.trim() != key || key.len() > 255 || key.chars().any(|c| c < ' ' || c == '\u{7f}') {
            return Err(invalid());
        }
        let generated = kind_counts && headers.get(&KIND).is_some_and(|v| v == "generated");
        let digest = self.receipts_key.tag(&[b"caracal:coordinator:idempotency:v1\0", key.as_bytes()]).to_vec();
        Ok(Some(Repeatable {
            key: ReceiptKey { operation, zone, scope: scope.to_string(), digest },
            fingerprint: sha256(&[&jcs::canonical(fields)]).to_vec(),
            keep: if generated { self.config.keep_generated } else { self.config.keep },
            generated,
        }))
    }
}
