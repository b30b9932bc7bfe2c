//! Key bindings: the registry's defaults, overridden by the keymap file.
//!
//! The file names an action or command and its keys: `freeze = "space"`, `stop-job = ["a x", "f8"]`; an empty list
//! unbinds. A line that is invalid or conflicts with another is reported and skipped.

use std::collections::BTreeMap;
use std::fmt;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde::Deserialize;

use super::page::Page;
use super::registry::{Item, Scope, items};

/// A key with its modifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chord {
    code: KeyCode,
    modifiers: KeyModifiers,
}

const NAMED: [(&str, KeyCode); 15] = [
    ("enter", KeyCode::Enter),
    ("esc", KeyCode::Esc),
    ("space", KeyCode::Char(' ')),
    ("tab", KeyCode::Tab),
    ("shift-tab", KeyCode::BackTab),
    ("backspace", KeyCode::Backspace),
    ("delete", KeyCode::Delete),
    ("up", KeyCode::Up),
    ("down", KeyCode::Down),
    ("left", KeyCode::Left),
    ("right", KeyCode::Right),
    ("home", KeyCode::Home),
    ("end", KeyCode::End),
    ("pageup", KeyCode::PageUp),
    ("pagedown", KeyCode::PageDown),
];

impl Chord {
    /// Shift is not kept: it is part of the character.
    pub fn of(key: KeyEvent) -> Self {
        let kept = KeyModifiers::CONTROL | KeyModifiers::ALT;
        Self { code: key.code, modifiers: key.modifiers & kept }
    }

    /// Reads `ctrl-p`, `f5`, `space`, `A`.
    fn parse(text: &str) -> Option<Self> {
        let (mut rest, mut modifiers) = (text, KeyModifiers::NONE);
        for (prefix, modifier) in [("ctrl-", KeyModifiers::CONTROL), ("alt-", KeyModifiers::ALT)] {
            if let Some(after) = rest.strip_prefix(prefix) {
                (rest, modifiers) = (after, modifiers | modifier);
            }
        }
        let mut chars = rest.chars();
        let code = match (NAMED.iter().find(|(name, _)| *name == rest), chars.next(), chars.as_str()) {
            (Some((_, code)), ..) => *code,
            (None, Some(c), "") => KeyCode::Char(c),
            (None, Some('f'), number) => KeyCode::F(number.parse().ok().filter(|n| (1..=12).contains(n))?),
            _ => return None,
        };
        Some(Self { code, modifiers })
    }
}

impl fmt::Display for Chord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.modifiers.contains(KeyModifiers::CONTROL) {
            f.write_str("ctrl-")?;
        }
        if self.modifiers.contains(KeyModifiers::ALT) {
            f.write_str("alt-")?;
        }
        match (NAMED.iter().find(|(_, code)| *code == self.code), self.code) {
            (Some((name, _)), _) => f.write_str(name),
            (None, KeyCode::Char(c)) => write!(f, "{c}"),
            (None, KeyCode::F(number)) => write!(f, "f{number}"),
            (None, other) => write!(f, "{other:?}"),
        }
    }
}

fn sequence(text: &str) -> Option<Vec<Chord>> {
    let chords: Option<Vec<Chord>> = text.split_whitespace().map(Chord::parse).collect();
    chords.filter(|chords| !chords.is_empty())
}

/// What a sequence of keys is bound to.
#[derive(Clone, Debug)]
pub enum KeyMatch {
    Item(&'static Item),
    /// The beginning of longer sequences.
    Prefix,
    None,
}

struct Binding {
    /// Index into [`items`].
    item: usize,
    keys: Vec<Chord>,
}

/// The bindings in effect.
pub struct Keymap {
    bindings: Vec<Binding>,
    /// Errors in the keymap file.
    pub problems: Vec<String>,
}

impl fmt::Debug for Keymap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keymap of {} keys", self.bindings.len())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum KeymapEntry {
    One(String),
    Many(Vec<String>),
}

impl Default for Keymap {
    fn default() -> Self {
        Self::read("")
    }
}

impl Keymap {
    /// The default keys, overridden by those of a keymap file.
    pub fn read(text: &str) -> Self {
        let mut problems = Vec::new();
        let overrides = toml::from_str::<BTreeMap<String, KeymapEntry>>(text).unwrap_or_else(|error| {
            problems.push(error.to_string().trim_end().replace('\n', " "));
            BTreeMap::new()
        });
        let mut sequences_by_item: BTreeMap<usize, Vec<Vec<Chord>>> = BTreeMap::new();
        for (name, keys) in overrides {
            let Some(item) = items().iter().position(|item| item.name == name) else {
                problems.push(format!("there is no action or command '{name}'"));
                continue;
            };
            let texts = match keys {
                KeymapEntry::One(text) => vec![text],
                KeymapEntry::Many(texts) => texts,
            };
            let mut sequences = Vec::new();
            for text in texts.iter().filter(|text| !text.is_empty()) {
                match sequence(text) {
                    Some(chords) => sequences.push(chords),
                    None => problems.push(format!("{name} = \"{text}\" is not a key")),
                }
            }
            sequences_by_item.insert(item, sequences);
        }
        let mut keymap = Self { bindings: Vec::new(), problems };
        // The file's keys are bound first, so that they win over conflicting defaults.
        for (&item, sequences) in &sequences_by_item {
            sequences.iter().for_each(|keys| keymap.bind(item, keys.clone()));
        }
        for (item, spec) in
            items().iter().enumerate().filter(|(item, _)| !sequences_by_item.contains_key(item))
        {
            spec.keys.iter().filter_map(|keys| sequence(keys)).for_each(|keys| keymap.bind(item, keys));
        }
        keymap
    }

