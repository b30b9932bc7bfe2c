//! The names in the newest view, for the completion of arguments.

use idunno_shared::wire::control::FolderEntry;

use super::state::State;
use crate::command::line::CompletionNames;
use crate::execute::job_ref;

pub fn of(state: &State) -> CompletionNames {
    let name = |entry: &FolderEntry| match entry {
        FolderEntry::Folder(name) => name.clone(),
        FolderEntry::File(file) => file.name.to_string(),
    };
    let files = state.files.entries.iter().map(name).collect();
    let Some(view) = &state.view else { return CompletionNames { files, ..CompletionNames::default() } };
    CompletionNames {
        jobs: job_ref::names(&view.jobs),
        models: view.models.iter().map(|model| model.model.to_string()).collect(),
        members: view.members.iter().map(|member| member.name.to_string()).collect(),
        files,
    }
}
