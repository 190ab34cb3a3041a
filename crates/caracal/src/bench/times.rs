//! How long things took: all of them kept, so that a percentile is one of them.

use std::time::Duration;

use serde::Serialize;

/// Times of one kind of step.
#[derive(Clone, Debug, Default)]
pub(super) struct Times(Vec<u32>);

/// What is told of them, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[expect(clippy::struct_field_names, reason = "a unit is the last part of a name")]
pub(super) struct Quantiles {
    pub(super) p50_us: u32,
    pub(super) p99_us: u32,
    pub(super) max_us: u32,
}

impl Times {
    pub(super) fn add(&mut self, took: Duration) {
        self.0.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    pub(super) fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn quantiles(mut self) -> Quantiles {
        self.0.sort_unstable();
        let at = |percent: usize| self.0.get((self.0.len() * percent / 100).min(self.0.len().saturating_sub(1))).copied();
        Quantiles { p50_us: at(50).unwrap_or(0), p99_us: at(99).unwrap_or(0), max_us: at(100).unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_times() {
        let mut times = Times::default();
        (1..=200).for_each(|n| times.add(Duration::from_micros(n)));
        let told = times.quantiles();
        assert_eq!((told.p50_us, told.p99_us, told.max_us), (101, 199, 200));
        let none = Times::default().quantiles();
        assert_eq!((none.p50_us, none.p99_us, none.max_us), (0, 0, 0));
    }
}
