//! The one request a mandate may be bound to, and operations (`sts.md` 6.1, 28).

use serde::{Deserialize, Serialize};

use crate::claims::BoundRequest;
use crate::digest::{hex, sha256};

/// A declared operation of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Operation {
    /// Method, upper case.
    pub method: String,
    /// Path, exact.
    pub path: String,
    /// The scope it needs.
    pub scope: String,
}

/// The first declared operation that is this method and path: method upper-cased, both trimmed, compared as strings.
pub fn match_operation<'a>(declared: &'a [Operation], method: &str, path: &str) -> Option<&'a Operation> {
    let (method, path) = (method.trim(), path.trim());
    declared.iter().find(|op| op.method.trim().eq_ignore_ascii_case(method) && op.path.trim() == path)
}

/// The digest of a request's head.
pub fn head_digest(method: &str, resource: &str, path: &str, query: &str) -> String {
    hex(&sha256(&[
        b"caracal.request.head/1\n",
        method.as_bytes(),
        b"\n",
        resource.as_bytes(),
        b"\n",
        path.as_bytes(),
        b"\n",
        query.as_bytes(),
        b"\n",
    ]))
}

impl BoundRequest {
    /// The digest of both halves.
    pub fn digest(&self) -> String {
        hex(&sha256(&[b"caracal.request/1\n", self.head.as_bytes(), b"\n", self.body.as_bytes(), b"\n"]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256_hex;

    #[test]
    fn the_vectors_of_bound_requests_hold() {
        let head = head_digest("POST", "resource://ledger", "/v1/items", "lang=en");
        assert_eq!(head, "e8aefb824a1ded9aeabce9438d0e0a19ea3e94aa4353cd5df61c4a3e07c78b14");
        let body = format!("sha256:{}", sha256_hex(br#"{"amount":12}"#));
        let bound = BoundRequest { head, body };
        assert_eq!(bound.digest(), "0090f1df0b39d4218b75568bcafda861fdc3d064d4baca677aa60a377b9577db");
        let head = head_digest("GET", "resource://ledger", "/v1/items", "");
        assert_eq!(head, "fbc78122dc18199752e1e042d1b15c0ab613e1903b6126107880fc06ca3eab36");
        let bound = BoundRequest { head, body: format!("sha256:{}", sha256_hex(b"")) };
        assert_eq!(bound.digest(), "73ee0a22f6777196bd290c7267a3ce0e72cf917ba4cf68f0adbba3ff394c8c4a");
    }
}
