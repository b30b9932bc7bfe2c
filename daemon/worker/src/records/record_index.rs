//! Indexes the records of a file, or reads the names in a list, in one streaming pass.
//!
//! Bounds: records of at most [`RECORD_BYTES_MAX`], at most [`QUERIES_PER_JOB_MAX`] of them; a block per
//! [`BLOCK_RECORDS`] records or [`BLOCK_BYTES`], or a power of two times that, so that there are at most [`BLOCKS_MAX`]; a list of at most [`LIST_BYTES_MAX`].

use idunno_core::metadata::{Block, FileKind, Inputs, QUERIES_PER_JOB_MAX, RECORD_BYTES_MAX};
use idunno_shared::ids::Digest;
use idunno_shared::names::{FileName, NameError};
use idunno_shared::wire::jobs::RecordFormat;
use memchr::memchr;
use thiserror::Error;

pub const BLOCK_RECORDS: u64 = 64;
/// A block of this size takes no further record.
pub const BLOCK_BYTES: u64 = 256 << 10;
/// Most blocks: beyond, each becomes twice as large. They are committed to the metadata log as one command.
pub const BLOCKS_MAX: usize = 65_536;
/// Longest list of names: it is committed to the metadata log as one command.
pub const LIST_BYTES_MAX: usize = 4 << 20;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A file is not a dataset. Malformed records are not detected here but by the workers that read them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordIndexError {
    #[error(
        "record {number} is longer than {RECORD_BYTES_MAX} bytes; in CSV, an unclosed quote is a possible cause"
    )]
    Record {
        /// Counted from 1.
        number: u64,
    },
    #[error("it has more than {QUERIES_PER_JOB_MAX} records: split it into several datasets")]
    TooMany,
    #[error("its first line has no column 'input'; its columns are: {found}")]
    Columns { found: String },
    #[error("line {line}: {reason}")]
    Name {
        /// Counted from 1.
        line: usize,
        reason: String,
    },
    #[error("a list may have at most {LIST_BYTES_MAX} bytes: split it")]
    List,
}

/// The blocks of the records seen so far.
#[derive(Debug, Default)]
struct BlockList {
    list: Vec<Block>,
    count: u64,
    /// Offset of the next record.
    next_at: u64,
    /// How often the size of a block was doubled.
    doublings: u32,
}

impl BlockList {
    /// Adds a record that ends at `end`.
    fn end_record(&mut self, end: u64) -> Result<(), RecordIndexError> {
        let at = self.next_at;
        let factor = 1 << self.doublings;
        let full = |last: &Block| {
            self.count - last.first >= BLOCK_RECORDS * factor || at - last.at >= BLOCK_BYTES * factor
        };
        if self.list.last().is_none_or(full) {
            self.list.push(Block { first: self.count, at });
        }
        if self.list.len() > BLOCKS_MAX {
            self.merge_pairs();
        }
        self.count += 1;
        self.next_at = end;
        if self.count > QUERIES_PER_JOB_MAX { Err(RecordIndexError::TooMany) } else { Ok(()) }
    }

    /// Merges each block with the next one, and makes the blocks that follow twice as large.
    fn merge_pairs(&mut self) {
        let mut number = 0;
        self.list.retain(|_| {
            number += 1;
            number % 2 == 1
        });
        self.doublings += 1;
    }

    /// Refuses a record that is too long, given the offset read so far.
    fn check_length(&self, offset: u64) -> Result<(), RecordIndexError> {
        let is_long = offset.saturating_sub(self.next_at) > RECORD_BYTES_MAX;
        if is_long { Err(RecordIndexError::Record { number: self.count + 1 }) } else { Ok(()) }
    }
}

enum FormatReader {
    Jsonl {
        /// Whether the current line has content.
        open: bool,
    },
    Csv(Box<CsvReader>),
    List(Vec<u8>),
}

struct CsvReader {
    core: csv_core::Reader,
    /// The header, until it is complete.
    head: Option<Vec<u8>>,
    format: RecordFormat,
    /// Whether anything but line breaks was read since the last record.
    open: bool,
}

