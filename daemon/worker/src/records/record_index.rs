//! Indexes the records of a file, or reads the names in a list, in one streaming pass.
//!
//! Decides how the file is read, from its name, its first bytes and what people ask for: nothing is found anew later.
//! Refuses what cannot be records, and a file of which no record can be read.
//!
//! Bounds: those of `blocks`, `dialect` and `name_list`.

use idunno_core::metadata::{FileKind, Inputs};
use idunno_shared::ids::Digest;
use idunno_shared::wire::control::Selection;
use idunno_shared::wire::jobs::RecordFormat;
use idunno_shared::wire::records::ReadOptions;

pub use super::blocks::BLOCKS_MAX;
use super::blocks::{BlockList, Place};
use super::csv_index::CsvIndex;
use super::dialect::SAMPLE_BYTES;
use super::encoding;
pub use super::index_error::RecordIndexError;
use super::jsonl_index::JsonlIndex;
use super::name_list::NameList;
use super::references;

const BOM: &[u8] = b"\xef\xbb\xbf";

enum FormatReader {
    Jsonl(JsonlIndex),
    Csv(Box<CsvIndex>),
    List(NameList),
}

/// Builds the index from the bytes of a file, in pieces of any size.
pub struct RecordIndex {
    kind: FileKind,
    options: ReadOptions,
    selection: Selection,
    /// The beginning of the file, until it is known how to read it.
    start: Vec<u8>,
    reader: Option<FormatReader>,
    blocks: BlockList,
}

impl RecordIndex {
    pub fn new(kind: FileKind, options: ReadOptions, selection: Selection) -> Self {
        Self { kind, options, selection, start: Vec::new(), reader: None, blocks: BlockList::default() }
    }

    pub fn take(&mut self, bytes: &[u8]) -> Result<(), RecordIndexError> {
        if self.reader.is_some() {
            return self.read(bytes);
        }
        let (start, rest) = bytes.split_at(bytes.len().min(SAMPLE_BYTES - self.start.len()));
        self.start.extend_from_slice(start);
        if self.start.len() < SAMPLE_BYTES {
            return Ok(());
        }
        self.open(true)?;
        self.read(rest)
    }

    /// Decides how the file is read, and reads its beginning.
    fn open(&mut self, goes_on: bool) -> Result<(), RecordIndexError> {
        let start = std::mem::take(&mut self.start);
        if let Some(what) = encoding::not_text(&start) {
            return Err(RecordIndexError::NotText(what));
        }
        let mut text = &start[..];
        let mut at = Place::default();
        if let Some(rest) = text.strip_prefix(BOM) {
            (text, at.offset) = (rest, BOM.len() as u64);
        }
        let reader = match self.kind {
            // Indexed by its footer; what comes here is no such file.
            FileKind::Parquet => return Err(idunno_columnar::ReadError::NoFooter.into()),
            FileKind::Jsonl if self.options.is_of_csv() => return Err(RecordIndexError::NotCsv),
            FileKind::List if !self.options.is_default() => return Err(RecordIndexError::ListOptions),
            FileKind::Jsonl => FormatReader::Jsonl(JsonlIndex::new(self.options.clone(), at)),
            FileKind::References if !self.options.is_default() => {
                return Err(RecordIndexError::ReferenceOptions);
            }
            FileKind::References => {
                let (source, bytes) = references::header(text)?;
                text = &text[bytes..];
                at = Place { offset: at.offset + bytes as u64, lines: 1 };
                FormatReader::Jsonl(JsonlIndex::of_references(source, at))
            }
            FileKind::List => FormatReader::List(NameList::default()),
            FileKind::Csv | FileKind::Tsv => {
                let csv = CsvIndex::new(self.kind, self.options.clone(), text, goes_on, at);
                text = &text[csv.skipped()..];
                at = csv.at();
                FormatReader::Csv(Box::new(csv))
            }
        };
        self.blocks.begin(at);
        self.reader = Some(reader);
        self.read(text)
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), RecordIndexError> {
        match &mut self.reader {
            Some(FormatReader::Jsonl(lines)) => lines.take(bytes, &mut self.blocks),
            Some(FormatReader::Csv(csv)) => csv.take(bytes, &mut self.blocks),
            Some(FormatReader::List(list)) => list.take(bytes),
            None => Ok(()),
        }
    }

