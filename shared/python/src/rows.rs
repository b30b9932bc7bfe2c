//! A job's rows while it runs, in chunks of about [`CHUNK_BYTES`]. [`RowStream`] says what it holds itself.

use idunno_console::answer::Failure;
use idunno_console::command::JobRef;
use idunno_console::execute::job_lookup::resolve;
use idunno_console::session::Session;
use idunno_shared::client::results::RowStream;

use crate::stream::Sink;

/// Rows that are given to Python at once, in bytes.
const CHUNK_BYTES: usize = 256 << 10;

/// Reads until the job is done, or the rows are not wanted any more.
pub(crate) async fn read(session: Session, job: JobRef, only_failed: bool, sink: Sink) {
    if let Err(failure) = try_read(&session, &job, only_failed, &sink).await {
        // Who does not read on needs no reason.
        let _ = sink.put(Err(failure)).await;
    }
}

async fn try_read(session: &Session, job: &JobRef, only_failed: bool, sink: &Sink) -> Result<(), Failure> {
    let job = resolve(session, job).await?.id;
    let mut stream =
        RowStream::new(session.files(), job).only_failed(only_failed).silence_max(session.timeout);
    while let Some(rows) = stream.next().await? {
        let mut chunk = Vec::new();
        for row in rows {
            chunk.extend_from_slice(row.as_bytes());
            chunk.push(b'\n');
            if chunk.len() >= CHUNK_BYTES && !sink.put(Ok(std::mem::take(&mut chunk))).await {
                return Ok(());
            }
        }
        if !chunk.is_empty() && !sink.put(Ok(chunk)).await {
            return Ok(());
        }
    }
    Ok(())
}
