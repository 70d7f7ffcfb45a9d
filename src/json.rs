//! Reading a JSON document that a stranger may have written: what has another type than it should
//! counts as missing, and however large the document is, little of it is kept. serde's own types
//! fail for the first, with a message that quotes the value, and store all of the second.

use std::fmt;
use std::io::{self, BufReader};
use std::marker::PhantomData;
use std::path::PathBuf;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Longer texts are cut here: no argument and no variable of a program is as long (execve(2)), no
/// path and no word of ours.
const TEXT_LIMIT: usize = 128 << 10;
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

/// A text that may be missing, where an empty one is something else.
impl Shape<'_> for Option<String> {
    fn text(text: &str) -> Self {
        Some(String::text(text))
    }
}

/// Negative ones, floats and those that do not fit are as good as 0.
impl Shape<'_> for i32 {
    fn number(number: i64) -> Self {
        number.try_into().unwrap_or_default()
    }
}

/// The same.
impl Shape<'_> for u64 {
    fn number(number: i64) -> Self {
        number.try_into().unwrap_or_default()
    }
}

/// Read a document whose top is an object.
///
/// # Errors
/// It is no such document; in the words of the parser.
pub(crate) fn from_slice<'de, T: Shape<'de>>(bytes: &'de [u8]) -> Result<T, serde_json::Error> {
    document(serde_json::Deserializer::from_slice(bytes))
}

/// The same of one that is too large to be held in memory; it takes longer.
///
/// # Errors
/// It cannot be read, or is no such document; in the words of the parser.
pub(crate) fn from_reader<T: for<'de> Shape<'de>>(
    input: impl io::Read,
) -> Result<T, serde_json::Error> {
    let input = BufReader::with_capacity(64 << 10, input);
    document(serde_json::Deserializer::from_reader(input))
}

fn document<'de, T: Shape<'de>, R: serde_json::de::Read<'de>>(
    mut from: serde_json::Deserializer<R>,
) -> Result<T, serde_json::Error> {
    let Top(object) = shape(&mut from)?;
    from.end()?;
    object.ok_or_else(|| Error::custom("it is not a JSON object"))
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

/// Whether any text of a list is one of those that are asked for.
pub(crate) fn any<'de, A: SeqAccess<'de>>(
    list: A,
    is: impl Fn(&str) -> bool,
) -> Result<bool, A::Error> {
    let mut found = false;
    each(list, |text: String| found |= is(&text))?;
    Ok(found)
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

    /// Both ways of reading.
    fn both(text: &str) -> [Result<Texts, serde_json::Error>; 2] {
        [from_slice(text.as_bytes()), from_reader(text.as_bytes())]
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
