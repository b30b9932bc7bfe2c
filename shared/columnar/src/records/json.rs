//! Values of columns as JSON: strict, and with all digits.

use arrow_array::cast::AsArray;
use arrow_array::temporal_conversions::{
    date32_to_datetime, date64_to_datetime, time32ms_to_time, time32s_to_time, time64ns_to_time,
    time64us_to_time, timestamp_ms_to_datetime, timestamp_ns_to_datetime, timestamp_s_to_datetime,
    timestamp_us_to_datetime,
};
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DecimalType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, StructArray};
use arrow_schema::{DataType, TimeUnit};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

/// Whether there is JSON for all values of a type; else the type for which there is none. `levels` may lie in each other.
pub(super) fn check(kind: &DataType, levels: usize) -> Result<(), &DataType> {
    let Some(inner) = levels.checked_sub(1) else { return Err(kind) };
    match kind {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => check(item.data_type(), inner),
        DataType::Struct(fields) => fields.iter().try_for_each(|field| check(field.data_type(), inner)),
        DataType::Duration(_)
        | DataType::Interval(_)
        | DataType::Union(..)
        | DataType::Dictionary(..)
        | DataType::RunEndEncoded(..)
        | DataType::ListView(_)
        | DataType::LargeListView(_) => Err(kind),
        // Timestamps have no time zone here, or UTC: Parquet knows no other.
        _ => Ok(()),
    }
}

