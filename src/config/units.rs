//! Values with units: `"100ms"`, `"64KiB"`, `4096`. Each function is a `deserialize_with`. It also
//! takes a number or a boolean as text, the form of the environment and of flags. Its error names
//! the expected form. `validate` checks ranges.

use std::{fmt, net::SocketAddr, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IntoDeserializer, Unexpected, Visitor, value::StrDeserializer},
};

/// A duration like `"100ms"`, `"5m"` or `"1h 30m"`. A bare number is refused: its unit would be a
/// guess.
pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    read(from, "a duration like \"100ms\"", |given| match given {
        Given::Text(text) => humantime::parse_duration(text).ok(),
        Given::Number(_) | Given::Truth(_) => None,
    })
}

/// A size like `"64KiB"`, or a number of bytes.
pub(super) fn size<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    read(from, "a size like \"64KiB\"", |given| match given {
        Given::Text(text) => parse_size(text),
        Given::Number(bytes) => Some(bytes),
        Given::Truth(_) => None,
    })
    .and_then(|bytes| {
        usize::try_from(bytes).map_err(|_| Error::custom("expected a size that fits in memory"))
    })
}

/// A whole number in the field's range.
pub(super) fn count<'de, D: Deserializer<'de>, T: TryFrom<u64>>(from: D) -> Result<T, D::Error> {
    let number = read(from, "a whole number", |given| match given {
        Given::Text(text) => text.parse().ok(),
        Given::Number(number) => Some(number),
        Given::Truth(_) => None,
    })?;
    T::try_from(number).map_err(|_| {
        let most = u64::MAX >> (u64::BITS as usize - 8 * size_of::<T>());
        Error::custom(format_args!("expected a whole number up to {most}"))
    })
}

/// `true` or `false`.
pub(super) fn switch<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    read(from, "true or false", |given| match given {
        Given::Text(text) => text.parse().ok(),
        Given::Truth(truth) => Some(truth),
        Given::Number(_) => None,
    })
}

/// An IP address and port.
pub(super) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    read(from, "an IP address and port like \"127.0.0.1:8080\"", |given| match given {
        Given::Text(text) => text.parse().ok(),
        Given::Number(_) | Given::Truth(_) => None,
    })
}

/// [`address`] for an optional key: an empty text is none.
pub(super) fn given_address<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<SocketAddr>, D::Error> {
    read(from, "an IP address and port like \"127.0.0.1:8081\"", |given| match given {
        Given::Text("") => Some(None),
        Given::Text(text) => text.parse().ok().map(Some),
        Given::Number(_) | Given::Truth(_) => None,
    })
}

/// A list of texts: an array, or one text with commas (as from the environment).
pub(super) fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a list of strings like [\"a\", \"b\"]")]
    enum List {
        Many(Vec<String>),
        Text(String),
    }
    Ok(match List::deserialize(from)? {
        List::Many(texts) => texts,
        List::Text(text) => {
            let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
            texts.map(Into::into).collect()
        }
    })
}

/// One of an enum's words. A derived enum alone would also take `{ tick = … }`, and its error would
/// ask for a "string or map".
pub(super) fn word<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    let text = String::deserialize(from)?;
    let word: StrDeserializer<'_, D::Error> = text.as_str().into_deserializer();
    T::deserialize(word)
}

/// [`duration`] for an optional key.
pub(super) fn given_duration<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

/// [`count`] for an optional key.
pub(super) fn given_count<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    count(from).map(Some)
}

/// [`word`] for an optional key.
pub(super) fn given_word<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    word(from).map(Some)
}

/// A scalar of any layer.
enum Given<'a> {
    Text(&'a str),
    Number(u64),
    Truth(bool),
}

fn read<'de, D: Deserializer<'de>, T>(
    from: D,
    expected: &'static str,
    parse: fn(Given<'_>) -> Option<T>,
) -> Result<T, D::Error> {
    from.deserialize_any(Scalar { expected, parse })
}

struct Scalar<T> {
    expected: &'static str,
    parse: fn(Given<'_>) -> Option<T>,
}

impl<T> Scalar<T> {
    fn take<E: Error>(self, given: Given<'_>, seen: Unexpected<'_>) -> Result<T, E> {
        (self.parse)(given).ok_or_else(|| E::invalid_value(seen, &self.expected))
    }
}

impl<T> Visitor<'_> for Scalar<T> {
    type Value = T;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        self.take(Given::Text(text), Unexpected::Str(text))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.take(Given::Number(number), Unexpected::Unsigned(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self.expected)),
        }
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<T, E> {
        self.take(Given::Truth(truth), Unexpected::Bool(truth))
    }
}

