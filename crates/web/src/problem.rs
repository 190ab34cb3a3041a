//! A no on its way to the caller: a row of the catalogue, what to say about it, and what only the log may know.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use caracal_core::error::Situation;
use caracal_core::refusal::Refusal;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

/// One fault of a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Issue {
    /// Where, from the outside in; positions in lists are texts too.
    pub path: Vec<String>,
    /// What.
    pub message: String,
}

/// A refusal or failure as a handler returns it. The shell renders it; nothing else does.
#[derive(Clone, Debug)]
pub struct Problem(Box<Told>);

/// What a problem holds.
#[derive(Clone, Debug)]
pub struct Told {
    pub(crate) situation: &'static Situation,
    pub(crate) description: Cow<'static, str>,
    pub(crate) refusal: Option<Box<Refusal>>,
    pub(crate) issues: Vec<Issue>,
    pub(crate) members: Map<String, Value>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) retry_after: Option<u64>,
    pub(crate) cause: Option<String>,
    pub(crate) field: Option<Cow<'static, str>>,
}

impl Problem {
    /// A situation, described by its row's own text.
    pub fn new(situation: &'static Situation) -> Self {
        Self::because(situation, situation.text.trim())
    }

    /// A situation in other words. They reach the caller.
    pub fn because(situation: &'static Situation, description: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Told {
            situation,
            description: description.into(),
            refusal: None,
            issues: Vec::new(),
            members: Map::new(),
            headers: Vec::new(),
            retry_after: None,
            cause: None,
            field: None,
        }))
    }

    /// Adds faults of a body (`details.issues`).
    #[must_use]
    pub fn issues(mut self, issues: Vec<Issue>) -> Self {
        self.0.issues = issues;
        self
    }

    /// Adds a member of the answer's top level.
    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after = Some(seconds.max(1));
        self
    }

    /// Adds what only the log may know.
    #[must_use]
    pub fn cause(mut self, cause: impl std::fmt::Display) -> Self {
        self.0.cause = Some(format!("{cause}"));
        self
    }

    /// Names the malformed field.
    #[must_use]
    pub fn field(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.0.field = Some(name.into());
        self
    }

    /// The row.
    pub fn situation(&self) -> &'static Situation {
        self.0.situation
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.situation.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl std::ops::Deref for Problem {
    type Target = Told;
    fn deref(&self) -> &Told {
        &self.0
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let mut problem = Self::because(refusal.situation, refusal.description.clone());
        problem.0.retry_after = refusal.retry_after;
        problem.0.cause = refusal.operator.as_ref().and_then(|operator| operator.detail.clone());
        problem.0.refusal = Some(Box::new(refusal));
        problem
    }
}

impl From<Box<Refusal>> for Problem {
    fn from(refusal: Box<Refusal>) -> Self {
        Self::from(*refusal)
    }
}

/// The answer as handlers return it: the status, and the problem itself for the shell to render, which alone knows the request id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(axum::body::Body::empty());
        *response.status_mut() = self.status();
        response.extensions_mut().insert(self);
        response
    }
}
