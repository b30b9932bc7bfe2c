//! Finds the records of a file, or the names in one, while its bytes go by.
//!
//! Bounds: a record of [`RECORD_BYTES_MAX`], [`QUERIES_PER_JOB_MAX`] records, a block for every [`BLOCK_RECORDS`] of them
//! or [`BLOCK_BYTES`]; a list of [`LIST_BYTES_MAX`].

use idunno_core::metadata::{Block, FileKind, Inputs, QUERIES_PER_JOB_MAX, RECORD_BYTES_MAX};
use idunno_shared::ids::Digest;
use idunno_shared::wire::jobs::RecordFormat;
use thiserror::Error;

/// Records of one block.
pub const BLOCK_RECORDS: u64 = 64;
/// A block takes no further record from this many bytes on.
pub const BLOCK_BYTES: u64 = 256 << 10;
/// Longest list of names, in bytes: it goes through the log as one command.
pub const LIST_BYTES_MAX: usize = 4 << 20;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Why a file is no data set. What is not said here, its records, is found out by whoever reads them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordIndexError {
    /// A record is too long, or never ends.
    #[error(
        "record {number} has more than {RECORD_BYTES_MAX} bytes; if it is CSV, a quote may not be closed"
    )]
    Record {
        /// Its number, from 1.
        number: u64,
    },
    /// Too many records.
    #[error("it has more than {QUERIES_PER_JOB_MAX} records: make several data sets of it")]
    TooMany,
    /// The headline has no column for the input.
    #[error("its first line has no column 'input', but: {found}")]
    Columns {
        /// The columns.
        found: String,
    },
    /// A name is none.
    #[error("line {line}: {reason}")]
    Name {
        /// The line, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// The list is too long.
    #[error("a list may have {LIST_BYTES_MAX} bytes: make several of it")]
    List,
}

/// Where the records are, as far as they went by.
#[derive(Debug, Default)]
struct Blocks {
    list: Vec<Block>,
    count: u64,
    /// Where the next record begins.
    next_at: u64,
}

impl Blocks {
    /// A record ends.
    fn record(&mut self, end: u64) -> Result<(), RecordIndexError> {
        let at = self.next_at;
        let full = |last: &Block| self.count - last.first >= BLOCK_RECORDS || at - last.at >= BLOCK_BYTES;
        if self.list.last().is_none_or(full) {
            self.list.push(Block { first: self.count, at });
        }
        (self.count, self.next_at) = (self.count + 1, end);
        if self.count > QUERIES_PER_JOB_MAX as u64 { Err(RecordIndexError::TooMany) } else { Ok(()) }
    }

    /// So far the file has gone by.
    fn passed(&self, offset: u64) -> Result<(), RecordIndexError> {
        let is_long = offset.saturating_sub(self.next_at) > RECORD_BYTES_MAX;
        if is_long { Err(RecordIndexError::Record { number: self.count + 1 }) } else { Ok(()) }
    }
}

enum Reader {
    /// Whether the line that goes by has anything in it.
    Jsonl(bool),
    Csv(Box<Csv>),
    List(Vec<u8>),
}

struct Csv {
    core: csv_core::Reader,
    /// The headline, until it has gone by.
    head: Option<Vec<u8>>,
    format: RecordFormat,
    /// Whether anything but line ends has gone by since the last record.
    open: bool,
}

/// Sees a file's bytes go by, in any pieces.
pub struct RecordIndex {
    reader: Reader,
    blocks: Blocks,
    offset: u64,
}

impl RecordIndex {
    /// Of a file of this kind.
    pub fn new(kind: FileKind) -> Self {
        let csv = || Csv {
            core: csv_core::Reader::new(),
            head: Some(Vec::new()),
            format: RecordFormat::Csv { input: 0, label: None, id: None },
            open: false,
        };
        let reader = match kind {
            FileKind::Jsonl => Reader::Jsonl(false),
            FileKind::Csv => Reader::Csv(Box::new(csv())),
            FileKind::List => Reader::List(Vec::new()),
        };
        Self { reader, blocks: Blocks::default(), offset: 0 }
    }