    /// Whether all records that are selected have been read: the rest of the file is not needed.
    pub fn is_complete(&self) -> bool {
        matches!(self.selection, Selection::First(count) if self.blocks.count >= count.get())
    }

    /// Ends the file, whose content has this digest.
    pub fn finish(mut self, digest: Digest) -> Result<Inputs, RecordIndexError> {
        if self.reader.is_none() {
            self.open(false)?;
        }
        // The record in which the reading ended is complete only at the end of the file.
        let is_cut = self.is_complete();
        let format = match self.reader {
            Some(FormatReader::Jsonl(lines)) => lines.finish(&mut self.blocks, is_cut)?,
            Some(FormatReader::Csv(csv)) => csv.finish(&mut self.blocks, is_cut)?,
            Some(FormatReader::List(list)) => return Ok(Inputs::Listed { digest, names: list.names()? }),
            None => RecordFormat::Jsonl,
        };
        let BlockList { list: blocks, count, .. } = self.blocks;
        Ok(Inputs::Records { digest, format, count, blocks })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use bytes::Bytes;
    use idunno_shared::names::FileName;
    use idunno_shared::wire::records::{ColumnNames, Keep, Quote};

    use super::super::{Span, read};
    use super::*;
    use crate::json_text::JsonText;

    fn index(kind: FileKind, text: &[u8]) -> Result<Inputs, RecordIndexError> {
        index_as(kind, &ReadOptions::default(), text)
    }

    /// Indexes in pieces of several sizes, and checks that the result is the same.
    fn index_as(kind: FileKind, options: &ReadOptions, text: &[u8]) -> Result<Inputs, RecordIndexError> {
        let in_pieces = |size: usize| {
            let mut index = RecordIndex::new(kind, options.clone(), Selection::All);
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
            let of_block = read(format, &bytes, Span { line: 0, skip: 0, count: usize::MAX });
            assert_eq!(of_block.len() as u64, first - block.first, "{block:?}");
            records.extend(of_block);
        }
        records
    }

    #[test]
    fn the_first_records_are_found_without_the_rest_of_the_file() {
        let first = Selection::First(NonZeroU64::new(2).unwrap());
        let file = |header: &str, record: &str, cut: &str| {
            format!("{header}{}{cut}", record.repeat(SAMPLE_BYTES / record.len() + 1))
        };
        for (kind, text, record_bytes) in [
            (FileKind::Jsonl, file("", "{\"input\":1}\n", "{\"inp"), 12),
            (FileKind::Csv, file("input,b\n", "1,2\n", "5,\"6\n"), 4),
        ] {
            let mut index = RecordIndex::new(kind, ReadOptions::default(), first);
            assert!(!index.is_complete());
            index.take(text.as_bytes()).unwrap();
            assert!(index.is_complete());
            let Inputs::Records { count, .. } = index.finish(Digest::of(b"all")).unwrap() else { panic!() };
            assert_eq!(
                count,
                (SAMPLE_BYTES / record_bytes + 1) as u64,
                "the record that is cut does not count"
            );
        }
    }

    #[test]
    fn references_are_lines_after_a_header() {
        let object = |n: usize| {
            format!("{{\"input\":{{\"url\":\"s3://b/{n}\",\"size\":{n},\"etag\":\"e\"}},\"label\":{n}}}\n")
        };
        let header = "{\"references\":{\"endpoint\":\"http://minio:9000\",\"anonymous\":true}}\r\n";
        let text: String = std::iter::once(header.to_owned()).chain((0..300).map(object)).collect();
        let inputs = index(FileKind::References, text.as_bytes()).unwrap();
        let Inputs::Records { format, count, blocks, .. } = &inputs else { panic!("{inputs:?}") };
        let RecordFormat::References(source) = format else { panic!("{format:?}") };
        assert_eq!((source.endpoint.as_deref(), source.anonymous), (Some("http://minio:9000"), true));
        assert_eq!((*count, blocks[0].at, blocks[0].extra_lines), (300, header.len() as u64, 1));
        let records = by_blocks(text.as_bytes(), &inputs);
        let input = records[299].input.clone().unwrap();
        let object = references::parse(&input, super::super::Line(301)).unwrap();
        assert_eq!(
            (object.url.as_str(), object.size, object.etag.as_deref()),
            ("s3://b/299", 299, Some("e"))
        );
        assert_eq!(records[299].label.as_ref().map(JsonText::as_str), Some("299"));
    }

    #[test]
    fn what_is_no_file_of_references_is_refused() {
        let header = "{\"references\":{}}\n";
        for (text, why) in [
            (String::from("{\"input\":1}\n"), "no header of references"),
            (String::from("{\"references\":{\"password\":\"x\"}}\n"), "unknown field `password`"),
            (format!("{header}{{\"input\":\"s3://b/k\"}}\n"), "none of its 1 records can be read"),
            (format!("{header}{{\"input\":{{\"url\":\"s3://b/k\"}}}}\n"), "missing field `size`"),
        ] {
            let found = index(FileKind::References, text.as_bytes()).unwrap_err().to_string();
            assert!(found.contains(why), "{text}: {found}");
        }
        let options = ReadOptions { keep: Keep::All, ..ReadOptions::default() };
        let refused = index_as(FileKind::References, &options, header.as_bytes()).unwrap_err();
        assert_eq!(refused, RecordIndexError::ReferenceOptions);
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
            assert!(
                matches!(format, RecordFormat::Csv { input: 1, label: Some(2), id: Some(0), .. }),
                "{format:?}"
            );
            assert_eq!(*count, 300);
            let records = by_blocks(text.as_bytes(), &inputs);
            let last = format!("line one{end}line \"two\" of 299");
            assert_eq!(records[299].input.as_deref(), Ok(last.as_bytes()));
            let [id, label] = [&records[299].id, &records[299].label]
                .map(|json| json.as_ref().and_then(JsonText::scalar).unwrap());
            assert_eq!((&*id, &*label), ("299", "1"));
        }
        let Ok(Inputs::Records { count, .. }) = index(FileKind::Csv, b"text\none\n\ntwo") else { panic!() };
        assert_eq!(count, 2, "a single column needs no name, and the last line no line break");
    }

