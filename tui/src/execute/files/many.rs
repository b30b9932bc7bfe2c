//! `rm`, `cp`, `mv`: many files of the store at once, named by patterns.
//!
//! A change in the log has up to [`ITEMS_PER_REQUEST_MAX`] files and is made whole or not at all; more files are several
//! changes, and a failure says how many files came before it.

use std::collections::{BTreeMap, BTreeSet};

use idunno_shared::client::cluster::ClusterError;
use idunno_shared::names::{FileName, NameError};
use idunno_shared::wire::control::{
    Change, Changed, ControlRequest, FileCopy, FileSummary, ITEMS_PER_REQUEST_MAX,
};
use idunno_shared::wire::refusal::RefusalCode;

use super::pages;
use crate::answer::files::{CopiedFile, CopiedFiles, DeletedFiles};
use crate::answer::{Answer, Exit, Failure, text};
use crate::command::file_pattern::FilePattern;
use crate::execute::pages::page_limit;
use crate::session::Session;

/// The files that a pattern means, in name order; at least one.
pub(crate) async fn find(session: &Session, pattern: &FilePattern) -> Result<Vec<FileSummary>, Failure> {
    let limit = if pattern.is_name() { 1 } else { page_limit() };
    let prefix = pattern.prefix().to_owned();
    let request = |after| ControlRequest::List { prefix: prefix.clone(), after, limit };
    // A file whose name is the prefix sorts before all others that start with it.
    let mut found = pages(session, request, !pattern.is_name()).await?.files;
    found.retain(|file| pattern.matches(&file.name));
    if found.is_empty() {
        return Err(Failure::new(Exit::NotFound, format!("no file matches '{pattern}': ls lists the files")));
    }
    Ok(found)
}

/// Files, once each, and their bytes.
pub(in crate::execute) struct Found {
    pub(in crate::execute) names: BTreeSet<FileName>,
    pub(in crate::execute) size_bytes: u64,
    pub(in crate::execute) versions: u64,
}

/// All files that any of the patterns means.
pub(in crate::execute) async fn find_all(
    session: &Session,
    patterns: &[FilePattern],
) -> Result<Found, Failure> {
    let mut all = Found { names: BTreeSet::new(), size_bytes: 0, versions: 0 };
    for pattern in patterns {
        for file in find(session, pattern).await? {
            let (size, versions) = (file.size, file.versions);
            if all.names.insert(file.name) {
                all.size_bytes += size;
                all.versions += u64::from(versions);
            }
        }
    }
    Ok(all)
}

/// `rm`.
pub async fn remove(session: &Session, patterns: &[FilePattern], yes: bool) -> Result<Answer, Failure> {
    let Found { names, size_bytes, versions } = find_all(session, patterns).await?;
    let files = text::count(names.len() as u64, "file");
    if !yes {
        let all = text::count(versions, "version");
        let size = text::bytes(size_bytes);
        let question =
            format!("this permanently deletes {files} ({size} in the newest versions, {all} in all)");
        return Err(Failure::unconfirmed(question, "--yes"));
    }
    let names: Vec<FileName> = names.into_iter().collect();
    let (mut deleted, mut done) = (0, 0);
    for part in names.chunks(ITEMS_PER_REQUEST_MAX) {
        let changed = session.cluster().change(Change::DeleteFiles { names: part.to_vec() }).await;
        let changed = changed.map_err(|error| after(done, names.len(), "deleted", error.into()))?;
        let Changed::Deleted { versions } = changed else { return Err(Failure::unexpected()) };
        deleted += u64::from(versions);
        done += part.len();
    }
    let text = format!("{files} deleted, {}", text::count(deleted, "version"));
    Ok(Answer::new(&DeletedFiles { files: names.len() as u64, versions: deleted }, text))
}

/// What `cp` and `mv` were given.
pub struct Transfer {
    pub sources: Vec<FilePattern>,
    /// A file name, or a folder that ends in a slash.
    pub target: String,
    /// Whether targets may exist.
    pub force: bool,
    /// Whether the sources end.
    pub moves: bool,
}

impl Transfer {
    /// What would be copied where.
    pub(in crate::execute) async fn plan(&self, session: &Session) -> Result<Vec<FileCopy>, Failure> {
        let mut found = Vec::new();
        for source in &self.sources {
            let files = find(session, source).await?;
            found.push((source, files.into_iter().map(|file| file.name).collect()));
        }
        copies(found, &self.target)
    }
}

/// `cp` and `mv`.
pub async fn transfer(session: &Session, transfer: Transfer) -> Result<Answer, Failure> {
    let copies = transfer.plan(session).await?;
    let Transfer { force, moves, .. } = transfer;
    let (word, mut items) = (if moves { "moved" } else { "copied" }, Vec::new());
    for part in copies.chunks(ITEMS_PER_REQUEST_MAX) {
        let change = Change::CopyFiles { copies: part.to_vec(), moves, replace: force };
        let numbers = match session.cluster().change(change).await {
            Ok(Changed::Copied(numbers)) => numbers,
            Ok(_) => return Err(Failure::unexpected()),
            Err(error) => return Err(after(items.len(), copies.len(), word, refused(error, force))),
        };
        items.extend(part.iter().zip(numbers).map(|(FileCopy { from, to }, version)| CopiedFile {
            from: from.to_string(),
            to: to.to_string(),
            version,
        }));
    }
    let text = match &items[..] {
        [CopiedFile { from, to, version }] => format!("{from} {word} to {to}, version {version}"),
        many => format!("{} {word}", text::count(many.len() as u64, "file")),
    };
    Ok(Answer::new(&CopiedFiles { items }, text))
}

