//! Copies and moves of files: the content of one file becomes versions of another, and no byte moves.
//!
//! The log itself finds the content, so that no time passes between finding and committing it: what is copied is never
//! content that is about to be deleted.

use std::collections::BTreeSet;
use std::sync::Arc;

use idunno_shared::names::FileName;
use idunno_shared::wire::control::{Changed, FileCopy, ITEMS_PER_REQUEST_MAX};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};

use super::State;
use super::files::{FileRecord, VersionRecord};

impl State {
    /// Copies the newest version of each first file to the second, or moves all kept versions. `replace`: the second may
    /// exist, and keeps its versions as far as a put would let it keep them.
    pub(super) fn copy_files(
        &mut self,
        copies: &[FileCopy],
        moves: bool,
        replace: bool,
    ) -> Result<Changed, Refusal> {
        check_names(copies)?;
        let sources =
            copies.iter().map(|copy| self.source(copy, replace)).collect::<Result<Vec<_>, Refusal>>()?;
        let mut committed = Vec::new();
        for (FileCopy { from, to }, source) in copies.iter().zip(sources) {
            let skipped = if moves { 0 } else { source.versions.len() - 1 };
            let mut number = 0;
            for version in &source.versions[skipped..] {
                number = self.add_copy(to, version);
            }
            committed.push(number);
            if moves {
                self.delete(from)?;
            }
        }
        Ok(Changed::Copied(committed))
    }

    fn source(&self, FileCopy { from, to }: &FileCopy, replace: bool) -> Result<Arc<FileRecord>, Refusal> {
        let missing = || Refusal::not_found(format!("there is no file '{from}': ls lists the files"));
        let source = self.files.get(from.as_str()).ok_or_else(missing)?;
        if !replace && self.file(to).is_some() {
            let message = format!("there is a file '{to}' already, which would get a new version");
            return Err(Refusal::new(RefusalCode::Conflict, message));
        }
        Ok(Arc::clone(source))
    }

    fn add_copy(&mut self, to: &FileName, version: &VersionRecord) -> u64 {
        self.reference(&version.extents);
        let attributes = version.attributes().cloned().unwrap_or_default();
        self.append_version(to, (version.size(), version.digest()), version.extents.clone(), attributes)
    }
}

/// Refuses a change in which the order of the files would matter.
fn check_names(copies: &[FileCopy]) -> Result<(), Refusal> {
    if copies.is_empty() || copies.len() > ITEMS_PER_REQUEST_MAX {
        let message =
            format!("{} files are to be copied; 1 to {ITEMS_PER_REQUEST_MAX} are allowed", copies.len());
        return Err(Refusal::invalid(message));
    }
    let mut seen = BTreeSet::new();
    match copies.iter().flat_map(|copy| [&copy.from, &copy.to]).find(|name| !seen.insert(*name)) {
        Some(name) => Err(Refusal::invalid(format!("'{name}' is named twice: copy it by itself"))),
        None => Ok(()),
    }
}
