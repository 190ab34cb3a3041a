//! Rows as JSON or CSV, whole or cut down to named fields (`api.md` 5.4).

use std::fmt::Write as _;

use axum::Json;
use axum::response::{IntoResponse, Response};
use caracal_core::error::api as rows;
use caracal_web::Problem;
use http::HeaderValue;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde_json::{Map, Value, json};

use crate::lists::Query;

/// What can be named of a kind of rows, and how it is found in one; `None` is not there.
pub(crate) struct Fields {
    pub(crate) known: Vec<&'static str>,
    pub(crate) find: fn(&Value, &str) -> Option<Value>,
}

/// How rows are given.
pub(crate) struct Export {
    csv: bool,
    names: Option<Vec<String>>,
    fields: Fields,
}

impl Export {
    /// As the query wants it.
    pub(crate) fn of(query: &Query, fields: Fields) -> Result<Self, Problem> {
        let read = |text: &str| {
            let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
            let fine = text.len() <= 1000 && names.iter().all(|name| fields.known.contains(&name.as_str()));
            if fine { Ok(names) } else { Err(Problem::new(rows::INVALID_FIELDS)) }
        };
        let names = query.get("fields").map(read).transpose()?;
        Ok(Self { csv: query.word("format", &["json", "csv"])?.as_deref() == Some("csv"), names, fields })
    }

    /// A page; `file` is what a browser saves it as.
    pub(crate) fn answer(self, rows: Vec<Value>, next: Option<String>, file: &str) -> Response {
        if self.csv {
            return self.table(&rows, next, file);
        }
        let items: Vec<Value> = match &self.names {
            None => rows,
            Some(names) => rows.iter().map(|row| self.cut(row, names)).collect(),
        };
        Json(json!({"items": items, "next_cursor": next})).into_response()
    }

    fn cut(&self, row: &Value, names: &[String]) -> Value {
        let found = names.iter().filter_map(|name| Some((name.clone(), (self.fields.find)(row, name)?)));
        Value::Object(found.collect::<Map<_, _>>())
    }

    fn table(&self, rows: &[Value], next: Option<String>, file: &str) -> Response {
        let all = || self.fields.known.iter().map(|name| (*name).to_owned()).collect();
        let names: Vec<String> = self.names.clone().unwrap_or_else(all);
        let mut text = names.join(",") + "\r\n";
        for row in rows {
            let cells: Vec<String> = names.iter().map(|name| cell(&(self.fields.find)(row, name).unwrap_or(Value::Null))).collect();
            let _ = write!(text, "{}\r\n", cells.join(","));
        }
        let mut response = text.into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
        let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{file}\""));
        headers.insert(CONTENT_DISPOSITION, disposition.unwrap_or_else(|_| HeaderValue::from_static("attachment")));
        if let Some(next) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
            headers.insert("x-next-cursor", next);
        }
        response
    }
}

/// A cell that no spreadsheet runs as a formula.
fn cell(value: &Value) -> String {
    let mut text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            items.iter().map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_owned)).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    };
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        text.insert(0, '\'');
    }
    if text.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_guarded_and_quoted() {
        for (value, wanted) in [
            (json!(null), ""),
            (json!("=1+1"), "'=1+1"),
            (json!("a,\"b\"\r\n"), "\"a,\"\"b\"\"\r\n\""),
            (json!(["a", "b"]), "a b"),
            (json!(-5), "'-5"),
            (json!({"a": 1}), "\"{\"\"a\"\":1}\""),
        ] {
            assert_eq!(cell(&value), wanted);
        }
    }
}
