//! Numbers of tensors: from JSON to little-endian bytes, and back.

use bytes::Bytes;
use half::{bf16, f16};
use serde_json::{Number, Value};

use super::signature::Datatype;

/// Appends a number as a binary element. `None` if the type cannot hold it.
pub(super) fn encode(datatype: Datatype, value: &Value, bytes: &mut Vec<u8>) -> Option<()> {
    macro_rules! whole {
        ($number:ty, $read:ident) => {
            bytes.extend(<$number>::try_from(value.$read()?).ok()?.to_le_bytes())
        };
    }
    match datatype {
        Datatype::Bool => bytes.push(u8::from(truth(value)?)),
        Datatype::Uint8 => whole!(u8, as_u64),
        Datatype::Uint16 => whole!(u16, as_u64),
        Datatype::Uint32 => whole!(u32, as_u64),
        Datatype::Uint64 => whole!(u64, as_u64),
        Datatype::Int8 => whole!(i8, as_i64),
        Datatype::Int16 => whole!(i16, as_i64),
        Datatype::Int32 => whole!(i32, as_i64),
        Datatype::Int64 => whole!(i64, as_i64),
        Datatype::Fp32 => bytes.extend(single(value.as_f64()?)?.to_le_bytes()),
        Datatype::Fp64 => bytes.extend(value.as_f64()?.to_le_bytes()),
        Datatype::Fp16 => {
            let half = f16::from_f64(value.as_f64()?);
            bytes.extend(half.is_finite().then(|| half.to_le_bytes())?);
        }
        Datatype::Bf16 => {
            let half = bf16::from_f64(value.as_f64()?);
            bytes.extend(half.is_finite().then(|| half.to_le_bytes())?);
        }
        Datatype::Bytes => return None,
    }
    Some(())
}

fn truth(value: &Value) -> Option<bool> {
    match value.as_u64() {
        Some(0) => Some(false),
        Some(1) => Some(true),
        _ => value.as_bool(),
    }
}

/// The nearest single; `None` beyond the largest.
#[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest is meant")]
fn single(value: f64) -> Option<f32> {
    Some(value as f32).filter(|single| single.is_finite())
}

/// Whether a number can be sent as JSON to a tensor of this type.
pub(super) fn is_of(datatype: Datatype, value: &Value) -> bool {
    match datatype {
        Datatype::Bytes => value.is_string(),
        _ => encode(datatype, value, &mut Vec::new()).is_some(),
    }
}

/// Binary elements as JSON. NaN and infinities, which JSON lacks, are null.
pub(super) fn decode(datatype: Datatype, bytes: &Bytes) -> Option<Vec<Value>> {
    let size = datatype.element_bytes()?;
    if !bytes.len().is_multiple_of(size) {
        return None;
    }
    bytes.chunks_exact(size).map(|element| decode_one(datatype, element)).collect()
}

fn decode_one(datatype: Datatype, element: &[u8]) -> Option<Value> {
    macro_rules! number {
        ($number:ty) => {
            <$number>::from_le_bytes(element.try_into().ok()?)
        };
    }
    Some(match datatype {
        Datatype::Bool => Value::from(element[0] != 0),
        Datatype::Uint8 => Value::from(number!(u8)),
        Datatype::Uint16 => Value::from(number!(u16)),
        Datatype::Uint32 => Value::from(number!(u32)),
        Datatype::Uint64 => Value::from(number!(u64)),
        Datatype::Int8 => Value::from(number!(i8)),
        Datatype::Int16 => Value::from(number!(i16)),
        Datatype::Int32 => Value::from(number!(i32)),
        Datatype::Int64 => Value::from(number!(i64)),
        Datatype::Fp16 => of_single(number!(f16).to_f32()),
        Datatype::Bf16 => of_single(number!(bf16).to_f32()),
        Datatype::Fp32 => of_single(number!(f32)),
        Datatype::Fp64 => Number::from_f64(number!(f64)).map_or(Value::Null, Value::Number),
        Datatype::Bytes => return None,
    })
}

/// The shortest decimal that stands for a single.
fn of_single(number: f32) -> Value {
    let shortest = number.is_finite().then(|| number.to_string().parse().ok()).flatten();
    shortest.and_then(Number::from_f64).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_come_back_as_they_were_sent() {
        for (datatype, values) in [
            (Datatype::Bool, json!([true, false])),
            (Datatype::Uint8, json!([0, 255])),
            (Datatype::Int8, json!([-128, 127])),
            (Datatype::Uint64, json!([u64::MAX])),
            (Datatype::Int64, json!([i64::MIN])),
            (Datatype::Fp16, json!([0.5, -1.5, 65_504.0])),
            (Datatype::Bf16, json!([0.5, -1.5, 3.0])),
            (Datatype::Fp32, json!([0.1, -1.5, 3.0])),
            (Datatype::Fp64, json!([0.1, 1e300])),
        ] {
            let values = values.as_array().unwrap();
            let mut bytes = Vec::new();
            values.iter().for_each(|value| encode(datatype, value, &mut bytes).unwrap());
            assert_eq!(decode(datatype, &bytes.into()).unwrap(), *values, "{datatype}");
        }
    }

    #[test]
    fn what_a_type_cannot_hold_is_refused() {
        for (datatype, value) in [
            (Datatype::Uint8, json!(256)),
            (Datatype::Uint8, json!(-1)),
            (Datatype::Int32, json!(1.5)),
            (Datatype::Fp32, json!(1e39)),
            (Datatype::Fp16, json!(65_536.0)),
            (Datatype::Fp32, json!("1")),
            (Datatype::Bool, json!(2)),
        ] {
            assert!(!is_of(datatype, &value), "{datatype} {value}");
        }
        assert!(is_of(Datatype::Fp16, &json!(0.1)) && is_of(Datatype::Bytes, &json!("a")));
    }

    #[test]
    fn what_json_lacks_is_null() {
        assert_eq!(decode(Datatype::Fp16, &Bytes::from_static(&[0, 0x7e])).unwrap(), [Value::Null]);
        assert_eq!(
            decode(Datatype::Fp64, &f64::INFINITY.to_le_bytes().to_vec().into()).unwrap(),
            [Value::Null]
        );
        assert_eq!(decode(Datatype::Fp32, &Bytes::from_static(&[0; 5])), None);
    }
}
