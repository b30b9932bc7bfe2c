//! A finished job's rows as objects of a bucket: parts of JSON lines in the order of the queries, then a manifest.
//!
//! An object is created or found: nothing is ever replaced. So a run that was interrupted is repeated, and writes what is
//! missing; readers that wait for the manifest see all rows or none. Bounds: a part is in memory; the rows are in a temporary
//! file first.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use bytes::Bytes;
use idunno_references::{Created, ObjectClient, Trust, WriteError};
use idunno_shared::ids::Digest;
use idunno_shared::wire::control::JobView;
use idunno_shared::wire::references::ReferenceSource;
use serde::Serialize;

use super::in_order::{self, Out};
use crate::answer::results::ResultsFile;
use crate::answer::{Answer, Exit, Failure, text};
use crate::command::values::RowFormat;
use crate::execute::temporary_folder;
use crate::session::Session;

/// A part takes no further row once it is so large.
const PART_BYTES: usize = 64 << 20;
const MANIFEST: &str = "manifest.json";

/// What the manifest says of a part.
#[derive(Debug, PartialEq, Serialize)]
struct Part {
    name: String,
    rows: u64,
    bytes: u64,
    blake3: String,
}

/// The object that is written last.
#[derive(Serialize)]
struct Manifest<'a> {
    job: String,
    model: &'a str,
    version: Option<String>,
    dataset: &'a str,
    rows: u64,
    dead_letters: u64,
    parts: &'a [Part],
}

/// Whether results are to be written outside this machine.
pub(super) fn is_bucket(target: &Path) -> bool {
    let target = target.to_string_lossy();
    ["s3://", "s3a://", "gs://", "az://"].iter().any(|scheme| target.starts_with(scheme))
}

/// Writes all rows below a URL.
pub(super) async fn write(
    session: &Session,
    view: &JobView,
    url: &str,
    source: &ReferenceSource,
) -> Result<Answer, Failure> {
    if !in_order::is_merged(view) {
        let (state, _) = text::job_state(&view.state);
        let why = format!("{} is {state}: results go to a bucket once a job is done", view.id);
        return Err(Failure::new(Exit::Refused, why));
    }
    let folder = temporary_folder("idunno-results-")?;
    let rows = folder.path().join("rows");
    in_order::write(session, view, RowFormat::Jsonl, Out::<fn(&str) -> _>::file(&rows).await?).await?;
    let bucket = Bucket { client: ObjectClient::new(&Trust::Everything), url, source };
    let (mut parts, mut found) = (Vec::new(), 0);
    let mut reader = BufReader::new(File::open(&rows).map_err(|error| no_temporary_file(&error))?);
    while let Some((count, bytes)) = next_part(&mut reader).map_err(|error| no_temporary_file(&error))? {
        let name = format!("part-{:05}.jsonl", parts.len());
        let digest = Digest::of(&bytes).to_string();
        parts.push(Part { rows: count, bytes: bytes.len() as u64, blake3: digest, name: name.clone() });
        found += u64::from(bucket.create(&name, bytes.into()).await? == Created::Found);
    }
    let manifest = Manifest {
        job: view.id.to_string(),
        model: view.model.as_str(),
        version: view.version.map(|version| version.to_string()),
        dataset: view.dataset.as_str(),
        rows: view.submitted,
        dead_letters: view.dead,
        parts: &parts,
    };
    let manifest = serde_json::to_vec_pretty(&manifest).map_err(|error| Failure::error(error.to_string()))?;
    bucket.create(MANIFEST, manifest.into()).await?;
    let document = ResultsFile::new(view, view.submitted, Path::new(url));
    let there = if found > 0 { format!(", {found} of them there already") } else { String::new() };
    let text = format!(
        "{}: {} rows ({} dead) in {} at {url}{there}",
        view.id,
        view.submitted,
        view.dead,
        text::count(parts.len() as u64, "part")
    );
    Ok(Answer::new(&document, text))
}

/// The next rows of a part, and how many these are.
fn next_part(reader: &mut BufReader<File>) -> io::Result<Option<(u64, Vec<u8>)>> {
    let (mut rows, mut bytes) = (0, Vec::new());
    while bytes.len() < PART_BYTES && reader.read_until(b'\n', &mut bytes)? > 0 {
        rows += 1;
    }
    Ok((rows > 0).then_some((rows, bytes)))
}

fn no_temporary_file(error: &io::Error) -> Failure {
    Failure::error(format!("cannot keep the rows in a temporary file: {error}"))
}

struct Bucket<'a> {
    client: ObjectClient,
    url: &'a str,
    source: &'a ReferenceSource,
}

impl Bucket<'_> {
    async fn create(&self, name: &str, content: Bytes) -> Result<Created, Failure> {
        let url = format!("{}/{name}", self.url.trim_end_matches('/'));
        let created = self.client.create(self.source, &url, content).await;
        created.map_err(|error| {
            let exit = match error {
                WriteError::NotBuilt | WriteError::Failed { .. } => Exit::Error,
                WriteError::Url { .. } => Exit::Usage,
                WriteError::Differs { .. } => Exit::Refused,
            };
            Failure::new(exit, error.to_string())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn parts_end_between_rows_and_hold_all_of_them() {
        let mut file = tempfile::tempfile().unwrap();
        let row = "x".repeat(PART_BYTES / 2 - 1) + "\n";
        for _ in 0..5 {
            file.write_all(row.as_bytes()).unwrap();
        }
        io::Seek::rewind(&mut file).unwrap();
        let mut reader = BufReader::new(file);
        let mut parts = Vec::new();
        while let Some((rows, bytes)) = next_part(&mut reader).unwrap() {
            assert!(bytes.ends_with(b"\n") && bytes.len() <= PART_BYTES + row.len());
            parts.push(rows);
        }
        assert_eq!(parts, [2, 2, 1]);
    }

    #[test]
    fn only_urls_of_buckets_are_buckets() {
        for (target, expected) in
            [("s3://b/out/", true), ("gs://b", true), ("s3:/b", false), ("out/s3://x", false), ("az", false)]
        {
            assert_eq!(is_bucket(Path::new(target)), expected, "{target}");
        }
    }
}