    fn option<T>(value: &serde_json::Value, of: impl Fn(&str) -> T) -> Option<T> {
        value.as_str().map(of)
    }

    /// The options of a case, as the command line has them.
    fn options(case: &serde_json::Value) -> ReadOptions {
        let given = &case["options"];
        let name = |key: &str| option(&given[key], |name| name.parse().unwrap());
        let keep = match &given["keep"] {
            serde_json::Value::String(_) => Keep::All,
            serde_json::Value::Array(names) => {
                Keep::Columns(names.iter().map(|name| name.as_str().unwrap().parse().unwrap()).collect())
            }
            _ => Keep::Nothing,
        };
        let quote = |quote: &str| match quote {
            "none" => Quote::None,
            "'" => Quote::Single,
            _ => Quote::Double,
        };
        ReadOptions {
            columns: ColumnNames { input: name("input"), label: name("label"), id: name("id") },
            keep,
            delimiter: option(&given["delimiter"], |delimiter| delimiter.as_bytes()[0]),
            quote: option(&given["quote"], quote),
            no_header: given["no_header"].as_bool().unwrap_or_default(),
        }
    }

    fn text_of(case: &serde_json::Value) -> Vec<u8> {
        match case["hex"].as_str() {
            Some(hex) => (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect(),
            None => case["text"].as_str().unwrap().replace("LONG", &"x".repeat(200_000)).into_bytes(),
        }
    }

    fn index_case(case: &serde_json::Value) -> Result<Inputs, RecordIndexError> {
        let ending = case["file"].as_str().unwrap().rsplit_once('.').unwrap().1.to_ascii_lowercase();
        let kind = match ending.as_str() {
            "csv" => FileKind::Csv,
            "tsv" => FileKind::Tsv,
            _ => FileKind::Jsonl,
        };
        index_as(kind, &options(case), &text_of(case))
    }

    /// The model server's tests hold training to the same cases.
    #[test]
    fn jobs_read_the_records_that_models_are_trained_on() {
        let cases: serde_json::Value = serde_json::from_str(include_str!("cases.json")).unwrap();
        let long = "x".repeat(200_000);
        for case in cases["records"].as_array().unwrap() {
            let why = &case["why"];
            let inputs = index_case(case).unwrap_or_else(|error| panic!("{why}: {error}"));
            let records = by_blocks(&text_of(case), &inputs);
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
            assert_eq!(read, expected, "{why}");
            let kept = case["kept"].as_array().into_iter().flatten();
            for (record, kept) in records.iter().zip(kept) {
                let fields = record.fields.as_ref().map(JsonText::as_str);
                assert_eq!(fields, kept.as_str(), "{why}");
            }
        }
    }

    /// What training refuses as a whole, a start refuses too, or each record that is to blame becomes a dead letter.
    #[test]
    fn what_cannot_be_read_is_refused_in_one_sentence() {
        let cases: serde_json::Value = serde_json::from_str(include_str!("cases.json")).unwrap();
        for case in cases["refused"].as_array().unwrap() {
            let (why, says) = (&case["why"], case["says"].as_str().unwrap());
            let found = match index_case(case) {
                Err(error) => error.to_string(),
                Ok(Inputs::Records { format, .. }) => {
                    let text = Bytes::from(text_of(case));
                    let header = text.iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1);
                    let of_csv = matches!(format, RecordFormat::Csv { .. });
                    let (text, line) = if of_csv { (text.slice(header..), 2) } else { (text, 1) };
                    let records = read(&format, &text, Span { line, skip: 0, count: usize::MAX });
                    let errors = records.into_iter().filter_map(|record| record.input.err());
                    errors.map(|error| error.to_string()).collect::<Vec<_>>().join("; ")
                }
                Ok(inputs) => panic!("{why}: {inputs:?}"),
            };
            assert!(found.contains(says), "{why}: '{found}' does not say '{says}'");
        }
    }

