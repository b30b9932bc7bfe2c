//! How far commands are, counted by their tasks and read by the console's loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use idunno_shared::client::files::{NoProgress, Progress};

use crate::session::Reporter;

/// Tells nobody.
pub struct Silent;

impl Reporter for Silent {
    fn start(&self, _label: &str, _files: u64, _bytes: u64) -> Box<dyn Progress> {
        Box::new(NoProgress)
    }
}

/// How far a command is, counted for the screen.
#[derive(Clone, Default)]
pub struct Counters {
    files: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Counters {
    /// Files and bytes done.
    pub fn done(&self) -> (u64, u64) {
        (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

impl Reporter for Counters {
    fn start(&self, _label: &str, _files: u64, _bytes: u64) -> Box<dyn Progress> {
        self.files.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        Box::new(self.clone())
    }
}

impl Progress for Counters {
    fn bytes(&self, count: u64) {
        self.bytes.fetch_add(count, Ordering::Relaxed);
    }

    fn file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }
}
