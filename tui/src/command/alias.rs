//! Aliases from `config.toml`. An alias stands for the first words of a line and is expanded nowhere else; it cannot
//! replace a command.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::line::{UNCLOSED_QUOTE, split};
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
    entries().iter().map(|entry| first(&entry.name)).collect()
}

/// Expands the alias of a typed line.
pub fn line(aliases: &Aliases, text: &str) -> String {
    let (word, rest) = text.split_once(' ').map_or((text, ""), |(word, rest)| (word, rest));
    match aliases.get(word).filter(|_| !first_words().iter().any(|name| name == word)) {
        Some(stands_for) => format!("{stands_for} {rest}").trim_end().to_owned(),
        None => text.to_owned(),
    }
}

/// Expands the alias of a command line, the first word after the program.
pub fn arguments(aliases: &Aliases, words: Vec<OsString>) -> Vec<OsString> {
    let alias = words.get(1).and_then(|word| word.to_str()).filter(|word| aliases.contains_key(*word));
    let Some(alias) = alias.filter(|word| !first_words().iter().any(|name| name == word)) else {
        return words;
    };
    let Ok(stands_for) = split(&aliases[alias]) else { return words };
    let (program, rest) = (words[..1].to_vec(), words[2..].to_vec());
    [program, stands_for.into_iter().map(Into::into).collect(), rest].concat()
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
        assert_eq!(line(&aliases(), "dead1"), "dead-letters list 'job-1'");
        assert_eq!(line(&aliases(), "put a b"), "put a b");
        assert_eq!(line(&aliases(), "get-job-stats st"), "get-job-stats st");
        let words = |text: &str| -> Vec<OsString> { text.split(' ').map(Into::into).collect() };
        let given = arguments(&aliases(), words("idunno dead1 --output json"));
        assert_eq!(given, words("idunno dead-letters list job-1 --output json"));
        assert_eq!(arguments(&aliases(), words("idunno put a b")), words("idunno put a b"));
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
