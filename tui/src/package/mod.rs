//! A model package on this machine: which files it has, and what runs it.
//!
//! Decides what of a folder belongs to the package, and recognises the runtime by what the folder holds unless `model.toml`
//! says so. What only a model server can know, such as whether the code can be imported, a member checks later.

mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use idunno_shared::names::{FileName, ModelName, NameError};
use idunno_shared::package::{FILES_MAX, FORMAT, Manifest, PackageError, PackageFile, SETTINGS_FILE};
use idunno_shared::wire::control::NewFile;
use serde_json::{Map, Value};
use thiserror::Error;
use walkdir::{DirEntry, WalkDir};

pub use self::settings::{Runtime, Settings};

/// The file that says what a package requires.
const REQUIREMENTS: &str = "requirements.txt";
/// Where the lock of its requirements and their wheels are in a package. No file of the user's has a name like this.
const ENVIRONMENT: &str = ".environment";
/// Deepest directory that is entered.
const DEPTH_MAX: usize = 32;
/// Directories and files that tools leave behind. Names that begin with a dot are left out, too.
const LEFTOVERS: [&str; 3] = ["__pycache__", "node_modules", "Thumbs.db"];

/// A file of the package on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it may be executed.
    pub executable: bool,
}

/// A package that has not been stored yet.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalPackage {
    /// The name of the model.
    pub name: ModelName,
    /// What runs it.
    pub runtime: Runtime,
    /// The file that the runtime begins with.
    pub entry: FileName,
    /// What `model.toml` says, for the runtime.
    pub settings: Map<String, Value>,
    /// The files by their names in the package.
    pub files: BTreeMap<FileName, LocalFile>,
    /// Names that were left out, each once.
    pub left_out: Vec<String>,
}

/// A folder or file is no package.
#[derive(Debug, Error)]
pub enum LocalPackageError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} cannot be part of a package: {why}", path.display())]
    File { path: PathBuf, why: String },
    #[error("{} has more than {FILES_MAX} files: name the model's own folder", path.display())]
    TooMany { path: PathBuf },
    #[error("{} is nested deeper than {DEPTH_MAX} directories", path.display())]
    TooDeep { path: PathBuf },
    #[error("{}: {message}", path.display())]
    Settings { path: PathBuf, message: String },
    #[error("'{name}' cannot be the model's name: {source}; give one with --name")]
    Name { name: String, source: NameError },
    #[error("model.toml names {what} '{name}', which is not in the folder")]
    Missing { what: &'static str, name: String },
    #[error(
        "{} does not show what runs it: it has neither {} at its top; say so in {SETTINGS_FILE}, as in: runtime = \"python\" \
         and entry = \"FILE\"", path.display(), Runtime::SIGNS
    )]
    Unrecognised { path: PathBuf },
    #[error(
        "{} is a link out of its folder, to {}: --follow-links stores what such links lead to, which everybody in the \
         cluster can then read", path.display(), leads_to.display()
    )]
    Outside { path: PathBuf, leads_to: PathBuf },
    #[error("{} has several {what} at its top ({}): name one in {SETTINGS_FILE}, as in: entry = \"{}\"", path.display(), names.join(", "), names[0])]
    Ambiguous { path: PathBuf, what: &'static str, names: Vec<String> },
}

/// Which links in a folder are followed: what they lead to becomes a part of the package, which everybody in the cluster can
/// read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Those that stay in the folder; others are refused.
    Inside,
    /// All: the folder is one's own.
    All,
}

impl LocalPackage {
    /// Reads what a folder, or one file, holds. `name` comes before what `model.toml` says, and that before the folder's.
    pub fn open(path: &Path, name: Option<ModelName>, links: Links) -> Result<Self, LocalPackageError> {
        let unreadable = |source| LocalPackageError::Read { path: path.to_owned(), source };
        let whole = path.canonicalize().map_err(unreadable)?;
        let (files, left_out) = if whole.is_dir() { walk(&whole, links)? } else { single(&whole)? };
        let settings = match files.get(&settings_file(&whole)?) {
            Some(file) => Settings::read(&file.path)?,
            None => Settings::default(),
        };
        let (runtime, entry) = settings.recognise(path, &files)?;
        if let Some(artefact) = settings.artefact() {
            require(&files, "the artefact", artefact)?;
        }
        let stem = if whole.is_dir() { whole.file_name() } else { whole.file_stem() };
        let own = stem.map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let name = if let Some(name) = name {
            name
        } else {
            let text = settings.name().map_or(own, str::to_owned);
            text.parse().map_err(|source| LocalPackageError::Name { name: text.clone(), source })?
        };
        let settings = settings.into_map();
        Ok(Self { name, runtime, entry, settings, files, left_out })
    }