/// Builds the index from the bytes of a file, in pieces of any size.
pub struct RecordIndex {
    reader: FormatReader,
    blocks: BlockList,
    offset: u64,
}

impl RecordIndex {
    pub fn new(kind: FileKind) -> Self {
        let csv = || CsvReader {
            core: csv_core::Reader::new(),
            head: Some(Vec::new()),
            format: RecordFormat::Csv { input: 0, label: None, id: None },
            open: false,
        };
        let reader = match kind {
            FileKind::Jsonl => FormatReader::Jsonl { open: false },
            FileKind::Csv => FormatReader::Csv(Box::new(csv())),
            FileKind::List => FormatReader::List(Vec::new()),
        };
        Self { reader, blocks: BlockList::default(), offset: 0 }
    }

    pub fn take(&mut self, mut bytes: &[u8]) -> Result<(), RecordIndexError> {
        if self.offset == 0
            && let Some(rest) = bytes.strip_prefix(BOM)
        {
            bytes = rest;
            self.offset = BOM.len() as u64;
            self.blocks.next_at = self.offset;
        }
        match &mut self.reader {
            FormatReader::Jsonl { open } => {
                while !bytes.is_empty() {
                    let (line, rest) = bytes.split_at(memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1));
                    bytes = rest;
                    self.offset += line.len() as u64;
                    *open |= !line.trim_ascii().is_empty();
                    if line.ends_with(b"\n") && std::mem::take(open) {
                        self.blocks.end_record(self.offset)?;
                    }
                }
            }
            FormatReader::Csv(csv) => csv.take(bytes, &mut self.blocks, &mut self.offset)?,
            FormatReader::List(list) => {
                list.extend_from_slice(bytes);
                self.offset += bytes.len() as u64;
                return if list.len() > LIST_BYTES_MAX { Err(RecordIndexError::List) } else { Ok(()) };
            }
        }
        self.blocks.check_length(self.offset)
    }

    /// Ends the file, whose content has this digest.
    pub fn finish(mut self, digest: Digest) -> Result<Inputs, RecordIndexError> {
        let format = match self.reader {
            FormatReader::Jsonl { open } => {
                if open {
                    self.blocks.end_record(self.offset)?;
                }
                RecordFormat::Jsonl
            }
            FormatReader::Csv(mut csv) => {
                csv.finish(&mut self.blocks, self.offset)?;
                csv.format
            }
            FormatReader::List(list) => return Ok(Inputs::Listed { digest, names: names(&list)? }),
        };
        let BlockList { list: blocks, count, .. } = self.blocks;
        Ok(Inputs::Records { digest, format, count, blocks })
    }
}

impl CsvReader {
    fn take(
        &mut self,
        mut bytes: &[u8],
        blocks: &mut BlockList,
        offset: &mut u64,
    ) -> Result<(), RecordIndexError> {
        // The content of the fields is not needed.
        let mut fields = [0; 4096];
        let mut ends = [0; 256];
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
                blocks.check_length(*offset)?;
            }
            bytes = rest;
        }
        Ok(())
    }

    fn record(&mut self, blocks: &mut BlockList, end: u64) -> Result<(), RecordIndexError> {
        self.open = false;
        let Some(head) = self.head.take() else { return blocks.end_record(end) };
        blocks.next_at = end;
        self.format = columns(&head)?;
        Ok(())
    }

    /// The last line may lack its line break.
    fn finish(&mut self, blocks: &mut BlockList, offset: u64) -> Result<(), RecordIndexError> {
        if self.open {
            self.record(blocks, offset)?;
        }
        // The file has no header.
        if self.head.is_some() {
            Err(RecordIndexError::Columns { found: String::from("none") })
        } else {
            Ok(())
        }
    }
}

