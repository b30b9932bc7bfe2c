//! Failures as Python's exceptions, which are classes of the package: they have the words and the code of the command line.

use idunno_console::answer::Failure;
use pyo3::prelude::*;

/// The exception of a failure.
pub(crate) fn raised(py: Python<'_>, failure: &Failure) -> PyErr {
    let made = py
        .import("idunno._errors")
        .and_then(|errors| errors.call_method1("error_of", (failure.exit as u8, failure.message.as_str())));
    made.map_or_else(|error| error, PyErr::from_value)
}

/// The same where the caller holds the interpreter's lock, but not the token that says so.
pub(crate) fn raise(failure: &Failure) -> PyErr {
    Python::attach(|py| raised(py, failure))
}
