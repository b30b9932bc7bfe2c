//! The names in the newest view, and paths on this machine, for the completion of arguments.

use std::collections::BTreeSet;

use idunno_shared::folders;
use idunno_shared::names::FileName;
use idunno_shared::wire::control::{ClusterView, FolderEntry};
use idunno_shared::wire::records::DATASET_ENDINGS;

use super::state::{Mode, State};
use crate::command::line::{self, CompletionNames};
use crate::command::registry::Field;
use crate::execute::job_ref;

pub fn of(state: &State) -> CompletionNames {
    let name = |entry: &FolderEntry| match entry {
        FolderEntry::Folder(name) => name.clone(),
        FolderEntry::File(file) => file.name.to_string(),
    };
    let files: Vec<String> = state.files.entries.iter().map(name).collect();
    let local_paths = state.local_paths.entries.clone();
    let datasets = datasets(state.view.as_ref(), &files);
    let names = CompletionNames { files, datasets, local_paths, ..CompletionNames::default() };
    let Some(view) = &state.view else { return names };
    CompletionNames {
        jobs: job_ref::names(&view.jobs),
        models: view.models.iter().map(|model| model.model.to_string()).collect(),
        members: view.members.iter().map(|member| member.name.to_string()).collect(),
        ..names
    }
}

/// The local path that is being typed, if it is one.
pub fn local_path_typed(state: &State) -> Option<String> {
    match &state.mode {
        Mode::Form(form) => {
            let field = &form.entry.fields[form.focus];
            field.is_local_path().then(|| form.inputs[form.focus].text().to_owned())
        }
        Mode::Line(line) => {
            let text = line.input.before_cursor();
            let last = text.rsplit(char::is_whitespace).next().unwrap_or_default();
            line::argument(text).filter(Field::is_local_path).map(|_| last.to_owned())
        }
        _ => None,
    }
}

/// What jobs run over, and the folders and files of records that the files page lists.
fn datasets(view: Option<&ClusterView>, files: &[String]) -> Vec<String> {
    let is_own = |name: &str| name.parse::<FileName>().is_ok_and(|name| folders::of_cluster(&name).is_none());
    let listed = files.iter().filter_map(|name| match name.strip_suffix('/') {
        Some(folder) => Some(folder),
        None => is_dataset_file(name).then_some(name.as_str()),
    });
    let mut names: BTreeSet<String> = listed.filter(|name| is_own(name)).map(str::to_owned).collect();
    names.extend(view.iter().flat_map(|view| &view.jobs).map(|job| job.dataset.to_string()));
    names.into_iter().collect()
}

fn is_dataset_file(name: &str) -> bool {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending);
    ending.is_some_and(|ending| DATASET_ENDINGS.iter().any(|known| known.eq_ignore_ascii_case(ending)))
}
