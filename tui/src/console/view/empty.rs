//! What a page without rows says: why it is empty, and what to press.

use crate::console::registry::{self, Item};
use crate::console::state::{ConnectionState, Page, State};
use crate::tail::printable;

/// The text of an empty page.
pub(super) fn page(state: &State) -> String {
    let Some(_) = &state.view else {
        return match (&state.connection, state.page) {
            (_, Page::Events) => no_events(state),
            (ConnectionState::Waiting { .. }, _) => {
                String::from("no coordinator found; is the cluster running? ':local up' starts a local one")
            }
            _ => String::from("looking for the coordinator"),
        };
    };
    if state.page == Page::Files && state.details.is_empty() {
        return files(state);
    }
    if !state.filter().is_empty() {
        return String::from("no row matches the filter; Esc clears it");
    }
    match state.page {
        Page::Events => no_events(state),
        Page::Jobs => with_keys(state, "no jobs yet", &[("add-job", "adds one")]),
        Page::Models => with_keys(
            state,
            "no models yet",
            &[("train-start", "trains the predefined ones"), ("model add", "adds one of your own")],
        ),
        Page::Assignments => with_keys(state, "no member works yet", &[("start-job", "starts a job")]),
        Page::Overview | Page::Members | Page::Files | Page::Logs => {
            with_keys(state, "no member has reported yet", &[("events", "shows what happens")])
        }
    }
}

fn no_events(state: &State) -> String {
    with_keys(state, "nothing has happened since the console was opened", &[("logs", "shows the logs")])
}

fn files(state: &State) -> String {
    match (&state.files.error, &state.files.in_flight) {
        (Some(error), _) => printable(error),
        (None, Some(_)) => String::from("loading"),
        (None, None) if !state.filter().is_empty() => {
            let place = if state.files.folder.is_empty() { "the store" } else { &state.files.folder };
            format!("no name in {place} starts with '{}'; Esc clears the filter", state.filter())
        }
        (None, None) => {
            with_keys(state, "no files", &[("put", "stores one"), ("populate-test-data", "stores a folder")])
        }
    }
}

/// A text with the keys that help, as the keymap has them; read-only mode leaves out those that change the cluster.
pub(super) fn with_keys(state: &State, text: &str, keys: &[(&str, &str)]) -> String {
    let is_allowed = |name: &str| !(state.read_only && registry::find(name).is_some_and(Item::changes));
    let keys = keys.iter().filter(|(name, _)| is_allowed(name));
    let help = keys.filter_map(|(name, what)| Some(format!("'{}' {what}", state.keymap.hint(name)?)));
    let help: Vec<String> = help.collect();
    if help.is_empty() { text.to_owned() } else { format!("{text}: {}", help.join(", ")) }
}
