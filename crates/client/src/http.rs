//! Requests and answers: one connection pool, bounded bodies, no redirects.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Most bytes of an answer.
const MOST: usize = 16 * 1024 * 1024;
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a request gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The service could not be asked, or its answer was cut.
    #[error("{0}")]
    Transport(String),
    /// The service said no.
    #[error("{status} {code}: {description}")]
    Refused {
        /// The status.
        status: u16,
        /// The code.
        code: String,
        /// In words.
        description: String,
        /// The member `refusal`, where there is one: what would have been enough, and whom to ask.
        refusal: Box<Value>,
    },
    /// The answer is not what it should be.
    #[error("the answer lacks {0}")]
    Answer(&'static str),
}

impl ClientError {
    /// The refusal's code, when it is one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// The reason of the refusal's own member.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused { refusal, .. } => refusal["reason"].as_str(),
            _ => None,
        }
    }
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value, ClientError> {
        serde_json::from_slice(&self.body).map_err(|_| ClientError::Answer("JSON"))
    }

    /// The body of a success, or the refusal.
    pub(crate) fn good(self) -> Result<Value, ClientError> {
        if self.status.is_success() {
            return if self.body.is_empty() { Ok(Value::Null) } else { self.json() };
        }
        Err(self.refusal())
    }

    /// The refusal that this answer tells.
    pub fn refusal(&self) -> ClientError {
        let body = self.json().unwrap_or_default();
        let text = |key: &str| body[key].as_str().map(str::to_owned);
        ClientError::Refused {
            status: self.status.as_u16(),
            code: text("error").unwrap_or_else(|| "unknown".to_owned()),
            description: text("error_description").or_else(|| text("message")).unwrap_or_default(),
            refusal: Box::new(body["refusal"].clone()),
        }
    }
}

/// A pool of connections.
#[derive(Clone)]
pub(crate) struct Http {
    pool: Client<HttpConnector, Full<Bytes>>,
}

impl Http {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { pool: Client::builder(TokioExecutor::new()).build(connector) }
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
        let failed = |e: &dyn std::fmt::Display| ClientError::Transport(e.to_string());
        let whole = async {
            let response = self.pool.request(request).await.map_err(|e| failed(&e))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MOST).collect().await.map_err(|e| failed(&e))?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        tokio::time::timeout(PATIENCE, whole).await.unwrap_or_else(|_| Err(ClientError::Transport("no answer in time".to_owned())))
    }

    pub(crate) async fn json(&self, method: Method, url: &str, bearer: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let mut request = Request::builder().method(method).uri(url).header(header::AUTHORIZATION, format!("Bearer {bearer}"));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Full::from(bytes)).map_err(|e| ClientError::Transport(e.to_string()))?;
        self.send(request).await?.good()
    }
}
