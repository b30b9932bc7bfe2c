//! Rows as Parquet: the types of the columns are those of all rows, so the rows wait in a file beside the target until all
//! are there.
//!
//! Bounds: a row group in memory; the rows once more on the disk, as JSON, while they are written.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use idunno_columnar::WriteError;
use idunno_columnar::results::{ResultsWriter, RowTypes};
use idunno_shared::client::files::atomic_file::GrowingFile;
use idunno_shared::wire::control::JobView;
use tokio::task::spawn_blocking;

use crate::answer::{Exit, Failure};

/// Fails if no Parquet file can be written there.
pub(super) fn check(local: Option<&Path>) -> Result<(), Failure> {
    if !idunno_columnar::IS_BUILT {
        return Err(Failure::new(Exit::Refused, WriteError::NotBuilt.to_string()));
    }
    if local.is_none() {
        return Err(Failure::new(
            Exit::Usage,
            "Parquet needs a file: name one, as in 'idunno get-job-results job-1 results.parquet --format parquet'",
        ));
    }
    Ok(())
}

/// Rows on their way into a Parquet file.
pub(super) struct Spool {
    target: PathBuf,
    rows: Mutex<Rows>,
}

struct Rows {
    file: BufWriter<File>,
    types: RowTypes,
}

impl Spool {
    /// Makes the file in which rows of a job wait.
    pub(super) fn create(target: &Path, view: &JobView) -> Result<Self, Failure> {
        let kept = match &view.details.records {
            None => Some(Vec::new()),
            Some(format) => format.kept().map(|names| names.into_iter().map(ToString::to_string).collect()),
        };
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let file = tempfile::tempfile_in(folder.unwrap_or_else(|| Path::new(".")));
        let file = file.map_err(|error| Failure::target(target, &error))?;
        let rows = Rows { file: BufWriter::new(file), types: RowTypes::new(kept) };
        Ok(Self { target: target.to_owned(), rows: Mutex::new(rows) })
    }

    /// Takes rows, each with its line end.
    pub(super) fn take(&self, lines: &str) -> Result<(), Failure> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        for row in lines.lines() {
            rows.types.observe(row).map_err(|error| failed(&self.target, error))?;
        }
        rows.file.write_all(lines.as_bytes()).map_err(|error| Failure::target(&self.target, &error))
    }

    /// Writes the Parquet file, which is whole or as before.
    pub(super) async fn finish(self) -> Result<(), Failure> {
        let write = move || self.write();
        spawn_blocking(write).await.unwrap_or_else(|error| Err(Failure::error(error.to_string())))
    }

    fn write(self) -> Result<(), Failure> {
        let Self { target, rows } = self;
        let Rows { file, types } = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
        let written = || -> Result<(), WriteError> {
            let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.rewind()?;
            let mut writer = ResultsWriter::new(Out(GrowingFile::create(&target)?), &types)?;
            for row in BufReader::new(file).lines() {
                writer.write(&row?)?;
            }
            let Out(out) = writer.finish()?;
            Ok(out.finish()?)
        };
        written().map_err(|error| failed(&target, error))
    }
}

fn failed(target: &Path, error: WriteError) -> Failure {
    match error {
        WriteError::Io(error) => Failure::target(target, &error),
        other => Failure::error(other.to_string()),
    }
}

struct Out(GrowingFile);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parquet_needs_a_file_and_a_program_that_writes_it() {
        let (file, refused) = (Path::new("a.parquet"), check(None).unwrap_err());
        if idunno_columnar::IS_BUILT {
            assert!(check(Some(file)).is_ok() && refused.message.contains("needs a file"), "{refused:?}");
        } else {
            assert!(check(Some(file)).unwrap_err().message.contains("was built without Parquet: install"));
        }
    }

    #[cfg(feature = "parquet")]
    #[tokio::test]
    async fn a_file_is_written_whole_or_not_at_all() {
        use idunno_shared::wire::control::JobState;

        use super::super::tests::job;

        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("rows.parquet");
        let spool = Spool::create(&target, &job(JobState::Done, 2, 2, 0)).unwrap();
        spool.take("{\"query\":0,\"output\":[0.5]}\n{\"query\":1,\"error\":\"no\"}\n").unwrap();
        assert!(spool.take("nonsense\n").is_err());
        assert!(!target.exists());
        let spool = Spool::create(&target, &job(JobState::Done, 1, 1, 0)).unwrap();
        spool.take("{\"query\":0,\"output\":[0.5]}\n").unwrap();
        spool.finish().await.unwrap();
        let bytes = std::fs::read(&target).unwrap();
        assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
