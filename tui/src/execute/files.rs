//! Files in the store.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use idunno_shared::client::files::{GetItem, PutItem, PutOptions, PutReport, atomic_file};
use idunno_shared::names::{DatasetName, FileName};
use idunno_shared::wire::control::{
    Change, Changed, ControlReply, ControlRequest, FileSummary, FileVersion, MemberView,
};
use serde_json::{Value, json};

use super::jobs::page_limit;
use super::members;
use crate::answer::table::Table;
use crate::answer::{Answer, Exit, Failure, text};
use crate::command::values::MemberRef;
use crate::session::Session;

/// Deepest directory that `populate-test-data` enters: a guard against circles.
const DEPTH_MAX: usize = 64;

/// `put`.
pub async fn put(session: &Session, local: PathBuf, name: FileName) -> Result<Answer, Failure> {
    let size = local_file(&local)?;
    let progress = session.reporter.start(name.as_str(), 0, size);
    let item = PutItem { name: name.clone(), path: local };
    let report = session.files().put_files(vec![item], PutOptions::default(), progress.as_ref()).await?;
    let version = report.versions.first().copied().flatten().unwrap_or_default();
    let text = format!("{name} version {version}, {size} bytes{}", copies(&report));
    let sent = report.copies_wanted > 0;
    let data = json!({"name": name, "version": version, "size": size,
        "copies": sent.then_some(report.copies_min), "copies_wanted": sent.then_some(report.copies_wanted)});
    Ok(Answer::new(data, text))
}

/// The durable copies of what was sent, if anything was: empty files have none.
fn copies(report: &PutReport) -> String {
    if report.copies_wanted == 0 {
        return String::new();
    }
    format!(", copies: {} of {}", report.copies_min, report.copies_wanted)
}

/// The size of a local file that can be put.
pub(super) fn local_file(path: &Path) -> Result<u64, Failure> {
    let wrong = |reason: String| Failure::error(format!("cannot put {}: {reason}", path.display()));
    let metadata = path.metadata().map_err(|error| wrong(error.to_string()))?;
    if metadata.is_dir() {
        return Err(wrong(String::from("it is a directory (populate-test-data takes directories)")));
    }
    if !metadata.is_file() {
        return Err(wrong(String::from("it is not a regular file")));
    }
    Ok(metadata.len())
}

/// `populate-test-data`.
pub async fn populate(session: &Session, directory: &Path, dataset: &DatasetName) -> Result<Answer, Failure> {
    let (root, name) = (directory.to_owned(), dataset.clone());
    let found = tokio::task::spawn_blocking(move || walk(&root, &name)).await;
    let (items, bytes) = found.map_err(|error| Failure::error(error.to_string()))??;
    if items.is_empty() {
        return Err(Failure::new(Exit::Refused, format!("{} holds no files", directory.display())));
    }
    let progress = session.reporter.start(dataset.as_str(), items.len() as u64, bytes);
    let options = PutOptions { skip_unchanged: true, ..PutOptions::default() };
    let report = session.files().put_files(items, options, progress.as_ref()).await?;
    let text = format!(
        "{dataset}: {} put ({}), {} there already{}",
        text::count(report.files, "file"),
        text::bytes(report.bytes),
        report.skipped,
        copies(&report)
    );
    let data = json!({"dataset": dataset, "files": report.files, "bytes": report.bytes,
        "skipped": report.skipped, "copies": report.copies_min, "copies_wanted": report.copies_wanted});
    Ok(Answer::new(data, text))
}

/// All regular files under a directory with their names in the data set, in name order, and their bytes.
pub fn walk(root: &Path, dataset: &DatasetName) -> Result<(Vec<PutItem>, u64), Failure> {
    let mut items = Vec::new();
    let mut bytes = 0;
    let mut waiting = vec![(root.to_owned(), 0)];
    while let Some((directory, depth)) = waiting.pop() {
        let wrong =
            |error: io::Error| Failure::error(format!("cannot read {}: {error}", directory.display()));
        if depth > DEPTH_MAX {
            let what = directory.display();
            return Err(Failure::new(
                Exit::Refused,
                format!("{what} is nested deeper than {DEPTH_MAX} directories"),
            ));
        }
        for entry in directory.read_dir().map_err(wrong)? {
            let path = entry.map_err(wrong)?.path();
            let metadata = path
                .metadata()
                .map_err(|error| Failure::error(format!("cannot read {}: {error}", path.display())))?;
            if metadata.is_dir() {
                waiting.push((path, depth + 1));
            } else if metadata.is_file() {
                bytes += metadata.len();
                items.push(PutItem { name: name_in(dataset, root, &path)?, path });
            }
        }
    }
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((items, bytes))
}

fn name_in(dataset: &DatasetName, root: &Path, path: &Path) -> Result<FileName, Failure> {
    let wrong = |reason: String| {
        Failure::new(Exit::Refused, format!("{} cannot be named in the store: {reason}", path.display()))
    };
    let mut name = dataset.to_string();
    for part in path.strip_prefix(root).unwrap_or(path).components() {
        let part = part.as_os_str().to_str().ok_or_else(|| wrong(String::from("it is not UTF-8")))?;
        name.push('/');
        name.push_str(part);
    }
    name.parse().map_err(|error: idunno_shared::names::NameError| wrong(error.to_string()))
}

