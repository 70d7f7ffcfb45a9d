//! Reading a JSON document that a stranger may have written: what has another type than it should
//! counts as missing, and however large the document is, little of it is kept. serde's own types
//! fail for the first, with a message that quotes the value, and store all of the second.

use std::fmt;
use std::io::{BufReader, Read};
use std::marker::PhantomData;
use std::path::PathBuf;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Longer texts are cut here: no argument and no variable of a program is as long (execve(2)), no
/// path and no word of ours.
const TEXT_LIMIT: usize = 128 << 10;
/// Documents up to this size are read into memory first, which is faster.
const SMALL: u64 = 1 << 20;

/// What a value may be, each with the answer to a value of that type: by default, that it is as
/// good as missing.
pub(crate) trait Shape<'de>: Default {
    fn text(_: &str) -> Self {
        Self::default()
    }
    fn flag(_: bool) -> Self {
        Self::default()
    }
    fn number(_: i64) -> Self {
        Self::default()
    }
    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }
    fn object<A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }
}

impl Shape<'_> for String {
    fn text(text: &str) -> Self {
        let mut end = text.len().min(TEXT_LIMIT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text[..end].to_owned()
    }
}

impl Shape<'_> for PathBuf {
    fn text(text: &str) -> Self {
        String::text(text).into()
    }
}

impl Shape<'_> for bool {
    fn flag(flag: bool) -> Self {
        flag
    }
}

/// A float, or a number beyond 64 bits, is none.
impl Shape<'_> for Option<i64> {
    fn number(number: i64) -> Self {
        Some(number)
    }
}

/// Read a document of `length` bytes whose top is an object.
///
/// # Errors
/// It cannot be read, or is no such document; in the words of the parser.
pub(crate) fn read<T: for<'de> Shape<'de>>(
    mut input: impl Read,
    length: u64,
) -> Result<T, serde_json::Error> {
    let top: Top<T> = if length <= SMALL {
        let mut bytes = Vec::new();
        input
            .read_to_end(&mut bytes)
            .map_err(serde_json::Error::io)?;
        document(serde_json::Deserializer::from_slice(&bytes))
    } else {
        let input = BufReader::with_capacity(64 << 10, input);
        document(serde_json::Deserializer::from_reader(input))
    }?;
    top.0
        .ok_or_else(|| Error::custom("it is not a JSON object"))
}

fn document<'de, T: Shape<'de>, R: serde_json::de::Read<'de>>(
    mut from: serde_json::Deserializer<R>,
) -> Result<T, serde_json::Error> {
    let value = shape(&mut from)?;
    from.end()?;
    Ok(value)
}

struct Top<T>(Option<T>);

impl<T> Default for Top<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Shape<'de>> Shape<'de> for Top<T> {
    fn object<A: MapAccess<'de>>(object: A) -> Result<Self, A::Error> {
        T::object(object).map(Some).map(Self)
    }
}

/// Read one value; for serde's `deserialize_with`.
pub(crate) fn shape<'de, T: Shape<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Reader(PhantomData).deserialize(from)
}

/// Read a list, value by value.
pub(crate) fn each<'de, T: Shape<'de>, A: SeqAccess<'de>>(
    mut list: A,
    mut take: impl FnMut(T),
) -> Result<(), A::Error> {
    while let Some(value) = list.next_element_seed(Reader(PhantomData))? {
        take(value);
    }
    Ok(())
}

/// Read an object, entry by entry; `wants` says for each name whether its value is kept.
pub(crate) fn each_entry<'de, T: Shape<'de>, A: MapAccess<'de>>(
    mut object: A,
    wants: impl Fn(&str) -> bool,
    mut take: impl FnMut(String, T),
) -> Result<(), A::Error> {
    while let Some(name) = object.next_key_seed(Reader::<String>(PhantomData))? {
        if wants(&name) {
            take(name, object.next_value_seed(Reader(PhantomData))?);
        } else {
            object.next_value::<IgnoredAny>()?;
        }
    }
    Ok(())
}

struct Reader<T>(PhantomData<T>);

impl<'de, T: Shape<'de>> DeserializeSeed<'de> for Reader<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<T, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de, T: Shape<'de>> Visitor<'de> for Reader<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok(T::text(text))
    }
    fn visit_bool<E: Error>(self, flag: bool) -> Result<T, E> {
        Ok(T::flag(flag))
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        Ok(T::number(number))
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        Ok(i64::try_from(number).map_or_else(|_| T::default(), T::number))
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<T, E> {
        Ok(T::default())
    }
    fn visit_unit<E: Error>(self) -> Result<T, E> {
        Ok(T::default())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T, A::Error> {
        T::list(list)
    }
    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<T, A::Error> {
        T::object(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Texts(Vec<(String, String)>);

    impl<'de> Shape<'de> for Texts {
        fn object<A: MapAccess<'de>>(object: A) -> Result<Self, A::Error> {
            let mut texts = Vec::new();
            let wants = |name: &str| name.len() == 1;
            each_entry(object, wants, |name, text| texts.push((name, text)))?;
            Ok(Self(texts))
        }
    }

    /// Both ways of reading, by the length that is told.
    fn both(text: &str) -> [Result<Texts, String>; 2] {
        [0, SMALL + 1]
            .map(|length| read(text.as_bytes(), length).map_err(|error| error.to_string()))
    }

    #[test]
    fn takes_what_has_another_type_for_missing() {
        for other in ["null", "1", "-1", "1e400", "true", "[[{}]]", r#"{"x":[1]}"#] {
            for read in both(&format!(r#"{{"a":{other},"b":"x"}}"#)) {
                // A number that no float can hold is the one that the parser itself refuses.
                let Ok(read) = read else {
                    assert_eq!(other, "1e400");
                    continue;
                };
                assert_eq!(read.0[0].1, "", "{other}");
                assert_eq!(read.0[1].1, "x", "{other}");
            }
        }
    }

    #[test]
    fn refuses_what_is_no_object_or_more_than_one() {
        for text in [
            "",
            "[]",
            "\"x\"",
            "7",
            "{",
            "{}{}",
            "{} x",
            "\u{feff}{}",
            "{\"a\":\"\u{1}\"}",
        ] {
            for read in both(text) {
                assert!(read.is_err(), "{text:?}");
            }
        }
        let deep = format!(r#"{{"deep":{}}}"#, "[".repeat(100_000));
        assert!(both(&deep).iter().all(Result::is_err));
    }

    #[test]
    fn keeps_little_of_a_long_text() {
        let long = format!(
            r#"{{"a":"{}","{}":"y"}}"#,
            "ü".repeat(1 << 20),
            "n".repeat(1 << 20)
        );
        for read in both(&long) {
            let texts = read.expect("an object").0;
            assert_eq!(texts.len(), 1);
            assert_eq!(texts[0].1.len(), TEXT_LIMIT);
        }
    }
}
