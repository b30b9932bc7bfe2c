//! Faults of the disk on demand, for tests of real processes: a file beside the store makes its writes fail or hang for
//! as long as it is there. Compiled out of releases.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::StoreFault;

const POLL: Duration = Duration::from_millis(20);

pub(super) struct Faults {
    hang: PathBuf,
    fail: PathBuf,
}

impl Faults {
    /// Asked for by `metadata.redb.hang` and `metadata.redb.fail`.
    pub(super) fn beside(store: &Path) -> Self {
        Self { hang: store.with_extension("redb.hang"), fail: store.with_extension("redb.fail") }
    }

    /// What a write meets before it is made.
    pub(super) fn meet(&self) -> Result<(), StoreFault> {
        while self.hang.exists() {
            std::thread::sleep(POLL);
        }
        if self.fail.exists() {
            return Err(StoreFault::new("write the metadata", &"a test wants it to fail"));
        }
        Ok(())
    }
}