/// The bytes of a value that has bytes: `None` of any other.
pub(super) fn bytes_of(array: &dyn Array, row: usize) -> Option<&[u8]> {
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(row).as_bytes()),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row).as_bytes()),
        DataType::Utf8View => Some(array.as_string_view().value(row).as_bytes()),
        DataType::Binary => Some(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => Some(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => Some(array.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => Some(array.as_fixed_size_binary().value(row)),
        _ => None,
    }
}

/// A UUID, as its 16 bytes are written; `None` of other bytes.
pub(super) fn uuid(bytes: &[u8]) -> Option<String> {
    let number = u128::from_be_bytes(bytes.try_into().ok()?);
    let hex = format!("{number:032x}");
    Some(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// JSON in the making.
#[derive(Debug, Default)]
pub(super) struct Json {
    pub(super) text: String,
    /// Whether it lacks a number that JSON does not have, and has null in its place.
    pub(super) has_gaps: bool,
}

impl Json {
    /// The JSON of a value.
    pub(super) fn of(array: &dyn Array, row: usize) -> Self {
        let mut json = Self::default();
        json.push(array, row);
        json
    }

    fn push(&mut self, array: &dyn Array, row: usize) {
        if array.is_null(row) {
            return self.text.push_str("null");
        }
        match array.data_type() {
            DataType::Null => self.text.push_str("null"),
            DataType::Boolean => self.plain(&array.as_boolean().value(row)),
            DataType::Int8 => self.number::<Int8Type>(array, row),
            DataType::Int16 => self.number::<Int16Type>(array, row),
            DataType::Int32 => self.number::<Int32Type>(array, row),
            DataType::Int64 => self.number::<Int64Type>(array, row),
            DataType::UInt8 => self.number::<UInt8Type>(array, row),
            DataType::UInt16 => self.number::<UInt16Type>(array, row),
            DataType::UInt32 => self.number::<UInt32Type>(array, row),
            DataType::UInt64 => self.number::<UInt64Type>(array, row),
            DataType::Float16 => self.float(array.as_primitive::<Float16Type>().value(row).to_f32()),
            DataType::Float32 => self.float(array.as_primitive::<Float32Type>().value(row)),
            DataType::Float64 => self.double(array.as_primitive::<Float64Type>().value(row)),
            DataType::Decimal32(..) => self.decimal::<Decimal32Type>(array, row),
            DataType::Decimal64(..) => self.decimal::<Decimal64Type>(array, row),
            DataType::Decimal128(..) => self.decimal::<Decimal128Type>(array, row),
            DataType::Decimal256(..) => self.decimal::<Decimal256Type>(array, row),
            DataType::Date32
            | DataType::Date64
            | DataType::Time32(_)
            | DataType::Time64(_)
            | DataType::Timestamp(..) => match time(array, row) {
                Some(time) => self.quoted(&time),
                None => self.text.push_str("null"),
            },
            DataType::Utf8 => self.quoted(array.as_string::<i32>().value(row)),
            DataType::LargeUtf8 => self.quoted(array.as_string::<i64>().value(row)),
            DataType::Utf8View => self.quoted(array.as_string_view().value(row)),
            DataType::List(_) => self.list(&*array.as_list::<i32>().value(row)),
            DataType::LargeList(_) => self.list(&*array.as_list::<i64>().value(row)),
            DataType::FixedSizeList(..) => self.list(&*array.as_fixed_size_list().value(row)),
            DataType::Struct(_) => self.object(array.as_struct(), row),
            DataType::Map(..) => self.map(&array.as_map().value(row)),
            _ => match bytes_of(array, row) {
                Some(bytes) => self.quoted(&BASE64.encode(bytes)),
                None => self.text.push_str("null"),
            },
        }
    }

    fn plain(&mut self, value: &impl ToString) {
        self.text += &value.to_string();
    }

    fn number<T: ArrowPrimitiveType<Native: ToString>>(&mut self, array: &dyn Array, row: usize) {
        self.plain(&array.as_primitive::<T>().value(row));
    }

    fn decimal<T: DecimalType + ArrowPrimitiveType>(&mut self, array: &dyn Array, row: usize) {
        self.text += &array.as_primitive::<T>().value_as_string(row);
    }

    fn float(&mut self, value: f32) {
        if value.is_finite() { self.serialized(&value) } else { self.gap() }
    }

    fn double(&mut self, value: f64) {
        if value.is_finite() { self.serialized(&value) } else { self.gap() }
    }

    fn gap(&mut self) {
        self.has_gaps = true;
        self.text.push_str("null");
    }

    fn quoted(&mut self, text: &str) {
        self.serialized(text);
    }

    fn serialized<T: Serialize + ?Sized>(&mut self, value: &T) {
        // Numbers that are finite and texts can be written as JSON.
        self.text += &serde_json::to_string(value).unwrap_or_else(|_| String::from("null"));
    }

    fn list(&mut self, items: &dyn Array) {
        self.text.push('[');
        for item in 0..items.len() {
            if item > 0 {
                self.text.push(',');
            }
            self.push(items, item);
        }
        self.text.push(']');
    }

    fn object(&mut self, fields: &StructArray, row: usize) {
        self.text.push('{');
        for (number, (field, values)) in fields.fields().iter().zip(fields.columns()).enumerate() {
            if number > 0 {
                self.text.push(',');
            }
            self.quoted(field.name());
            self.text.push(':');
            self.push(&**values, row);
        }
        self.text.push('}');
    }

    /// An object if the keys are texts, else a list of pairs.
    fn map(&mut self, entries: &StructArray) {
        let [keys, values] = entries.columns() else { return self.text.push_str("null") };
        let are_texts = matches!(keys.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        self.text.push(if are_texts { '{' } else { '[' });
        for row in 0..entries.len() {
            if row > 0 {
                self.text.push(',');
            }
            if are_texts {
                self.push(&**keys, row);
                self.text.push(':');
                self.push(&**values, row);
            } else {
                self.text.push('[');
                self.push(&**keys, row);
                self.text.push(',');
                self.push(&**values, row);
                self.text.push(']');
            }
        }
        self.text.push(if are_texts { '}' } else { ']' });
    }
}

/// A date or a time as in ISO 8601, in UTC if that is known; `None` beyond the calendar.
pub(super) fn time(array: &dyn Array, row: usize) -> Option<String> {
    // What `Debug` writes is ISO 8601, with as many digits of the second as are needed.
    match array.data_type() {
        DataType::Date32 => date32_to_datetime(array.as_primitive::<Date32Type>().value(row))
            .map(|day| format!("{:?}", day.date())),
        DataType::Date64 => date64_to_datetime(array.as_primitive::<Date64Type>().value(row))
            .map(|day| format!("{:?}", day.date())),
        DataType::Time32(TimeUnit::Second) => {
            time32s_to_time(array.as_primitive::<Time32SecondType>().value(row))
                .map(|time| format!("{time:?}"))
        }
        DataType::Time32(_) => time32ms_to_time(array.as_primitive::<Time32MillisecondType>().value(row))
            .map(|time| format!("{time:?}")),
        DataType::Time64(TimeUnit::Microsecond) => {
            time64us_to_time(array.as_primitive::<Time64MicrosecondType>().value(row))
                .map(|time| format!("{time:?}"))
        }
        DataType::Time64(_) => time64ns_to_time(array.as_primitive::<Time64NanosecondType>().value(row))
            .map(|time| format!("{time:?}")),
        DataType::Timestamp(unit, zone) => {
            let moment = match unit {
                TimeUnit::Second => {
                    timestamp_s_to_datetime(array.as_primitive::<TimestampSecondType>().value(row))
                }
                TimeUnit::Millisecond => {
                    timestamp_ms_to_datetime(array.as_primitive::<TimestampMillisecondType>().value(row))
                }
                TimeUnit::Microsecond => {
                    timestamp_us_to_datetime(array.as_primitive::<TimestampMicrosecondType>().value(row))
                }
                TimeUnit::Nanosecond => {
                    timestamp_ns_to_datetime(array.as_primitive::<TimestampNanosecondType>().value(row))
                }
            };
            moment.map(|moment| format!("{moment:?}{}", if zone.is_some() { "Z" } else { "" }))
        }
        _ => None,
    }
}
