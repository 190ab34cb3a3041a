//! The catalogue of errors. A row is a situation: one code may have several statuses, a situation has one.
//!
//! Handlers name a situation and never choose a status; `web` renders it, once per envelope. Each service's rows are in a file of
//! their own, in the order of its spec's error table.

pub mod api;
pub mod audit;
pub mod coordinator;
pub mod gateway;
pub mod sts;

/// The service that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Port 3000.
    Api,
    /// Port 4000.
    Coordinator,
    /// Port 8080.
    Sts,
    /// Port 8081.
    Gateway,
    /// Port 9090.
    Audit,
}

impl Service {
    /// Its name in logs, metrics and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Coordinator => "coordinator",
            Self::Sts => "sts",
            Self::Gateway => "gateway",
            Self::Audit => "audit",
        }
    }
}

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not without a change.
    Never,
    /// After `Retry-After`.
    Later,
}

/// Who can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Whoever sent the request.
    Caller,
    /// Whoever has administrative rights in the zone.
    Operator,
    /// Whoever runs this deployment.
    Support,
}

/// One row of the catalogue.
#[derive(Debug, PartialEq, Eq)]
pub struct Situation {
    /// Who answers so.
    pub service: Service,
    /// The situation's own name, unique per service.
    pub name: &'static str,
    /// The code on the wire.
    pub code: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// Whether to try again.
    pub retry: Retry,
    /// Who acts on it.
    pub audience: Audience,
    /// What happened, for the page of errors.
    pub text: &'static str,
}

macro_rules! situations {
    ($service:ident; $($(#[doc = $doc:literal])+ $name:ident = $code:literal $status:literal $retry:ident $audience:ident;)*) => {
        $($(#[doc = $doc])+
        pub const $name: &$crate::error::Situation = &$crate::error::Situation {
            service: $crate::error::Service::$service,
            name: stringify!($name),
            code: $code,
            status: $status,
            retry: $crate::error::Retry::$retry,
            audience: $crate::error::Audience::$audience,
            text: concat!($($doc),+),
        };)*
        /// Every row of this service.
        pub const ALL: &[&$crate::error::Situation] = &[$($name),*];
    };
}
pub(crate) use situations;

/// Every row.
pub fn catalogue() -> impl Iterator<Item = &'static Situation> {
    [api::ALL, coordinator::ALL, sts::ALL, gateway::ALL, audit::ALL].into_iter().flatten().copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_situation_has_one_row() {
        let mut seen = BTreeSet::new();
        for row in catalogue() {
            assert!(seen.insert((row.service, row.name)), "{} {} twice", row.service.name(), row.name);
            assert!((400..600).contains(&row.status), "{}", row.name);
            assert!(row.code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit()), "{}", row.code);
            assert!(!row.text.trim().is_empty());
        }
    }

    #[test]
    fn what_passes_by_itself_says_so() {
        for row in catalogue().filter(|row| row.status == 429 || row.status == 503) {
            assert_eq!(row.retry, Retry::Later, "{} {}", row.service.name(), row.name);
        }
    }
}
