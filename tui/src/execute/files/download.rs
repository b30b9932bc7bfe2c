//! `get`, `get-versions`, `get-dataset`: files of the store into local files.

use std::collections::BTreeSet;
use std::path::Path;

use idunno_shared::client::files::GetItem;
use idunno_shared::client::files::destination::{Destination, is_stdout};
use idunno_shared::ids::Digest;
use idunno_shared::names::{DatasetName, FileName};
use idunno_shared::wire::control::ControlRequest;

use super::{STREAM, pages};
use crate::answer::files::{DownloadedDataset, DownloadedFile, FileVersion, FileVersions, RenamedFile};
use crate::answer::shown::Layout;
use crate::answer::table::Table;
use crate::answer::{Answer, Exit, Failure, text};
use crate::execute::only_on_command_line;
use crate::execute::pages::page_limit;
use crate::session::Session;

/// Longest name of a local file, in bytes.
const LOCAL_PART_BYTES_MAX: usize = 255;

/// `get`.
pub async fn get(
    session: &Session,
    name: &FileName,
    local: &Path,
    version: Option<u64>,
    force: bool,
) -> Result<Answer, Failure> {
    check_target(local, force)?;
    let progress = session.reporter.start(name.as_str(), 0, 0);
    let got = session.files().get_file(name, version, local, progress.as_ref()).await?;
    let path = local.display().to_string();
    let text = format!("{name} version {}, {} bytes, {}", got.version, got.size, place(local));
    Ok(beside_data(local, Answer::new(&DownloadedFile { path, version: FileVersion::from(&got) }, text)))
}

/// `get-versions`.
pub async fn versions(
    session: &Session,
    name: &FileName,
    count: u32,
    local: &Path,
    force: bool,
) -> Result<Answer, Failure> {
    check_target(local, force)?;
    let progress = session.reporter.start(name.as_str(), 0, 0);
    let got = session.files().get_versions(name, count, local, progress.as_ref()).await?;
    let mut table = Table::new(">VERSION >SIZE CREATED DIGEST");
    for version in &got {
        table.row([
            version.version.to_string(),
            version.size.to_string(),
            text::moment(version.created_ms),
            text::short(&version.digest),
        ]);
    }
    let path = local.display().to_string();
    let text = format!("{}\n{} {}", table.render(), text::count(got.len() as u64, "version"), place(local));
    let versions = got.iter().map(FileVersion::from).collect();
    Ok(beside_data(local, Answer::new(&FileVersions { path, versions }, text)))
}

/// `get-dataset`.
pub async fn get_dataset(
    session: &Session,
    dataset: &DatasetName,
    directory: &Path,
    force: bool,
) -> Result<Answer, Failure> {
    let request = |after| ControlRequest::List { prefix: format!("{dataset}/"), after, limit: page_limit() };
    let found = pages(session, request, true).await?.files;
    if found.is_empty() {
        return Err(Failure::new(
            Exit::NotFound,
            format!("there is no dataset '{dataset}': ls lists the files"),
        ));
    }
    let size_bytes = found.iter().map(|file| file.size).sum();
    let Targets { items, renamed } =
        local_targets(dataset, directory, found.into_iter().map(|file| file.name).collect());
    if !force {
        check_none_exists(&items)?;
    }
    make_directories(directory, &items)?;
    let progress = session.reporter.start(dataset.as_str(), items.len() as u64, size_bytes);
    let report = session.files().get_files(items, progress.as_ref()).await?;
    let fetched = format!(
        "{dataset}: {} ({}) in {}",
        text::count(report.files, "file"),
        text::bytes(report.bytes),
        directory.display()
    );
    let downloaded = DownloadedDataset {
        dataset: dataset.to_string(),
        directory: directory.display().to_string(),
        files: report.files,
        size_bytes: report.bytes,
        renamed,
    };
    let renamed = downloaded.renamed.iter().map(|file| format!("{} is in {}", file.name, file.path));
    let text = std::iter::once(fetched).chain(renamed).collect::<Vec<_>>().join("\n");
    Ok(Answer::new(&downloaded, text))
}

/// Where the files of a dataset go.
struct Targets {
    items: Vec<GetItem>,
    /// Those that have another name there.
    renamed: Vec<RenamedFile>,
}

/// Where the files go: a name in the store has no `..` and does not start with a slash. A file whose name a directory needs,
/// because others lie below it, gets a tilde; a part of a name that is too long is cut, and gets its digest.
fn local_targets(dataset: &DatasetName, directory: &Path, names: Vec<FileName>) -> Targets {
    let rest = |name: &FileName| {
        let rest = name.as_str().strip_prefix(dataset.as_str()).unwrap_or(name.as_str());
        rest.trim_start_matches('/').to_owned()
    };
    let mut targets: Vec<String> = names
        .iter()
        .map(|name| rest(name).split('/').map(short_part).collect::<Vec<_>>().join("/"))
        .collect();
    let slashes = |path: &str| path.match_indices('/').map(|(at, _)| at).collect::<Vec<_>>();
    let directories: BTreeSet<String> =
        targets.iter().flat_map(|path| slashes(path).into_iter().map(|at| path[..at].to_owned())).collect();
    let taken: BTreeSet<String> = targets.iter().cloned().chain(directories.iter().cloned()).collect();
    for target in targets.iter_mut().filter(|target| directories.contains(*target)) {
        let free = (1..=taken.len() + 1)
            .map(|count| format!("{target}{}", "~".repeat(count)))
            .find(|path| !taken.contains(path));
        *target = free.unwrap_or_default();
    }
    let mut renamed = Vec::new();
    let items = names.into_iter().zip(targets).map(|(name, target)| {
        let path = directory.join(&target);
        if target != rest(&name) {
            renamed.push(RenamedFile { name: name.to_string(), path: path.display().to_string() });
        }
        GetItem { name, target: path }
    });
    Targets { items: items.collect(), renamed }
}