/// `get`.
pub async fn get(
    session: &Session,
    name: &FileName,
    local: &Path,
    version: Option<u64>,
) -> Result<Answer, Failure> {
    local_target(local)?;
    let progress = session.reporter.start(name.as_str(), 0, 0);
    let got = session.files().get_file(name, version, local, progress.as_ref()).await?;
    let text = format!("{name} version {}, {} bytes, in {}", got.version, got.size, local.display());
    let mut data = version_json(&got);
    if let Some(fields) = data.as_object_mut() {
        fields.insert("file".into(), local.display().to_string().into());
    }
    Ok(Answer::new(data, text))
}

/// `get-dataset`.
pub async fn get_dataset(
    session: &Session,
    dataset: &DatasetName,
    directory: &Path,
) -> Result<Answer, Failure> {
    let request = |after| ControlRequest::List { prefix: format!("{dataset}/"), after, limit: page_limit() };
    let (found, _) = pages(session, request, true).await?;
    if found.is_empty() {
        return Err(Failure::new(Exit::NotFound, format!("there is no data set '{dataset}'")));
    }
    let bytes = found.iter().map(|file| file.size).sum();
    let items: Vec<GetItem> =
        found.into_iter().map(|file| local_item(dataset, directory, file.name)).collect();
    make_directories(directory, &items)?;
    let progress = session.reporter.start(dataset.as_str(), items.len() as u64, bytes);
    let report = session.files().get_files(items, progress.as_ref()).await?;
    let text = format!(
        "{dataset}: {} ({}) in {}",
        text::count(report.files, "file"),
        text::bytes(report.bytes),
        directory.display()
    );
    let data = json!({"dataset": dataset, "directory": directory,
        "files": report.files, "bytes": report.bytes});
    Ok(Answer::new(data, text))
}

/// Where a data set's file goes: a name in the store has no `..` and does not start with a slash.
fn local_item(dataset: &DatasetName, directory: &Path, name: FileName) -> GetItem {
    let rest = name.as_str().strip_prefix(dataset.as_str()).unwrap_or(name.as_str());
    let target = directory.join(rest.trim_start_matches('/'));
    GetItem { name, target }
}

fn make_directories(directory: &Path, items: &[GetItem]) -> Result<(), Failure> {
    let mut wanted: BTreeSet<&Path> = items.iter().filter_map(|item| item.target.parent()).collect();
    wanted.insert(directory);
    for path in wanted {
        std::fs::create_dir_all(path)
            .map_err(|error| Failure::error(format!("cannot make {}: {error}", path.display())))?;
    }
    Ok(())
}

/// Refuses what must not be replaced before the network is asked.
fn local_target(path: &Path) -> Result<(), Failure> {
    atomic_file::regular(path).map(drop).map_err(|error| Failure::target(path, &error))
}

fn version_json(version: &FileVersion) -> Value {
    json!({"name": version.name, "version": version.version, "size": version.size,
        "digest": version.digest.to_string(), "created_ms": version.created_ms})
}

/// `get-versions`.
pub async fn versions(
    session: &Session,
    name: &FileName,
    count: u32,
    local: &Path,
) -> Result<Answer, Failure> {
    local_target(local)?;
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
    let text =
        format!("{}\n{} in {}", table.render(), text::count(got.len() as u64, "version"), local.display());
    Ok(Answer::new(
        json!({"file": local, "versions": got.iter().map(version_json).collect::<Vec<_>>()}),
        text,
    ))
}

/// `delete`.
pub async fn delete(session: &Session, name: FileName) -> Result<Answer, Failure> {
    let Changed::Deleted { versions } =
        session.cluster().change(Change::Delete { name: name.clone() }).await?
    else {
        return Err(Failure::unexpected());
    };
    let text = format!("{name} deleted, {}", text::count(versions.into(), "version"));
    Ok(Answer::new(json!({"name": name, "versions": versions}), text))
}

/// `ls`.
pub async fn list(session: &Session, prefix: String, all: bool) -> Result<Answer, Failure> {
    let request = |after| ControlRequest::List { prefix: prefix.clone(), after, limit: page_limit() };
    let (mut files, more) = pages(session, request, all).await?;
    // A file's own name sorts before all names that it starts.
    let exact = files.first().is_some_and(|file| file.name.as_str() == prefix);
    if exact {
        files.truncate(1);
    } else if files.is_empty() && !prefix.is_empty() {
        return Err(Failure::new(Exit::NotFound, format!("no file's name is '{prefix}', or starts so")));
    }
    let members = members::any_list(session).await.unwrap_or_default();
    Ok(listing(&files, more && !exact, &members))
}

