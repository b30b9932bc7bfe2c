//! The runtime, made on first use, and again in a forked child.
//!
//! A child has a copy of its parent's memory, but none of its threads, and it shares the parent's sockets and queues. So what
//! belongs to a runtime is kept as [`PerProcess`]: a child neither uses nor drops what its parent made. Python forks while it
//! holds its own lock, and locks here are only held under it, so none of them is held in a child.

use std::sync::{Mutex, PoisonError};

use idunno_console::answer::Failure;
use tokio::runtime::{Builder, Handle, Runtime};

/// Threads of the runtime. Python's part of the work is more than theirs.
const THREADS: usize = 2;

static RUNTIME: Mutex<Option<PerProcess<Runtime>>> = Mutex::new(None);

/// A value of the process that made it. In another one it is not there, and not dropped: that would take the parent's
/// sockets out of queues that both share.
pub(crate) struct PerProcess<T> {
    pid: u32,
    value: Option<T>,
}

impl<T> PerProcess<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { pid: std::process::id(), value: Some(value) }
    }

    /// The value, unless this process is a forked child of the one that made it.
    pub(crate) fn get(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.pid == std::process::id())
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            std::mem::forget(self.value.take());
        }
    }
}

/// This process's runtime.
pub(crate) fn handle() -> Result<Handle, Failure> {
    let mut current = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = current.as_ref().and_then(PerProcess::get) {
        return Ok(runtime.handle().clone());
    }
    let runtime =
        Builder::new_multi_thread().worker_threads(THREADS).thread_name("idunno").enable_all().build();
    let runtime = runtime.map_err(|error| Failure::error(format!("cannot start threads: {error}")))?;
    let handle = runtime.handle().clone();
    *current = Some(PerProcess::new(runtime));
    Ok(handle)
}