    /// The next bytes.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<(), RecordIndexError> {
        if self.offset == 0
            && let Some(rest) = bytes.strip_prefix(BOM)
        {
            bytes = rest;
            self.offset = BOM.len() as u64;
            self.blocks.next_at = self.offset;
        }
        match &mut self.reader {
            Reader::Jsonl(open) => {
                for line in bytes.split_inclusive(|&byte| byte == b'\n') {
                    self.offset += line.len() as u64;
                    *open |= !line.trim_ascii().is_empty();
                    if line.ends_with(b"\n") && std::mem::take(open) {
                        self.blocks.record(self.offset)?;
                    }
                }
            }
            Reader::Csv(csv) => csv.take(bytes, &mut self.blocks, &mut self.offset)?,
            Reader::List(list) => {
                list.extend_from_slice(bytes);
                self.offset += bytes.len() as u64;
                return if list.len() > LIST_BYTES_MAX { Err(RecordIndexError::List) } else { Ok(()) };
            }
        }
        self.blocks.passed(self.offset)
    }

    /// The file, whose content has this digest, has gone by.
    pub fn finish(mut self, digest: Digest) -> Result<Inputs, RecordIndexError> {
        let format = match self.reader {
            Reader::Jsonl(open) => {
                if open {
                    self.blocks.record(self.offset)?;
                }
                RecordFormat::Jsonl
            }
            Reader::Csv(mut csv) => {
                csv.end(&mut self.blocks, self.offset)?;
                csv.format
            }
            Reader::List(list) => return Ok(Inputs::Listed { digest, names: names(&list)? }),
        };
        let Blocks { list: blocks, count, .. } = self.blocks;
        Ok(Inputs::Records { digest, format, count, blocks })
    }
}

impl Csv {
    fn take(
        &mut self,
        mut bytes: &[u8],
        blocks: &mut Blocks,
        offset: &mut u64,
    ) -> Result<(), RecordIndexError> {
        // What is in the fields is of no interest here.
        let (mut fields, mut ends) = ([0; 4096], [0; 256]);
        while !bytes.is_empty() {
            let (result, read, _, _) = self.core.read_record(bytes, &mut fields, &mut ends);
            let (passed, rest) = bytes.split_at(read);
            *offset += read as u64;
            if let Some(head) = &mut self.head {
                head.extend_from_slice(passed);
            }
            if matches!(result, csv_core::ReadRecordResult::Record) {
                self.record(blocks, *offset)?;
            } else {
                self.open |= passed.iter().any(|byte| !b"\r\n".contains(byte));
                blocks.passed(*offset)?;
            }
            bytes = rest;
        }
        Ok(())
    }

    fn record(&mut self, blocks: &mut Blocks, end: u64) -> Result<(), RecordIndexError> {
        self.open = false;
        let Some(head) = self.head.take() else { return blocks.record(end) };
        blocks.next_at = end;
        self.format = columns(&head)?;
        Ok(())
    }

    /// The last line may lack its end.
    fn end(&mut self, blocks: &mut Blocks, offset: u64) -> Result<(), RecordIndexError> {
        if self.open {
            self.record(blocks, offset)?;
        }
        // Not even a headline.
        if self.head.is_some() {
            Err(RecordIndexError::Columns { found: String::from("nothing") })
        } else {
            Ok(())
        }
    }
}

fn columns(head: &[u8]) -> Result<RecordFormat, RecordIndexError> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(head);
    let row = reader.records().next().and_then(Result::ok).unwrap_or_default();
    let named = |name: &str| {
        let place = row.iter().position(|column| column.trim().eq_ignore_ascii_case(name))?;
        u32::try_from(place).ok()
    };
    let input = match named("input") {
        None if row.len() == 1 => 0,
        None => return Err(RecordIndexError::Columns { found: row.iter().collect::<Vec<_>>().join(", ") }),
        Some(input) => input,
    };
    Ok(RecordFormat::Csv { input, label: named("label"), id: named("id") })
}

