//! What a person writes into a record stands in the row that answers it.

use std::collections::BTreeMap;

use bytes::Bytes;
use idunno_shared::ids::Digest;
use idunno_shared::wire::jobs::RecordFormat;
use idunno_shared::wire::records::{ColumnNames, Keep};
use proptest::prelude::*;
use serde_json::value::RawValue;

use crate::records::{self, Span};
use crate::rows::{RowContext, RowIdentity, RowName, write_row};

/// A value as people and their programs write it: any number of digits, any order of keys, white space between tokens.
fn json() -> impl Strategy<Value = String> {
    let string = any::<String>().prop_map(|text| serde_json::Value::from(text).to_string());
    let number = prop_oneof![
        "-?(0|[1-9][0-9]{0,40})",
        "-?(0|[1-9][0-9]{0,20})\\.[0-9]{1,30}",
        "[1-9][eE][+-]?[0-9]{1,2}"
    ];
    let scalar = prop_oneof!["null|true|false", number, string.clone()];
    scalar.prop_recursive(6, 40, 5, move |value| {
        let items = prop::collection::vec(value.clone(), 0..5);
        let fields = prop::collection::vec((string.clone(), value), 0..5);
        prop_oneof![
            items.prop_map(|items| format!("[ {}]", items.join(" ,"))),
            fields.prop_map(|fields| {
                let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name} : {value}")).collect();
                format!("{{{}\t}}", fields.join(", "))
            }),
        ]
    })
}

/// The fields of a row, byte for byte.
#[derive(serde::Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    label: Option<&'a RawValue>,
    #[serde(borrow)]
    fields: BTreeMap<&'a str, &'a RawValue>,
    #[serde(borrow)]
    output: &'a RawValue,
}

proptest! {
    #[test]
    fn any_value_comes_back_byte_for_byte([input, id, label, other] in [json(), json(), json(), json()]) {
        let format = RecordFormat::JsonFields { columns: ColumnNames::default(), keep: Keep::All };
        let line = format!("{{\"id\":{id},\"input\": {input},\"other\":{other},\"label\":{label}}}\n");
        let records = records::read(&format, &Bytes::from(line), Span { line: 1, skip: 0, count: 9 });
        prop_assert_eq!(records.len(), 1);
        let content = records[0].input.clone().map_err(|error| TestCaseError::fail(error.to_string()))?;
        let expected = serde_json::from_str::<String>(&input).unwrap_or_else(|_| input.clone());
        prop_assert_eq!(content, expected);
        let (model, worker, name) = ("m".parse().unwrap(), "w".parse().unwrap(), "f".parse().unwrap());
        let context = RowContext::new(&model, &Digest::default(), &worker, 1);
        let identity = RowIdentity {
            query: 0,
            name: RowName::File(&name),
            id: records[0].id.as_ref(),
            label: records[0].label.as_ref(),
            fields: records[0].fields.as_ref(),
            digest: None,
            reused_from: None,
        };
        let mut rows = Vec::new();
        write_row(&mut rows, &context, &identity, input.as_bytes()).unwrap();
        let row: Row<'_> = serde_json::from_slice(&rows).unwrap();
        let given = |json: &str| Some(json.to_owned()).filter(|json| json != "null");
        prop_assert_eq!(row.id.map(|raw| raw.get().to_owned()), given(&id));
        prop_assert_eq!(row.label.map(|raw| raw.get().to_owned()), given(&label));
        prop_assert_eq!(row.fields["other"].get(), other);
        prop_assert_eq!(row.output.get(), input);
    }
}
