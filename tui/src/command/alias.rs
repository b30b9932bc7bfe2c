//! Aliases from `config.toml`. An alias stands for a command and its first arguments, and is expanded where a command
//! stands and nowhere else: options may precede it. It cannot replace a command.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use clap::CommandFactory;

use super::Arguments;
use super::line::{UNCLOSED_QUOTE, split};
use super::nouns;
use super::registry::entries;

/// Aliases and their expansions.
pub type Aliases = BTreeMap<String, String>;

/// The problems of the aliases, one line each.
pub fn problems(aliases: &Aliases) -> impl Iterator<Item = String> {
    let names: Vec<String> = if aliases.is_empty() { Vec::new() } else { first_words() };
    aliases.iter().filter_map(move |(name, text)| {
        let words = split(text);
        let first = words.as_ref().ok().and_then(|words| words.first());
        match (names.contains(name), &words, first) {
            (true, ..) => Some(format!("the alias '{name}' is ignored, because it is a command")),
            (_, Err(_), _) => Some(format!("the alias '{name}': {UNCLOSED_QUOTE}")),
            (_, _, Some(first)) if names.contains(first) => None,
            _ => Some(format!("the alias '{name}' does not begin with a command: '{text}'")),
        }
    })
}

fn first_words() -> Vec<String> {
    let first = |name: &str| name.split(' ').next().unwrap_or(name).to_owned();
    entries().iter().map(|entry| first(&entry.name)).chain(nouns::names().map(str::to_owned)).collect()
}

/// Expands the alias of a typed line.
pub fn line(aliases: &Aliases, text: &str) -> String {
    let Ok(words) = split(text) else { return text.to_owned() };
    match expanded(aliases, &words, 0) {
        Some(words) => shell_words::join(words),
        None => text.to_owned(),
    }
}

/// Expands the alias of a command line, whose first word is the program.
pub fn arguments(aliases: &Aliases, words: Vec<OsString>) -> Vec<OsString> {
    expanded(aliases, &words, 1).unwrap_or(words)
}

/// The words with the alias expanded that stands where a command does: the first word from `start` on that is no option.
fn expanded<W: AsRef<OsStr> + Clone + From<String>>(
    aliases: &Aliases,
    words: &[W],
    start: usize,
) -> Option<Vec<W>> {
    let at = command_position(words, start)?;
    let alias = words[at].as_ref().to_str()?;
    let text = aliases.get(alias).filter(|_| !first_words().iter().any(|name| name == alias))?;
    let stands_for = split(text).ok()?.into_iter().map(W::from).collect::<Vec<W>>();
    Some([&words[..at], &stands_for, &words[at + 1..]].concat())
}

/// The position of the first word that is neither an option nor the value of one.
pub(super) fn command_position<W: AsRef<OsStr>>(words: &[W], start: usize) -> Option<usize> {
    let grammar = Arguments::command();
    let takes_next_word = |option: &str| {
        let mut arguments = grammar.get_arguments();
        let argument = match option.strip_prefix('-') {
            Some(long) => arguments.find(|argument| argument.get_long() == Some(long)),
            // Behind its letter a short option may have its value.
            None => arguments.find(|argument| {
                argument.get_short().is_some_and(|short| option.strip_prefix(short) == Some(""))
            }),
        };
        argument
            .is_some_and(|argument| argument.get_action().takes_values() && !argument.is_require_equals_set())
    };
    let mut at = start;
    loop {
        match words.get(at)?.as_ref().to_str().and_then(|word| word.strip_prefix('-')) {
            None => return Some(at),
            Some(option) => at += if takes_next_word(option) { 2 } else { 1 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliases() -> Aliases {
        let pairs = [("st", "get-job-stats"), ("dead1", "dead-letters list 'job-1'"), ("put", "delete")];
        pairs.map(|(name, text)| (name.to_owned(), text.to_owned())).into()
    }

    #[test]
    fn an_alias_expands_only_at_the_start_and_never_replaces_a_command() {
        assert_eq!(line(&aliases(), "st job-2"), "get-job-stats job-2");
        assert_eq!(line(&aliases(), "dead1"), "dead-letters list job-1");
        assert_eq!(line(&aliases(), "put a b"), "put a b");
        assert_eq!(line(&aliases(), "get-job-stats st"), "get-job-stats st");
        let words = |text: &str| -> Vec<OsString> { text.split(' ').map(Into::into).collect() };
        let given = arguments(&aliases(), words("idunno dead1 --output json"));
        assert_eq!(given, words("idunno dead-letters list job-1 --output json"));
        assert_eq!(arguments(&aliases(), words("idunno put a b")), words("idunno put a b"));
        for (options, kept) in [
            ("--cluster st", "st"),
            ("--cluster=st --timeout 3", "3"),
            ("--read-only --dry-run", "--dry-run"),
            ("--output json --watch --context st", "st"),
        ] {
            let given = arguments(&aliases(), words(&format!("idunno {options} st job-1")));
            assert_eq!(given, words(&format!("idunno {options} get-job-stats job-1")), "after {kept}");
        }
        assert_eq!(line(&aliases(), "--output json st 'a b'"), "--output json get-job-stats 'a b'");
        assert_eq!(line(&aliases(), "st 'a"), "st 'a", "what cannot be split is left as it is");
    }

    #[test]
    fn problems_of_aliases_are_reported() {
        let mut aliases = aliases();
        aliases.insert(String::from("x"), String::from("nonsense"));
        aliases.insert(String::from("y"), String::from("ls 'a"));
        let problems: Vec<String> = problems(&aliases).collect();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].contains("'put' is ignored"), "{problems:?}");
        assert!(problems[1].contains("does not begin"), "{problems:?}");
    }
}
