//! The palette: fuzzy search over all actions and commands.

use std::cmp::Reverse;

use crossterm::event::{KeyCode, KeyEvent};
use nucleo_matcher::pattern::{AtomKind, CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config, Matcher, Utf32Str};

use super::actions;
use super::registry::{Item, items};
use super::state::{Effect, Mode, State};
use super::text_field::TextField;

pub fn press(
    state: &mut State,
    key: KeyEvent,
    mut input: TextField,
    selected: usize,
    now_ms: u64,
) -> Vec<Effect> {
    let matches = matches(state, input.text());
    let last = matches.len().saturating_sub(1);
    let selected = match key.code {
        KeyCode::Esc => return Vec::new(),
        KeyCode::Enter => {
            return matches.get(selected).map(|item| actions::run(state, item, now_ms)).unwrap_or_default();
        }
        KeyCode::Down => (selected + 1).min(last),
        KeyCode::Up => selected.saturating_sub(1),
        KeyCode::PageDown => (selected + state.overlay_height()).min(last),
        KeyCode::PageUp => selected.saturating_sub(state.overlay_height()),
        _ => {
            input.press(key);
            0
        }
    };
    state.mode = Mode::Palette { input, selected };
    Vec::new()
}

/// The items that match a text, best first: by name, then by description. Read-only mode leaves out what changes the
/// cluster.
pub fn matches(state: &State, text: &str) -> Vec<&'static Item> {
    let mut scorer = NameScorer::new(text);
    let text = text.to_lowercase();
    let allowed = items().iter().filter(|item| !(state.read_only && item.changes()));
    let mut scored: Vec<(Option<u32>, &Item)> = allowed
        .map(|item| (scorer.score(&item.name), item))
        .filter(|(score, item)| score.is_some() || item.help.to_lowercase().contains(&text))
        .collect();
    scored.sort_by_key(|(score, _)| Reverse(*score));
    scored.into_iter().map(|(_, item)| item).collect()
}

/// Scores names against a search text, each of whose words must match.
struct NameScorer {
    pattern: Pattern,
    matcher: Matcher,
    buffer: Vec<char>,
}

impl NameScorer {
    fn new(text: &str) -> Self {
        Self {
            pattern: Pattern::new(text, CaseMatching::Ignore, Normalization::Smart, AtomKind::Fuzzy),
            matcher: Matcher::new(Config::DEFAULT),
            buffer: Vec::new(),
        }
    }

    fn score(&mut self, name: &str) -> Option<u32> {
        self.pattern.score(Utf32Str::new(name, &mut self.buffer), &mut self.matcher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_match_in_order_and_word_starts_rank_first() {
        let mut scorer = NameScorer::new("sbs");
        assert!(scorer.score("set-batch-size") > scorer.score("suspend-bus"));
        assert_eq!(NameScorer::new("xyz").score("set-batch-size"), None);
        let state = State::new(String::new());
        let first = |text: &str| matches(&state, text)[0].name.as_str();
        assert_eq!(first("stop"), "stop-job");
        assert_eq!(first("gjs"), "get-job-stats");
        assert_eq!(first("dead letters"), "dead-letters list");
        assert_eq!(first("retry"), "dead-letters retry");
        assert_eq!(matches(&state, "").len(), items().len());
    }

    #[test]
    fn read_only_mode_leaves_out_what_changes_the_cluster() {
        let state = State { read_only: true, ..State::new(String::new()) };
        assert!(matches(&state, "").iter().all(|item| !item.changes()));
        assert!(matches(&state, "put").iter().all(|item| item.name != "put"));
    }
}