/// A target that exists may be confirmed.
fn refused(error: ClusterError, force: bool) -> Failure {
    match error.refused() {
        Some((RefusalCode::Conflict, why)) if !force => Failure::unconfirmed(why, "--force"),
        _ => error.into(),
    }
}

/// A failure after a number of the files.
fn after(done: usize, all: usize, word: &str, failure: Failure) -> Failure {
    if done == 0 {
        return failure;
    }
    let message =
        format!("{}; {done} of {} were {word} before", failure.message, text::count(all as u64, "file"));
    Failure { message, ..failure }
}

/// The copies of the names that each source means. Below a folder they keep their names behind that of the source's folder.
fn copies(found: Vec<(&FilePattern, Vec<FileName>)>, target: &str) -> Result<Vec<FileCopy>, Failure> {
    let usage = |why: String| Failure::new(Exit::Usage, why);
    let is_folder = target.ends_with('/');
    if !is_folder && !matches!(&found[..], [(source, _)] if source.is_name()) {
        return Err(usage(format!(
            "several files need a folder as target, which ends in a slash: '{target}/'"
        )));
    }
    let mut sources: BTreeMap<FileName, FileName> = BTreeMap::new();
    for (source, names) in found {
        for from in names {
            let rest = if is_folder { &from.as_str()[source.folder().len()..] } else { "" };
            let to: FileName =
                format!("{target}{rest}").parse().map_err(|error: NameError| usage(error.to_string()))?;
            if let Some(other) = sources.get(&to).filter(|other| **other != from) {
                return Err(usage(format!("{other} and {from} would both become '{to}'")));
            }
            sources.insert(to, from);
        }
    }
    let ends: BTreeSet<&FileName> = sources.values().collect();
    if let Some(name) = sources.keys().find(|to| ends.contains(to)) {
        return Err(usage(format!("'{name}' is both a source and a target")));
    }
    Ok(sources.into_iter().map(|(to, from)| FileCopy { from, to }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(sources: &[(&str, &[&str])], target: &str) -> Result<Vec<(String, String)>, String> {
        let patterns: Vec<FilePattern> = sources.iter().map(|(text, _)| text.parse().unwrap()).collect();
        let names = sources.iter().map(|(_, names)| names.iter().map(|name| name.parse().unwrap()).collect());
        let found = patterns.iter().zip(names).collect();
        let planned = copies(found, target).map_err(|failure| failure.message)?;
        Ok(planned.into_iter().map(|copy| (copy.from.to_string(), copy.to.to_string())).collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect()
    }

    #[test]
    fn files_keep_their_names_below_the_folder_of_the_source() {
        for (source, names, target, wanted) in [
            ("a/x", &["a/x"][..], "b", &[("a/x", "b")][..]),
            ("a/x", &["a/x"], "b/", &[("a/x", "b/x")]),
            ("a/", &["a/x", "a/c/y"], "b/", &[("a/c/y", "b/c/y"), ("a/x", "b/x")]),
            ("a/*.jpg", &["a/1.jpg"], "b/", &[("a/1.jpg", "b/1.jpg")]),
            ("**/*.jpg", &["a/1.jpg"], "b/", &[("a/1.jpg", "b/a/1.jpg")]),
        ] {
            assert_eq!(planned(&[(source, names)], target), Ok(pairs(wanted)), "{source} {target}");
        }
        let twice = [("a/x", &["a/x"][..]), ("a/", &["a/x"])];
        assert_eq!(planned(&twice, "b/"), Ok(pairs(&[("a/x", "b/x")])), "named twice, copied once");
    }

    #[test]
    fn what_would_lose_a_file_is_refused() {
        let both = [("a/x", &["a/x"][..]), ("c/x", &["c/x"])];
        assert_eq!(planned(&both, "b/").unwrap_err(), "a/x and c/x would both become 'b/x'");
        assert!(planned(&both, "b").unwrap_err().contains("'b/'"));
        assert!(planned(&[("a/*", &["a/x"])], "b").unwrap_err().contains("'b/'"));
        assert_eq!(planned(&[("a/", &["a/x"])], "a/").unwrap_err(), "'a/x' is both a source and a target");
        assert!(planned(&[("a", &["a"])], "../").is_err());
    }

    #[test]
    fn a_failure_says_what_came_before_it() {
        let failure = || Failure::new(Exit::Timeout, "no answer");
        assert_eq!(after(0, 9, "moved", failure()), failure());
        let later = after(1_024, 3_000, "moved", failure());
        assert_eq!(later.message, "no answer; 1024 of 3000 files were moved before");
    }
}
