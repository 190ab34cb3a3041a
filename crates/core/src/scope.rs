//! Scopes: words a caller asks for and a grant allows. A set; its text is sorted, single-spaced, without repetition.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The scope of a lifecycle bootstrap; it never reaches an upstream.
pub const LIFECYCLE: &str = "agent:lifecycle";

/// A set of scopes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scopes(BTreeSet<String>);

impl Scopes {
    /// No scope at all.
    pub const fn none() -> Self {
        Self(BTreeSet::new())
    }

    /// The words of a `scope` parameter or claim, split at white space.
    pub fn of_text(text: &str) -> Self {
        text.split_whitespace().collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether `scope` is one of them.
    pub fn contains(&self, scope: &str) -> bool {
        self.0.contains(scope)
    }

    /// Whether all of them are in `other`.
    pub fn within(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).cloned().collect())
    }

    /// Those that are in both.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).cloned().collect())
    }

    /// In byte order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// As a list, in byte order.
    pub fn to_vec(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }
}

impl<S: Into<String>> FromIterator<S> for Scopes {
    fn from_iter<I: IntoIterator<Item = S>>(words: I) -> Self {
        Self(words.into_iter().map(Into::into).collect())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, scope) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scopes() -> impl Strategy<Value = Scopes> {
        proptest::collection::vec("[a-d]:(read|write)", 0..6).prop_map(|words| words.into_iter().collect())
    }

    proptest! {
        #[test]
        fn text_round_trips_and_is_normal(a in scopes()) {
            let text = a.to_string();
            prop_assert_eq!(Scopes::of_text(&text), a);
            prop_assert!(!text.contains("  "));
        }

        #[test]
        fn within_is_an_order(a in scopes(), b in scopes(), c in scopes()) {
            prop_assert!(a.within(&a));
            prop_assert!(!(a.within(&b) && b.within(&a)) || a == b);
            prop_assert!(!(a.within(&b) && b.within(&c)) || a.within(&c));
            prop_assert_eq!(a.beyond(&b).is_empty(), a.within(&b));
            prop_assert!(a.common(&b).within(&a) && a.common(&b).within(&b));
        }
    }
}