    /// The bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.values().map(|file| file.size).sum()
    }

    /// What it requires beyond the model server, if it says so.
    pub fn requirements(&self) -> Option<&LocalFile> {
        self.files.iter().find(|(name, _)| name.as_str() == REQUIREMENTS).map(|(_, file)| file)
    }

    /// Adds the files of its environment, which are in a folder of their own.
    pub fn add_environment(&mut self, folder: &Path) -> Result<(), LocalPackageError> {
        let (files, _) = walk(folder, Links::All)?;
        for (name, file) in files {
            self.files.insert(in_package(folder, &format!("{ENVIRONMENT}/{name}"))?, file);
        }
        if self.files.len() > FILES_MAX {
            return Err(LocalPackageError::TooMany { path: folder.to_owned() });
        }
        Ok(())
    }

    /// The manifest of the package whose files, in their order, were stored as these.
    pub fn manifest(&self, stored: &[NewFile]) -> Result<Manifest, PackageError> {
        let file = |file: &NewFile| PackageFile {
            path: file.name.clone(),
            size: file.size,
            digest: file.digest,
            executable: self.files.get(&file.name).is_some_and(|local| local.executable),
        };
        let manifest = Manifest {
            format: FORMAT,
            runtime: self.runtime.name().to_owned(),
            entry: self.entry.clone(),
            settings: self.settings.clone(),
            files: stored.iter().map(file).collect(),
        };
        manifest.to_bytes().map(|_| manifest)
    }
}

type Files = BTreeMap<FileName, LocalFile>;

fn settings_file(path: &Path) -> Result<FileName, LocalPackageError> {
    in_package(path, SETTINGS_FILE)
}

fn in_package(path: &Path, name: &str) -> Result<FileName, LocalPackageError> {
    let wrong = |error: NameError| LocalPackageError::File { path: path.to_owned(), why: error.to_string() };
    name.parse().map_err(wrong)
}

fn require(files: &Files, what: &'static str, name: &str) -> Result<FileName, LocalPackageError> {
    let missing = || LocalPackageError::Missing { what, name: name.to_owned() };
    let name: FileName = name.parse().map_err(|_| missing())?;
    if files.contains_key(&name) { Ok(name) } else { Err(missing()) }
}

fn single(path: &Path) -> Result<(Files, Vec<String>), LocalPackageError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let file = local_file(path)?;
    Ok((BTreeMap::from([(in_package(path, &name)?, file)]), Vec::new()))
}

/// The files of a folder. What links lead to is stored in their places.
fn walk(root: &Path, links: Links) -> Result<(Files, Vec<String>), LocalPackageError> {
    let mut files = BTreeMap::new();
    let mut left_out: Vec<String> = Vec::new();
    let mut walk =
        WalkDir::new(root).follow_links(true).max_depth(DEPTH_MAX + 1).sort_by_file_name().into_iter();
    while let Some(entry) = walk.next() {
        let entry = entry.map_err(|error| unreadable(root, error))?;
        let path = entry.path();
        if links == Links::Inside && entry.path_is_symlink() {
            let leads_to = path
                .canonicalize()
                .map_err(|source| LocalPackageError::Read { path: path.to_owned(), source })?;
            if !leads_to.starts_with(root) {
                return Err(LocalPackageError::Outside { path: path.to_owned(), leads_to });
            }
        }
        if entry.depth() > 0 && is_leftover(&entry) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !left_out.contains(&name) {
                left_out.push(name);
            }
            if entry.file_type().is_dir() {
                walk.skip_current_dir();
            }
        } else if entry.file_type().is_dir() {
            if entry.depth() > DEPTH_MAX {
                return Err(LocalPackageError::TooDeep { path: path.to_owned() });
            }
        } else {
            if files.len() == FILES_MAX {
                return Err(LocalPackageError::TooMany { path: root.to_owned() });
            }
            let below = path.strip_prefix(root).unwrap_or(path);
            let text = below.to_str().ok_or_else(|| LocalPackageError::File {
                path: path.to_owned(),
                why: String::from("its name is not UTF-8"),
            })?;
            files.insert(in_package(path, text)?, local_file(path)?);
        }
    }
    Ok((files, left_out))
}

fn is_leftover(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    let is_bytecode = entry.path().extension().is_some_and(|extension| extension == "pyc");
    name.starts_with('.') || LEFTOVERS.contains(&&*name) || is_bytecode
}

fn local_file(path: &Path) -> Result<LocalFile, LocalPackageError> {
    let unreadable = |source| LocalPackageError::Read { path: path.to_owned(), source };
    let metadata = path.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        let why = String::from("it is neither a file nor a directory");
        return Err(LocalPackageError::File { path: path.to_owned(), why });
    }
    let executable = metadata.permissions().mode() & 0o111 != 0;
    Ok(LocalFile { path: path.to_owned(), size: metadata.len(), executable })
}

fn unreadable(root: &Path, error: walkdir::Error) -> LocalPackageError {
    let path = error.path().unwrap_or(root).to_owned();
    let text = error.to_string();
    let source = error.into_io_error().unwrap_or_else(|| io::Error::other(text));
    LocalPackageError::Read { path, source }
}
