//! The palette: every action and command, found by some of its letters.

use crossterm::event::{KeyCode, KeyEvent};

use super::actions;
use super::input::Input;
use super::registry::{Item, items};
use super::state::{Effect, Mode, State};

/// Takes a key.
pub fn key(state: &mut State, key: KeyEvent, mut input: Input, chosen: usize, now_ms: u64) -> Vec<Effect> {
    let found = found(state, &input.text());
    let last = found.len().saturating_sub(1);
    let chosen = match key.code {
        KeyCode::Esc => return Vec::new(),
        KeyCode::Enter => {
            return found.get(chosen).map(|item| actions::run(state, item, now_ms)).unwrap_or_default();
        }
        KeyCode::Down => (chosen + 1).min(last),
        KeyCode::Up => chosen.saturating_sub(1),
        KeyCode::PageDown => (chosen + state.pane_height()).min(last),
        KeyCode::PageUp => chosen.saturating_sub(state.pane_height()),
        _ => {
            input.key(key);
            0
        }
    };
    state.mode = Mode::Palette { input, chosen };
    Vec::new()
}

/// The items that a text finds, best first. In read-only mode those that change the cluster are not there.
pub fn found(state: &State, text: &str) -> Vec<&'static Item> {
    let allowed = items().iter().filter(|item| !(state.read_only && item.changes()));
    let mut scored: Vec<(u32, &Item)> = allowed
        .filter_map(|item| {
            let by_name = score(text, &item.name);
            // What is found in the description comes behind what is found in names.
            let by_help = item.help.to_lowercase().contains(&text.to_lowercase()).then_some(1);
            Some((by_name.or(by_help)?, item))
        })
        .collect();
    scored.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    scored.into_iter().map(|(_, item)| item).collect()
}

/// How well a text's letters are found in a name, in order: none if one is missing. Runs of letters and starts of
/// words count more, and the start of the name once more.
fn score(text: &str, name: &str) -> Option<u32> {
    let mut score = 2;
    let mut letters = name.chars().map(|c| c.to_ascii_lowercase());
    let (mut run, mut before) = (0, '-');
    for wanted in text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()) {
        loop {
            let letter = letters.next()?;
            let starts = !before.is_alphanumeric();
            before = letter;
            if letter == wanted {
                run += 1;
                score += run + if starts { 3 } else { 0 };
                break;
            }
            run = 0;
        }
    }
    Some(score + u32::from(name.starts_with(text.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_in_order_find_and_starts_of_words_come_first() {
        assert!(score("sbs", "set-batch-size").unwrap() > score("sbs", "suspend-bus").unwrap_or(0));
        assert_eq!(score("xyz", "set-batch-size"), None);
        let state = State::new(String::new());
        let first = |text: &str| found(&state, text)[0].name.as_str();
        assert_eq!(first("stop"), "stop-job");
        assert_eq!(first("gjs"), "get-job-stats");
        assert_eq!(first("dead letters"), "dead-letters list");
        assert_eq!(first("retry"), "dead-letters retry");
        assert_eq!(found(&state, "").len(), items().len());
    }

    #[test]
    fn read_only_takes_away_what_changes() {
        let state = State { read_only: true, ..State::new(String::new()) };
        assert!(found(&state, "").iter().all(|item| !item.changes()));
        assert!(found(&state, "put").iter().all(|item| item.name != "put"));
    }
}