fn names(list: &[u8]) -> Result<Vec<idunno_shared::names::FileName>, RecordIndexError> {
    let mut names = Vec::new();
    for (place, line) in list.split(|&byte| byte == b'\n').enumerate() {
        let wrong = |reason: String| RecordIndexError::Name { line: place + 1, reason };
        let line = std::str::from_utf8(line).map_err(|error| wrong(error.to_string()))?.trim();
        if !line.is_empty() {
            names.push(
                line.parse().map_err(|error: idunno_shared::names::NameError| wrong(error.to_string()))?,
            );
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::read;
    use super::*;

    /// Surveys in pieces of any size, and sees that it makes no difference.
    fn survey(kind: FileKind, text: &[u8]) -> Result<Inputs, RecordIndexError> {
        let in_pieces = |size: usize| {
            let mut survey = RecordIndex::new(kind);
            text.chunks(size).try_for_each(|piece| survey.take(piece))?;
            survey.finish(Digest::default())
        };
        let whole = in_pieces(text.len().max(1));
        for size in [3, 4, 7, 1000] {
            assert_eq!(in_pieces(size), whole, "in pieces of {size}");
        }
        whole
    }

    /// Reads each block of a survey by itself: together they must give all records of the file.
    fn by_blocks(text: &[u8], inputs: &Inputs) -> Vec<super::super::Record> {
        let Inputs::Records { format, count, blocks, .. } = inputs else { panic!("{inputs:?}") };
        let place = |at: u64| usize::try_from(at).unwrap();
        let ends =
            blocks.iter().skip(1).map(|block| (block.first, block.at)).chain([(*count, text.len() as u64)]);
        let mut records = Vec::new();
        for (block, (first, end)) in blocks.iter().zip(ends) {
            let bytes = Bytes::copy_from_slice(&text[place(block.at)..place(end)]);
            let of_block = read(*format, &bytes, 0, usize::MAX);
            assert_eq!(of_block.len() as u64, first - block.first, "{block:?}");
            records.extend(of_block);
        }
        records
    }

    #[test]
    fn blocks_cut_json_lines_between_records() {
        let end = |n| if n % 7 == 0 { "\r\n\n" } else { "\n" };
        let lines: Vec<_> = (0..500).map(|n| format!("{{\"input\":\"text {n}\"}}{}", end(n))).collect();
        let lines = lines.concat();
        let text = lines.trim_end().as_bytes();
        let inputs = survey(FileKind::Jsonl, text).unwrap();
        let records = by_blocks(text, &inputs);
        assert_eq!((records.len(), records[499].input.as_deref()), (500, Ok(&b"text 499"[..])));
        let Inputs::Records { blocks, .. } = inputs else { panic!() };
        assert_eq!(blocks.len(), 500_usize.div_ceil(64));
    }

    #[test]
    fn blocks_cut_csv_between_records_whatever_is_quoted() {
        for end in ["\n", "\r\n"] {
            let row = |n: usize| format!("{n},\"line one{end}line \"\"two\"\" of {n}\",{}{end}", n % 2);
            let mut text = format!("\u{feff}id,Input,label{end}");
            text.extend((0..300).map(row));
            let inputs = survey(FileKind::Csv, text.as_bytes()).unwrap();
            let Inputs::Records { format, count, .. } = &inputs else { panic!() };
            assert_eq!(*format, RecordFormat::Csv { input: 1, label: Some(2), id: Some(0) });
            assert_eq!(*count, 300);
            let records = by_blocks(text.as_bytes(), &inputs);
            let last = format!("line one{end}line \"two\" of 299");
            assert_eq!(records[299].input.as_deref(), Ok(last.as_bytes()));
            assert_eq!((records[299].id.as_deref(), records[299].label.as_deref()), (Some("299"), Some("1")));
        }
        let Ok(Inputs::Records { count, .. }) = survey(FileKind::Csv, b"text\none\n\ntwo") else { panic!() };
        assert_eq!(count, 2, "one column needs no name, the last line no end");
    }

    #[test]
    fn what_is_no_data_set_is_named() {
        let error = |kind, text: &[u8]| survey(kind, text).unwrap_err().to_string();
        assert!(error(FileKind::Csv, b"a,b\n1,2\n").contains("a, b"));
        assert!(error(FileKind::Csv, b"").contains("no column"));
        assert!(error(FileKind::List, b"a/b\n\n../c\n").starts_with("line 3: "));
        let Ok(Inputs::Listed { names, .. }) = survey(FileKind::List, b"a/b\r\n\n c\n") else { panic!() };
        assert_eq!(
            names.iter().map(idunno_shared::names::FileName::as_str).collect::<Vec<_>>(),
            ["a/b", "c"]
        );
        let mut endless = RecordIndex::new(FileKind::Csv);
        endless.take(b"input\n\"").unwrap();
        let piece = vec![b'x'; 1 << 20];
        let error = (0..20).find_map(|_| endless.take(&piece).err()).unwrap();
        assert!(error.to_string().contains("quote"), "{error}");
    }
}