/// `store`.
pub async fn stored(session: &Session, member: Option<MemberRef>, all: bool) -> Result<Answer, Failure> {
    let id = match member.or_else(|| session.own_member.clone()) {
        Some(member) => members::find(session, &member).await?.id,
        None => match session.cluster().ask_any(ControlRequest::Identity).await? {
            (_, ControlReply::Identity(view)) => view.member.id,
            _ => return Err(Failure::unexpected()),
        },
    };
    let request = |after| ControlRequest::Stored { member: id, after, limit: page_limit() };
    let (files, more) = pages(session, request, all).await?;
    let members = members::any_list(session).await.unwrap_or_default();
    Ok(listing(&files, more, &members))
}

async fn pages(
    session: &Session,
    request: impl Fn(Option<FileName>) -> ControlRequest,
    all: bool,
) -> Result<(Vec<FileSummary>, bool), Failure> {
    let mut files: Vec<FileSummary> = Vec::new();
    loop {
        let after = files.last().map(|file| file.name.clone());
        let ControlReply::Files { files: page, more } = session.cluster().control(request(after)).await?
        else {
            return Err(Failure::unexpected());
        };
        let empty = page.is_empty();
        files.extend(page);
        if !more || !all || empty {
            return Ok((files, more && !empty));
        }
    }
}

/// The names of a file's holders, in natural order.
pub fn holder_names(file: &FileSummary, members: &[MemberView]) -> Vec<String> {
    let mut names: Vec<String> = file.holders.iter().map(|node| text::member_name(members, *node)).collect();
    names.sort_by(|a, b| members::natural(a).cmp(&members::natural(b)));
    names
}

fn listing(files: &[FileSummary], more: bool, members: &[MemberView]) -> Answer {
    let mut table = Table::new("NAME >VERSION >KEPT >SIZE CREATED HOLDERS");
    let mut rows = Vec::new();
    for file in files {
        let holders = holder_names(file, members);
        table.row([
            file.name.to_string(),
            file.version.to_string(),
            file.versions.to_string(),
            file.size.to_string(),
            text::moment(file.created_ms),
            holders.join(" "),
        ]);
        rows.push(json!({"name": file.name, "version": file.version, "versions": file.versions,
            "size": file.size, "digest": file.digest.to_string(), "created_ms": file.created_ms,
            "holders": holders}));
    }
    let mut text = if files.is_empty() { String::from("no files") } else { table.render() };
    if more {
        text.push_str("\nthere are more: --all shows them");
    }
    Answer::new(json!({"files": rows, "more": more}), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_becomes_names_in_order() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("sub")).unwrap();
        for name in ["b.jpg", "a.jpg", "sub/c.jpg"] {
            std::fs::write(root.path().join(name), name).unwrap();
        }
        let (items, bytes) = walk(root.path(), &"set".parse().unwrap()).unwrap();
        let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
        assert_eq!(names, ["set/a.jpg", "set/b.jpg", "set/sub/c.jpg"]);
        assert_eq!(bytes, 19);
    }

    #[test]
    fn a_data_set_goes_into_a_directory_under_its_own_names() {
        let root = tempfile::tempdir().unwrap();
        let set = "photos/cats".parse().unwrap();
        let items: Vec<GetItem> = ["photos/cats/a.jpg", "photos/cats/sub/photos/b.jpg"]
            .map(|name| local_item(&set, root.path(), name.parse().unwrap()))
            .into();
        assert_eq!(items[0].target, root.path().join("a.jpg"));
        assert_eq!(items[1].target, root.path().join("sub/photos/b.jpg"));
        make_directories(root.path(), &items).unwrap();
        assert!(root.path().join("sub/photos").is_dir());
        std::fs::write(root.path().join("file"), "").unwrap();
        let error = make_directories(&root.path().join("file"), &items).unwrap_err();
        assert!(error.message.contains("cannot make"), "{error}");
    }

    #[test]
    fn only_what_was_sent_has_copies() {
        let empty = PutReport { files: 1, ..PutReport::default() };
        assert_eq!(copies(&empty), "");
        let sent = PutReport { files: 1, copies_min: 3, copies_wanted: 4, ..PutReport::default() };
        assert_eq!(copies(&sent), ", copies: 3 of 4");
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        assert!(local_target(&root.path().join("new")).is_ok());
        for special in [Path::new("/dev/null"), root.path()] {
            assert_eq!(local_target(special).unwrap_err().exit, Exit::Refused, "{}", special.display());
        }
    }

    #[test]
    fn what_cannot_be_put_is_refused_before_the_network() {
        let root = tempfile::tempdir().unwrap();
        assert!(local_file(root.path()).unwrap_err().message.contains("it is a directory"));
        let missing = local_file(&root.path().join("missing")).unwrap_err();
        assert!(missing.message.contains("missing") && missing.exit == Exit::Error, "{missing}");
        std::fs::write(root.path().join("bad\nname"), "").unwrap();
        let error = walk(root.path(), &"set".parse().unwrap()).unwrap_err();
        assert!(error.message.contains("control character") && error.exit == Exit::Refused, "{error}");
        assert!(walk(&root.path().join("missing"), &"set".parse().unwrap()).is_err());
    }
}
