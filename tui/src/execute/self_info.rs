//! What the program says of itself: settings, keys, completions, manual pages.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::env::Shells;
use serde_json::{Value, json};

use crate::answer::table::Table;
use crate::answer::{Answer, Exit, Failure, text};
use crate::command::Arguments;
use crate::command::values::Shell;
use crate::console::registry::{Scope, items};
use crate::session::Session;
use crate::settings::{Settings, directory};

fn settings() -> Settings {
    Settings::load(&directory(|name| std::env::var(name).ok()))
}

/// `info`.
pub fn info(session: &Session) -> Result<Answer, Failure> {
    let settings = settings();
    let mut rows = vec![
        (String::from("version"), env!("CARGO_PKG_VERSION").to_owned()),
        (String::from("cluster"), session.label()),
        (String::from("directory of the local cluster"), session.dir.display().to_string()),
        (String::from("read-only"), session.read_only.to_string()),
        (
            String::from("time limit"),
            session
                .timeout
                .map_or_else(|| String::from("the commands' own"), |it| text::seconds(it.as_secs_f64())),
        ),
    ];
    for (name, path, exists) in settings.files() {
        let state = if exists { "" } else { " (not there)" };
        rows.push((name.to_owned(), format!("{}{state}", path.display())));
    }
    for name in [
        "IDUNNO_CLUSTER",
        "IDUNNO_CONTEXT",
        "IDUNNO_MEMBER",
        "IDUNNO_READ_ONLY",
        "IDUNNO_THEME",
        "IDUNNO_CONFIG_DIR",
        "NO_COLOR",
    ] {
        if let Ok(value) = std::env::var(name) {
            rows.push((format!("${name}"), value));
        }
    }
    for (name, context) in &settings.config.contexts {
        let read_only = if context.read_only { ", read-only" } else { "" };
        rows.push((format!("context {name}"), format!("{}{read_only}", context.cluster)));
    }
    let mut table = Table::new("WHAT VALUE");
    rows.iter().for_each(|(what, value)| table.row([what.clone(), value.clone()]));
    let fields: serde_json::Map<String, Value> =
        rows.into_iter().map(|(what, value)| (what, Value::String(value))).collect();
    let problems = settings.all_problems();
    let data = json!({"settings": fields, "problems": problems});
    let answer = Answer::new(data, table.render());
    Ok(if problems.is_empty() { answer } else { answer.incomplete(problems.join("; ")) })
}

/// `keys`.
pub fn keys() -> Result<Answer, Failure> {
    let settings = settings();
    let mut table = Table::new("ACTION KEYS PAGE MEANING");
    let mut rows = Vec::new();
    for item in items() {
        let keys = settings.keymap.keys(&item.name);
        let page = match item.scope {
            Scope::Everywhere => "all",
            Scope::On(page) => page.title(),
        };
        table.row([item.name.clone(), keys.join(", "), page.to_owned(), item.help.clone()]);
        rows.push(json!({"action": item.name, "keys": keys, "page": page, "meaning": item.help}));
    }
    let answer = Answer::new(Value::Array(rows), table.render());
    let problems = settings.all_problems();
    Ok(if problems.is_empty() { answer } else { answer.incomplete(problems.join("; ")) })
}

/// `completions`.
pub fn completions(shell: Shell) -> Result<Answer, Failure> {
    let name = match shell {
        Shell::Bash => "bash",
        Shell::Elvish => "elvish",
        Shell::Fish => "fish",
        Shell::Powershell => "powershell",
        Shell::Zsh => "zsh",
    };
    let shells = Shells::builtins();
    let completer = shells.completer(name);
    let completer = completer.ok_or_else(|| Failure::error(format!("there is no completion for {name}")))?;
    let mut script = Vec::new();
    completer
        .write_registration("COMPLETE", "idunno", "idunno", "idunno", &mut script)
        .map_err(|error| Failure::error(error.to_string()))?;
    let script = String::from_utf8_lossy(&script).trim_end().to_owned();
    Ok(Answer::new(json!({"shell": name, "script": script}), script))
}

/// `man`.
pub fn man(directory: &Path) -> Result<Answer, Failure> {
    let wrong = |error| Failure::target(directory, &error);
    std::fs::create_dir_all(directory).map_err(wrong)?;
    clap_mangen::generate_to(Arguments::command(), directory).map_err(wrong)?;
    let pages = directory.read_dir().map_err(wrong)?.count();
    if pages == 0 {
        return Err(Failure::new(Exit::Error, format!("nothing was written to {}", directory.display())));
    }
    let text = format!("{} in {}", text::count(pages as u64, "page"), directory.display());
    Ok(Answer::new(json!({"directory": directory, "pages": pages}), text))
}
