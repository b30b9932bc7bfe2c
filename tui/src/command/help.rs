//! `idunno --help`: the commands by what they are about, each group with an example. Their descriptions are the grammar's.

use std::fmt::Write;

use clap::Command;

use super::nouns;

/// Commands that belong together.
struct Group {
    title: &'static str,
    commands: &'static [&'static str],
    example: &'static str,
}

/// The commands of the manual first, in its order.
const GROUPS: [Group; 7] = [
    Group {
        title: "The manual's commands",
        commands: &[
            "populate-test-data",
            "train-start",
            "add-job",
            "set-batch-size",
            "start-job",
            "stop-job",
            "get-job-stats",
            "get-job-assigned-VMs",
            "join",
            "leave",
            "list_mem",
            "list_self",
            "put",
            "get",
            "delete",
            "ls",
            "store",
            "get-versions",
        ],
        example: "idunno add-job squeezenet1.1 --batch-size 32",
    },
    Group {
        title: "Jobs",
        commands: &[
            "explain",
            "get-job-results",
            "get-job-confusion",
            "get-job-history",
            "get-job-leases",
            "wait-job",
            "dead-letters",
            "set-weight",
            "set-policy",
            "cancel-job",
            "delete-job",
        ],
        example: "idunno explain job-1",
    },
    Group {
        title: "Models",
        commands: &["get-models", "model", "train-stop"],
        example: "idunno model add ./my-model",
    },
    Group {
        title: "Data and files",
        commands: &["reference-data", "get-dataset", "cat", "rm", "cp", "mv"],
        example: "idunno cp 'photos/*.jpg' archive/",
    },
    Group {
        title: "The cluster",
        commands: &["status", "events", "logs", "backup", "local", "deploy", "cluster"],
        example: "idunno logs m3 --level warn --since 2h",
    },
    Group { title: "People and programs", commands: &["identity", "key"], example: "idunno identity ls" },
    Group {
        title: "This program",
        commands: &["shell", "info", "keys", "gen-config", "completions", "man"],
        example: "idunno gen-config --keymap --write",
    },
];

/// The columns that help is written for.
const WIDTH: usize = 100;

/// The command with its subcommands in groups.
pub(super) fn grouped(command: Command) -> Command {
    let groups = groups(&command);
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}\nOptions:\n{{options}}{{after-help}}"
    ))
}

fn groups(command: &Command) -> String {
    let names = GROUPS.iter().flat_map(|group| group.commands);
    let widest = names.map(|name| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Group { title, commands, example } in &GROUPS {
        // Memory takes all that is written to it.
        let _ = writeln!(text, "{title}, such as `{example}`:");
        for name in *commands {
            let about = command.find_subcommand(name).and_then(Command::get_about).map(ToString::to_string);
            let about = shortened(&about.unwrap_or_default(), WIDTH.saturating_sub(widest + 4));
            let _ = writeln!(text, "  {name:<widest$}  {about}");
        }
        text.push('\n');
    }
    let nouns: Vec<String> = nouns::names().map(|noun| format!("`{noun}`")).collect();
    let _ = writeln!(text, "By noun, `idunno job start` is `idunno start-job`. Nouns: {}.", nouns.join(", "));
    text + "`idunno help COMMAND` says all about a command.\n"
}

/// The first clause that fits: a list stays one line a command, and the command's own help has the rest.
fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let before = |mark: char| text.find(mark).filter(|end| *end <= width);
    match before(';').or_else(|| before(':')).or_else(|| before(',')) {
        Some(end) => text[..end].to_owned(),
        None => text.chars().take(width.saturating_sub(3)).chain("...".chars()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsString;

    use clap::CommandFactory;

    use super::*;
    use crate::command::Arguments;
    use crate::command::line::split;

    #[test]
    fn every_command_is_in_one_group_and_every_example_is_understood() {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for name in GROUPS.iter().flat_map(|group| group.commands) {
            *counts.entry((*name).to_owned()).or_default() += 1;
        }
        let command = Arguments::command();
        let all = command.get_subcommands().map(|command| (command.get_name().to_owned(), 1));
        assert_eq!(counts, all.collect());
        for group in &GROUPS {
            let words: Vec<OsString> = split(group.example).unwrap().into_iter().map(Into::into).collect();
            Arguments::read(&words).unwrap_or_else(|error| panic!("{}: {error}", group.example));
        }
        assert_eq!(GROUPS[0].commands.len(), 18);
    }

    #[test]
    fn help_has_the_manuals_commands_on_top_and_fits() {
        let words: [OsString; 2] = ["idunno", "--help"].map(Into::into);
        let help = Arguments::read(&words).unwrap_err().to_string();
        let at = |text: &str| help.find(text).unwrap_or_else(|| panic!("{text:?} is not in\n{help}"));
        assert!(at("The manual's commands") < at("Jobs, such as `idunno explain job-1`"));
        assert!(at("  get-versions ") < at("  explain "));
        assert!(at("This program") < at("Options:") && at("Options:") < at("Exit codes:"));
        let groups = &help[..at("Options:")];
        let long = groups.lines().find(|line| line.chars().count() > WIDTH);
        assert_eq!(long, None);
        assert_eq!(groups.matches("populate-test-data").count(), 1, "clap's own list is gone");
    }
}
