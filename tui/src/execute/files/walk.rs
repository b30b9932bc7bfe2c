//! Which files of a directory are put, under which names, and which are left out.
//!
//! Left out are files of systems and of other programs, what only a link reaches, and what is no file that can be read or
//! named. Each is counted under its reason. Nothing is opened but directories.
//!
//! Bounds: [`DEPTH_MAX`] directories below each other.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use idunno_shared::client::files::PutItem;
use idunno_shared::names::{DatasetName, FileName, NameError};
use idunno_shared::text::visible;
use walkdir::{DirEntry, WalkDir};

use crate::answer::files::LeftOut;
use crate::answer::{Exit, Failure, text};
use crate::command::selection::FileSelection;

/// Deepest directory that is entered.
const DEPTH_MAX: usize = 64;
/// Names that systems leave in directories, in any case.
const JUNK: [&str; 5] = [".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"];
/// Prefix of the files in which macOS keeps attributes of others.
const JUNK_PREFIX: &str = "._";
/// How many paths of a reason are named.
const NAMED_MAX: usize = 3;

/// Which files are wanted.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Of two patterns that match a file the later counts.
    pub patterns: Vec<Pattern>,
    /// Takes hidden files, and those of systems.
    pub hidden: bool,
    /// Follows links to directories, and links that lead out of the directory.
    pub follow_links: bool,
    /// Refuses to leave anything out that no pattern excludes.
    pub strict: bool,
}

/// A pattern of paths relative to the directory. One without a slash matches names at any depth.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// Whether it includes what it matches.
    pub includes: bool,
    /// What it matches.
    matcher: GlobMatcher,
    anywhere: bool,
}

impl Pattern {
    /// A pattern to include or exclude files.
    pub fn new(pattern: &str, includes: bool) -> Result<Self, Failure> {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        let glob =
            glob.map_err(|error| Failure::new(Exit::Usage, format!("pattern '{pattern}': {error}")))?;
        Ok(Self { includes, matcher: glob.compile_matcher(), anywhere: !pattern.contains('/') })
    }

    fn matches(&self, path: &Path) -> bool {
        let path = if self.anywhere { path.file_name().map_or(path, Path::new) } else { path };
        self.matcher.is_match(path)
    }
}

impl Selection {
    /// Why a file with this path, relative to what is listed, is left out, if it is.
    pub fn leaves_out(&self, path: &Path) -> Option<Reason> {
        let by_name = path.components().find_map(|part| self.by_name(&part.as_os_str().to_string_lossy()));
        by_name.or_else(|| self.by_pattern(path, false))
    }

    fn by_name(&self, name: &str) -> Option<Reason> {
        if self.hidden {
            return None;
        }
        let is_junk = JUNK.contains(&name.to_ascii_lowercase().as_str()) || name.starts_with(JUNK_PREFIX);
        if is_junk { Some(Reason::Junk) } else { name.starts_with('.').then_some(Reason::Hidden) }
    }

    fn by_pattern(&self, path: &Path, is_directory: bool) -> Option<Reason> {
        let matching = self.patterns.iter().rev().find(|pattern| pattern.matches(path));
        let is_excluded = match matching {
            Some(pattern) => !pattern.includes,
            // Where the first pattern includes, nothing else is wanted. A directory may contain what is.
            None => !is_directory && self.patterns.first().is_some_and(|first| first.includes),
        };
        is_excluded.then_some(Reason::Excluded)
    }
}

impl FileSelection {
    /// As the walk takes it; refused if a pattern is invalid.
    pub fn selection(&self) -> Result<Selection, Failure> {
        let patterns = self.patterns.iter().map(|(pattern, includes)| Pattern::new(pattern, *includes));
        Ok(Selection {
            patterns: patterns.collect::<Result<_, _>>()?,
            hidden: self.hidden,
            follow_links: self.follow_links,
            strict: self.strict,
        })
    }
}

/// Why a file is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// By a pattern.
    Excluded,
    /// Its name, or that of a directory in which it lies, starts with a dot.
    Hidden,
    /// A system left it there.
    Junk,
    /// It stands for a folder.
    Folder,
    /// A link to nothing.
    Dangling,
    /// A link to a directory that contains it.
    Circle,
    /// A link to a directory.
    LinkedDirectory,
    /// A link that leads out of the directory.
    LeadsOut,
    /// A socket, pipe or device.
    Special,
    /// It cannot be read.
    Unreadable,
    /// The store does not allow its name.
    BadName,
}

