//! The JSON of an answer: an object with `apiVersion`, its `kind`, and the fields of the kind.
//!
//! A list has its elements in `items`; with `--output jsonl` each of them is a document on a line of its own. Every
//! kind has a schema, generated from its type, in `tui/schemas`.

use idunno_shared::text::visible_json;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::{Value, json};

use super::Failure;

/// The version of all kinds. Fields may be added within a version; none is renamed, removed or given another meaning.
pub const API_VERSION: &str = "idunno/v1";

/// What a command answers to programs.
pub trait Document: Serialize + JsonSchema {
    /// The kind, by which programs tell answers apart.
    const KIND: &'static str;
}

/// A document that also occurs in a list.
pub trait Listed: Document {
    /// The kind of the list.
    const LIST_KIND: &'static str;
}

/// Declares types to be documents whose kind is the type's name; those after `listed` also occur in lists.
macro_rules! documents {
    ($($name:ident),+ $(,)?) => {
        $(impl $crate::answer::document::Document for $name {
            const KIND: &'static str = stringify!($name);
        })+
    };
    (listed $($name:ident),+ $(,)?) => {
        $crate::answer::document::documents!($($name),+);
        $(impl $crate::answer::document::Listed for $name {
            const LIST_KIND: &'static str = concat!(stringify!($name), "List");
        })+
    };
}
pub(crate) use documents;

/// A list of documents of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct List<T> {
    /// The elements, in the order of the table's rows.
    pub items: Vec<T>,
}

impl<T: Listed> Document for List<T> {
    const KIND: &'static str = T::LIST_KIND;
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    document: &'a T,
}

/// A document as one line of JSON, with escapes for what a terminal would obey or not show.
pub fn to_json<T: Document>(document: &T) -> String {
    let envelope = Envelope { api_version: API_VERSION, kind: T::KIND, document };
    serde_json::to_string(&envelope)
        .map(|json| visible_json(&json).into_owned())
        .unwrap_or_else(|error| Failure::error(format!("cannot write {} as JSON: {error}", T::KIND)).json())
}

/// The JSON schema of a kind.
pub fn schema<T: Document>() -> Schema {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = generator.into_root_schema_for::<T>();
    schema.insert("title".to_owned(), json!(T::KIND));
    let fields = schema.ensure_object();
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("apiVersion".to_owned(), json!({"const": API_VERSION}));
        properties.insert("kind".to_owned(), json!({"const": T::KIND}));
    }
    if let Some(required) = fields.get_mut("required").and_then(Value::as_array_mut) {
        required.splice(0..0, [json!("apiVersion"), json!("kind")]);
    }
    schema
}
