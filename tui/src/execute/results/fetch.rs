//! `get-job-results`: fetches segments, verified, and writes the rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use idunno_shared::client::files::Files;
use idunno_shared::ids::JobId;
use idunno_shared::wire::control::{ControlReply, ControlRequest, JobState, JobView, PlacedBlob};
use serde_json::json;

use super::{Merge, ResultsError};
use crate::execute::jobs::{all_dead_letters, page_limit};
use crate::execute::{Answer, Data, Exit, Failure, Session};

/// How often the rows of a job that changes meanwhile are read before the difference is called a fault.
const ATTEMPTS_MAX: u32 = 5;
/// Segments that are fetched at once.
const SEGMENTS_IN_FLIGHT: usize = 16;

/// `get-job-results`.
pub async fn get(session: &Session, job: JobId, local: Option<PathBuf>) -> Result<Answer, Failure> {
    let (view, rows) = collect(session, job).await?;
    let pending = view.submitted.saturating_sub(rows.len() as u64);
    let (state, _) = crate::execute::text::job_state(&view.state);
    let note = format!("{job} is {state}: {} of {} rows", rows.len(), view.submitted);
    let answer = match local.filter(|path| path.as_os_str() != "-") {
        None => {
            let lines: Vec<String> = rows.into_values().collect();
            Answer { data: Data::Lines, text: lines.join("\n"), incomplete: None }
        }
        Some(path) => {
            write(&path, &rows).await?;
            let text = format!("{job}: {} rows ({} dead) in {}", rows.len(), view.dead, path.display());
            let data = json!({"job": job.to_string(), "rows": rows.len(), "dead": view.dead,
                "pending": pending, "file": path});
            Answer::new(data, text)
        }
    };
    Ok(if view.state == JobState::Done { answer } else { answer.incomplete(note) })
}

/// The rows, read again while the job's figures move under the reading.
async fn collect(session: &Session, job: JobId) -> Result<(JobView, BTreeMap<u64, String>), Failure> {
    let files = session.files();
    let mut attempt = 1;
    loop {
        let (view, merge) = read(session, &files, job).await?;
        match merge.finish(&view) {
            Ok(rows) => return Ok((view, rows)),
            // Dead letters and segments are two readings: between them a query may have died or been retried.
            Err(
                ResultsError::Figures { .. } | ResultsError::Repeated { .. } | ResultsError::Missing { .. },
            ) if attempt < ATTEMPTS_MAX && !settled(session, &view).await? => {
                attempt += 1;
            }
            Err(error) => return Err(Failure::error(format!("the results of {job} are wrong: {error}"))),
        }
    }
}

/// Whether the job's figures are still those of `view`.
async fn settled(session: &Session, view: &JobView) -> Result<bool, Failure> {
    let now = crate::execute::jobs::job_views(session, Some(view.id)).await?;
    Ok(now.iter().any(|job| job.done == view.done && job.dead == view.dead && job.state == view.state))
}

async fn read(session: &Session, files: &Files, job: JobId) -> Result<(JobView, Merge), Failure> {
    let mut merge = Merge::default();
    for letter in all_dead_letters(session, job).await? {
        merge.dead_letter(&letter);
    }
    let mut skip = 0;
    let mut progress = None;
    loop {
        let request = ControlRequest::Results { job, skip, limit: page_limit() };
        let ControlReply::Results { segments, more, job: view } = session.cluster().control(request).await?
        else {
            return Err(Failure::unexpected());
        };
        let display =
            progress.get_or_insert_with(|| session.reporter.start("segments", segments.len() as u64, 0));
        for group in segments.chunks(SEGMENTS_IN_FLIGHT) {
            let placed: Vec<PlacedBlob> = group.iter().map(|view| view.segment.clone()).collect();
            for (bytes, segment) in files.fetch_blobs(&placed).await.into_iter().zip(group) {
                merge.segment(&bytes?, &segment.ranges).map_err(|error| {
                    Failure::error(format!("segment {} of {job}: {error}", segment.segment.blob.digest))
                })?;
                display.file();
            }
        }
        skip += segments.len() as u64;
        if !more || segments.is_empty() {
            return Ok((view, merge));
        }
    }
}

/// Writes the rows beside the target, then renames: the target is whole or as before.
async fn write(path: &Path, rows: &BTreeMap<u64, String>) -> Result<(), Failure> {
    let wrong = |error: std::io::Error| {
        Failure::new(Exit::Error, format!("cannot write {}: {error}", path.display()))
    };
    if path.is_dir() {
        return Err(Failure::error(format!("cannot write {}: it is a directory", path.display())));
    }
    let mut text = String::with_capacity(rows.values().map(|row| row.len() + 1).sum());
    for row in rows.values() {
        text.push_str(row);
        text.push('\n');
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}.part", std::process::id()));
    let written = async {
        tokio::fs::write(&aside, text).await?;
        tokio::fs::rename(&aside, path).await
    };
    if let Err(error) = written.await {
        // The fault to tell of is the first one.
        let _ = tokio::fs::remove_file(&aside).await;
        return Err(wrong(error));
    }
    Ok(())
}
