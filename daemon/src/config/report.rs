//! The settings as people read them: the reference of all settings, and where each value came from.
//!
//! Both are generated from the flags' documentation, so that there is one place to maintain.

use std::fmt::Write;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command};

use super::backends::REFERENCE;
use super::{ConfigError, Settings};

/// A commented configuration file that lists every setting and sets none.
pub fn reference() -> String {
    let mut text = String::from(
        "# Settings of idunnod, introducer and member. A flag wins over the environment, the environment over this file.\n",
    );
    for setting in settings().get_arguments().filter(|setting| setting.get_id() != "config") {
        let help = setting.get_help().map(ToString::to_string).unwrap_or_default();
        // A default in words is only in the help text.
        let default =
            documented(setting).map(|default| default.split(", ").next().unwrap_or_default().to_owned());
        let default = default.filter(|default| !default.contains(' ') && default != "none");
        let (flag, key) = (setting.get_long().unwrap_or_default(), setting.get_id());
        let variable = setting.get_env().unwrap_or_default().display();
        // Writing to a string does not fail.
        let _ = write!(text, "\n# {help}\n# --{flag}, {variable}\n");
        let value = default.map_or_else(|| placeholder(setting), |default| format!("{default:?}"));
        let _ = writeln!(text, "# {key} = {}", unquoted(&value));
    }
    text + REFERENCE
}

/// Every setting with its value and its origin: a flag, the environment, the file or the default.
pub fn origins(matches: &ArgMatches) -> Result<String, ConfigError> {
    let file = matches.get_one::<std::path::PathBuf>("config");
    let in_file = match file {
        Some(path) => table(path)?,
        None => toml::Table::new(),
    };
    let mut rows = Vec::new();
    for setting in settings().get_arguments().filter(|setting| setting.get_id() != "config") {
        let key = setting.get_id().as_str();
        let given = matches.get_raw(key).and_then(|mut values| values.next());
        let given = given.map(|value| format!("{:?}", value.to_string_lossy()));
        rows.push(match (matches.value_source(key), in_file.get(key)) {
            (Some(ValueSource::CommandLine), _) => {
                let flag = setting.get_long().unwrap_or_default();
                (format!("{key} = {}", unquoted(&given.unwrap_or_default())), format!("--{flag}"))
            }
            (Some(ValueSource::EnvVariable), _) => {
                let variable = setting.get_env().unwrap_or_default().display().to_string();
                (format!("{key} = {}", unquoted(&given.unwrap_or_default())), variable)
            }
            (_, Some(value)) => {
                let path = file.map(|path| path.display().to_string()).unwrap_or_default();
                (format!("{key} = {value}"), path)
            }
            _ => {
                let default = documented(setting);
                (format!("# {key}"), default.map_or_else(|| "not set".into(), |it| format!("default: {it}")))
            }
        });
    }
    let backends = in_file.get("backend").and_then(toml::Value::as_array);
    for backend in backends.into_iter().flatten() {
        let name = backend.get("name").and_then(toml::Value::as_str).unwrap_or_default();
        let path = file.map(|path| path.display().to_string()).unwrap_or_default();
        rows.push((format!("[[backend]] {name}"), path));
    }
    let width = rows.iter().map(|(value, _)| value.chars().count()).max().unwrap_or(0);
    let line = |(value, origin): &(String, String)| format!("{value:width$}  # {origin}\n");
    Ok(rows.iter().map(line).collect())
}

fn table(path: &Path) -> Result<toml::Table, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    text.parse().map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
}

fn settings() -> Command {
    Settings::augment_args(Command::new("idunnod"))
}

/// A setting's default, taken from its help text.
fn documented(setting: &Arg) -> Option<String> {
    let help = setting.get_help()?.to_string();
    let (_, default) = help.split_once(" [default: ")?;
    Some(default.trim_end_matches(']').to_owned())
}

fn placeholder(setting: &Arg) -> String {
    let names = setting.get_value_names().unwrap_or_default();
    format!("{:?}", names.first().map_or("", |name| name.as_str()))
}

/// TOML writes numbers and booleans without quotes.
fn unquoted(value: &str) -> String {
    let bare = value.trim_matches('"');
    let is_plain = bare.parse::<u64>().is_ok() || bare.parse::<bool>().is_ok();
    if is_plain { bare.to_owned() } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_lists_every_setting_and_is_valid_toml() {
        let text = reference();
        assert!(toml::from_str::<Settings>(&text).is_ok(), "{text}");
        // Each line names a real key.
        let flags = text.strip_suffix(REFERENCE).unwrap();
        let keys = flags.lines().filter_map(|line| line.strip_prefix("# ")?.split_once(" = "));
        let keys: Vec<&str> = keys.map(|(key, _)| key).collect();
        assert_eq!(keys.len(), settings().get_arguments().count() - 1, "{keys:?}");
        for key in keys {
            let error = toml::from_str::<Settings>(&format!("{key} = []")).unwrap_err().to_string();
            assert!(!error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn the_committed_reference_is_up_to_date() {
        let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/idunnod.toml");
        let committed = std::fs::read_to_string(committed).unwrap();
        assert_eq!(committed, reference(), "regenerate it: idunnod print-reference >docs/idunnod.toml");
    }

    #[test]
    fn each_value_is_shown_with_its_origin() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("member.toml");
        let backend = "[[backend]]\nname = 'triton'\ntoken = 'hunter2'\n";
        std::fs::write(&file, format!("threads = 3\nname = 'file'\n{backend}")).unwrap();
        let words = ["idunnod", "--config", file.to_str().unwrap(), "--name", "flag"];
        let text = origins(&settings().get_matches_from(words)).unwrap();
        let line = |key: &str| text.lines().find(|line| line.contains(key)).unwrap().to_owned();
        assert!(line("name = \"flag\"").ends_with("# --name"), "{text}");
        assert!(line("threads = 3").ends_with(&format!("# {}", file.display())), "{text}");
        assert!(line("[[backend]] triton").ends_with(&format!("# {}", file.display())), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(line("# log_files").ends_with("# default: 14"), "{text}");
        assert!(line("# advertise").ends_with("# not set"), "{text}");
    }
}
