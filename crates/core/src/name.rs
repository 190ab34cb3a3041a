//! Identifiers that people choose: `resource://…` and `provider://…`. Compared byte by byte, never folded or normalised.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// The text is not an identifier of the wanted kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {scheme}:// followed by 1 to {max} visible characters")]
pub struct NotAName {
    scheme: &'static str,
    max: usize,
}

/// The longest identifier, in bytes.
pub const MAX_NAME: usize = 500;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident => $scheme:literal),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The whole text, scheme included.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NotAName;
            fn from_str(text: &str) -> Result<Self, NotAName> {
                let rest = text.strip_prefix(concat!($scheme, "://"));
                let good = rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| !c.is_whitespace() && !c.is_control()));
                if good && text.len() <= MAX_NAME { Ok(Self(text.to_owned())) } else { Err(NotAName { scheme: $scheme, max: MAX_NAME }) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

names! {
    /// What agents ask authority for: `resource://ledger`.
    ResourceName => "resource",
    /// Where credentials come from: `provider://stripe`.
    ProviderName => "provider",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_bytes() {
        assert_eq!("resource://ledger".parse::<ResourceName>().unwrap().as_str(), "resource://ledger");
        for bad in ["", "ledger", "resource://", "provider://x", "Resource://x", "resource://a b", "resource://a\n"] {
            assert!(bad.parse::<ResourceName>().is_err(), "{bad:?}");
        }
        assert!(format!("resource://{}", "x".repeat(489)).parse::<ResourceName>().is_ok());
        assert!(format!("resource://{}", "x".repeat(490)).parse::<ResourceName>().is_err());
    }
}
