//! Queries and pages of a list: newest first, an opaque cursor that fits the list it came from (`api.md` 5.3).

use std::collections::HashSet;

use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use caracal_core::digest::sha256_hex;
use caracal_core::error::api as rows;
use caracal_core::id::Id;
use caracal_core::time::Time;
use caracal_store::management::Slice;
use caracal_web::Problem;
use serde_json::{Value, json};

/// Rows of a page of managed objects, unless the caller wants fewer.
pub(crate) const OBJECTS_MAX: usize = 500;

/// A query: each parameter at most once.
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
    /// What list this is: the path and the filters.
    list: String,
}

/// A query that does not fit.
pub(crate) fn bad(text: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::because(rows::INVALID_QUERY, text)
}

impl Query {
    pub(crate) fn of(path: &str, query: &str, filters: &[&str]) -> Result<Self, Problem> {
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let mut seen = HashSet::new();
        for (name, value) in &pairs {
            let told = || name.chars().take(64).collect::<String>();
            if !seen.insert(name) {
                return Err(bad(format!("{} is repeated", told())));
            }
            if value.contains('\0') {
                return Err(bad(format!("{} holds the character U+0000", told())));
            }
        }
        let mut chosen: Vec<&(String, String)> = pairs.iter().filter(|(name, _)| filters.contains(&name.as_str())).collect();
        chosen.sort();
        let list = sha256_hex(json!([path, chosen]).to_string().as_bytes());
        Ok(Self { list: list[..12].to_owned(), pairs })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A text of at most so many characters, and not empty.
    pub(crate) fn text(&self, name: &'static str, most: usize) -> Result<Option<String>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some(text) if (1..=most).contains(&text.chars().count()) => Ok(Some(text.to_owned())),
            Some(_) => Err(bad(format!("{name} must have 1 to {most} characters"))),
        }
    }

    /// One of these words.
    pub(crate) fn word(&self, name: &'static str, words: &[&str]) -> Result<Option<String>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some(text) if words.contains(&text) => Ok(Some(text.to_owned())),
            Some(_) => Err(bad(format!("{name} must be one of {}", words.join(", ")))),
        }
    }

    /// A time.
    pub(crate) fn time(&self, name: &'static str) -> Result<Option<Time>, Problem> {
        // A client that forgets to escape `+` in an offset sends a space.
        let parse = |text: &str| Time::parse_rfc3339(&text.replace(' ', "+"));
        self.get(name).map(|text| parse(text).ok_or_else(|| bad(format!("{name} must be an RFC 3339 time")))).transpose()
    }

    /// A whole number, written in digits alone.
    pub(crate) fn number(&self, name: &'static str) -> Result<Option<u64>, Problem> {
        let parse = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        self.get(name).map(|text| parse(text).ok_or_else(|| bad(format!("{name} must be a whole number")))).transpose()
    }

    /// How many rows are wanted.
    pub(crate) fn limit(&self, default: usize, most: usize) -> Result<usize, Problem> {
        let out = || bad(format!("limit must be 1 to {most}"));
        let Some(limit) = self.number("limit").map_err(|_| out())? else { return Ok(default) };
        usize::try_from(limit).ok().filter(|n| (1..=most).contains(n)).ok_or_else(out)
    }

    /// The place after which the page begins.
    pub(crate) fn cursor<I: std::str::FromStr>(&self) -> Result<Option<(Time, I)>, Problem> {
        let Some(text) = self.get("cursor") else { return Ok(None) };
        if !(1..=512).contains(&text.len()) {
            return Err(bad("cursor must have 1 to 512 characters"));
        }
        let read = || {
            let value: Value = serde_json::from_slice(&B64.decode(text).ok()?).ok()?;
            let fits = value.get("of").is_none_or(|of| of.as_str() == Some(&self.list));
            let at = Time::parse_rfc3339(value["ts"].as_str()?)?;
            fits.then_some((at, value["id"].as_str()?.parse().ok()?))
        };
        read().map(Some).ok_or_else(|| Problem::new(rows::INVALID_CURSOR))
    }

    /// The cursor of the page after this row.
    pub(crate) fn next(&self, at: Time, id: impl std::fmt::Display) -> String {
        B64.encode(json!({"ts": at.rfc3339_micros(), "id": format!("{id}"), "of": self.list}).to_string())
    }

    /// Which part of a list of managed objects is wanted.
    pub(crate) fn slice<I: Id>(&self) -> Result<Slice<I>, Problem> {
        let limit = self.limit(OBJECTS_MAX, OBJECTS_MAX)?;
        Ok(Slice { before: self.cursor()?, limit: limit + 1 })
    }

    /// A page of rows, of which one more was read than fits.
    pub(crate) fn page<T, I: Id>(
        &self,
        mut rows: Vec<T>,
        asked: Slice<I>,
        place: impl Fn(&T) -> (Time, I),
        shown: impl Fn(&T) -> Value,
    ) -> Response {
        let more = rows.len() >= asked.limit;
        rows.truncate(asked.limit - 1);
        let next = rows.last().filter(|_| more).map(|row| {
            let (at, id) = place(row);
            self.next(at, id)
        });
        let items: Vec<Value> = rows.iter().map(shown).collect();
        Json(json!({"items": items, "next_cursor": next})).into_response()
    }
}