/// A part of a name, short enough for a local file.
fn short_part(part: &str) -> String {
    if part.len() <= LOCAL_PART_BYTES_MAX {
        return part.to_owned();
    }
    let digest: String = Digest::of(part.as_bytes()).to_string().chars().take(16).collect();
    let mut end = LOCAL_PART_BYTES_MAX - digest.len() - 1;
    while !part.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}~{digest}", &part[..end])
}

/// Refuses to replace local files.
fn check_none_exists(items: &[GetItem]) -> Result<(), Failure> {
    // A link that leads nowhere would be replaced, too.
    let mut there = items.iter().filter(|item| item.target.symlink_metadata().is_ok());
    let Some(first) = there.next() else { return Ok(()) };
    let first = first.target.display();
    let what = match there.count() {
        0 => format!("this replaces {first}"),
        others => format!("this replaces {first} and {}", text::count(others as u64, "other file")),
    };
    Err(Failure::unconfirmed(what, "--force"))
}

fn make_directories(directory: &Path, items: &[GetItem]) -> Result<(), Failure> {
    let mut wanted: BTreeSet<&Path> = items.iter().filter_map(|item| item.target.parent()).collect();
    wanted.insert(directory);
    for path in wanted {
        std::fs::create_dir_all(path)
            .map_err(|error| Failure::error(format!("cannot create {}: {error}", path.display())))?;
    }
    Ok(())
}

/// Refuses what is neither a file nor a stream, and a file that would be replaced without `force`, before the network is
/// asked.
pub(in crate::execute) fn check_target(path: &Path, force: bool) -> Result<(), Failure> {
    if path.as_os_str() == STREAM {
        return Err(only_on_command_line("standard output is written"));
    }
    match Destination::of(path).map_err(|error| Failure::target(path, &error))? {
        Destination::File(file) if !force && file.exists() => {
            Err(Failure::unconfirmed(format!("this replaces {}", path.display()), "--force"))
        }
        Destination::File(_) | Destination::Stream(_) => Ok(()),
    }
}

/// The answer of a command that has written data to `local`. Where standard output has the data, it has nothing else.
fn beside_data(local: &Path, answer: Answer) -> Answer {
    if !is_stdout(local) {
        return answer;
    }
    Answer::default().noted(Some(answer.text.render(Layout::Unlimited)))
}

/// Where the data went, as a person calls it.
fn place(local: &Path) -> String {
    if is_stdout(local) { String::from("on standard output") } else { format!("in {}", local.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_set_goes_into_a_directory_under_its_own_names() {
        let root = tempfile::tempdir().unwrap();
        let set = "photos/cats".parse().unwrap();
        let names = ["photos/cats/a.jpg", "photos/cats/sub/photos/b.jpg"].map(|name| name.parse().unwrap());
        let Targets { items, renamed } = local_targets(&set, root.path(), names.into());
        assert_eq!(renamed, []);
        assert_eq!(items[0].target, root.path().join("a.jpg"));
        assert_eq!(items[1].target, root.path().join("sub/photos/b.jpg"));
        make_directories(root.path(), &items).unwrap();
        assert!(root.path().join("sub/photos").is_dir());
        std::fs::write(root.path().join("file"), "").unwrap();
        let error = make_directories(&root.path().join("file"), &items).unwrap_err();
        assert!(error.message.contains("cannot create"), "{error}");
    }

    #[test]
    fn names_that_cannot_live_side_by_side_get_others() {
        let set = "set".parse().unwrap();
        let long = "é".repeat(150);
        let names = [
            "set/a".into(),
            "set/a/b".into(),
            "set/a~".into(),
            format!("set/{long}/c"),
            format!("set/{long}x/c"),
        ];
        let names = names.map(|name: String| name.parse().unwrap());
        let Targets { items, renamed } = local_targets(&set, Path::new("/d"), names.into());
        let targets: Vec<&str> = items.iter().map(|item| item.target.to_str().unwrap()).collect();
        assert_eq!(targets[..3], ["/d/a~~", "/d/a/b", "/d/a~"]);
        assert_eq!(renamed[0], RenamedFile { name: "set/a".into(), path: "/d/a~~".into() });
        assert_eq!(renamed.len(), 3);
        let parts: BTreeSet<&str> = targets[3..].iter().map(|path| path.split('/').nth(2).unwrap()).collect();
        assert!(parts.len() == 2 && parts.iter().all(|part| part.len() <= 255), "{parts:?}");
    }

    #[test]
    fn what_is_neither_a_file_nor_a_stream_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let link = root.path().join("link");
        std::os::unix::fs::symlink("nothing", &link).unwrap();
        for good in [&root.path().join("new"), Path::new("/dev/null"), Path::new("/dev/stdout")] {
            assert!(check_target(good, false).is_ok(), "{}", good.display());
        }
        for bad in [link.as_path(), root.path()] {
            assert_eq!(check_target(bad, true).unwrap_err().exit, Exit::Refused, "{}", bad.display());
        }
        let there = root.path().join("there");
        std::fs::write(&there, "kept").unwrap();
        assert_eq!(check_target(&there, false).unwrap_err().confirmed_by, Some("--force"));
        assert!(check_target(&there, true).is_ok());
    }
}