fn columns(head: &[u8]) -> Result<RecordFormat, RecordIndexError> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(head);
    let row = reader.records().next().and_then(Result::ok).unwrap_or_default();
    let named = |name: &str| {
        let position = row.iter().position(|column| column.trim().eq_ignore_ascii_case(name))?;
        u32::try_from(position).ok()
    };
    let input = match named("input") {
        None if row.len() == 1 => 0,
        None => return Err(RecordIndexError::Columns { found: row.iter().collect::<Vec<_>>().join(", ") }),
        Some(input) => input,
    };
    Ok(RecordFormat::Csv { input, label: named("label"), id: named("id") })
}

fn names(list: &[u8]) -> Result<Vec<FileName>, RecordIndexError> {
    let mut names = Vec::new();
    for (number, line) in (1..).zip(list.split(|&byte| byte == b'\n')) {
        let wrong = |reason: String| RecordIndexError::Name { line: number, reason };
        let line = std::str::from_utf8(line).map_err(|error| wrong(error.to_string()))?.trim();
        if !line.is_empty() {
            names.push(line.parse().map_err(|error: NameError| wrong(error.to_string()))?);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::read;
    use super::*;
    use crate::json_text::JsonText;

    /// Indexes in pieces of several sizes, and checks that the result is the same.
    fn index(kind: FileKind, text: &[u8]) -> Result<Inputs, RecordIndexError> {
        let in_pieces = |size: usize| {
            let mut index = RecordIndex::new(kind);
            text.chunks(size).try_for_each(|piece| index.take(piece))?;
            index.finish(Digest::default())
        };
        let whole = in_pieces(text.len().max(1));
        for size in [3, 4, 7, 1000] {
            assert_eq!(in_pieces(size), whole, "in pieces of {size}");
        }
        whole
    }

    /// Reads each block separately: together they must hold all records of the file.
    fn by_blocks(text: &[u8], inputs: &Inputs) -> Vec<super::super::Record> {
        let Inputs::Records { format, count, blocks, .. } = inputs else { panic!("{inputs:?}") };
        let offset = |at: u64| usize::try_from(at).unwrap();
        let ends =
            blocks.iter().skip(1).map(|block| (block.first, block.at)).chain([(*count, text.len() as u64)]);
        let mut records = Vec::new();
        for (block, (first, end)) in blocks.iter().zip(ends) {
            let bytes = Bytes::copy_from_slice(&text[offset(block.at)..offset(end)]);
            let of_block = read(*format, &bytes, 0, usize::MAX);
            assert_eq!(of_block.len() as u64, first - block.first, "{block:?}");
            records.extend(of_block);
        }
        records
    }

    #[test]
    fn the_number_of_blocks_is_bounded() {
        let mut blocks = BlockList::default();
        let records = BLOCKS_MAX as u64 * BLOCK_RECORDS;
        (1..=records).for_each(|end| blocks.end_record(end).unwrap());
        assert_eq!(blocks.list.len(), BLOCKS_MAX);
        (records + 1..=3 * records).for_each(|end| blocks.end_record(end).unwrap());
        assert!(blocks.list.len() <= BLOCKS_MAX, "{}", blocks.list.len());
        let sizes = blocks.list.windows(2).map(|pair| pair[1].first - pair[0].first);
        assert!(sizes.into_iter().all(|size| size == 4 * BLOCK_RECORDS), "all are four times as large");
    }

    #[test]
    fn blocks_split_json_lines_between_records() {
        let end = |n| if n % 7 == 0 { "\r\n\n" } else { "\n" };
        let lines: Vec<_> = (0..500).map(|n| format!("{{\"input\":\"text {n}\"}}{}", end(n))).collect();
        let lines = lines.concat();
        let text = lines.trim_end().as_bytes();
        let inputs = index(FileKind::Jsonl, text).unwrap();
        let records = by_blocks(text, &inputs);
        assert_eq!((records.len(), records[499].input.as_deref()), (500, Ok(&b"text 499"[..])));
        let Inputs::Records { blocks, .. } = inputs else { panic!() };
        assert_eq!(blocks.len(), 500_usize.div_ceil(64));
    }

    #[test]
    fn blocks_split_csv_between_records_despite_quotes() {
        for end in ["\n", "\r\n"] {
            let row = |n: usize| format!("{n},\"line one{end}line \"\"two\"\" of {n}\",{}{end}", n % 2);
            let mut text = format!("\u{feff}id,Input,label{end}");
            text.extend((0..300).map(row));
            let inputs = index(FileKind::Csv, text.as_bytes()).unwrap();
            let Inputs::Records { format, count, .. } = &inputs else { panic!() };
            assert_eq!(*format, RecordFormat::Csv { input: 1, label: Some(2), id: Some(0) });
            assert_eq!(*count, 300);
            let records = by_blocks(text.as_bytes(), &inputs);
            let last = format!("line one{end}line \"two\" of 299");
            assert_eq!(records[299].input.as_deref(), Ok(last.as_bytes()));
            let shown =
                |json: &Option<JsonText>| json.as_ref().and_then(JsonText::scalar).unwrap_or_default();
            assert_eq!((shown(&records[299].id), shown(&records[299].label)), ("299".into(), "1".into()));
        }
        let Ok(Inputs::Records { count, .. }) = index(FileKind::Csv, b"text\none\n\ntwo") else { panic!() };
        assert_eq!(count, 2, "a single column needs no name, and the last line no line break");
    }

    /// The model server's tests hold training to the same cases.
    #[test]
    fn jobs_read_the_records_that_models_are_trained_on() {
        let cases: serde_json::Value = serde_json::from_str(include_str!("cases.json")).unwrap();
        let long = "x".repeat(200_000);
        for case in cases["records"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap().replace("LONG", &long);
            let kind = if case["file"].as_str().unwrap().rsplit_once('.').unwrap().1 == "csv" {
                FileKind::Csv
            } else {
                FileKind::Jsonl
            };
            let records = by_blocks(text.as_bytes(), &index(kind, text.as_bytes()).unwrap());
            let read: Vec<_> = records
                .iter()
                .map(|record| {
                    let label = record.label.as_ref().and_then(JsonText::scalar);
                    (std::str::from_utf8(record.input.as_ref().unwrap()).unwrap(), label)
                })
                .collect();
            let read: Vec<_> = read.iter().map(|(input, label)| (*input, label.as_deref())).collect();
            let expected: Vec<_> = case["records"]
                .as_array()
                .unwrap()
                .iter()
                .map(|record| (record[0].as_str().unwrap().replace("LONG", &long), record[1].as_str()))
                .collect();
            let expected: Vec<_> = expected.iter().map(|(input, label)| (input.as_str(), *label)).collect();
            assert_eq!(read, expected, "{}", case["why"]);
        }
    }

    #[test]
    fn bytes_that_are_no_text_reach_the_model_as_they_are() {
        let text = b"input,label\ncaf\xe9,caf\xe9\n";
        let records = by_blocks(text, &index(FileKind::Csv, text).unwrap());
        assert_eq!(records[0].input.as_deref(), Ok(&b"caf\xe9"[..]));
        assert_eq!(records[0].label, Some(JsonText::of_text("caf\u{fffd}")));
    }

    #[test]
    fn invalid_datasets_are_refused_with_the_reason() {
        let error = |kind, text: &[u8]| index(kind, text).unwrap_err().to_string();
        assert!(error(FileKind::Csv, b"a,b\n1,2\n").contains("a, b"));
        assert!(error(FileKind::Csv, b"").contains("no column"));
        assert!(error(FileKind::List, b"a/b\n\n../c\n").starts_with("line 3: "));
        let Ok(Inputs::Listed { names, .. }) = index(FileKind::List, b"a/b\r\n\n c\n") else { panic!() };
        assert_eq!(names.iter().map(FileName::as_str).collect::<Vec<_>>(), ["a/b", "c"]);
        let mut endless = RecordIndex::new(FileKind::Csv);
        endless.take(b"input\n\"").unwrap();
        let piece = vec![b'x'; 1 << 20];
        let error = (0..20).find_map(|_| endless.take(&piece).err()).unwrap();
        assert!(error.to_string().contains("quote"), "{error}");
    }
}
