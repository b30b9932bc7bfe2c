//! The commands by noun: `idunno job start` is `idunno start-job`. The manual's names stay, and each of these is another name of
//! one of them, with its arguments, help and completion.

use std::ffi::OsStr;
use std::fmt::Write;

use clap::{Command, CommandFactory};

use super::Arguments;

/// A noun and what can be done with it.
struct Noun {
    name: &'static str,
    about: &'static str,
    /// A word, and the command that it stands for.
    commands: &'static [(&'static str, &'static str)],
}

const NOUNS: [Noun; 4] = [
    Noun {
        name: "job",
        about: "Run a model over a dataset",
        commands: &[
            ("add", "add-job"),
            ("start", "start-job"),
            ("stop", "stop-job"),
            ("wait", "wait-job"),
            ("cancel", "cancel-job"),
            ("delete", "delete-job"),
            ("ls", "get-job-stats"),
            ("stats", "get-job-stats"),
            ("history", "get-job-history"),
            ("explain", "explain"),
            ("results", "get-job-results"),
            ("confusion", "get-job-confusion"),
            ("assigned", "get-job-assigned-VMs"),
            ("leases", "get-job-leases"),
            ("batch-size", "set-batch-size"),
            ("weight", "set-weight"),
            ("policy", "set-policy"),
        ],
    },
    Noun {
        name: "data",
        about: "Store datasets and fetch them",
        commands: &[
            ("put", "populate-test-data"),
            ("reference", "reference-data"),
            ("get", "get-dataset"),
            ("ls", "ls"),
            ("rm", "rm"),
        ],
    },
    Noun {
        name: "file",
        about: "Store files and fetch them",
        commands: &[
            ("put", "put"),
            ("get", "get"),
            ("cat", "cat"),
            ("ls", "ls"),
            ("versions", "get-versions"),
            ("cp", "cp"),
            ("mv", "mv"),
            ("rm", "rm"),
            ("delete", "delete"),
        ],
    },
    Noun {
        name: "member",
        about: "See members, and have one join or leave",
        commands: &[
            ("ls", "list_mem"),
            ("self", "list_self"),
            ("files", "store"),
            ("logs", "logs"),
            ("join", "join"),
            ("leave", "leave"),
        ],
    },
];

/// What words that begin with a noun stand for.
pub(super) enum ByNoun<W> {
    /// These words.
    Command(Vec<W>),
    /// The list of the noun's commands: no command follows it.
    Help(String),
}

fn noun(name: &str) -> Option<&'static Noun> {
    NOUNS.iter().find(|noun| noun.name == name)
}

/// Expands a noun at `at`, where a command stands; `None` if there is no noun. `word` makes a word of a command's name.
pub(super) fn expanded<W: AsRef<OsStr> + Clone>(
    words: &[W],
    at: usize,
    word: impl Fn(&'static str) -> W,
) -> Option<ByNoun<W>> {
    let noun = noun(words.get(at)?.as_ref().to_str()?)?;
    let next = words.get(at + 1).and_then(|word| word.as_ref().to_str());
    let Some((_, command)) = noun.commands.iter().find(|(word, _)| Some(*word) == next) else {
        return Some(ByNoun::Help(help(noun)));
    };
    Some(ByNoun::Command([&words[..at], &[word(command)], &words[at + 2..]].concat()))
}

/// The nouns, to complete a first word.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    NOUNS.iter().map(|noun| noun.name)
}

/// The words that may follow a noun; none if it is no noun.
pub(super) fn words(name: &str) -> impl Iterator<Item = &'static str> {
    noun(name).into_iter().flat_map(|noun| noun.commands).map(|(word, _)| *word)
}

/// The grammar with the nouns, for shells to complete.
pub fn with_nouns(grammar: Command) -> Command {
    let nouns: Vec<Command> = NOUNS
        .iter()
        .map(|noun| {
            let commands = noun.commands.iter().filter_map(|(word, command)| {
                let command = grammar.find_subcommand(command)?;
                Some(command.clone().name(*word))
            });
            Command::new(noun.name).about(noun.about).subcommands(commands)
        })
        .collect();
    grammar.subcommands(nouns)
}

fn help(Noun { name, about, commands }: &Noun) -> String {
    let grammar = Arguments::command();
    let widest = commands.iter().map(|(word, _)| word.len()).max().unwrap_or(0);
    let mut text = format!("{about}\n\nUsage: idunno {name} COMMAND\n\n");
    for (word, command) in *commands {
        let about = grammar.find_subcommand(command).and_then(Command::get_about).map(ToString::to_string);
        // Memory takes all that is written to it.
        let _ = writeln!(text, "  {word:<widest$}  {} ({command})", about.unwrap_or_default());
    }
    text + "\nThe name in parentheses is the same command.\n"
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::command::line::{CompletionNames, Line, complete, parse};
    use crate::command::{Verb, alias};

    fn read(line: &str) -> Result<Arguments, clap::Error> {
        let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
        Arguments::read(&words)
    }

    #[test]
    fn each_word_is_a_command_and_no_noun_is() {
        let grammar = Arguments::command();
        for noun in &NOUNS {
            assert!(grammar.find_subcommand(noun.name).is_none(), "{}", noun.name);
            for (word, command) in noun.commands {
                assert!(grammar.find_subcommand(command).is_some(), "{} {word}", noun.name);
                let known = words(noun.name).filter(|known| known == word).count();
                assert_eq!(known, 1, "{} {word}", noun.name);
            }
        }
        with_nouns(grammar).debug_assert();
    }

    #[test]
    fn a_noun_stands_where_a_command_does_and_nowhere_else() {
        let started = read("idunno -o json job start job-1 --limit 3").unwrap();
        assert_eq!(started.verb, read("idunno start-job job-1 --limit 3 -o json").unwrap().verb);
        // A local file named job, stored as start.
        assert!(matches!(read("idunno put job start").unwrap().verb, Some(Verb::Put { .. })));
        let Line::Verb { verb, .. } = parse("member ls") else { panic!() };
        assert!(matches!(*verb, Verb::ListMem(_)));
        let aliases = [(String::from("s"), String::from("job stats"))].into();
        assert_eq!(alias::problems(&aliases).next(), None);
    }

    #[test]
    fn a_noun_alone_lists_its_commands() {
        for line in ["idunno job", "idunno job --help", "idunno job nonsense"] {
            let shown = read(line).unwrap_err().to_string();
            assert!(shown.contains("\n  wait ") && shown.contains("(start-job)"), "{line}: {shown}");
        }
        assert!(matches!(parse("file"), Line::Show(text) if text.contains("(get-versions)")));
        let complete = |text| complete(text, &CompletionNames::default());
        assert_eq!(complete("job st"), ["start", "stop", "stats"]);
        assert!(complete("jo").contains(&String::from("job")));
        assert!(complete("job start job-1 --l").contains(&String::from("--limit")));
    }
}