/// Bytes, from a text like `64KiB` or `1.5MB`.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let (prefix, base) = match unit.strip_suffix("ib").or(unit.strip_suffix('i')) {
        Some(prefix) => (prefix, 1024_u64),
        None => (unit.strip_suffix('b').unwrap_or(&unit), 1000),
    };
    let power = ["", "k", "m", "g", "t", "p"].iter().position(|known| *known == prefix)?;
    let factor = base.pow(power as u32);
    match number.parse::<u64>() {
        Ok(number) => number.checked_mul(factor),
        Err(_) => number.parse::<f64>().ok().map(|number| (number * factor as f64) as u64),
    }
}

#[cfg(test)]
mod tests {
    use fanfare_core::policy::{Conflate, Flush};
    use serde_json::{Value, json};

    use super::*;

    fn text_of<T: fmt::Debug>(result: Result<T, serde_json::Error>) -> String {
        result.map_or_else(|error| error.to_string(), |value| format!("{value:?}"))
    }

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(duration(json!("100ms")).ok(), Some(Duration::from_millis(100)));
        assert_eq!(duration(json!("5m")).ok(), Some(Duration::from_secs(300)));
        assert_eq!(duration(json!("1h 30m")).ok(), Some(Duration::from_secs(5400)));
        assert_eq!(duration(json!("0s")).ok(), Some(Duration::ZERO));
        for wrong in [json!("abc"), json!("-1s"), json!("5"), json!(5), json!(true), json!([])] {
            assert!(
                text_of(duration(wrong.clone())).ends_with("expected a duration like \"100ms\""),
                "{wrong}"
            );
        }
    }

    #[test]
    fn sizes_are_binary_or_decimal_as_written() {
        assert_eq!(size(json!("64KiB")).ok(), Some(65_536));
        assert_eq!(size(json!("64KB")).ok(), Some(64_000));
        assert_eq!(size(json!("1MiB")).ok(), Some(1_048_576));
        assert_eq!(size(json!("512")).ok(), Some(512));
        assert_eq!(size(json!(512)).ok(), Some(512));
        for wrong in [json!("64 apples"), json!(""), json!("-1KiB"), json!(-1), json!(1.5)] {
            assert!(
                text_of(size(wrong.clone())).ends_with("expected a size like \"64KiB\""),
                "{wrong}"
            );
        }
    }

    #[test]
    fn counts_are_whole_and_never_cut_to_fit() {
        assert_eq!(count::<Value, u32>(json!(4096)).ok(), Some(4096));
        assert_eq!(count::<Value, u32>(json!("4096")).ok(), Some(4096));
        assert_eq!(
            text_of(count::<Value, u32>(json!(4_294_967_297_u64))),
            "expected a whole number up to 4294967295"
        );
        assert_eq!(
            text_of(count::<Value, u16>(json!("70000"))),
            "expected a whole number up to 65535"
        );
        for wrong in [json!(-1), json!(1.5), json!("many"), json!(true), Value::Null] {
            assert!(
                text_of(count::<Value, usize>(wrong.clone())).ends_with("expected a whole number"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn switches_addresses_and_words_name_what_they_take() {
        assert_eq!(switch(json!("true")).ok(), Some(true));
        assert_eq!(switch(json!(false)).ok(), Some(false));
        assert!(text_of(switch(json!(1))).ends_with("expected true or false"));
        assert!(address(json!("[::1]:80")).is_ok());
        assert!(text_of(address(json!("localhost:80"))).contains("expected an IP address"));
        assert_eq!(word::<_, Flush>(json!("leading")).ok(), Some(Flush::Leading));
        assert_eq!(word::<_, Conflate>(json!("latest-by-key")).ok(), Some(Conflate::LatestByKey));
        assert!(
            text_of(word::<_, Flush>(json!("now")))
                .ends_with("expected one of `tick`, `immediate`, `leading`")
        );
        assert!(text_of(word::<_, Flush>(json!({ "tick": null }))).ends_with("expected a string"));
    }
}
