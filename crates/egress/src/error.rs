//! Why nothing came back. Texts are for logs; a caller is told less.

use std::error::Error;

use crate::address::Class;

/// Why there is no connection. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The URL is not one we ask for.
    #[error("the URL is refused: {0}")]
    Url(&'static str),
    /// The host is not on the operator's list.
    #[error("the host is not on the allow list")]
    Host,
    /// One of the host's addresses is refused.
    #[error("an address of the host is refused: {0:?}")]
    Address(Class),
    /// The host is this process.
    #[error("the address and port are our own")]
    Own,
    /// The host has no address.
    #[error("the host name does not resolve")]
    Unknown(#[source] Option<std::io::Error>),
    /// No address answered.
    #[error("no address of the host can be reached")]
    Unreachable(#[source] std::io::Error),
    /// Connecting took too long.
    #[error("connecting took too long")]
    Late,
    /// TLS failed.
    #[error("the TLS handshake failed")]
    Tls(#[source] std::io::Error),
    /// The TLS handshake took too long.
    #[error("the TLS handshake took too long")]
    TlsLate,
    /// The operator's extra trust cannot be read, so nothing is trusted.
    #[error("the extra certificates cannot be used: {0}")]
    Trust(String),
}

impl DialError {
    /// Whether the target itself is refused, rather than away.
    pub const fn refused(&self) -> bool {
        matches!(self, Self::Url(_) | Self::Host | Self::Address(_) | Self::Own | Self::Unknown(_))
    }

    /// Whether a clock ended it.
    pub const fn late(&self) -> bool {
        matches!(self, Self::Late | Self::TlsLate)
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection; nothing was sent.
    #[error("no connection: {0}")]
    Dial(#[source] DialError),
    /// Every connection to the host was busy for too long; nothing was sent.
    #[error("every connection to the host is busy")]
    Busy,
    /// The connection broke, or the answer was no HTTP; the request may have been received.
    #[error("the connection failed: {}", causes(.0))]
    Broken(#[source] hyper_util::client::legacy::Error),
}

impl SendError {
    pub(crate) fn of(error: hyper_util::client::legacy::Error) -> Self {
        if !error.is_connect() {
            return Self::Broken(error);
        }
        match dial_error(&error) {
            Some(dial) => Self::Dial(dial),
            None => Self::Broken(error),
        }
    }
}

/// The dial error inside a client's error. It is taken out by its parts, because the client only lends it.
fn dial_error(error: &hyper_util::client::legacy::Error) -> Option<DialError> {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(one) = cause {
        if let Some(dial) = one.downcast_ref::<DialError>() {
            let again = |e: &std::io::Error| std::io::Error::new(e.kind(), e.to_string());
            return Some(match dial {
                DialError::Url(why) => DialError::Url(why),
                DialError::Host => DialError::Host,
                DialError::Address(class) => DialError::Address(*class),
                DialError::Own => DialError::Own,
                DialError::Unknown(io) => DialError::Unknown(io.as_ref().map(again)),
                DialError::Unreachable(io) => DialError::Unreachable(again(io)),
                DialError::Late => DialError::Late,
                DialError::Tls(io) => DialError::Tls(again(io)),
                DialError::TlsLate => DialError::TlsLate,
                DialError::Trust(why) => DialError::Trust(why.clone()),
            });
        }
        cause = one.source();
    }
    None
}

/// The chain of an error's causes, without URLs: hyper's texts name none.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        text += ": ";
        text += &one.to_string();
        cause = one.source();
    }
    text
}
