//! RFC 8785: the one canonical text of a JSON value, so that a digest of it means the value and not its spelling.

use serde_json::{Map, Number, Value};

/// Largest magnitude below which every integer is a double of its own.
const EXACT: u64 = 1 << 53;

/// The canonical bytes of `value`. A number is the double it stands for, as RFC 8785 has it: an integer beyond 2^53 is rounded.
pub fn canonical(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write(value, &mut out);
    out
}

/// Appends the canonical bytes of `value`.
pub fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
        Value::Number(n) => write_number(n, out),
        Value::String(s) => write_text(s, out),
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            out.push(b'{');
            for (i, (key, member)) in sorted(members).into_iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_text(key, out);
                out.push(b':');
                write(member, out);
            }
            out.push(b'}');
        }
    }
}

/// The members in canonical order: by UTF-16 code units. For keys without astral characters bytes give the same one.
pub fn sorted(members: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
    if sorted.iter().any(|(key, _)| !key.is_ascii()) {
        sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    } else {
        sorted.sort_unstable_by_key(|(key, _)| *key);
    }
    sorted
}

/// Appends a text with its quotes.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (i, byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => *byte,
            0x08 => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            0x0c => b'f',
            b'\r' => b'r',
            0..0x20 => 0,
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain..i]);
        plain = i + 1;
        match short {
            0 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            short => out.extend_from_slice(&[b'\\', short]),
        }
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

fn write_number(n: &Number, out: &mut Vec<u8>) {
    let magnitude = n.as_u64().or_else(|| n.as_i64().map(i64::unsigned_abs));
    if magnitude.is_some_and(|m| m <= EXACT) {
        out.extend_from_slice(n.to_string().as_bytes());
    } else if let Some(double) = n.as_f64() {
        write_double(double, out);
    }
}

/// ECMAScript's Number::toString, which RFC 8785 demands: shortest digits that read back, exponent form outside 1e-7 ..= 1e21.
fn write_double(f: f64, out: &mut Vec<u8>) {
    if f == 0.0 {
        out.push(b'0');
        return;
    }
    let text = format!("{:e}", f.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let point = exponent + 1;
    if f < 0.0 {
        out.push(b'-');
    }
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    let text = if count <= point && point <= 21 {
        format!("{digits}{}", zeros(point - count))
    } else if 0 < point && point <= 21 {
        let at = usize::try_from(point).unwrap_or(0);
        format!("{}.{}", &digits[..at], &digits[at..])
    } else if -6 < point && point <= 0 {
        format!("0.{}{digits}", zeros(-point))
    } else {
        let sign = if point > 0 { '+' } else { '-' };
        let power = (point - 1).abs();
        let (first, rest) = digits.split_at(1);
        if rest.is_empty() { format!("{first}e{sign}{power}") } else { format!("{first}.{rest}e{sign}{power}") }
    };
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_bound_request_vector_is_canonical() {
        let value: Value = serde_json::from_str(r#"{ "currency": "EUR", "amount": 12.0 }"#).unwrap();
        assert_eq!(canonical(&value), br#"{"amount":12,"currency":"EUR"}"#);
    }

    #[test]
    fn integers_beyond_a_double_are_written_as_the_double_they_stand_for() {
        for (literal, wanted) in [
            ("9007199254740992", "9007199254740992"),
            ("9007199254740993", "9007199254740992"),
            ("-9007199254740995", "-9007199254740996"),
            ("18446744073709551615", "18446744073709552000"),
            ("1000000000000000000000", "1e+21"),
        ] {
            let value: Value = serde_json::from_str(literal).unwrap();
            assert_eq!(String::from_utf8(canonical(&value)).unwrap(), wanted);
            assert_eq!(serde_json_canonicalizer::to_string(&value).unwrap(), wanted, "the other implementation");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-(1_i64 << 53)..(1_i64 << 53)).prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no NaN", |f| f.is_finite()).prop_map(|f| json!(f)),
            "\\PC{0,8}|[\\x00-\\x1f\"\\\\]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map("\\PC{0,6}", inner, 0..6).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn another_implementation_agrees(value in value()) {
            let ours = String::from_utf8(canonical(&value)).unwrap();
            prop_assert_eq!(ours, serde_json_canonicalizer::to_string(&value).unwrap());
        }
    }
}
