//! JSON bodies, and what is wrong with them: the path to the member and what was found.

use std::error::Error;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use super::{Rules, media_type};
use crate::problem::{Issue, Problem};

impl Rules {
    /// Reads a JSON body. No body, an empty one and `null` are `None`; a body of another media type is refused.
    pub async fn json_opt<T, B>(&self, headers: &HeaderMap, body: B) -> Result<Option<T>, Problem>
    where
        T: DeserializeOwned,
        B: Body<Data = Bytes>,
        B::Error: Error,
    {
        let bytes = self.bytes(headers, body).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if media_type(headers).as_deref() != Some("application/json") {
            return Err(Problem::because(self.media_type, "the media type must be application/json"));
        }
        if bytes.trim_ascii() == b"null" {
            return Ok(None);
        }
        self.parse(&bytes).map(Some)
    }

    /// Reads a JSON body that must be there.
    pub async fn json<T, B>(&self, headers: &HeaderMap, body: B) -> Result<T, Problem>
    where
        T: DeserializeOwned,
        B: Body<Data = Bytes>,
        B::Error: Error,
    {
        self.json_opt(headers, body).await?.ok_or_else(|| {
            let issue = Issue { path: Vec::new(), message: "a body is required".to_owned() };
            Problem::because(self.invalid, "a body is required").issues(vec![issue])
        })
    }

    /// Parses JSON: broken text is malformed, a value of another shape is invalid and told with its path.
    pub fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, Problem> {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let error = match serde_path_to_error::deserialize(&mut reader) {
            Ok(value) => {
                reader.end().map_err(|_| Problem::because(self.malformed, "there is text after the JSON value"))?;
                if holds_nul(bytes) {
                    return Err(
                        self.issues(vec![Issue { path: Vec::new(), message: "text may not hold the character U+0000".to_owned() }])
                    );
                }
                return Ok(value);
            }
            Err(error) => error,
        };
        let (path, inner) = (path_texts(error.path()), error.inner());
        if !inner.is_data() {
            let place = format!("the body is not JSON: line {}, column {}", inner.line(), inner.column());
            return Err(Problem::because(self.malformed, place));
        }
        // A value of the wrong shape in front may hide broken text behind.
        if serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_err() {
            return Err(Problem::because(self.malformed, "the body is not JSON"));
        }
        Err(self.issues(vec![Issue { path, message: plain(&inner.to_string()) }]))
    }

    /// A body with these faults, for checks a service makes itself.
    pub fn issues(&self, issues: Vec<Issue>) -> Problem {
        let description = match issues.first() {
            Some(issue) if !issue.path.is_empty() => format!("{}: {}", issue.path.join("."), issue.message),
            Some(issue) => issue.message.clone(),
            None => "the body is not valid".to_owned(),
        };
        Problem::because(self.invalid, description).issues(issues)
    }
}

/// Whether a string of this JSON holds U+0000, which PostgreSQL cannot keep: in JSON it can only be written as an escape.
fn holds_nul(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = rest.iter().position(|b| *b == b'\\') {
        let escape = &rest[at + 1..];
        if escape.starts_with(b"u0000") {
            return true;
        }
        rest = escape.get(1..).unwrap_or_default();
    }
    false
}

fn path_texts(path: &Path) -> Vec<String> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { variant } => Some(variant.clone()),
            Segment::Unknown => None,
        })
        .collect()
}

/// The parser's words without the position, which means nothing to whoever built the body with a library.
fn plain(message: &str) -> String {
    let cut = message.rfind(" at line ").map_or(message, |at| &message[..at]);
    cut.chars().take(256).collect()
}

#[cfg(test)]
mod tests {
    use caracal_core::error::{coordinator, sts};
    use http_body_util::Full;
    use serde::Deserialize;

    use super::*;

    const RULES: Rules = Rules {
        bytes_max: 256,
        too_large: sts::TOO_LARGE,
        media_type: sts::MEDIA_TYPE,
        malformed: sts::MALFORMED,
        invalid: coordinator::INTERNAL,
    };

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        name: String,
        #[serde(default)]
        labels: Vec<u8>,
    }

    async fn read(media: Option<&str>, body: &str) -> Result<Option<Wanted>, Problem> {
        let mut headers = HeaderMap::new();
        if let Some(media) = media {
            headers.insert("content-type", media.parse().unwrap());
        }
        RULES.json_opt(&headers, Full::new(Bytes::from(body.to_owned()))).await
    }

    const JSON: Option<&str> = Some("application/json");

    #[tokio::test]
    async fn nothing_null_and_an_empty_body_are_absent() {
        for (media, body) in [(None, ""), (JSON, ""), (JSON, "null"), (JSON, " null\n"), (Some("text/plain"), "")] {
            assert_eq!(read(media, body).await.unwrap(), None, "{media:?} {body:?}");
        }
        let body = Full::new(Bytes::new());
        assert_eq!(RULES.json::<Wanted, _>(&HeaderMap::new(), body).await.unwrap_err().issues[0].message, "a body is required");
    }

    #[tokio::test]
    async fn faults_are_told_where_they_are() {
        let issue = |p: Problem| (p.status().as_u16(), p.issues[0].path.join("."), p.issues[0].message.clone());
        assert_eq!(
            issue(read(JSON, r#"{"name":"a","labels":[1,"x"]}"#).await.unwrap_err()),
            (500, "labels.1".into(), "invalid type: string \"x\", expected u8".into())
        );
        assert_eq!(issue(read(JSON, "{}").await.unwrap_err()).2, "missing field `name`");
        assert!(issue(read(JSON, r#"{"name":"a","nmae":1}"#).await.unwrap_err()).2.starts_with("unknown field `nmae`"));
        assert!(issue(read(JSON, r#"{"name":"a","name":"b"}"#).await.unwrap_err()).2.starts_with("duplicate field"));
    }

    #[tokio::test]
    async fn nul_is_refused_however_it_is_hidden() {
        for bad in [r#"{"name":"a\u0000"}"#, r#"{"name":"\\\u0000"}"#, r#"{"name":"\"\u0000b"}"#] {
            assert_eq!(read(JSON, bad).await.unwrap_err().issues[0].message, "text may not hold the character U+0000", "{bad}");
        }
        assert_eq!(read(JSON, r#"{"name":"\\u0000"}"#).await.unwrap().unwrap().name, r"\u0000");
    }

    #[tokio::test]
    async fn broken_text_is_no_shape() {
        for broken in ["{", "{\"name\":1", "{\"name\":\"a\"} x", "\u{1}"] {
            let problem = read(JSON, broken).await.unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.issues.len()), (400, 0), "{broken}");
        }
        assert_eq!(read(Some("text/plain"), "{}").await.unwrap_err().status().as_u16(), 415);
        assert_eq!(read(JSON, &format!("\"{}\"", "x".repeat(255))).await.unwrap_err().status().as_u16(), 413);
    }
}
