//! Answers for simple programs: CSV, and one name a line. Both are made of the answer's JSON, so every command that answers
//! with documents has them.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Data;

/// What every document has; columns are what differs.
const ENVELOPE: [&str; 2] = ["apiVersion", "kind"];

/// An object's fields, in their own order.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

fn read(json: &str) -> Option<Fields<'_>> {
    let mut fields: Fields<'_> = serde_json::from_str(json).ok()?;
    fields.0.retain(|(name, _)| !ENVELOPE.contains(&name.as_str()));
    Some(fields)
}

/// The elements of a list, or the one document, as fields without the envelope.
fn elements(data: &Data) -> Vec<Fields<'_>> {
    match data {
        Data::List { items, .. } => items.iter().filter_map(|item| read(item)).collect(),
        Data::Document(document) => {
            let Some(whole) = read(document) else { return Vec::new() };
            // Some lists are one document, because they have fields beside their elements.
            let items = whole.0.iter().find(|(name, _)| name == "items");
            let items: Option<Vec<&RawValue>> =
                items.and_then(|(_, items)| serde_json::from_str(items.get()).ok());
            match items {
                Some(items) => items.into_iter().filter_map(|item| read(item.get())).collect(),
                None => vec![whole],
            }
        }
        Data::None | Data::Lines => Vec::new(),
    }
}

/// The elements of a list that is one document as documents of their own, a line each; `None` for any other document. The
/// kind of an element is that of the list without its plural.
pub(super) fn lines(document: &str) -> Option<String> {
    let Fields(fields) = serde_json::from_str(document).ok()?;
    let field = |wanted: &str| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.get());
    let items: Vec<&RawValue> = serde_json::from_str(field("items")?).ok()?;
    let (version, list) = (field("apiVersion")?, field("kind")?.trim_matches('"'));
    let kind = list.strip_suffix("List").or_else(|| list.strip_suffix('s')).unwrap_or(list);
    let line = |item: &RawValue| {
        let inner = item.get().strip_prefix('{').unwrap_or_default();
        format!("{{\"apiVersion\":{version},\"kind\":\"{kind}\",{inner}\n")
    };
    Some(items.into_iter().map(line).collect())
}

/// What each element is called, one a line: its first field.
pub(super) fn names(data: &Data) -> String {
    let names = elements(data).into_iter().filter_map(|Fields(fields)| Some(value(fields.first()?.1)));
    names.map(|name| name + "\n").collect()
}

/// Rows with a header. A field of an object is a column `object.field`; a list is its elements with blanks between them.
pub(super) fn csv(data: &Data) -> String {
    let rows: Vec<Vec<(String, String)>> = elements(data).iter().map(|fields| flat("", fields)).collect();
    let mut titles: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        if !titles.contains(&name.as_str()) {
            titles.push(name);
        }
    }
    let mut text = line(titles.iter().copied());
    for row in &rows {
        let cell =
            |title: &&str| row.iter().find(|(name, _)| name == title).map_or("", |(_, value)| value.as_str());
        text.push_str(&line(titles.iter().map(cell)));
    }
    if titles.is_empty() { String::new() } else { text }
}

fn flat(prefix: &str, fields: &Fields<'_>) -> Vec<(String, String)> {
    let mut row = Vec::new();
    for (name, raw) in &fields.0 {
        let name = format!("{prefix}{name}");
        match serde_json::from_str::<Fields<'_>>(raw.get()) {
            Ok(inner) => row.extend(flat(&format!("{name}."), &inner)),
            Err(_) => row.push((name, value(raw))),
        }
    }
    row
}

/// A text without its quotes, nothing for null, and all else as it was written.
fn value(raw: &RawValue) -> String {
    let json = raw.get();
    if json == "null" {
        return String::new();
    }
    if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(json)
        && items.iter().all(|item| !item.get().starts_with(['{', '[']))
    {
        return items.into_iter().map(value).collect::<Vec<_>>().join(" ");
    }
    serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())
}

fn line<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let mut writer =
        ::csv::WriterBuilder::new().terminator(::csv::Terminator::Any(b'\n')).from_writer(Vec::new());
    // Memory takes all that is written to it, and all of it is text.
    let _ = writer.write_record(cells);
    writer.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_a_row_for_each_element_and_a_column_for_each_field() {
        let items = [
            r#"{"apiVersion":"v","kind":"K","job":"job-1","name":null,"ms":{"p50":1.50,"p99":2},"members":["m1","m2"]}"#,
            r#"{"apiVersion":"v","kind":"K","job":"job-2","name":"a, \"b\"","members":[],"more":[{"x":1}]}"#,
        ];
        let data = Data::List { document: String::new(), items: items.map(String::from).to_vec() };
        assert_eq!(
            csv(&data),
            "job,name,ms.p50,ms.p99,members,more\njob-1,,1.50,2,m1 m2,\njob-2,\"a, \"\"b\"\"\",,,,\"[{\"\"x\"\":1}]\"\n"
        );
        assert_eq!(names(&data), "job-1\njob-2\n");
    }

    #[test]
    fn a_document_with_elements_is_a_list_and_any_other_is_one_row() {
        let list = r#"{"apiVersion":"v","kind":"FileList","more":false,"items":[{"name":"a","size":1}]}"#;
        let data = Data::Document(list.to_owned());
        assert_eq!((csv(&data).as_str(), names(&data).as_str()), ("name,size\na,1\n", "a\n"));
        let one =
            Data::Document(r#"{"apiVersion":"v","kind":"AddedJob","job":"job-1","model":"m"}"#.to_owned());
        assert_eq!((csv(&one).as_str(), names(&one).as_str()), ("job,model\njob-1,m\n", "job-1\n"));
        let lines = lines(list).unwrap();
        assert_eq!(lines, "{\"apiVersion\":\"v\",\"kind\":\"File\",\"name\":\"a\",\"size\":1}\n");
        assert_eq!((csv(&Data::None).as_str(), names(&Data::None).as_str()), ("", ""));
    }
}
