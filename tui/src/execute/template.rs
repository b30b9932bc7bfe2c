//! The files of settings with everything that may stand in them, commented: each line says what holds without it.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde_json::json;

use crate::answer::{Answer, Exit, Failure};
use crate::console::registry::{Scope, items};
use crate::settings::directory;

/// `config.toml`. Settings bear their `#` without a blank, so that taking it away is all there is to do.
const CONFIG: &str = r#"# Settings of idunno and its console. Take the '#' before a line away to change what it says.
# The command line outweighs the environment, that a context, that this file. 'idunno info' shows what holds.

# The console's colours: dark, light, colour-blind or mono. NO_COLOR outweighs it.
#theme = "dark"

# Its characters: auto (as the locale says), unicode or ascii.
#symbols = "auto"

# Whether the mouse is the console's from the start. Hold Shift to select text then.
#mouse = false

# Refuse whatever changes a cluster.
#read_only = false

# The cluster to go to where none is named: one of the contexts below.
#context = "lab"

# Short names for commands: 'idunno st job-1' and ':st job-1' are get-job-stats job-1 then.
#[aliases]
#st = "get-job-stats"
#dead = "dead-letters list"

# Clusters by name, for --context and the console's :context. Addresses of members, separated by commas; a theme of its
# own shows where one is.
#[contexts.lab]
#cluster = "127.0.0.1:7401"
#member = "m1"   # the one that commands without --member mean
#read_only = false
#theme = "light"
"#;

/// `gen-config`.
pub fn run(keymap: bool, write: bool) -> Result<Answer, Failure> {
    let (file, text) = if keymap { ("keymap.toml", keys()) } else { ("config.toml", CONFIG.to_owned()) };
    if !write {
        return Ok(Answer::new(json!({"file": file, "text": text}), text.trim_end()));
    }
    let path = directory(|name| std::env::var(name).ok()).join(file);
    create(&path, &text)?;
    Ok(Answer::new(json!({"file": path, "text": text}), format!("{} written", path.display())))
}

/// Writes a file that is not there yet: people's settings are not replaced.
fn create(path: &Path, text: &str) -> Result<(), Failure> {
    let wrong = |error: std::io::Error| Failure::target(path, &error);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(wrong)?;
    }
    let mut file = fs::File::create_new(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            Failure::new(Exit::Refused, format!("{} is there and stays as it is", path.display()))
        }
        _ => wrong(error),
    })?;
    file.write_all(text.as_bytes()).map_err(wrong)
}

/// `keymap.toml`: every action and command with its keys.
fn keys() -> String {
    let mut text = String::from(
        "# The console's keys. Take the '#' before a line away to change it; 'idunno keys' shows what holds, and conflicts.\n\
         # A key is a character, f1 to f12, or enter, esc, space, tab, shift-tab, backspace, delete, up, down, left, right,\n\
         # home, end, pageup, pagedown; ctrl- or alt- may stand before it. Keys to be pressed one after the other are\n\
         # separated by blanks. A list gives an action several keys, an empty one takes them away.\n",
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

    /// The text with every setting in force.
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
    fn a_file_that_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").join("config.toml");
        create(&path, "one").unwrap();
        assert_eq!(create(&path, "two").unwrap_err().exit, Exit::Refused);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    }
}
