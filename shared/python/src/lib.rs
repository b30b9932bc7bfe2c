//! The native part of the Python package `idunno`.
//!
//! It wraps the typed client behind three classes: [`client::Client`] begins work, [`operation::Operation`] is work that can
//! be waited for or awaited, [`stream::Stream`] gives the rows of a job while it runs, or events. Commands go through the
//! grammar and the executor of the command line (`idunno-console`), so that words, codes and documents are the same. What
//! is Python's own, such as data frames and models, is written in Python.
//!
//! What must stay absent: a wait that holds the interpreter's lock, a Rust lock that is held while that lock is taken, a
//! runtime or a thread before it is needed.

use pyo3::prelude::*;

mod client;
mod errors;
mod events;
mod operation;
mod rows;
mod runtime;
mod stream;

#[pymodule]
mod _native {
    use std::ffi::OsString;
    use std::time::Duration;

    use pyo3::prelude::*;

    #[pymodule_export]
    use super::client::Client;
    #[pymodule_export]
    use super::operation::Operation;
    #[pymodule_export]
    use super::stream::Stream;
    use crate::operation::Value;

    /// Runs the command line with its words, the program's name first; returns its exit code.
    #[pyfunction]
    fn main(py: Python<'_>, words: Vec<OsString>) -> u8 {
        py.detach(|| idunno_console::run(words))
    }

    /// An operation that ends after some time.
    #[pyfunction]
    fn sleep(seconds: f64) -> PyResult<Operation> {
        let time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Operation::spawn(async move {
            tokio::time::sleep(time).await;
            Ok(Value::Nothing)
        })
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
