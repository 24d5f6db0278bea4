//! Values that remember where they were typed, so that a mistake found later points to its line.
//!
//! Goal: reading the file fails only for syntax and types; what a word means is found afterwards,
//! so all wrong words of a file are reported together.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

/// A value and the bytes of the file it was typed in.
#[derive(Debug, Clone)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub span: Range<usize>,
}

/// A text that will be read as a `T`.
#[derive(Debug, Clone)]
pub struct Word<T> {
    text: String,
    kind: PhantomData<T>,
}

/// One value or a list of them.
#[derive(Debug, Clone)]
pub struct OneOrMany<T>(pub Vec<At<Word<T>>>);

/// The keys and values of a table, in the order they were typed.
#[derive(Debug, Clone, Default)]
pub struct Pairs(pub Vec<(At<String>, At<String>)>);

impl<T: FromStr> Word<T> {
    /// What the text means.
    pub fn read(&self) -> Result<T, T::Err> {
        self.text.parse()
    }
}

impl Word<String> {
    /// The text itself.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<At<T>, D::Error> {
        Spanned::<T>::deserialize(from).map(At::from)
    }
}

impl<T> From<Spanned<T>> for At<T> {
    fn from(spanned: Spanned<T>) -> At<T> {
        let span = spanned.span();
        At { value: spanned.into_inner(), span }
    }
}

impl<'de, T> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Word<T>, D::Error> {
        String::deserialize(from).map(|text| Word { text, kind: PhantomData })
    }
}

impl<'de, T> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<OneOrMany<T>, D::Error> {
        let typed = At::<Texts>::deserialize(from)?;
        let word = |at: At<String>| At { value: Word { text: at.value, kind: PhantomData }, span: at.span };
        Ok(OneOrMany(match typed.value {
            Texts::One(value) => vec![word(At { value, span: typed.span })],
            Texts::Many(list) => list.into_iter().map(word).collect(),
        }))
    }
}

enum Texts {
    One(String),
    Many(Vec<At<String>>),
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Texts, D::Error> {
        from.deserialize_any(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Texts, E> {
        Ok(Texts::One(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element()? {
            texts.push(text);
        }
        Ok(Texts::Many(texts))
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Pairs, D::Error> {
        from.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry::<At<String>, At<String>>()? {
            pairs.push(pair);
        }
        pairs.sort_by_key(|(key, _)| key.span.start);
        Ok(Pairs(pairs))
    }
}

/// The schema of what is inside.
macro_rules! schema_of_inner {
    ($type:ident) => {
        impl<T: JsonSchema> JsonSchema for $type<T> {
            fn schema_name() -> Cow<'static, str> {
                T::schema_name()
            }

            fn inline_schema() -> bool {
                T::inline_schema()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                T::json_schema(generator)
            }
        }
    };
}

schema_of_inner!(At);
schema_of_inner!(Word);

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

impl JsonSchema for Pairs {
    fn schema_name() -> Cow<'static, str> {
        "Pairs".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": { "type": "string" } })
    }
}
