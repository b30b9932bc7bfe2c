//! A job's rows while it runs, in chunks.
//!
//! A task reads ahead of Python. Bounds: [`CHUNKS_AHEAD`] chunks of about [`CHUNK_BYTES`], beside what
//! [`RowStream`] holds itself.

use std::sync::Arc;

use idunno_console::answer::Failure;
use idunno_console::command::JobRef;
use idunno_console::execute::jobs::resolve;
use idunno_console::session::Session;
use idunno_shared::client::results::RowStream;
use pyo3::prelude::*;
use tokio::sync::{Mutex, mpsc};
use tokio::task::AbortHandle;

use crate::errors::raise;
use crate::operation::{Operation, Value};
use crate::runtime::{self, PerProcess};

/// Rows that are given to Python at once, in bytes.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that are read ahead.
const CHUNKS_AHEAD: usize = 4;

type Chunks = mpsc::Receiver<Result<Vec<u8>, Failure>>;

struct Reading {
    chunks: Arc<Mutex<Chunks>>,
    task: AbortHandle,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The rows of one job.
#[pyclass(frozen, module = "idunno._native")]
pub(crate) struct Rows(PerProcess<Reading>);

impl Rows {
    pub(crate) fn open(session: Session, job: JobRef, only_failed: bool) -> PyResult<Self> {
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let runtime = runtime::handle().map_err(|failure| raise(&failure))?;
        let task = runtime.spawn(async move {
            if let Err(failure) = read(&session, &job, only_failed, &sender).await {
                // Who does not read on needs no reason.
                let _ = sender.send(Err(failure)).await;
            }
        });
        let chunks = Arc::new(Mutex::new(chunks));
        Ok(Self(PerProcess::new(Reading { chunks, task: task.abort_handle() })))
    }
}

async fn read(
    session: &Session,
    job: &JobRef,
    only_failed: bool,
    sender: &mpsc::Sender<Result<Vec<u8>, Failure>>,
) -> Result<(), Failure> {
    let job = resolve(session, job).await?.id;
    let mut stream =
        RowStream::new(session.files(), job).only_failed(only_failed).silence_max(session.timeout);
    while let Some(rows) = stream.next().await? {
        let mut chunk = Vec::new();
        for row in rows {
            chunk.extend_from_slice(row.as_bytes());
            chunk.push(b'\n');
            if chunk.len() >= CHUNK_BYTES && sender.send(Ok(std::mem::take(&mut chunk))).await.is_err() {
                return Ok(());
            }
        }
        if !chunk.is_empty() && sender.send(Ok(chunk)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

#[pymethods]
impl Rows {
    /// An operation that gives the next rows, each a line of JSON, or nothing once all were given.
    fn next(&self) -> PyResult<Operation> {
        let reading = self.0.get().ok_or_else(|| {
            raise(&Failure::error("these rows were begun before os.fork(): begin them again in the child"))
        })?;
        let chunks = Arc::clone(&reading.chunks);
        Operation::spawn(async move {
            match chunks.lock().await.recv().await {
                Some(Ok(lines)) => Ok(Value::Lines(lines)),
                Some(Err(failure)) => Err(failure),
                None => Ok(Value::Nothing),
            }
        })
    }
}
