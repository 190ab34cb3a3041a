//! JSON of strangers: no member twice, members absent or null told apart, and what is wrong told with its place.

use std::fmt;

use caracal_web::Issue;
use serde::de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

/// A JSON value in which no object has a member twice: which of the two would count depends on the reader.
pub(crate) struct Document(pub(crate) Value);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Document, E> {
        Ok(Document(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Document, E> {
        Ok(Document(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Document, E> {
        Ok(Document(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Document, E> {
        Ok(Document(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Document, E> {
        Ok(Document(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Document, E> {
        Ok(Document(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Document, E> {
        Ok(Document(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Document, A::Error> {
        let mut all = Vec::new();
        while let Some(Document(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Document(all.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Document, A::Error> {
        let mut all = Map::new();
        while let Some((name, Document(value))) = members.next_entry::<String, Document>()? {
            if all.contains_key(&name) {
                return Err(A::Error::custom(format!("duplicate field `{name}`")));
            }
            all.insert(name, value);
        }
        Ok(Document(all.into()))
    }
}

/// An object in the wanted shape, or what is wrong and where.
pub(crate) fn shaped<T: DeserializeOwned>(value: Value) -> Result<T, Issue> {
    // A list would pass for an object whose members are in that order.
    if !value.is_object() {
        return Err(Issue { path: Vec::new(), message: "expected an object".to_owned() });
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let segment = |segment: &Segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { variant } => Some(variant.clone()),
            Segment::Unknown => None,
        };
        let path = error.path().iter().filter_map(segment).collect();
        Issue { path, message: error.inner().to_string().chars().take(256).collect() }
    })
}

/// A member that may be absent, and is never null.
pub(crate) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A member that may be absent, null, or there.
#[allow(clippy::option_option, reason = "absent, null and a value are three things in a PATCH")]
pub(crate) fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_counts_once_at_every_depth() {
        let read = |text: &str| serde_json::from_str::<Document>(text).map(|d| d.0);
        let value = read(r#"{"a":[1,-2,0.5,"x",null,true,{"b":{}}]}"#).unwrap();
        assert_eq!(value.to_string(), r#"{"a":[1,-2,0.5,"x",null,true,{"b":{}}]}"#);
        for twice in [r#"{"a":1,"a":1}"#, r#"[{"x":{"a":1,"\u0061":2}}]"#] {
            assert!(read(twice).unwrap_err().to_string().starts_with("duplicate field `a`"), "{twice}");
        }
    }
}
