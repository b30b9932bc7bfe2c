//! Finds the records of JSON lines, and of references, which are such lines: one a line, empty lines left out.
//!
//! Lines are located here and read by the workers, but for the first ones: until one can be read, each is tried, so that a
//! file of which no record can be read is refused.

use bytes::Bytes;
use idunno_shared::wire::jobs::RecordFormat;
use idunno_shared::wire::records::{ColumnNames, Keep, ReadOptions};
use idunno_shared::wire::references::ReferenceSource;
use memchr::memchr;

use super::Line;
use super::blocks::{BlockList, Place};
use super::index_error::RecordIndexError;
use super::json_records::Parser;
use super::references;

pub(super) struct JsonlIndex {
    options: ReadOptions,
    /// Where the inputs are that the lines refer to, if they do.
    source: Option<ReferenceSource>,
    at: Place,
    /// Whether the current line has content.
    open: bool,
    /// While no record could be read: the current line, and why the first could not.
    probe: Option<(Vec<u8>, Option<String>)>,
}

impl JsonlIndex {
    pub(super) fn new(options: ReadOptions, at: Place) -> Self {
        Self { options, source: None, at, open: false, probe: Some((Vec::new(), None)) }
    }

    /// Of lines that are references, after their header.
    pub(super) fn of_references(source: ReferenceSource, at: Place) -> Self {
        Self { source: Some(source), ..Self::new(ReadOptions::default(), at) }
    }

    pub(super) fn take(&mut self, mut bytes: &[u8], blocks: &mut BlockList) -> Result<(), RecordIndexError> {
        while !bytes.is_empty() {
            let (line, rest) = bytes.split_at(memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1));
            bytes = rest;
            self.at.offset += line.len() as u64;
            self.open |= !line.trim_ascii().is_empty();
            if let Some((probed, _)) = &mut self.probe {
                probed.extend_from_slice(line);
            }
            if line.ends_with(b"\n") {
                self.at.lines += 1;
                if std::mem::take(&mut self.open) {
                    self.probe(self.at.lines)?;
                    blocks.end_record(self.at)?;
                } else if let Some((probed, _)) = &mut self.probe {
                    probed.clear();
                }
            }
        }
        blocks.check_length(self.at.offset, self.at.lines + 1)
    }

    /// Tries to read the line with this number, until one could be read.
    fn probe(&mut self, number: u64) -> Result<(), RecordIndexError> {
        let Some((line, first)) = &mut self.probe else { return Ok(()) };
        let line = Bytes::from(std::mem::take(line));
        let text = line.trim_ascii();
        if first.is_none() && text.iter().all(|byte| b"[{ \t".contains(byte)) {
            return Err(RecordIndexError::SeveralLines { line: number });
        }
        let parser = Parser::new(&self.options.columns, &self.options.keep);
        let mut read = parser.record(&line, text, || Line(number)).input;
        if self.source.is_some() {
            read = read.and_then(|input| references::parse(&input, Line(number)).map(|_| input));
        }
        match read {
            Ok(_) => self.probe = None,
            Err(error) => _ = first.get_or_insert_with(|| error.to_string()),
        }
        Ok(())
    }

    /// `is_cut`: the reading ended in the middle of the file.
    pub(super) fn finish(
        mut self,
        blocks: &mut BlockList,
        is_cut: bool,
    ) -> Result<RecordFormat, RecordIndexError> {
        if self.open && !is_cut {
            self.probe(self.at.lines + 1)?;
            blocks.end_record(self.at)?;
        }
        if let Some((_, Some(first))) = self.probe {
            return Err(RecordIndexError::Unreadable { count: blocks.count, first });
        }
        if let Some(source) = self.source {
            return Ok(RecordFormat::References(source));
        }
        let ReadOptions { columns, keep, .. } = self.options;
        let is_plain = columns == ColumnNames::default() && keep == Keep::Nothing;
        Ok(if is_plain { RecordFormat::Jsonl } else { RecordFormat::JsonFields { columns, keep } })
    }
}
