//! Generates random values of any type that serde can deserialise, with a deserializer that invents its input.
//!
//! A type gets what it asks for: mostly short sequences, small and extreme numbers, valid and invalid names. A type that
//! validates its input may refuse a draw, which is then repeated.

use std::collections::BTreeSet;

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use serde::de::value::{Error, StrDeserializer, U32Deserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

/// Deepest nesting of sequences.
const DEPTH_MAX: u32 = 24;
const TRIES: usize = 1_000;

/// An enum and one of its variants.
type Variant = (&'static str, &'static str);

/// The shapes in a value.
#[derive(Default)]
pub(crate) struct Shapes {
    /// Variants that were drawn.
    pub(crate) drawn: BTreeSet<Variant>,
    /// Variants that were drawn, and all others that could have been drawn in their places.
    pub(crate) offered: BTreeSet<Variant>,
}

/// A value of `T`, or `None` if its checks refused every draw.
pub(crate) fn value<T: DeserializeOwned>(random: &mut ChaCha8Rng) -> Option<T> {
    shaped(random).map(|(value, _)| value)
}

/// The same, with its shapes.
pub(crate) fn shaped<T: DeserializeOwned>(random: &mut ChaCha8Rng) -> Option<(T, Shapes)> {
    (0..TRIES).find_map(|_| {
        let mut shapes = Shapes::default();
        let value = T::deserialize(Generator { random, shapes: &mut shapes, depth: 0 }).ok()?;
        Some((value, shapes))
    })
}

struct Generator<'r> {
    random: &'r mut ChaCha8Rng,
    shapes: &'r mut Shapes,
    depth: u32,
}

impl Generator<'_> {
    fn below(&mut self) -> Generator<'_> {
        Generator { random: self.random, shapes: self.shapes, depth: self.depth + 1 }
    }

    fn length(&mut self) -> usize {
        match self.depth {
            DEPTH_MAX.. => 0,
            _ => usize::from(self.random.random_range(0..=3_u8)),
        }
    }

    fn number(&mut self) -> u64 {
        match self.random.random_range(0..5) {
            0 => self.random.next_u64(),
            1 => u64::MAX,
            2 => 1 << self.random.random_range(0..64),
            _ => self.random.random_range(0..4),
        }
    }

    fn text(&mut self) -> String {
        const TEXTS: [&str; 12] = [
            "a",
            "photos/0001.jpg",
            "mnist-mlp",
            "m1",
            "",
            "..",
            "/etc/passwd",
            "a//b",
            "\u{7}",
            "é",
            "127.0.0.1:7401",
            "[::1]:9",
        ];
        // Valid names of all kinds, so that many draws pass the checks.
        const NAMES: [&str; 3] = ["a", "m1", "mnist-mlp"];
        match self.random.random_range(0..32) {
            0 => "x".repeat(self.random.random_range(0..2_000)),
            n @ 1..16 => TEXTS[n % TEXTS.len()].to_owned(),
            n => NAMES[n % NAMES.len()].to_owned(),
        }
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty,)*) => {
        $(#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_lossless)]
        fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.number() as $type)
        })*
    };
}

impl<'de> Deserializer<'de> for Generator<'_> {
    type Error = Error;

    numbers! {
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_f64 visit_f64 f64,
        deserialize_f32 visit_f32 f32,
    }

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u64(self.number())
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.random.random())
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_char(self.random.random())
    }

    fn deserialize_str<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.text())
    }

    fn deserialize_string<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.text())
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_byte_buf(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        // Most byte strings are digests, which have 32 bytes.
        let other = self.random.random_ratio(1, 16);
        let mut bytes = vec![0; if other { self.random.random_range(0..300) } else { 32 }];
        self.random.fill_bytes(&mut bytes);
        visitor.visit_byte_buf(bytes)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.random.random() { visitor.visit_some(self) } else { visitor.visit_none() }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        let left = self.length();
        visitor.visit_seq(Items { generator: self, left })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, left: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { generator: self, left })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { generator: self, left })
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        let left = self.length();
        visitor.visit_map(Items { generator: self, left })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { generator: self, left: fields.len() })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(Choice { generator: self, name, variants })
    }

    fn deserialize_identifier<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.text())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    /// As MessagePack is.
    fn is_human_readable(&self) -> bool {
        false
    }
}

struct Items<'r> {
    generator: Generator<'r>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(self.generator.below()).map(Some)
    }
}

impl<'de> MapAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.generator.below())
    }
}

struct Choice<'r> {
    generator: Generator<'r>,
    name: &'static str,
    variants: &'static [&'static str],
}

impl<'de, 'r> EnumAccess<'de> for Choice<'r> {
    type Error = Error;
    type Variant = Generator<'r>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Generator<'r>), Error> {
        if self.variants.is_empty() {
            let tag: U32Deserializer<Error> = 0_u32.into_deserializer();
            return Ok((seed.deserialize(tag)?, self.generator));
        }
        let chosen = self.variants[self.generator.random.random_range(0..self.variants.len())];
        let Shapes { drawn, offered } = &mut *self.generator.shapes;
        drawn.insert((self.name, chosen));
        offered.extend(self.variants.iter().map(|variant| (self.name, *variant)));
        let tag: StrDeserializer<'_, Error> = chosen.into_deserializer();
        Ok((seed.deserialize(tag)?, self.generator))
    }
}

impl<'de> VariantAccess<'de> for Generator<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(mut self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.below())
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(fields.len(), visitor)
    }
}
