//! The strict form of `sts.md` 2.1, rules 1 to 5: no query, the one media type, a size, exact decoding, and every field at most once
//! except those that may repeat.

use std::error::Error;

use bytes::Bytes;
use http::HeaderMap;
use http::Uri;
use http_body::Body;
use zeroize::Zeroizing;

use super::{Rules, media_type};
use crate::problem::Problem;

/// Most fields of a form; a body of the largest size could name tens of thousands.
const FIELDS_MAX: usize = 256;

/// A decoded form. Values are wiped when dropped, because forms carry secrets.
#[derive(Default)]
pub struct Form {
    fields: Vec<(String, Zeroizing<String>)>,
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.fields.iter().map(|(name, _)| name)).finish()
    }
}

impl Form {
    /// The field's value; `None` when it was not sent. Empty is a value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All values of a field that may repeat.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether the field was sent, empty or not.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Decodes `a=b&c=d` exactly.
    pub fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let mut fields = Vec::new();
        for pair in text.split(|b| *b == b'&').filter(|p| !p.is_empty()) {
            if pair.contains(&b';') {
                return Err("a raw semicolon separates nothing here");
            }
            if fields.len() == FIELDS_MAX {
                return Err("too many fields");
            }
            let (name, value) = pair.iter().position(|b| *b == b'=').map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
            fields.push((decode(name)?, Zeroizing::new(decode(value)?)));
        }
        Ok(Self { fields })
    }
}

fn decode(text: &[u8]) -> Result<String, &'static str> {
    const BROKEN: &str = "a percent sign is not followed by two hex digits";
    let digit = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok()).ok_or(BROKEN);
    let mut bytes = Vec::with_capacity(text.len());
    let mut i = 0;
    while i < text.len() {
        match text[i] {
            b'+' => bytes.push(b' '),
            b'%' => {
                bytes.push(digit(text.get(i + 1))? << 4 | digit(text.get(i + 2))?);
                i += 2;
            }
            other => bytes.push(other),
        }
        i += 1;
    }
    String::from_utf8(bytes).map_err(|_| "the text is not UTF-8")
}

impl Rules {
    /// Reads a form. `repeatable` names the fields that may occur more than once.
    pub async fn form<B>(&self, uri: &Uri, headers: &HeaderMap, body: B, repeatable: &[&str]) -> Result<Form, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Error,
    {
        if uri.query().is_some_and(|q| !q.is_empty()) {
            return Err(Problem::because(self.malformed, "parameters belong into the body, not into the query"));
        }
        if media_type(headers).as_deref() != Some("application/x-www-form-urlencoded") {
            return Err(Problem::because(self.media_type, "the media type must be application/x-www-form-urlencoded"));
        }
        let bytes = self.bytes(headers, body).await?;
        let form = Form::parse(&bytes).map_err(|why| Problem::because(self.malformed, why))?;
        for (i, (name, _)) in form.fields.iter().enumerate() {
            if !repeatable.contains(&name.as_str()) && form.fields[..i].iter().any(|(n, _)| n == name) {
                let shown: String = name.chars().take(64).collect();
                let text = format!("the field {shown:?} occurs more than once");
                return Err(Problem::because(self.invalid, text).field(shown));
            }
        }
        Ok(form)
    }
}

#[cfg(test)]
mod tests {
    use caracal_core::error::sts;
    use http_body_util::Full;

    use super::*;

    const RULES: Rules = Rules {
        bytes_max: 64,
        too_large: sts::TOO_LARGE,
        media_type: sts::MEDIA_TYPE,
        malformed: sts::MALFORMED,
        invalid: sts::MALFORMED,
    };

    async fn read(uri: &str, media: Option<&str>, body: &str) -> Result<Form, u16> {
        let mut headers = HeaderMap::new();
        if let Some(media) = media {
            headers.insert("content-type", media.parse().unwrap());
        }
        let body = Full::new(Bytes::from(body.to_owned()));
        RULES.form(&uri.parse().unwrap(), &headers, body, &["resource"]).await.map_err(|p| p.status().as_u16())
    }

    const FORM: Option<&str> = Some("application/x-www-form-urlencoded; charset=UTF-8");

    #[tokio::test]
    async fn the_rules_in_their_order() {
        assert_eq!(read("/t?a=b", None, "").await.unwrap_err(), 400, "query before media type");
        assert_eq!(read("/t", None, "a=b").await.unwrap_err(), 415);
        assert_eq!(read("/t", Some("application/json"), &"x".repeat(65)).await.unwrap_err(), 415, "media type before size");
        assert_eq!(read("/t", FORM, &"x".repeat(65)).await.unwrap_err(), 413);
        assert!(read("/t", FORM, &"x".repeat(64)).await.is_ok());
        for broken in ["a=%zz", "a=%4", "a=1;b=2", "a=%ff", "%=1"] {
            assert_eq!(read("/t", FORM, broken).await.unwrap_err(), 400, "{broken}");
        }
        assert_eq!(read("/t", FORM, "x=1&x=1").await.unwrap_err(), 400, "unknown fields too");
        assert_eq!(read("/t", FORM, "x=1&%78=1").await.unwrap_err(), 400, "after decoding");
        assert!(read("/t?", FORM, "").await.is_ok(), "an empty query is none");
    }

    #[tokio::test]
    async fn values_are_decoded_and_may_be_empty() {
        let form = read("/t", FORM, "a=b+c%2B%C3%A9&empty=&bare&resource=1&resource=2").await.unwrap();
        assert_eq!((form.get("a"), form.get("empty"), form.get("bare"), form.get("no")), (Some("b c+é"), Some(""), Some(""), None));
        assert_eq!(form.all("resource").collect::<Vec<_>>(), ["1", "2"]);
        assert!(!format!("{form:?}").contains("b c"), "values are not shown");
    }
}
