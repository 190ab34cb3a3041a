//! The texts of values: durations and booleans.

use std::time::Duration;

/// `300ms`, `5s`, `1m30s`, `2h`: whole numbers with a unit, added up. A bare number has no meaning.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let part = match &rest[..unit] {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            _ => return None,
        };
        total = total.checked_add(part)?;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}

/// `1 t true yes on` and `0 f false no off`, any case.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "yes" | "on" => Some(true),
        "0" | "f" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, want) in [("300ms", 300), ("5s", 5000), ("1m30s", 90_000), ("2h", 7_200_000), ("0s", 0)] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(want)), "{text}");
        }
        for text in ["", "5", "5 s", "-1s", "1.5s", "s", "5d", "18446744073709551615h", "5s3"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
