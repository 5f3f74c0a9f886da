//! A TOML table as serde takes it: each group of options takes its keys out of the table. Messages are for people, name
//! the key and its line, and do not repeat what was written, which may be a password; only a wrong choice of several is
//! told.

use std::fmt::Display;
use std::vec;

use serde::de::value::{SeqDeserializer, StrDeserializer};
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, Unexpected};
use serde::de::{Error as _, Visitor};
use serde::forward_to_deserialize_any;
use toml::de::{DeInteger, DeString, DeTable, DeValue};

use super::{Lines, Mistake, Table};

/// The line of a place in the text, from 1.
pub fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// The names of a group's options.
pub fn names<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut none = Rest::default();
    // No entry is wrong where there is none.
    let _ = T::deserialize(&mut none);
    none.asked
}

pub struct Entry<'a> {
    pub key: DeString<'a>,
    pub line: usize,
    pub value: DeValue<'a>,
}

/// What is left of a table, in the order of the file.
#[derive(Default)]
pub struct Rest<'a> {
    pub entries: Vec<Entry<'a>>,
    /// Where the table begins.
    pub line: usize,
    /// The names of the options that were taken last, and the lines of those that were there.
    asked: &'static [&'static str],
    taken: Lines,
}

impl<'a> Rest<'a> {
    pub fn of(text: &str, line_of_table: usize, table: DeTable<'a>) -> Self {
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entry = |(key, value): (toml::Spanned<DeString<'a>>, toml::Spanned<DeValue<'a>>)| Entry {
            line: line(text, key.span().start),
            key: key.into_inner(),
            value: value.into_inner(),
        };
        Self { entries: entries.into_iter().map(entry).collect(), line: line_of_table, ..Self::default() }
    }

    /// The options of a group. Of what is wrong with them the first goes to `mistakes`.
    pub fn take<'de, T: Deserialize<'de> + Default>(&mut self, mistakes: &mut Vec<Mistake>) -> Table<T> {
        let options = T::deserialize(&mut *self).unwrap_or_else(|mistake| {
            mistakes.push(mistake);
            T::default()
        });
        Table { options, lines: std::mem::take(&mut self.taken), line: self.line, ..Table::default() }
    }

    pub fn take_first(&mut self, is_it: impl Fn(&Entry<'a>) -> bool) -> Option<Entry<'a>> {
        let at = self.entries.iter().position(is_it)?;
        Some(self.entries.remove(at))
    }
}

impl<'de> Deserializer<'de> for &mut Rest<'_> {
    type Error = Mistake;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        let (taken, left) = std::mem::take(&mut self.entries).into_iter().partition(|e| fields.contains(&&*e.key));
        (self.entries, self.asked) = (left, fields);
        let taken: Vec<Entry> = taken;
        self.taken = taken.iter().map(|entry| (entry.key.to_string(), entry.line)).collect();
        visitor.visit_map(Taken { entries: taken.into_iter(), current: None })
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        Err(Mistake::invalid_type(Unexpected::Map, &visitor))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Taken<'a> {
    entries: vec::IntoIter<Entry<'a>>,
    /// Whose key was given last.
    current: Option<Entry<'a>>,
}

impl<'de> MapAccess<'de> for Taken<'_> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mistake> {
        self.current = self.entries.next();
        let key = self.current.as_ref().map(|entry| seed.deserialize(StrDeserializer::new(&entry.key)));
        key.transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mistake> {
        let Some(Entry { key, line, value }) = self.current.take() else {
            return Err(Mistake::custom("a value without a key"));
        };
        let value = seed.deserialize(Value(value));
        value.map_err(|mistake| Mistake { line, message: format!("{key}: {}", mistake.message) })
    }
}

/// Where serde asks for a text, a number is taken too, as in `device = 0` and `fps = 29.97`; where it asks for a list,
/// a text whose parts have commas between them.
struct Value<'a>(DeValue<'a>);

impl<'a> Value<'a> {
    /// Text, or a number as it is written.
    fn text(self) -> Result<DeString<'a>, Self> {
        match self.0 {
            DeValue::String(text) => Ok(text),
            DeValue::Integer(ref number) => integer(number).map(|n| n.to_string().into()).map_err(|_| self),
            DeValue::Float(number) => Ok(number.as_str().to_owned().into()),
            _ => Err(self),
        }
    }
}

impl<'de> IntoDeserializer<'de, Mistake> for Value<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Value<'_> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.0 {
            DeValue::String(text) => visitor.visit_str(&text),
            DeValue::Integer(number) => visitor.visit_i64(integer(&number)?),
            DeValue::Float(number) => visitor.visit_f64(number.as_str().parse().map_err(Mistake::custom)?),
            DeValue::Boolean(on) => visitor.visit_bool(on),
            DeValue::Array(values) => {
                visitor.visit_seq(SeqDeserializer::new(values.into_iter().map(|value| Value(value.into_inner()))))
            }
            DeValue::Datetime(_) => Err(Mistake::invalid_type(Unexpected::Other("a date"), &visitor)),
            DeValue::Table(_) => Err(Mistake::invalid_type(Unexpected::Map, &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_some(self)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.text() {
            Ok(text) => visitor.visit_str(&text),
            Err(value) => value.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_str(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match self.text() {
            Ok(text) => visitor.visit_enum(StrDeserializer::new(&text)),
            Err(value) => value.deserialize_any(visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.text() {
            Ok(text) => {
                let parts = text.split(',').map(|part| Value(DeValue::String(part.trim().into())));
                visitor.visit_seq(SeqDeserializer::new(parts))
            }
            Err(value) => value.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match self.0 {
            // A table within the line of its key: all of it is on that line.
            DeValue::Table(table) => {
                visitor.visit_map(Taken { entries: Rest::of("", 0, table).entries.into_iter(), current: None })
            }
            other => Value(other).deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple
        tuple_struct map identifier ignored_any
    }
}

fn integer(number: &DeInteger) -> Result<i64, Mistake> {
    i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| Mistake::custom("the number is too large"))
}

/// Without the line, which the table knows.
impl de::Error for Mistake {
    fn custom<T: Display>(message: T) -> Self {
        Self { line: 0, message: message.to_string() }
    }

    fn invalid_type(found: Unexpected, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Str(_) => "a string",
            Unexpected::Signed(_) => "a whole number",
            Unexpected::Float(_) => "a number with a fraction",
            Unexpected::Bool(_) => "true or false",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a table",
            Unexpected::Other(other) => other,
            _ => "something else",
        };
        Self::custom(format!("expected {}, found {found}", wanted(expected)))
    }

    fn invalid_value(_: Unexpected, expected: &dyn Expected) -> Self {
        Self::custom(format!("expected {}", wanted(expected)))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format!("there is no {field:?} in it, only {}", expected.join(", ")))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format!("expected one of {}, found {variant:?}", expected.join(", ")))
    }
}

/// What serde calls by the names of Rust.
fn wanted(expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "u8" => format!("a whole number from 0 to {}", u8::MAX),
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        text if text.starts_with("struct ") => "a table, as { enabled = true }".to_owned(),
        _ => "a string in quotes".to_owned(),
    }
}
