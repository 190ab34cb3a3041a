//! Golden shapes: answers with what changes from run to run put away by its type.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Answer;

/// What changes is named by its type.
pub fn redacted(value: &Value) -> Value {
    match value {
        Value::String(text) => redacted_text(text).into(),
        Value::Array(items) => items.iter().map(redacted).collect(),
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| {
                let seconds = matches!(name.as_str(), "exp" | "iat" | "expires_in" | "authority_expires_at") && value.is_i64();
                (name.clone(), if seconds { json!("[seconds]") } else { redacted(value) })
            };
            Value::Object(members.iter().map(member).collect())
        }
        other => other.clone(),
    }
}

fn redacted_text(text: &str) -> String {
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() == 3 && parts[0].starts_with("eyJ") {
        return "[token]".to_owned();
    }
    let uuid = |word: &str| {
        word.len() == 36
            && word.bytes().enumerate().all(|(i, b)| if matches!(i, 8 | 13 | 18 | 23) { b == b'-' } else { b.is_ascii_hexdigit() })
    };
    if text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return "[coordinate]".to_owned();
    }
    text.split(' ').map(|word| if uuid(word.trim_end_matches(',')) { "[id]" } else { word }).collect::<Vec<_>>().join(" ")
}

/// Answers by the name of their situation, compared with the golden file on drop of the test's end.
#[derive(Default)]
pub struct Shapes(BTreeMap<String, Value>);

impl Shapes {
    pub fn add(&mut self, name: &str, answer: &Answer) {
        let shown = [
            "content-type",
            "cache-control",
            "pragma",
            "retry-after",
            "www-authenticate",
            "allow",
            "x-content-type-options",
            "x-caracal-gateway-auth",
        ];
        let headers: serde_json::Map<String, Value> =
            shown.iter().filter_map(|name| Some(((*name).to_owned(), answer.header(name)?.into()))).collect();
        let mut shape = json!({"status": answer.status, "headers": headers, "body": redacted(&answer.body)});
        if answer.body["access_token"].is_string() {
            shape["claims"] = redacted(&answer.claims());
        }
        self.0.insert(name.to_owned(), shape);
    }

    /// Everything in order, for `insta`.
    pub fn all(&self) -> Value {
        json!(self.0)
    }
}
