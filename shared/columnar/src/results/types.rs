//! The type of a column, found in all of its values.
//!
//! A column is typed only if no value loses anything by it; what has no such type stays JSON. Integers become floats
//! beside fractions if they are exact as such. A list has 32-bit floats only if all of its numbers are such.

/// Integers up to here are exact in a double, and in a 32-bit float.
const EXACT_IN_F64: u64 = 1 << 53;
const EXACT_IN_F32: u64 = 1 << 24;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColumnType {
    Text,
    Bool,
    Int,
    UInt,
    Float,
    Ints,
    Floats,
    /// Lists of 32-bit floats.
    Singles,
    /// JSON, as it was written.
    Json,
}

/// The values of a column, as far as they were seen. Nulls are in no way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Seen {
    #[default]
    Nothing,
    Texts,
    Bools,
    Numbers(Numbers),
    /// Flat lists of numbers.
    Lists(Numbers),
    /// Values of several types, or of others.
    Mixed,
}

impl Seen {
    /// Takes the JSON of a value.
    pub(crate) fn add(&mut self, json: &str) {
        let value = match json.as_bytes().first() {
            Some(b'n') => return,
            Some(b'"') => Self::Texts,
            Some(b't' | b'f') => Self::Bools,
            Some(b'[') => list(json).map_or(Self::Mixed, Self::Lists),
            Some(b'-' | b'0'..=b'9') => Self::Numbers(Numbers::of(json)),
            _ => Self::Mixed,
        };
        *self = match (*self, value) {
            (Self::Nothing, value) => value,
            (Self::Numbers(all), Self::Numbers(more)) => Self::Numbers(all.and(more)),
            (Self::Lists(all), Self::Lists(more)) => Self::Lists(all.and(more)),
            (all, value) if all == value => all,
            _ => Self::Mixed,
        };
    }

    pub(crate) fn column_type(self) -> ColumnType {
        match self {
            Self::Nothing | Self::Texts => ColumnType::Text,
            Self::Bools => ColumnType::Bool,
            Self::Mixed => ColumnType::Json,
            Self::Numbers(numbers) => match numbers {
                Numbers { has_fractions: true, are_exact: true, .. } => ColumnType::Float,
                Numbers { has_fractions: false, fit_i64: true, .. } => ColumnType::Int,
                Numbers { has_fractions: false, fit_u64: true, .. } => ColumnType::UInt,
                _ => ColumnType::Json,
            },
            Self::Lists(numbers) => match numbers {
                Numbers { has_fractions: true, are_singles: true, .. } => ColumnType::Singles,
                Numbers { has_fractions: true, are_exact: true, .. } => ColumnType::Floats,
                Numbers { has_fractions: false, fit_i64: true, .. } => ColumnType::Ints,
                _ => ColumnType::Json,
            },
        }
    }
}

/// What holds of all numbers of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Whether any is written with a fraction or an exponent.
    has_fractions: bool,
    fit_i64: bool,
    fit_u64: bool,
    /// Whether all integers are exact in a double.
    are_exact: bool,
    /// Whether all are exact in a 32-bit float.
    are_singles: bool,
}

impl Numbers {
    const NONE: Self =
        Self { has_fractions: false, fit_i64: true, fit_u64: true, are_exact: true, are_singles: true };

    fn of(json: &str) -> Self {
        if json.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
            let value = json.parse::<f64>().unwrap_or(f64::NAN);
            #[expect(clippy::cast_possible_truncation, reason = "whether anything is lost is the question")]
            let single = f64::from(value as f32);
            return Self {
                has_fractions: true,
                are_singles: single.to_bits() == value.to_bits(),
                ..Self::NONE
            };
        }
        let (signed, unsigned) = (json.parse::<i64>(), json.parse::<u64>());
        let size = signed.as_ref().map(|value| value.unsigned_abs()).ok().or_else(|| unsigned.clone().ok());
        // An integer has no negative zero.
        let is_up_to = |limit| json != "-0" && size.is_some_and(|size| size <= limit);
        Self {
            has_fractions: false,
            fit_i64: signed.is_ok(),
            fit_u64: unsigned.is_ok(),
            are_exact: is_up_to(EXACT_IN_F64),
            are_singles: is_up_to(EXACT_IN_F32),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            has_fractions: self.has_fractions || other.has_fractions,
            fit_i64: self.fit_i64 && other.fit_i64,
            fit_u64: self.fit_u64 && other.fit_u64,
            are_exact: self.are_exact && other.are_exact,
            are_singles: self.are_singles && other.are_singles,
        }
    }
}

/// The texts of the numbers of a flat list; `None` if it has anything else in it.
pub(crate) fn items(json: &str) -> Option<impl Iterator<Item = &str>> {
    let inner = json.strip_prefix('[')?.strip_suffix(']')?;
    let is_of_number = |byte: u8| byte.is_ascii_digit() || b"+-.eE, \t\r\n".contains(&byte);
    if !inner.bytes().all(is_of_number) {
        return None;
    }
    let count = if inner.trim_ascii().is_empty() { 0 } else { usize::MAX };
    Some(inner.split(',').take(count).map(str::trim_ascii))
}

fn list(json: &str) -> Option<Numbers> {
    Some(items(json)?.map(Numbers::of).fold(Numbers::NONE, Numbers::and))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> ColumnType {
        let mut seen = Seen::default();
        values.iter().for_each(|value| seen.add(value));
        seen.column_type()
    }

    #[test]
    fn scalars_of_one_type_are_typed_and_lose_nothing() {
        assert_eq!(of(&[]), ColumnType::Text);
        assert_eq!(of(&["null", "\"a\"", "\"7\""]), ColumnType::Text);
        assert_eq!(of(&["true", "null", "false"]), ColumnType::Bool);
        assert_eq!(of(&["1", "-9223372036854775808"]), ColumnType::Int);
        assert_eq!(of(&["1", "18446744073709551615"]), ColumnType::UInt);
        assert_eq!(of(&["-1", "18446744073709551615"]), ColumnType::Json, "no type has both");
        assert_eq!(of(&["18446744073709551616"]), ColumnType::Json);
        assert_eq!(of(&["1.5", "2", "1e3", "9007199254740992"]), ColumnType::Float);
        assert_eq!(
            of(&["1.5", "9007199254740993"]),
            ColumnType::Json,
            "the integer is not exact as a double"
        );
        assert_eq!(of(&["1", "\"1\""]), ColumnType::Json);
        assert_eq!(of(&["{\"a\":1}"]), ColumnType::Json);
    }

    #[test]
    fn flat_lists_of_numbers_are_typed() {
        assert_eq!(of(&["[0.5, -2]", "[ ]", "[1e2]"]), ColumnType::Singles);
        assert_eq!(of(&["[0.5]", "[0.1]"]), ColumnType::Floats, "0.1 is no 32-bit float");
        assert_eq!(of(&["[0.10000000149011612]"]), ColumnType::Singles, "as Python writes float32(0.1)");
        assert_eq!(of(&["[1, 2]", "[]"]), ColumnType::Ints);
        assert_eq!(of(&["[0.5, 16777217]"]), ColumnType::Floats);
        assert_eq!(of(&["[1.5, 9007199254740993]"]), ColumnType::Json);
        for other in ["[[1]]", "[null]", "[\"a\"]", "[true]"] {
            assert_eq!(of(&["[1]", other]), ColumnType::Json, "{other}");
        }
        assert_eq!(items("[1 ,\n 2]").unwrap().collect::<Vec<_>>(), ["1", "2"]);
    }
}
