//! The exchange with the STS (`gateway.md` 7): a mandate in, a place and a credential out. A trait of ours, because the STS may be in
//! this process or in another one; what travels is the same.

mod circuit;
mod http;
mod reply;

use std::sync::Arc;
use std::time::Duration;

use caracal_core::directive::Directive;
use caracal_core::refusal::Refusal;
use caracal_crypto::verified::VerifiedMandate;
use caracal_store::journal::Consume;
use futures::future::BoxFuture;
use serde_json::{Map, Value};

pub use self::circuit::Circuit;
pub use self::http::{HttpExchange, HttpSettings};
pub use self::reply::read_reply;

/// What is handed over.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The mandate's text.
    pub token: &'a str,
    /// What it says, verified.
    pub mandate: &'a Arc<VerifiedMandate>,
    /// The resource as the caller named it, trimmed.
    pub resource: &'a str,
    /// The method as received.
    pub method: &'a str,
    /// The operation path.
    pub path: &'a str,
    /// The request id.
    pub request_id: &'a str,
    /// The consumption of the mandate, to be made durable with the exchange's evidence by exchanges that say so
    /// ([`Exchange::consumes`]).
    pub consume: Option<Consume>,
    /// How long it may take.
    pub deadline: Duration,
}

/// What comes back when the call may go on. Holds live credentials: never logged, cached, or kept once the request is built.
#[derive(Clone)]
pub struct Granted {
    /// The resource mandate, where the directive forwards it.
    pub resource_token: Option<String>,
    /// Where to, and with what.
    pub directive: Directive,
}

impl std::fmt::Debug for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Granted").field("directive", &self.directive).finish_non_exhaustive()
    }
}

/// A refusal of the STS, as it passes on to the caller.
#[derive(Clone, Debug, PartialEq)]
pub struct StsRefusal {
    /// The status.
    pub status: u16,
    /// The code.
    pub code: String,
    /// One sentence.
    pub description: String,
    /// The member `refusal`.
    pub refusal: Option<Value>,
    /// Members of a hold.
    pub members: Map<String, Value>,
    /// `WWW-Authenticate` of a hold.
    pub challenge: Option<String>,
    /// Seconds.
    pub retry_after: Option<u64>,
    /// For the log.
    pub cause: Option<String>,
}

impl StsRefusal {
    /// A refusal without anything but its words.
    pub fn new(status: u16, code: &str, description: &str) -> Self {
        Self {
            status,
            code: code.to_owned(),
            description: description.to_owned(),
            refusal: None,
            members: Map::new(),
            challenge: None,
            retry_after: None,
            cause: None,
        }
    }

    /// The STS is not to be had.
    pub fn unavailable(status: u16, description: &str, cause: impl std::fmt::Display) -> Self {
        Self { cause: Some(format!("{cause}")), ..Self::new(status, "sts_unavailable", description) }
    }

    /// Whether the STS could not decide, rather than decided against it.
    pub fn is_unavailable(&self) -> bool {
        self.code == "sts_unavailable" && self.status >= 500
    }
}

/// The refusal of an STS in this process.
impl From<&Refusal> for StsRefusal {
    fn from(refusal: &Refusal) -> Self {
        Self {
            refusal: Some(refusal.for_caller()),
            retry_after: refusal.retry_after,
            cause: refusal.operator.as_ref().and_then(|o| o.detail.clone()),
            ..Self::new(refusal.situation.status, refusal.situation.code, &refusal.description)
        }
    }
}

/// Why the call may not go on.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The STS said so, or could not be asked.
    Refused(Box<StsRefusal>),
    /// The mandate was used before, as the durable memory knows.
    Replayed,
}

impl From<StsRefusal> for Failure {
    fn from(refusal: StsRefusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

/// Asks the STS.
pub trait Exchange: Send + Sync + 'static {
    /// Exchanges a mandate, once.
    fn exchange<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Result<Granted, Failure>>;

    /// Whether it makes [`Call::consume`] durable in the commit of its own evidence.
    fn consumes(&self) -> bool {
        false
    }

    /// Seconds until it may be asked again, while it may not.
    fn retry_in(&self) -> Option<u64> {
        None
    }

    /// Whether the STS answers its `/health`.
    fn reachable(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }
}