impl Reason {
    /// Whether people miss the file.
    fn is_loss(self) -> bool {
        matches!(self, Self::Unreadable | Self::BadName | Self::Dangling)
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Excluded => "excluded",
            Self::Hidden => "hidden",
            Self::Junk => "junk",
            Self::Folder => "folder",
            Self::Dangling => "dangling-link",
            Self::Circle => "circular-link",
            Self::LinkedDirectory => "directory-link",
            Self::LeadsOut => "outside-link",
            Self::Special => "special",
            Self::Unreadable => "unreadable",
            Self::BadName => "bad-name",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Excluded => "excluded",
            Self::Hidden => "hidden (--hidden takes them)",
            Self::Junk => "files of a system (--hidden takes them)",
            Self::Folder => "objects that stand for folders",
            Self::Dangling => "links to nothing",
            Self::Circle => "links to a directory that contains them",
            Self::LinkedDirectory => "links to directories (--follow-links follows them)",
            Self::LeadsOut => "links out of the directory (--follow-links follows them)",
            Self::Special => "sockets, pipes or devices",
            Self::Unreadable => "not readable",
            Self::BadName => "names that the store does not allow",
        })
    }
}

/// The files of a directory.
#[derive(Debug, Default)]
pub struct Found {
    /// The files with their names in the store, in the order of these.
    pub items: Vec<PutItem>,
    /// Their bytes.
    pub size_bytes: u64,
    /// What is left out: how many, and the first of them. A directory counts as one.
    left_out: BTreeMap<Reason, (u64, Vec<String>)>,
}

impl Found {
    pub(super) fn leave_out(&mut self, reason: Reason, path: &Path, why: Option<String>) {
        let (count, named) = self.left_out.entry(reason).or_default();
        *count += 1;
        if named.len() < NAMED_MAX {
            let path = path.to_string_lossy();
            // A name that is bad may hold what a terminal obeys.
            let path = visible(&path);
            named.push(why.map_or_else(|| path.to_string(), |why| format!("{path}: {why}")));
        }
    }

    /// The same for programs.
    pub fn left_out(&self) -> Vec<LeftOut> {
        let left_out = |(reason, (count, _)): (&Reason, &(u64, Vec<String>))| LeftOut {
            reason: reason.word().to_owned(),
            count: *count,
        };
        self.left_out.iter().map(left_out).collect()
    }

    /// What is left out, a line for each reason; empty if nothing is.
    pub fn left_out_text(&self) -> Vec<String> {
        let line = |(reason, (count, named)): (&Reason, &(u64, Vec<String>))| {
            let more = if *count > named.len() as u64 { ", ..." } else { "" };
            format!("left out: {count} {reason}: {}{more}", named.join(", "))
        };
        self.left_out.iter().map(line).collect()
    }

    /// What people miss of the directory, if anything.
    pub fn loss(&self) -> Option<String> {
        let lost = self.left_out.iter().filter(|(reason, _)| reason.is_loss());
        let lost: u64 = lost.map(|(_, (count, _))| count).sum();
        (lost > 0).then(|| format!("{} could not be put", text::count(lost, "file")))
    }

    pub(super) fn check_strict(&self) -> Result<(), Failure> {
        let Some((reason, (count, named))) =
            self.left_out.iter().find(|(reason, _)| **reason != Reason::Excluded)
        else {
            return Ok(());
        };
        let text = format!("--strict: {count} would be left out: {reason}: {}", named.join(", "));
        Err(Failure::new(Exit::Refused, text))
    }
}

/// The files under a directory that are selected, with their names in the dataset.
pub fn walk(root: &Path, dataset: &DatasetName, selection: &Selection) -> Result<Found, Failure> {
    root.read_dir().map_err(|error| Failure::error(format!("cannot read {}: {error}", root.display())))?;
    let real_root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let walk = Walk { root, real_root, dataset, selection };
    let mut found = Found::default();
    let mut entries =
        WalkDir::new(root).follow_links(selection.follow_links).max_depth(DEPTH_MAX + 1).into_iter();
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) if entry.depth() == 0 => {}
            Ok(entry) => {
                if let Some(skipped) = walk.entry(&entry, &mut found)?
                    && skipped == Skipped::Directory
                {
                    entries.skip_current_dir();
                }
            }
            Err(error) => walk.error(&error, &mut found),
        }
    }
    if selection.strict {
        found.check_strict()?;
    }
    found.items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Skipped {
    File,
    Directory,
}

struct Walk<'a> {
    root: &'a Path,
    real_root: PathBuf,
    dataset: &'a DatasetName,
    selection: &'a Selection,
}

