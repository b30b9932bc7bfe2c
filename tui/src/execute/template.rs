//! `gen-config`: settings files in which every setting is commented out and shows its default.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::answer::program::SettingsFile;
use crate::answer::{Answer, Exit, Failure};
use crate::console::registry::{Scope, items};
use crate::settings::directory;

/// `config.toml`. A setting follows its `#` without a blank, so that deleting the `#` puts it in force.
const CONFIG: &str = r#"# Settings of idunno and its console. Delete the '#' before a setting to change it.
# The command line overrides the environment, which overrides a context, which overrides this file. 'idunno info' shows
# the settings in force.

# The console's colours: dark, light, colour-blind or mono. NO_COLOR overrides it.
#theme = "dark"

# The console's characters: auto (by the locale), unicode or ascii.
#symbols = "auto"

# Whether the console handles the mouse from the start. Hold Shift to select text.
#mouse = false

# Refuse commands that change a cluster.
#read_only = false

# The default cluster: one of the contexts below.
#context = "lab"

# Short names for commands: with 'st', both 'idunno st job-1' and ':st job-1' run get-job-stats job-1.
#[aliases]
#st = "get-job-stats"
#dead = "dead-letters list"

# Clusters by name, for --context and the console's :context. 'cluster' takes addresses of members, separated by commas;
# a theme of its own tells the clusters apart.
#[contexts.lab]
#cluster = "127.0.0.1:7401"
#member = "m1"   # the member that commands without --member go to
#read_only = false
#theme = "light"
"#;

/// `gen-config`.
pub fn run(keymap: bool, write: bool) -> Result<Answer, Failure> {
    let (file, text) = if keymap { ("keymap.toml", keys()) } else { ("config.toml", CONFIG.to_owned()) };
    if !write {
        let shown = text.trim_end().to_owned();
        return Ok(Answer::new(&SettingsFile { path: file.to_owned(), text }, shown));
    }
    let path = directory(|name| std::env::var_os(name)).join(file);
    create(&path, &text)?;
    let path = path.display().to_string();
    let written = format!("{path} written");
    Ok(Answer::new(&SettingsFile { path, text }, written))
}

/// Creates a file; people's settings are never replaced.
fn create(path: &Path, text: &str) -> Result<(), Failure> {
    let wrong = |error: std::io::Error| Failure::target(path, &error);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(wrong)?;
    }
    let mut file = fs::File::create_new(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            Failure::new(Exit::Refused, format!("{} exists and was not changed", path.display()))
        }
        _ => wrong(error),
    })?;
    file.write_all(text.as_bytes()).map_err(wrong)
}

/// `keymap.toml`: every action and command with its keys.
fn keys() -> String {
    let mut text = String::from(
        "# The console's keys. Delete the '#' before a line to change it; 'idunno keys' shows the keys in force and conflicts.\n\
         # A key is a character, f1 to f12, or enter, esc, space, tab, shift-tab, backspace, delete, up, down, left, right,\n\
         # home, end, pageup, pagedown; ctrl- or alt- may precede it. Keys to be pressed one after the other are\n\
         # separated by blanks. A list gives an action several keys; an empty list gives it none.\n",
    );
    for item in items() {
        let page = match item.scope {
            Scope::Everywhere => String::new(),
            Scope::On(page) => format!(" (on the page of {})", page.title()),
        };
        let name = if item.name.contains(' ') { format!("{:?}", item.name) } else { item.name.clone() };
        let keys = match item.keys.as_slice() {
            [one] => format!("{one:?}"),
            many => format!("{many:?}"),
        };
        text.extend(["\n# ", &item.help, &page, "\n#", &name, " = ", &keys, "\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::keymap::Keymap;
    use crate::settings::{ConfigFile, Settings};

    /// The text with every setting uncommented.
    fn in_force(text: &str) -> String {
        let line =
            |line: &str| line.strip_prefix('#').filter(|it| !it.starts_with(' ')).unwrap_or(line).to_owned();
        text.lines().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_is_generated_is_understood_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for text in [CONFIG.to_owned(), in_force(CONFIG)] {
            fs::write(dir.path().join("config.toml"), text).unwrap();
            assert_eq!(Settings::load(dir.path()).all_problems(), [""; 0]);
        }
        let config = Settings::load(dir.path()).config;
        assert_eq!((config.contexts.len(), config.aliases.len(), config.context.is_some()), (1, 2, true));
        let bare = ConfigFile { contexts: [].into(), aliases: [].into(), context: None, ..config };
        assert_eq!(bare, ConfigFile::default());

        let (default, given) = (Keymap::default(), Keymap::read(&in_force(&keys())));
        assert_eq!(given.problems, [""; 0]);
        for item in items() {
            assert_eq!(given.keys(&item.name), default.keys(&item.name), "{}", item.name);
        }
        assert_eq!(Keymap::read(&keys()).problems, [""; 0]);
    }

    #[test]
    fn an_existing_file_is_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").join("config.toml");
        create(&path, "one").unwrap();
        assert_eq!(create(&path, "two").unwrap_err().exit, Exit::Refused);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    }
}
