//! Reading bodies strictly, with errors that say where and what.
//!
//! A service declares its rows once as [`Rules`] and reads with [`Rules::form`] or [`Rules::json`].

mod form;
mod json;

use std::error::Error;

use bytes::{Bytes, BytesMut};
use caracal_core::error::Situation;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body::Body;
use http_body_util::BodyExt;

pub use self::form::Form;
use crate::problem::Problem;

/// Limits and rows of a service's bodies.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Most bytes.
    pub bytes_max: usize,
    /// The row of a larger body.
    pub too_large: &'static Situation,
    /// The row of another media type.
    pub media_type: &'static Situation,
    /// The row of a body that breaks off, is not UTF-8, or is no JSON or form at all.
    pub malformed: &'static Situation,
    /// The row of a body with wrong members; told with issues.
    pub invalid: &'static Situation,
}

impl Rules {
    /// The same rules with another row for wrong members (some routes have a code of their own).
    #[must_use]
    pub const fn invalid(mut self, row: &'static Situation) -> Self {
        self.invalid = row;
        self
    }

    /// Reads a body within the limit.
    pub async fn bytes<B>(&self, headers: &HeaderMap, body: B) -> Result<Bytes, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Error,
    {
        let declared = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|t| t.parse::<u64>().ok());
        if declared.is_some_and(|n| n > self.bytes_max as u64) {
            return Err(self.too_large());
        }
        let mut body = std::pin::pin!(body);
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| Problem::because(self.malformed, "the body broke off").cause(e))?;
            let Ok(data) = frame.into_data() else { continue };
            if first.len() + all.len() + data.len() > self.bytes_max {
                return Err(self.too_large());
            }
            // Nearly every body is one piece, which needs no copy.
            if first.is_empty() && all.is_empty() {
                first = data;
            } else {
                if all.is_empty() {
                    all.extend_from_slice(&std::mem::take(&mut first));
                }
                all.extend_from_slice(&data);
            }
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    }

    fn too_large(&self) -> Problem {
        Problem::because(self.too_large, format!("the body is larger than {} bytes", self.bytes_max))
    }
}

/// The media type without parameters, lower-cased; `None` when there is none, several, or it is no media type.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let mut all = headers.get_all(CONTENT_TYPE).iter();
    let one = all.next()?;
    if all.next().is_some() {
        return None;
    }
    let (essence, parameters) = one.to_str().ok().map(|text| text.split_once(';').unwrap_or((text, "")))?;
    let essence = essence.trim().to_ascii_lowercase();
    let token = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b));
    let fine = essence.split_once('/').is_some_and(|(a, b)| token(a) && token(b));
    let parameters = parameters.split(';').all(|p| p.trim().is_empty() || p.contains('='));
    (fine && parameters).then_some(essence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_read_without_parameters() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_TYPE, value.parse().unwrap());
            }
            media_type(&headers)
        };
        assert_eq!(of(&["Application/JSON; charset=utf-8"]).as_deref(), Some("application/json"));
        for none in [&[][..], &["json"], &["a/"], &["a/b", "a/b"], &["a/b; charset"], &["a b/c"]] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }
}
