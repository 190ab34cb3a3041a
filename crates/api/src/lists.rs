//! Pages of a list: newest first, an opaque cursor (`api.md` 5.3).

use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use caracal_core::error::api as rows;
use caracal_core::id::Id;
use caracal_core::time::Time;
use caracal_store::management::Page;
use caracal_web::Problem;
use serde::Serialize;
use serde_json::{Value, json};

/// The query of a list, each parameter at most once.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn of(uri: &Uri) -> Result<Self, Problem> {
        let pairs: Vec<(String, String)> =
            url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let repeated = pairs.iter().enumerate().any(|(i, (name, _))| pairs[..i].iter().any(|(n, _)| n == name));
        if repeated { Err(Problem::because(rows::INVALID_QUERY, "a parameter is repeated")) } else { Ok(Self(pairs)) }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Which page, at most `most`.
    pub(crate) fn page<I: Id>(&self, default: usize, most: usize) -> Result<Page<I>, Problem> {
        let bad = |text: &'static str| Problem::because(rows::INVALID_QUERY, text);
        let limit = match self.get("limit") {
            None => default,
            Some(text) => text.parse().ok().filter(|n| (1..=most).contains(n)).ok_or_else(|| bad("limit is out of range"))?,
        };
        let before = match self.get("cursor") {
            None => None,
            Some(text) if text.is_empty() || text.len() > 512 => return Err(bad("cursor is out of range")),
            Some(text) => Some(cursor_id(text).ok_or_else(|| Problem::new(rows::INVALID_CURSOR))?),
        };
        Ok(Page { before, limit: limit + 1 })
    }

    /// Whether archived rows are wanted.
    pub(crate) fn archived(&self) -> Result<bool, Problem> {
        match self.get("status") {
            None | Some("active") => Ok(false),
            Some("archived") => Ok(true),
            Some(_) => Err(Problem::because(rows::INVALID_QUERY, "status must be active or archived")),
        }
    }
}

fn cursor_id<I: Id>(text: &str) -> Option<I> {
    let value: Value = serde_json::from_slice(&B64.decode(text).ok()?).ok()?;
    value["ts"].as_str()?;
    value["id"].as_str()?.parse().ok()
}

/// A page of rows, of which one more was read than fits.
pub(crate) fn page<T: Serialize, I: Id>(mut rows: Vec<T>, asked: Page<I>, place: impl Fn(&T) -> (Time, I)) -> Value {
    let fits = asked.limit - 1;
    let more = rows.len() > fits;
    rows.truncate(fits);
    let next = rows.last().filter(|_| more).map(|row| {
        let (at, id) = place(row);
        B64.encode(json!({"ts": at.rfc3339_micros(), "id": id.to_string()}).to_string())
    });
    json!({"items": rows, "next_cursor": next})
}
