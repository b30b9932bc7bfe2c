//! Work that runs beside Python, and that is waited for or awaited.
//!
//! One way to wait serves both faces of the package: blocking code calls [`Operation::wait`], a coroutine is woken by
//! [`Operation::when_done`]. A wait holds no lock of the interpreter, and looks for signals every [`SIGNAL_PERIOD`], so that
//! Ctrl-C ends it. (`pyo3-async-runtimes` has a runtime of its own, which a forked child cannot replace.)

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use idunno_console::answer::{Answer, Data, Exit, Failure};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::task::AbortHandle;

use crate::errors::{raise, raised};
use crate::runtime::{self, PerProcess};

/// How often a wait looks for signals.
const SIGNAL_PERIOD: Duration = Duration::from_millis(50);

/// What an operation gives.
pub(crate) enum Value {
    /// Nothing.
    Nothing,
    /// A document, if the command has one, and why it is incomplete, if it is.
    Answer { document: Option<String>, incomplete: Option<String> },
    /// Lines of JSON.
    Lines(Bytes),
}

impl From<Answer> for Value {
    fn from(answer: Answer) -> Self {
        let document = match answer.data {
            Data::Document(document) | Data::List { document, .. } => Some(document),
            Data::None | Data::Lines => None,
        };
        Self::Answer { document, incomplete: answer.incomplete }
    }
}

#[derive(Default)]
struct State {
    is_done: bool,
    /// Until it is taken.
    outcome: Option<Result<Value, Failure>>,
    callbacks: Vec<Py<PyAny>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    done: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first outcome counts.
    fn finish(&self, outcome: Result<Value, Failure>) {
        let callbacks = {
            let mut state = self.lock();
            if state.is_done {
                return;
            }
            state.is_done = true;
            state.outcome = Some(outcome);
            std::mem::take(&mut state.callbacks)
        };
        self.done.notify_all();
        if !callbacks.is_empty() {
            // At the interpreter's end nobody is left to be told.
            Python::try_attach(|py| callbacks.iter().for_each(|callback| tell(py, callback)));
        }
    }

    /// Waits for at most so long. Whether the operation is done.
    fn wait(&self, most: Duration) -> bool {
        let waited = self.done.wait_timeout_while(self.lock(), most, |state| !state.is_done);
        waited.map_or_else(|poisoned| poisoned.into_inner().0.is_done, |(state, _)| state.is_done)
    }
}

fn tell(py: Python<'_>, callback: &Py<PyAny>) {
    if let Err(error) = callback.call0(py) {
        error.write_unraisable(py, None);
    }
}

/// Finishes an operation whose task ends in another way than by an outcome: it was cancelled, or it panicked.
struct Finisher(Arc<Shared>);

impl Drop for Finisher {
    fn drop(&mut self) {
        self.0.finish(Err(Failure::new(Exit::Interrupted, "the operation was cancelled")));
    }
}

struct Running {
    shared: Arc<Shared>,
    task: AbortHandle,
}

/// Work that runs beside Python.
#[pyclass(frozen, module = "idunno._native")]
pub(crate) struct Operation(PerProcess<Running>);

impl Operation {
    /// Begins an operation. The caller holds the interpreter's lock.
    pub(crate) fn spawn(
        work: impl Future<Output = Result<Value, Failure>> + Send + 'static,
    ) -> PyResult<Self> {
        let shared = Arc::new(Shared::default());
        let finisher = Finisher(Arc::clone(&shared));
        let runtime = runtime::handle().map_err(|failure| raise(&failure))?;
        let task = runtime.spawn(async move {
            let outcome = work.await;
            finisher.0.finish(outcome);
        });
        Ok(Self(PerProcess::new(Running { shared, task: task.abort_handle() })))
    }

    fn running(&self) -> PyResult<&Running> {
        let text =
            "this was begun before os.fork(), and ends in the parent only: begin it again in the child";
        self.0.get().ok_or_else(|| PyRuntimeError::new_err(text))
    }
}

#[pymethods]
impl Operation {
    /// Waits until it is done, or for so many seconds. Returns whether it is done. Signals are handled meanwhile.
    #[pyo3(signature = (timeout_s=None))]
    fn wait(&self, py: Python<'_>, timeout_s: Option<f64>) -> PyResult<bool> {
        let shared = Arc::clone(&self.running()?.shared);
        let until = timeout_s
            .and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok())
            .and_then(|most| Instant::now().checked_add(most));
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let most = left.map_or(SIGNAL_PERIOD, |left| left.min(SIGNAL_PERIOD));
            if py.detach(|| shared.wait(most)) {
                return Ok(true);
            }
            py.check_signals()?;
            if left.is_some_and(|left| left <= most) {
                return Ok(false);
            }
        }
    }

    /// What it gave; raises what it failed with. Once, after it is done; lines as often as they are asked for, so that a
    /// signal between this and their use loses none.
    fn result(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let shared = &self.running()?.shared;
        let outcome = {
            let mut state = shared.lock();
            if let Some(Ok(Value::Lines(lines))) = &state.outcome {
                Some(Ok(Value::Lines(lines.clone())))
            } else {
                state.outcome.take()
            }
        };
        let Some(outcome) = outcome else {
            return Err(PyRuntimeError::new_err(
                "the operation is not done, or its result was taken already",
            ));
        };
        match outcome.map_err(|failure| raised(py, &failure))? {
            Value::Nothing => Ok(py.None()),
            Value::Lines(lines) => Ok(PyBytes::new(py, &lines).into_any().unbind()),
            Value::Answer { document, incomplete } => {
                Ok((document, incomplete).into_pyobject(py)?.into_any().unbind())
            }
        }
    }

    /// Calls back from another thread when it is done, or at once if it is.
    fn when_done(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<()> {
        let running = self.running()?;
        let at_once = {
            let mut state = running.shared.lock();
            if state.is_done {
                Some(callback)
            } else {
                state.callbacks.push(callback);
                None
            }
        };
        if let Some(callback) = at_once {
            tell(py, &callback);
        }
        Ok(())
    }

    /// Ends it; what the cluster was asked before may be done nevertheless.
    fn cancel(&self) -> PyResult<()> {
        self.running()?.task.abort();
        Ok(())
    }
}
