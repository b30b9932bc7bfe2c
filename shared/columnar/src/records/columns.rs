//! What the columns of a file mean.

use std::sync::Arc;

use arrow_schema::{DataType, FieldRef};
use idunno_shared::names::ColumnName;
use idunno_shared::wire::records::{
    ColumnNames, KEPT_COLUMNS_MAX, KEPT_NAMES_BYTES_MAX, Keep, ParquetLayout, ReadOptions,
};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::basic::LogicalType;

use super::json;
use crate::error::{LEVELS_MAX, ReadError};

/// A column of the file's top level.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// Its number among those of the top level.
    pub(super) root: usize,
    pub(super) field: FieldRef,
    /// Whether its bytes are UUIDs.
    pub(super) is_uuid: bool,
}

/// The columns of a file.
#[derive(Clone, Debug)]
pub(super) struct Columns(Vec<Column>);

impl Columns {
    pub(super) fn of(metadata: &ArrowReaderMetadata) -> Self {
        let schema = metadata.parquet_schema();
        let roots = schema.root_schema().get_fields();
        let is_uuid = |root: usize| {
            let info = roots.get(root).map(|root| root.get_basic_info());
            info.is_some_and(|info| matches!(info.logical_type_ref(), Some(LogicalType::Uuid)))
        };
        let column = |field: &FieldRef| {
            let root = roots.iter().position(|root| root.name() == field.name())?;
            Some(Column { root, field: Arc::clone(field), is_uuid: is_uuid(root) })
        };
        Self(metadata.schema().fields().iter().filter_map(column).collect())
    }

    /// The column of a name, in its case if there is one.
    fn find(&self, name: &str) -> Result<Option<&Column>, ReadError> {
        let name = name.trim();
        let named = |is_equal: &dyn Fn(&str) -> bool| -> Vec<&Column> {
            self.0.iter().filter(|column| is_equal(column.field.name().trim())).collect()
        };
        let mut found = named(&|found| found == name);
        if found.is_empty() {
            found = named(&|found| found.eq_ignore_ascii_case(name));
        }
        match found[..] {
            [] => Ok(None),
            [column] => Ok(Some(column)),
            _ => Err(ReadError::Duplicate { name: name.to_owned() }),
        }
    }

    fn missing(&self, name: &str) -> ReadError {
        let shown = |column: &Column| format!("{} ({})", column.field.name(), column.field.data_type());
        let found: Vec<String> = self.0.iter().map(shown).collect();
        let found = if found.is_empty() { String::from("none") } else { found.join(", ") };
        ReadError::NoColumn { name: name.to_owned(), found }
    }

    fn asked(&self, name: &ColumnName) -> Result<&Column, ReadError> {
        self.find(name.as_str())?.ok_or_else(|| self.missing(name.as_str()))
    }

    fn input(&self, asked: Option<&ColumnName>) -> Result<&Column, ReadError> {
        if let Some(name) = asked {
            return self.asked(name);
        }
        if let Some(column) = self.find("input")? {
            return Ok(column);
        }
        if let [column] = &self.0[..] {
            return Ok(column);
        }
        let media: Vec<&Column> =
            self.0.iter().filter(|column| has_media(column.field.data_type())).collect();
        match media[..] {
            [column] => Ok(column),
            _ => Err(self.missing("input")),
        }
    }

    fn other(&self, asked: Option<&ColumnName>, usual: &str) -> Result<Option<&Column>, ReadError> {
        match asked {
            Some(name) => self.asked(name).map(Some),
            None => self.find(usual),
        }
    }

    fn kept(&self, keep: &Keep, meant: &[Option<usize>; 3]) -> Result<Vec<&Column>, ReadError> {
        let kept: Vec<&Column> = match keep {
            Keep::Nothing => Vec::new(),
            Keep::All => self.0.iter().filter(|column| !meant.contains(&Some(column.root))).collect(),
            Keep::Columns(names) => names.iter().map(|name| self.asked(name)).collect::<Result<_, _>>()?,
        };
        let bytes: usize = kept.iter().map(|column| column.field.name().len()).sum();
        if kept.len() > KEPT_COLUMNS_MAX || bytes > KEPT_NAMES_BYTES_MAX {
            return Err(ReadError::ManyKept);
        }
        Ok(kept)
    }

    /// What the columns mean if these options ask for it, without what the row groups say.
    pub(super) fn layout(&self, options: &ReadOptions) -> Result<ParquetLayout, ReadError> {
        let ColumnNames { input, label, id } = &options.columns;
        let input = self.input(input.as_ref())?;
        let label = self.other(label.as_ref(), "label")?;
        let id = self.other(id.as_ref(), "id")?;
        let root = |column: Option<&Column>| column.map(|column| column.root);
        let kept = self.kept(&options.keep, &[Some(input.root), root(label), root(id)])?;
        for column in [Some(input), label, id].into_iter().flatten().chain(kept.iter().copied()) {
            if let Err(kind) = json::check(column.field.data_type(), LEVELS_MAX) {
                return Err(ReadError::Type { column: column.field.name().clone(), kind: kind.to_string() });
            }
        }
        let name = |column: &Column| -> Result<ColumnName, ReadError> {
            column.field.name().parse().map_err(|_too_long| ReadError::LongName { number: column.root + 1 })
        };
        let mut keep: Vec<ColumnName> = Vec::with_capacity(kept.len());
        for column in kept {
            let name = name(column)?;
            if keep.contains(&name) {
                return Err(ReadError::Duplicate { name: name.to_string() });
            }
            keep.push(name);
        }
        let columns = ColumnNames {
            input: Some(name(input)?),
            label: label.map(name).transpose()?,
            id: id.map(name).transpose()?,
        };
        Ok(ParquetLayout { columns, keep, footer_bytes: 0, row_bytes: 0 })
    }

    /// The column that has exactly this name.
    pub(super) fn named(&self, name: &ColumnName) -> Option<&Column> {
        self.0.iter().find(|column| column.field.name() == name.as_str())
    }

    /// The numbers of the columns that are read.
    pub(super) fn roots(&self, layout: &ParquetLayout) -> Vec<usize> {
        let ColumnNames { input, label, id } = &layout.columns;
        let names = [input, label, id].into_iter().flatten().chain(&layout.keep);
        names.filter_map(|name| self.named(name)).map(|column| column.root).collect()
    }
}

/// Whether a column holds pictures, sounds or the like, as Hugging Face's datasets have them.
pub(super) fn has_media(kind: &DataType) -> bool {
    let DataType::Struct(fields) = kind else { return false };
    let has = |name: &str, is: fn(&DataType) -> bool| {
        fields.find(name).is_some_and(|(_, field)| is(field.data_type()))
    };
    fields.len() == 2
        && has("bytes", |kind| {
            matches!(kind, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
        })
        && has("path", |kind| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View))
}
