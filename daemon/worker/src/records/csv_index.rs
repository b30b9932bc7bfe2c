//! Finds where the records of a CSV file begin.

use idunno_core::metadata::FileKind;
use idunno_shared::wire::jobs::RecordFormat;
use idunno_shared::wire::records::{CsvLayout, Quote, ReadOptions};

use super::blocks::{BlockList, Place};
use super::dialect::{self, Dialect};
use super::index_error::RecordIndexError;
use super::line_ends;

pub(super) struct CsvIndex {
    core: csv_core::Reader,
    options: ReadOptions,
    dialect: Dialect,
    /// The first row, until it is complete.
    first: Option<Vec<u8>>,
    format: RecordFormat,
    /// Whether anything but line breaks was read since the last record.
    open: bool,
    /// How far the file is read.
    at: Place,
    /// The line in which the current record begins, from 1.
    line: u64,
    /// Fields of the current record so far.
    fields: usize,
    probe: Probe,
}

/// Whether any record has an input.
enum Probe {
    /// One has.
    Readable,
    /// The first that has none, if there is one.
    Unread(Option<RecordIndexError>),
}

impl CsvIndex {
    /// Begins with a file's first bytes, which are not taken yet.
    pub(super) fn new(
        kind: FileKind,
        options: ReadOptions,
        sample: &[u8],
        goes_on: bool,
        mut at: Place,
    ) -> Self {
        let dialect = dialect::find(kind, &options, sample, goes_on);
        if dialect.skipped > 0 {
            at = Place { offset: at.offset + dialect.skipped as u64, lines: at.lines + 1 };
        }
        let mut core = csv_core::ReaderBuilder::new();
        core.delimiter(dialect.delimiter);
        match dialect.quote {
            Quote::Double => {}
            Quote::Single => _ = core.quote(b'\''),
            Quote::None => _ = core.quoting(false),
        }
        let format = RecordFormat::Csv { input: 0, label: None, id: None, layout: CsvLayout::default() };
        Self {
            core: core.build(),
            options,
            dialect,
            first: Some(Vec::new()),
            format,
            open: false,
            at,
            line: 1,
            fields: 0,
            probe: Probe::Unread(None),
        }
    }

    /// How many of the file's first bytes are not to be taken.
    pub(super) fn skipped(&self) -> usize {
        self.dialect.skipped
    }

    /// How far the file is read.
    pub(super) fn at(&self) -> Place {
        self.at
    }

    pub(super) fn take(&mut self, mut bytes: &[u8], blocks: &mut BlockList) -> Result<(), RecordIndexError> {
        // The content of the fields is not needed.
        let mut fields = [0; 4096];
        let mut ends = [0; 256];
        while !bytes.is_empty() {
            let (result, read, _, ended) = self.core.read_record(bytes, &mut fields, &mut ends);
            let (passed, rest) = bytes.split_at(read);
            self.pass(passed);
            self.fields += ended;
            if matches!(result, csv_core::ReadRecordResult::Record) {
                self.record(blocks)?;
            } else {
                blocks.check_length(self.at.offset, self.line)?;
            }
            bytes = rest;
        }
        Ok(())
    }

    fn pass(&mut self, passed: &[u8]) {
        if !self.open {
            let empty = passed.iter().take_while(|byte| b"\r\n".contains(byte)).count();
            self.line = self.at.lines + line_ends(&passed[..empty]) + 1;
            self.open = empty < passed.len();
        }
        self.at.offset += passed.len() as u64;
        self.at.lines += line_ends(passed);
        if let Some(first) = &mut self.first {
            first.extend_from_slice(passed);
        }
    }

    fn record(&mut self, blocks: &mut BlockList) -> Result<(), RecordIndexError> {
        self.open = false;
        let columns = std::mem::take(&mut self.fields);
        if let Some(first) = self.first.take() {
            self.format = dialect::columns(&self.options, self.dialect, &first)?;
            if !self.options.no_header {
                blocks.begin(self.at);
                return Ok(());
            }
        }
        if let (Probe::Unread(first), RecordFormat::Csv { input, .. }) = (&mut self.probe, &self.format) {
            if columns as u64 > u64::from(*input) {
                self.probe = Probe::Readable;
            } else {
                let (line, input) = (self.line, input + 1);
                first.get_or_insert(RecordIndexError::NoInput { line, columns, input });
            }
        }
        blocks.end_record(self.at)
    }

    /// The last line may lack its line break, unless the file is cut.
    pub(super) fn finish(
        mut self,
        blocks: &mut BlockList,
        is_cut: bool,
    ) -> Result<RecordFormat, RecordIndexError> {
        if self.open && !is_cut {
            // A line break ends any record, except within quotes.
            let (result, _, _, ended) = self.core.read_record(b"\n", &mut [0; 4096], &mut [0; 256]);
            if !matches!(result, csv_core::ReadRecordResult::Record) {
                return Err(RecordIndexError::OpenQuote { line: self.line });
            }
            self.fields += ended;
            self.record(blocks)?;
        }
        // The file has no header.
        if self.first.is_some() {
            self.format = dialect::columns(&self.options, self.dialect, b"")?;
        }
        match self.probe {
            Probe::Unread(Some(error)) => Err(error),
            _ => Ok(self.format),
        }
    }
}