    #[test]
    fn a_block_knows_the_line_in_which_it_begins() {
        let line = |block: &idunno_core::metadata::Block| block.first + block.extra_lines + 1;
        let row = |n: usize| format!("{n},\"two\nlines\"\n{}", if n.is_multiple_of(10) { "\n" } else { "" });
        let text: String = std::iter::once("id,input\n".to_owned()).chain((0..200).map(row)).collect();
        let Ok(Inputs::Records { blocks, .. }) = index(FileKind::Csv, text.as_bytes()) else { panic!() };
        assert!(blocks.len() > 1);
        for block in blocks {
            let before = &text.as_bytes()[..usize::try_from(block.at).unwrap()];
            assert_eq!(line(&block), super::super::line_ends(before) + 1, "{block:?}");
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
        assert!(
            error(FileKind::Csv, b"").contains("no column 'input'; its columns, separated by ',', are: none")
        );
        assert!(error(FileKind::List, b"a/b\n\n../c\n").starts_with("line 3: "));
        let Ok(Inputs::Listed { names, .. }) = index(FileKind::List, b"a/b\r\n\n c\n") else { panic!() };
        assert_eq!(names.iter().map(FileName::as_str).collect::<Vec<_>>(), ["a/b", "c"]);
        let mut endless = RecordIndex::new(FileKind::Csv, ReadOptions::default(), Selection::All);
        endless.take(b"input\n\n\nx\n\"").unwrap();
        let piece = vec![b'x'; 1 << 20];
        let error = (0..20).find_map(|_| endless.take(&piece).err()).unwrap();
        assert!(
            error.to_string().contains("begins in line 5") && error.to_string().contains("quote"),
            "{error}"
        );
    }
}