impl Walk<'_> {
    fn relative<'p>(&self, path: &'p Path) -> &'p Path {
        path.strip_prefix(self.root).unwrap_or(path)
    }

    /// Takes an entry, or leaves it out.
    fn entry(&self, entry: &DirEntry, found: &mut Found) -> Result<Option<Skipped>, Failure> {
        let path = entry.path();
        let is_directory = entry.file_type().is_dir();
        if is_directory && entry.depth() > DEPTH_MAX {
            let text = format!("{} is nested deeper than {DEPTH_MAX} directories", path.display());
            return Err(Failure::new(Exit::Refused, text));
        }
        let skipped = if is_directory { Skipped::Directory } else { Skipped::File };
        if let Some(reason) = self.by_name(entry) {
            found.leave_out(reason, path, None);
            return Ok(Some(skipped));
        }
        if is_directory {
            return Ok(None);
        }
        match self.file(entry) {
            Ok((item, size_bytes)) => {
                found.size_bytes += size_bytes;
                found.items.push(item);
                Ok(None)
            }
            Err((reason, why)) => {
                found.leave_out(reason, path, why);
                Ok(Some(skipped))
            }
        }
    }

    /// Why an entry is left out by its name, if it is.
    fn by_name(&self, entry: &DirEntry) -> Option<Reason> {
        let by_name = self.selection.by_name(&entry.file_name().to_string_lossy());
        let path = self.relative(entry.path());
        by_name.or_else(|| self.selection.by_pattern(path, entry.file_type().is_dir()))
    }

    fn file(&self, entry: &DirEntry) -> Result<(PutItem, u64), (Reason, Option<String>)> {
        let path = entry.path();
        if entry.path_is_symlink() && !self.selection.follow_links {
            let target = path.canonicalize().map_err(|_| (Reason::Dangling, None))?;
            if target.is_dir() {
                return Err((Reason::LinkedDirectory, None));
            }
            if !target.starts_with(&self.real_root) {
                return Err((Reason::LeadsOut, None));
            }
        }
        let metadata = path.metadata().map_err(|error| (Reason::Unreadable, Some(error.to_string())))?;
        if !metadata.is_file() {
            return Err((Reason::Special, None));
        }
        let name = self.name(path).map_err(|why| (Reason::BadName, Some(why)))?;
        File::open(path).map_err(|error| (Reason::Unreadable, Some(error.to_string())))?;
        Ok((PutItem { name, path: path.to_owned() }, metadata.len()))
    }

    fn name(&self, path: &Path) -> Result<FileName, String> {
        let mut name = self.dataset.to_string();
        for part in self.relative(path).components() {
            let part = part.as_os_str().to_str().ok_or_else(|| String::from("it is not UTF-8"))?;
            name.push('/');
            name.push_str(part);
        }
        name.parse().map_err(|error: NameError| error.to_string())
    }

    fn error(&self, error: &walkdir::Error, found: &mut Found) {
        let path = error.path().unwrap_or(self.root);
        match (error.loop_ancestor(), error.io_error()) {
            (Some(_), _) => found.leave_out(Reason::Circle, path, None),
            (None, Some(_)) if path.is_symlink() && !path.exists() => {
                found.leave_out(Reason::Dangling, path, None);
            }
            (None, why) => {
                found.leave_out(Reason::Unreadable, path, why.map(ToString::to_string));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: &Found) -> Vec<&str> {
        found.items.iter().map(|item| item.name.as_str()).collect()
    }

    fn left_out(found: &Found) -> Vec<(&str, u64)> {
        found.left_out.iter().map(|(reason, (count, _))| (reason.word(), *count)).collect()
    }

    fn walked(root: &Path, selection: &Selection) -> Found {
        walk(root, &"set".parse().unwrap(), selection).unwrap()
    }

    fn directory(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        root
    }

    #[test]
    fn a_directory_becomes_names_in_order() {
        let root = directory(&["b.jpg", "a.jpg", "sub/c.jpg"]);
        let found = walked(root.path(), &Selection::default());
        assert_eq!(names(&found), ["set/a.jpg", "set/b.jpg", "set/sub/c.jpg"]);
        assert_eq!((found.size_bytes, found.left_out_text().len(), found.loss()), (19, 0, None));
    }

    #[test]
    fn hidden_files_and_those_of_systems_are_left_out_and_counted() {
        let root = directory(&[
            "a.jpg",
            ".DS_Store",
            "sub/Thumbs.db",
            "._a.jpg",
            "__MACOSX/x/a.jpg",
            ".git/config",
            ".hidden",
        ]);
        let found = walked(root.path(), &Selection::default());
        assert_eq!((names(&found), left_out(&found)), (vec!["set/a.jpg"], vec![("hidden", 2), ("junk", 4)]));
        assert_eq!(found.loss(), None);
        assert!(found.left_out_text()[0].starts_with("left out: 2 hidden (--hidden takes them): "));
        let all = walked(root.path(), &Selection { hidden: true, ..Selection::default() });
        assert_eq!((all.items.len(), all.left_out.len()), (7, 0));
        let strict = Selection { strict: true, ..Selection::default() };
        let refused = walk(root.path(), &"set".parse().unwrap(), &strict).unwrap_err();
        assert!(refused.exit == Exit::Refused && refused.message.contains("hidden"), "{refused}");
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        let root = directory(&["a.jpg", "b.txt", "sub/c.jpg", "sub/raw/d.jpg", "tmp/e.jpg"]);
        let select = |patterns: &[(&str, bool)]| {
            let patterns = patterns.iter().map(|(glob, includes)| Pattern::new(glob, *includes).unwrap());
            let found =
                walked(root.path(), &Selection { patterns: patterns.collect(), ..Selection::default() });
            names(&found).join(" ").replace("set/", "")
        };
        assert_eq!(select(&[("*.jpg", true)]), "a.jpg sub/c.jpg sub/raw/d.jpg tmp/e.jpg");
        assert_eq!(select(&[("*.jpg", true), ("tmp", false)]), "a.jpg sub/c.jpg sub/raw/d.jpg");
        assert_eq!(select(&[("sub/**", false)]), "a.jpg b.txt tmp/e.jpg");
        assert_eq!(select(&[("*.jpg", false), ("sub/*.jpg", true)]), "b.txt sub/c.jpg");
        let strict = Selection {
            strict: true,
            patterns: vec![Pattern::new("*.txt", false).unwrap()],
            ..Selection::default()
        };
        assert_eq!(walked(root.path(), &strict).items.len(), 4, "what is excluded is not missed");
        assert_eq!(Pattern::new("a[", true).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn links_are_followed_within_the_directory_and_elsewhere_only_if_asked() {
        use std::os::unix::fs::symlink;
        let (root, elsewhere) = (directory(&["a", "sub/b"]), directory(&["c"]));
        symlink(root.path().join("a"), root.path().join("within")).unwrap();
        symlink(elsewhere.path().join("c"), root.path().join("outside")).unwrap();
        symlink(elsewhere.path(), root.path().join("directory")).unwrap();
        symlink(root.path(), root.path().join("sub/circle")).unwrap();
        symlink("missing", root.path().join("dangling")).unwrap();
        let found = walked(root.path(), &Selection::default());
        assert_eq!(names(&found), ["set/a", "set/sub/b", "set/within"]);
        let expected = [("dangling-link", 1), ("directory-link", 2), ("outside-link", 1)];
        assert_eq!(left_out(&found), expected);
        assert_eq!(found.loss().unwrap(), "1 file could not be put");
        let found = walked(root.path(), &Selection { follow_links: true, ..Selection::default() });
        assert_eq!(names(&found), ["set/a", "set/directory/c", "set/outside", "set/sub/b", "set/within"]);
        assert_eq!(left_out(&found), [("dangling-link", 1), ("circular-link", 1)]);
    }

    #[test]
    fn what_is_no_file_or_has_no_name_is_left_out_and_the_others_are_put() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let root = directory(&["a", "bad\nname"]);
        std::fs::write(root.path().join(OsStr::from_bytes(b"caf\xe9")), "1").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
        let found = walked(root.path(), &Selection::default());
        assert_eq!((names(&found), left_out(&found)), (vec!["set/a"], vec![("special", 1), ("bad-name", 2)]));
        let text = found.left_out_text().join("\n");
        assert!(text.contains("control character") && text.contains("it is not UTF-8"), "{text}");
        assert!(text.contains("bad\\nname: ") && text.lines().count() == 2, "{text}");
        assert_eq!(found.loss().unwrap(), "2 files could not be put");
        let strict = Selection { strict: true, ..Selection::default() };
        assert!(walk(root.path(), &"set".parse().unwrap(), &strict).is_err());
    }

    #[test]
    fn directories_may_be_nested_so_deep_and_no_deeper() {
        let root = tempfile::tempdir().unwrap();
        let mut deep = root.path().to_owned();
        deep.extend(std::iter::repeat_n("d", DEPTH_MAX));
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("file"), "1").unwrap();
        assert_eq!(walked(root.path(), &Selection::default()).items.len(), 1);
        std::fs::create_dir(deep.join("d")).unwrap();
        let error = walk(root.path(), &"set".parse().unwrap(), &Selection::default()).unwrap_err();
        assert!(error.exit == Exit::Refused && error.message.contains("deeper than 64"), "{error}");
    }

    #[test]
    fn only_a_directory_that_can_be_read_is_walked() {
        let root = directory(&["file"]);
        let walk = |path: &Path| walk(path, &"set".parse().unwrap(), &Selection::default());
        assert!(walk(&root.path().join("missing")).is_err());
        assert_eq!(walk(&root.path().join("file")).unwrap_err().exit, Exit::Error);
    }
}
