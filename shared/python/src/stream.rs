//! What the cluster gives bit by bit, in chunks: the rows of a job, events.
//!
//! A task reads ahead of Python. Bounds: [`CHUNKS_AHEAD`] chunks, besides what the task itself holds.

use std::sync::Arc;

use idunno_console::answer::Failure;
use pyo3::prelude::*;
use tokio::sync::{Mutex, mpsc};
use tokio::task::AbortHandle;

use crate::errors::raise;
use crate::operation::{Operation, Value};
use crate::runtime::{self, PerProcess};

/// Chunks that are read ahead.
const CHUNKS_AHEAD: usize = 4;

/// Lines of JSON, or why there are none.
type Chunk = Result<Vec<u8>, Failure>;

/// Takes chunks for Python.
pub(crate) struct Sink(mpsc::Sender<Chunk>);

impl Sink {
    /// Waits until there is room. Whether Python may still read on.
    pub(crate) async fn put(&self, chunk: Chunk) -> bool {
        self.0.send(chunk).await.is_ok()
    }
}

struct Reading {
    chunks: Arc<Mutex<mpsc::Receiver<Chunk>>>,
    task: AbortHandle,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Lines of JSON, in chunks.
#[pyclass(frozen, module = "idunno._native")]
pub(crate) struct Stream(PerProcess<Reading>);

impl Stream {
    /// Starts a task that reads. The caller holds the interpreter's lock.
    pub(crate) fn spawn<Read>(read: impl FnOnce(Sink) -> Read) -> PyResult<Self>
    where
        Read: Future<Output = ()> + Send + 'static,
    {
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let runtime = runtime::handle().map_err(|failure| raise(&failure))?;
        let task = runtime.spawn(read(Sink(sender)));
        let chunks = Arc::new(Mutex::new(chunks));
        Ok(Self(PerProcess::new(Reading { chunks, task: task.abort_handle() })))
    }
}

#[pymethods]
impl Stream {
    /// An operation that gives the next lines, or nothing if there are no more.
    fn next(&self) -> PyResult<Operation> {
        let reading = self.0.get().ok_or_else(|| {
            raise(&Failure::error("this was begun before os.fork(): begin it again in the child"))
        })?;
        let chunks = Arc::clone(&reading.chunks);
        Operation::spawn(async move {
            match chunks.lock().await.recv().await {
                Some(Ok(lines)) => Ok(Value::Lines(lines.into())),
                Some(Err(failure)) => Err(failure),
                None => Ok(Value::Nothing),
            }
        })
    }
}
