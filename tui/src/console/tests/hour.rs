//! An hour of somebody who operates a cluster: tasks, and the keys that each takes from the overview. The numbers are those of
//! docs/console/README.md.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use idunno_shared::wire::control::FolderEntry;

use super::fixtures::{answer, busy_cluster, entry};
use super::screen;
use crate::console::state::{Effect, FilesPage, Msg, Page};
use crate::console::update::update;

/// A task.
struct Task {
    what: &'static str,
    /// `\r` is Enter, `\t` Tab, `→` the arrow, `\x01` to `\x1a` are with ctrl, all others are themselves.
    keys: &'static str,
    /// What must be on the screen at the end, or among the commands that were run.
    done: &'static str,
}

const TASKS: [Task; 12] = [
    Task { what: "see what runs", keys: "3", done: "● running" },
    Task { what: "add a job", keys: "ansqueezenet1.1\r", done: "AddJob" },
    Task { what: "start it", keys: "3as\r", done: "StartJob" },
    Task { what: "why queries failed", keys: "3j\r→→", done: "the image is cut off" },
    Task { what: "who holds a file", keys: "5j\r", done: "m2 m3 m4 m6" },
    Task { what: "a member's log", keys: "2jl", done: "StreamLogs([LogSource { name: \"m2\"" },
    Task { what: "see a death", keys: "8", done: "m1 is dead" },
    Task { what: "stop a job", keys: "3ax\ry", done: "StopJob" },
    Task { what: "delete a file", keys: "5:delete labels.csv\rlabels.csv\r", done: "Delete {" },
    Task { what: "save the page", keys: "3S\r", done: "Save(" },
    Task { what: "search the files", keys: "5/lab\r", done: "prefix: \"lab\"" },
    Task { what: "sort the jobs", keys: "3>>>>", done: "Q/S ▼" },
];

fn key(c: char) -> KeyEvent {
    match c {
        '\r' => KeyEvent::from(KeyCode::Enter),
        '→' => KeyEvent::from(KeyCode::Right),
        '\t' => KeyEvent::from(KeyCode::Tab),
        c if c.is_ascii_control() => {
            let letter = char::from(u8::try_from(c).unwrap() + b'a' - 1);
            KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL)
        }
        c => KeyEvent::from(KeyCode::Char(c)),
    }
}

/// Does a task, and returns what is on screen and what was run.
fn done(task: &Task) -> String {
    let mut state = busy_cluster(Page::Overview);
    let mut ran = Vec::new();
    for (number, c) in (0_u64..).zip(task.keys.chars()) {
        // Dialogs ignore what is typed ahead of them.
        let now_ms = 60_000 + number * 2_000;
        let effects = update(&mut state, Msg::Key(key(c)), now_ms);
        answer(&mut state, effects.clone());
        for effect in &effects {
            if let Effect::FetchFiles(query) = effect {
                let entries =
                    vec![FolderEntry::Folder("docs/".into()), entry("labels.csv"), entry("photo.jpg")];
                let page = FilesPage { total: entries.len() as u64, entries, first: 0 };
                update(&mut state, Msg::Files(query.clone(), Ok(page)), now_ms);
            }
        }
        ran.extend(effects);
    }
    format!("{}\n{ran:?}", screen(&state, 120, 40, 100_000))
}

#[test]
fn each_task_takes_as_many_keys_as_the_documentation_says() {
    let readme = include_str!("../../../../docs/console/README.md");
    for task in &TASKS {
        let text = done(task);
        assert!(text.contains(task.done), "{}: {:?} is not on\n{text}", task.what, task.done);
        let row = format!("| {} | {} |", task.what, task.keys.chars().count());
        assert!(readme.contains(&row), "docs/console/README.md has no row {row}");
    }
}