    fn bind(&mut self, item: usize, keys: Vec<Chord>) {
        let all = items();
        let conflict = self.bindings.iter().find(|other| {
            let is_prefix = keys.starts_with(&other.keys) || other.keys.starts_with(&keys);
            is_prefix && all[item].scope.overlaps(all[other.item].scope)
        });
        match conflict {
            Some(other) => self.problems.push(format!(
                "{} = \"{}\" conflicts with {} = \"{}\", which takes precedence",
                all[item].name,
                spelled(&keys),
                all[other.item].name,
                spelled(&other.keys)
            )),
            None => self.bindings.push(Binding { item, keys }),
        }
    }

    /// What these keys are bound to on a page.
    pub fn find(&self, pressed: &[Chord], page: Page) -> KeyMatch {
        let mut matched = KeyMatch::None;
        for binding in self.bindings.iter().filter(|binding| binding.keys.starts_with(pressed)) {
            let item = &items()[binding.item];
            if !item.scope.overlaps(Scope::On(page)) {
                continue;
            }
            if binding.keys.len() == pressed.len() {
                return KeyMatch::Item(item);
            }
            matched = KeyMatch::Prefix;
        }
        matched
    }

    /// Completions of the keys pressed so far: the remaining keys and their items.
    pub fn following(&self, pressed: &[Chord], page: Page) -> Vec<(String, &'static Item)> {
        let mut rows: Vec<(String, &'static Item)> = Vec::new();
        for binding in self.bindings.iter().filter(|binding| binding.keys.starts_with(pressed)) {
            let item = &items()[binding.item];
            if item.scope.overlaps(Scope::On(page)) && binding.keys.len() > pressed.len() {
                rows.push((spelled(&binding.keys[pressed.len()..]), item));
            }
        }
        rows
    }

    /// The keys of an item, as they are written in the keymap file.
    pub fn keys(&self, name: &str) -> Vec<String> {
        let bindings = self.bindings.iter().filter(|binding| items()[binding.item].name == name);
        bindings.map(|binding| spelled(&binding.keys)).collect()
    }

    /// The first key of an item.
    pub fn hint(&self, name: &str) -> Option<String> {
        self.keys(name).into_iter().next()
    }
}

fn spelled(keys: &[Chord]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressed(text: &str) -> Vec<Chord> {
        sequence(text).unwrap()
    }

    fn found(keymap: &Keymap, keys: &str, page: Page) -> Option<&'static str> {
        match keymap.find(&pressed(keys), page) {
            KeyMatch::Item(item) => Some(&item.name),
            KeyMatch::Prefix | KeyMatch::None => None,
        }
    }

    #[test]
    fn default_keys_do_not_conflict() {
        assert_eq!(Keymap::default().problems, [""; 0]);
        for item in items() {
            assert!(!item.help.is_empty(), "{}", item.name);
            for key in &item.keys {
                assert_eq!(spelled(&pressed(key)), *key, "{}", item.name);
            }
        }
    }

    #[test]
    fn no_single_key_changes_the_cluster() {
        for item in items().iter().filter(|item| item.changes()) {
            for key in &item.keys {
                assert!(key.starts_with("a "), "{} = {key}", item.name);
            }
        }
    }

    #[test]
    fn a_keymap_file_rebinds_unbinds_and_conflicts_are_reported() {
        let keymap = Keymap::read("freeze = \"z\"\nquit = []\nstop-job = [\"f8\", \"a x\"]\n");
        assert_eq!(keymap.problems, [""; 0]);
        assert_eq!(found(&keymap, "z", Page::Jobs), Some("freeze"));
        assert_eq!(found(&keymap, "space", Page::Jobs), None);
        assert_eq!(found(&keymap, "q", Page::Jobs), None);
        assert_eq!(found(&keymap, "f8", Page::Jobs), Some("stop-job"));
        assert!(matches!(keymap.find(&pressed("a"), Page::Jobs), KeyMatch::Prefix));

        let keymap = Keymap::read("freeze = \"a\"\nnonsense = \"x\"\ncopy = \"ctrl-\"\nmouse = \"n\"\n");
        let all = keymap.problems.join("\n");
        for part in [
            "no action or command 'nonsense'",
            "copy = \"ctrl-\" is not a key",
            "files-next = \"n\" conflicts",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
        assert!(all.contains("stop-job = \"a x\" conflicts with freeze = \"a\""), "{all}");
        assert!(Keymap::read("x = = y").problems[0].contains("TOML"));
    }

    #[test]
    fn a_key_is_bound_on_its_page() {
        let keymap = Keymap::default();
        assert_eq!(found(&keymap, "n", Page::Files), Some("files-next"));
        assert_eq!(found(&keymap, "n", Page::Logs), Some("next-match"));
        assert_eq!(found(&keymap, "n", Page::Jobs), None);
    }
}
