//! The segments that a merge is within, as runs: their rows in the order of the queries. A segment is read once; runs that
//! do not fit into memory wait in files.
//!
//! Decides which run goes to disk: the one whose next row is needed last.
//!
//! Source: external merge sort (Knuth, The Art of Computer Programming, volume 3, section 5.4).
//!
//! Bounds: [`RUNS_BYTES_MAX`] of runs in memory, and while a segment becomes a run twice its size; on disk, the rows of the
//! segments that were begun and are not used up. There are as many of these as segments that were filled at the same time,
//! one a worker, and those with retried queries.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use idunno_shared::client::results::query_of;
use tempfile::TempDir;
use thiserror::Error;
use tokio::task::spawn_blocking;

use super::InconsistentResults;

/// Bytes of runs kept in memory.
pub(super) const RUNS_BYTES_MAX: usize = 64 << 20;
/// The folder of the runs on disk, in the data directory.
const FOLDER: &str = "merge";

/// A run cannot be kept.
#[derive(Debug, Error)]
pub enum RunError {
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("the disk has {usable_bytes} bytes free beyond its reserve, but a run needs {needed_bytes}")]
    NoSpace { needed_bytes: u64, usable_bytes: u64 },
    #[error(transparent)]
    Inconsistent(#[from] InconsistentResults),
    #[error("reading or writing a run was aborted: {0}")]
    Aborted(#[from] tokio::task::JoinError),
}

/// Where runs that do not fit into memory are put. Cheap to clone.
#[derive(Clone)]
pub struct Scratch {
    folder: PathBuf,
    usable_bytes: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Scratch {
    /// In a member's data directory, whose disk has so many bytes free beyond its reserve. What an earlier process left
    /// there is deleted.
    pub fn new(data_dir: &Path, usable_bytes: Arc<dyn Fn() -> u64 + Send + Sync>) -> Self {
        let folder = data_dir.join(FOLDER);
        // There is none as a rule.
        let _ = std::fs::remove_dir_all(&folder);
        Self { folder, usable_bytes }
    }

    fn create(&self) -> Result<TempDir, RunError> {
        let created = std::fs::create_dir_all(&self.folder).and_then(|()| TempDir::new_in(&self.folder));
        created.map_err(io_error("create a folder in", &self.folder))
    }

    fn check_space(&self, needed_bytes: u64) -> Result<(), RunError> {
        let usable_bytes = (self.usable_bytes)();
        if needed_bytes > usable_bytes {
            return Err(RunError::NoSpace { needed_bytes, usable_bytes });
        }
        Ok(())
    }
}

/// The rows of a segment that have not been used, as ranges of queries.
struct Run {
    rows: Rows,
    ranges: VecDeque<RunRange>,
}

enum Rows {
    Memory(Bytes),
    File(PathBuf),
}

struct RunRange {
    first_query: u64,
    bytes: Range<usize>,
}

/// The runs of one merge. Their files are deleted when this is dropped.
pub(super) struct Runs {
    scratch: Scratch,
    memory_max: usize,
    memory: usize,
    open: BTreeMap<usize, Run>,
    files: Option<TempDir>,
}

impl Runs {
    pub(super) fn new(scratch: Scratch, memory_max: usize) -> Self {
        Self { scratch, memory_max, memory: 0, open: BTreeMap::new(), files: None }
    }

    pub(super) fn is_open(&self, segment: usize) -> bool {
        self.open.contains_key(&segment)
    }

    /// Adds a segment, of whose rows those in `ranges` count. The ranges are in the order of the queries.
    pub(super) async fn open(
        &mut self,
        segment: usize,
        rows: Bytes,
        ranges: Vec<Range<u64>>,
    ) -> Result<(), RunError> {
        let run = spawn_blocking(move || sort(&rows, &ranges)).await??;
        if let Rows::Memory(rows) = &run.rows {
            self.memory += rows.len();
        }
        self.open.insert(segment, run);
        while self.memory > self.memory_max
            && let Some(segment) = self.needed_last()
        {
            self.spill(segment).await?;
        }
        Ok(())
    }

    /// The rows of a segment's next range, each with its line end. After its last range the segment is closed.
    pub(super) async fn next(&mut self, segment: usize) -> Result<Option<Bytes>, RunError> {
        let Some(run) = self.open.get_mut(&segment) else { return Ok(None) };
        let Some(RunRange { bytes, .. }) = run.ranges.pop_front() else { return Ok(None) };
        let rows = match &run.rows {
            Rows::Memory(rows) => rows.slice(bytes),
            Rows::File(path) => read(path.clone(), bytes).await?,
        };
        if run.ranges.is_empty() {
            self.close(segment)?;
        }
        Ok(Some(rows))
    }

    fn close(&mut self, segment: usize) -> Result<(), RunError> {
        match self.open.remove(&segment).map(|run| run.rows) {
            Some(Rows::Memory(rows)) => self.memory -= rows.len(),
            Some(Rows::File(path)) => std::fs::remove_file(&path).map_err(io_error("delete", &path))?,
            None => {}
        }
        Ok(())
    }

    /// The run in memory whose next row is needed last, unless it is the only one.
    fn needed_last(&self) -> Option<usize> {
        let in_memory = self.open.iter().filter(|(_, run)| matches!(run.rows, Rows::Memory(_)));
        let by_next =
            in_memory.map(|(segment, run)| (run.ranges.front().map(|next| next.first_query), segment));
        let by_next: Vec<_> = by_next.collect();
        if by_next.len() < 2 { None } else { by_next.into_iter().max().map(|(_, segment)| *segment) }
    }

    async fn spill(&mut self, segment: usize) -> Result<(), RunError> {
        if self.files.is_none() {
            self.files = Some(self.scratch.create()?);
        }
        let (Some(run), Some(files)) = (self.open.get_mut(&segment), &self.files) else { return Ok(()) };
        let Rows::Memory(rows) = &run.rows else { return Ok(()) };
        let (rows, path, scratch) =
            (rows.clone(), files.path().join(segment.to_string()), self.scratch.clone());
        self.memory -= rows.len();
        run.rows = Rows::File(path.clone());
        spawn_blocking(move || {
            scratch.check_space(rows.len() as u64)?;
            std::fs::write(&path, &rows).map_err(io_error("write", &path))
        })
        .await?
    }
}

/// The rows that count, in the order of their queries.
fn sort(segment: &Bytes, ranges: &[Range<u64>]) -> Result<Run, InconsistentResults> {
    let mut by_query: BTreeMap<u64, &[u8]> = BTreeMap::new();
    for line in segment.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let query = query_of(line).map_err(|error| InconsistentResults::MalformedRow(error.to_string()))?;
        by_query.insert(query, line);
    }
    let mut rows = Vec::with_capacity(segment.len() + 1);
    let mut run_ranges = VecDeque::with_capacity(ranges.len());
    for range in ranges {
        let start = rows.len();
        for query in range.clone() {
            let row = by_query.get(&query).ok_or(InconsistentResults::NoRow(query))?;
            rows.extend_from_slice(row);
            rows.push(b'\n');
        }
        run_ranges.push_back(RunRange { first_query: range.start, bytes: start..rows.len() });
    }
    Ok(Run { rows: Rows::Memory(rows.into()), ranges: run_ranges })
}

async fn read(path: PathBuf, bytes: Range<usize>) -> Result<Bytes, RunError> {
    spawn_blocking(move || {
        let mut rows = vec![0; bytes.len()];
        let file = std::fs::File::open(&path);
        let read = file.and_then(|file| file.read_exact_at(&mut rows, bytes.start as u64));
        read.map_err(io_error("read", &path))?;
        Ok(rows.into())
    })
    .await?
}

fn io_error(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> RunError {
    move |source| RunError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(queries: &[u64]) -> Bytes {
        let lines: Vec<String> = queries.iter().map(|query| format!("{{\"query\":{query}}}\n")).collect();
        lines.concat().into()
    }

    fn scratch(folder: &Path, usable_bytes: u64) -> Scratch {
        Scratch::new(folder, Arc::new(move || usable_bytes))
    }

    #[tokio::test]
    async fn rows_come_in_the_order_of_the_queries_from_memory_and_from_disk() {
        let folder = tempfile::tempdir().unwrap();
        // 0 keeps the newest run only.
        for memory_max in [usize::MAX, 0] {
            let mut runs = Runs::new(scratch(folder.path(), u64::MAX), memory_max);
            runs.open(0, rows(&[7, 3, 9, 2]), vec![2..4, 9..10]).await.unwrap();
            runs.open(1, Bytes::from_static(b"{\"query\":8}\n{\"query\":5}"), vec![5..6, 8..9])
                .await
                .unwrap();
            runs.open(2, rows(&[30]), vec![Range { start: 30, end: 31 }]).await.unwrap();
            for (segment, expected) in [(0, rows(&[2, 3])), (1, rows(&[5])), (1, rows(&[8])), (0, rows(&[9]))]
            {
                assert_eq!(runs.next(segment).await.unwrap(), Some(expected));
            }
            assert!(!runs.is_open(0) && !runs.is_open(1) && runs.is_open(2));
            let on_disk = std::fs::read_dir(folder.path().join(FOLDER)).map_or(0, Iterator::count);
            assert_eq!(on_disk, usize::from(memory_max == 0));
        }
        let left = std::fs::read_dir(folder.path().join(FOLDER)).unwrap().count();
        assert_eq!(left, 0, "files end with their merge");
    }

    #[tokio::test]
    async fn a_run_that_is_incomplete_or_has_no_room_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut runs = Runs::new(scratch(folder.path(), 10), 0);
        let missing = runs.open(0, rows(&[1]), vec![Range { start: 1, end: 3 }]).await.unwrap_err();
        assert!(missing.to_string().contains("query 2"), "{missing}");
        let malformed = runs.open(0, Bytes::from_static(b"nonsense\n"), Vec::new()).await.unwrap_err();
        assert!(malformed.to_string().contains("malformed"), "{malformed}");
        runs.open(0, rows(&[1]), vec![Range { start: 1, end: 2 }]).await.unwrap();
        let full = runs.open(1, rows(&[2]), vec![Range { start: 2, end: 3 }]).await.unwrap_err();
        assert!(matches!(full, RunError::NoSpace { needed_bytes: 12, usable_bytes: 10 }), "{full}");
    }

    #[test]
    fn what_an_earlier_process_left_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join(FOLDER).join("x");
        std::fs::create_dir_all(&left).unwrap();
        scratch(folder.path(), 0);
        assert!(!left.exists());
    }
}
