//! Which keys do what: the registry's, with what the keymap file says over them.
//!
//! The file names an action or command and its keys: `freeze = "space"`, `stop-job = ["a x", "f8"]`; an empty list
//! unbinds. A line that is wrong or in conflict is reported and left out; everything else counts.

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
    /// The chord of a key that was pressed. Shift is in the character already.
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

/// What keys that were pressed are.
#[derive(Clone, Debug)]
pub enum Found {
    /// This item's.
    Item(&'static Item),
    /// The beginning of others'.
    Prefix,
    /// Nobody's.
    Nothing,
}

struct Binding {
    item: usize,
    keys: Vec<Chord>,
}

/// The keys as they hold.
pub struct Keymap {
    bindings: Vec<Binding>,
    /// What is wrong with the keymap file.
    pub problems: Vec<String>,
}

impl fmt::Debug for Keymap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keymap of {} keys", self.bindings.len())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Keys {
    One(String),
    Many(Vec<String>),
}

impl Default for Keymap {
    fn default() -> Self {
        Self::read("")
    }
}

impl Keymap {
    /// The registry's keys, with those of a keymap file over them.
    pub fn read(text: &str) -> Self {
        let mut problems = Vec::new();
        let given = toml::from_str::<BTreeMap<String, Keys>>(text).unwrap_or_else(|error| {
            problems.push(error.to_string().trim_end().replace('\n', " "));
            BTreeMap::new()
        });
        let mut wanted: BTreeMap<usize, Vec<Vec<Chord>>> = BTreeMap::new();
        for (name, keys) in given {
            let Some(item) = items().iter().position(|item| item.name == name) else {
                problems.push(format!("there is no action or command '{name}'"));
                continue;
            };
            let texts = match keys {
                Keys::One(text) => vec![text],
                Keys::Many(texts) => texts,
            };
            let mut sequences = Vec::new();
            for text in texts.iter().filter(|text| !text.is_empty()) {
                match sequence(text) {
                    Some(chords) => sequences.push(chords),
                    None => problems.push(format!("{name} = \"{text}\" is no key")),
                }
            }
            wanted.insert(item, sequences);
        }
        let mut keymap = Self { bindings: Vec::new(), problems };
        // The file's keys come first: of two in conflict theirs count, the registry's give way.
        for (&item, sequences) in &wanted {
            sequences.iter().for_each(|keys| keymap.bind(item, keys.clone()));
        }
        for (item, spec) in items().iter().enumerate().filter(|(item, _)| !wanted.contains_key(item)) {
            spec.keys.iter().filter_map(|keys| sequence(keys)).for_each(|keys| keymap.bind(item, keys));
        }
        keymap
    }

    fn bind(&mut self, item: usize, keys: Vec<Chord>) {
        let all = items();
        let clash = self.bindings.iter().find(|other| {
            let begins = keys.starts_with(&other.keys) || other.keys.starts_with(&keys);
            begins && all[item].scope.meets(all[other.item].scope)
        });
        match clash {
            Some(other) => self.problems.push(format!(
                "{} = \"{}\" is in conflict with {} = \"{}\", which counts",
                all[item].name,
                written(&keys),
                all[other.item].name,
                written(&other.keys)
            )),
            None => self.bindings.push(Binding { item, keys }),
        }
    }

    /// Whose keys these are on a page.
    pub fn find(&self, pressed: &[Chord], page: Page) -> Found {
        let mut found = Found::Nothing;
        for binding in self.bindings.iter().filter(|binding| binding.keys.starts_with(pressed)) {
            let item = &items()[binding.item];
            if !item.scope.meets(Scope::On(page)) {
                continue;
            }
            if binding.keys.len() == pressed.len() {
                return Found::Item(item);
            }
            found = Found::Prefix;
        }
        found
    }

    /// What may follow the keys pressed so far: the rest of the keys, and what they do.
    pub fn following(&self, pressed: &[Chord], page: Page) -> Vec<(String, &'static Item)> {
        let mut rows: Vec<(String, &'static Item)> = Vec::new();
        for binding in self.bindings.iter().filter(|binding| binding.keys.starts_with(pressed)) {
            let item = &items()[binding.item];
            if item.scope.meets(Scope::On(page)) && binding.keys.len() > pressed.len() {
                rows.push((written(&binding.keys[pressed.len()..]), item));
            }
        }
        rows
    }

    /// The keys of an item, as people write them.
    pub fn keys(&self, name: &str) -> Vec<String> {
        let of = |binding: &&Binding| items()[binding.item].name == name;
        self.bindings.iter().filter(of).map(|binding| written(&binding.keys)).collect()
    }

    /// The first key of an item, for a hint.
    pub fn hint(&self, name: &str) -> Option<String> {
        self.keys(name).into_iter().next()
    }
}

fn written(keys: &[Chord]) -> String {
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
            Found::Item(item) => Some(&item.name),
            Found::Prefix | Found::Nothing => None,
        }
    }

    #[test]
    fn the_registrys_own_keys_are_without_conflict() {
        assert_eq!(Keymap::default().problems, [""; 0]);
        for item in items() {
            assert!(!item.help.is_empty(), "{}", item.name);
            for key in &item.keys {
                assert_eq!(written(&pressed(key)), *key, "{}", item.name);
            }
        }
    }

    #[test]
    fn no_bare_key_and_no_control_key_changes_the_cluster() {
        for item in items().iter().filter(|item| item.changes()) {
            for key in &item.keys {
                assert!(key.starts_with("a "), "{} = {key}", item.name);
            }
        }
    }

    #[test]
    fn a_file_rebinds_unbinds_and_is_told_of_conflicts() {
        let keymap = Keymap::read("freeze = \"z\"\nquit = []\nstop-job = [\"f8\", \"a x\"]\n");
        assert_eq!(keymap.problems, [""; 0]);
        assert_eq!(found(&keymap, "z", Page::Jobs), Some("freeze"));
        assert_eq!(found(&keymap, "space", Page::Jobs), None);
        assert_eq!(found(&keymap, "q", Page::Jobs), None);
        assert_eq!(found(&keymap, "f8", Page::Jobs), Some("stop-job"));
        assert!(matches!(keymap.find(&pressed("a"), Page::Jobs), Found::Prefix));

        let keymap = Keymap::read("freeze = \"a\"\nnonsense = \"x\"\ncopy = \"ctrl-\"\nmouse = \"n\"\n");
        let all = keymap.problems.join("\n");
        for part in [
            "no action or command 'nonsense'",
            "copy = \"ctrl-\" is no key",
            "files-next = \"n\" is in conflict",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
        assert!(all.contains("stop-job = \"a x\" is in conflict with freeze = \"a\""), "{all}");
        assert!(Keymap::read("x = = y").problems[0].contains("TOML"));
    }

    #[test]
    fn a_key_counts_on_its_page() {
        let keymap = Keymap::default();
        assert_eq!(found(&keymap, "n", Page::Files), Some("files-next"));
        assert_eq!(found(&keymap, "n", Page::Logs), Some("next-found"));
        assert_eq!(found(&keymap, "n", Page::Jobs), None);
    }
}
