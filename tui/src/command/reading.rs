//! Arguments that say how a file of records is read.

use std::str::FromStr;

use clap::Args;
use idunno_shared::names::{ColumnName, NameError};
use idunno_shared::wire::records::{ColumnNames, Keep, Quote, ReadOptions};
use thiserror::Error;

/// How a file of records is read. What is not given is found in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Reading {
    /// Column or field of the input [default: input]
    #[arg(long, value_name = "COL")]
    pub input_column: Option<ColumnName>,
    /// Column or field of the true label [default: label]
    #[arg(long, value_name = "COL")]
    pub label_column: Option<ColumnName>,
    /// Column or field of the record's own id [default: id]
    #[arg(long, value_name = "COL")]
    pub id_column: Option<ColumnName>,
    /// What separates the columns of CSV: a character, or 'tab' [default: found in the file]
    #[arg(long, value_name = "CHAR")]
    pub delimiter: Option<Delimiter>,
    /// What encloses fields of CSV [default: double]
    #[arg(long, value_name = "QUOTE")]
    pub quote: Option<QuoteName>,
    /// The first row of CSV is a record; columns are named by numbers from 1
    #[arg(long)]
    pub no_header: bool,
}

impl Reading {
    /// As the cluster takes it.
    pub fn options(self, keep: Option<KeptColumns>) -> ReadOptions {
        let Self { input_column, label_column, id_column, delimiter, quote, no_header } = self;
        ReadOptions {
            columns: ColumnNames { input: input_column, label: label_column, id: id_column },
            keep: keep.map(|KeptColumns(keep)| keep).unwrap_or_default(),
            delimiter: delimiter.map(|Delimiter(byte)| byte),
            quote: quote.map(Quote::from),
            no_header,
        }
    }
}

/// An ASCII character that separates columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delimiter(pub u8);

/// The argument cannot separate columns.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("write one ASCII character, such as ';', or 'tab'")]
pub struct DelimiterError;

impl FromStr for Delimiter {
    type Err = DelimiterError;

    fn from_str(text: &str) -> Result<Self, DelimiterError> {
        match text.as_bytes() {
            [byte] if byte.is_ascii() => Ok(Self(*byte)),
            b"tab" | b"\\t" => Ok(Self(b'\t')),
            _ => Err(DelimiterError),
        }
    }
}

/// What encloses fields of CSV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum QuoteName {
    /// "
    Double,
    /// '
    Single,
    /// Nothing: quotes are text
    None,
}

impl From<QuoteName> for Quote {
    fn from(name: QuoteName) -> Self {
        match name {
            QuoteName::Double => Self::Double,
            QuoteName::Single => Self::Single,
            QuoteName::None => Self::None,
        }
    }
}

/// The columns that come back in the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptColumns(pub Keep);

/// The argument names no columns.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeptColumnsError {
    #[error(
        "write 'all', or the columns' names with commas between them; a name with a comma needs double quotes"
    )]
    Format,
    #[error(transparent)]
    Name(#[from] NameError),
}

impl FromStr for KeptColumns {
    type Err = KeptColumnsError;

    fn from_str(text: &str) -> Result<Self, KeptColumnsError> {
        if text == "all" {
            return Ok(Self(Keep::All));
        }
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
        let row = reader.records().next().and_then(Result::ok).ok_or(KeptColumnsError::Format)?;
        let names = row.iter().map(str::parse).collect::<Result<Vec<ColumnName>, _>>()?;
        Ok(Self(Keep::Columns(names)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_columns_are_all_or_a_list_with_commas() {
        let kept = |text: &str| text.parse::<KeptColumns>().map(|KeptColumns(keep)| keep);
        let columns =
            |names: &[&str]| Keep::Columns(names.iter().map(|name| name.parse().unwrap()).collect());
        assert_eq!(kept("all"), Ok(Keep::All));
        assert_eq!(kept("city"), Ok(columns(&["city"])));
        assert_eq!(kept("city,\"a, b\",all"), Ok(columns(&["city", "a, b", "all"])));
        assert_eq!(kept(""), Err(KeptColumnsError::Format));
        assert!(kept("a,,b").is_err());
    }

    #[test]
    fn a_delimiter_is_one_character() {
        for (text, byte) in [(";", b';'), ("tab", b'\t'), ("\\t", b'\t'), ("\t", b'\t')] {
            assert_eq!(text.parse(), Ok(Delimiter(byte)), "{text}");
        }
        for wrong in ["", ";;", "€"] {
            assert_eq!(wrong.parse::<Delimiter>(), Err(DelimiterError), "{wrong}");
        }
    }
}
