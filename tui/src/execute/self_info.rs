//! `info`, `keys`, `completions`, `man`: commands on the program itself.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::env::Shells;
use idunno_shared::access::Grant;

use crate::answer::program::{CompletionScript, Context, Info, KeyBinding, ManualPages, SettingsPath};
use crate::answer::table::Table;
use crate::answer::{Answer, Exit, Failure, text};
use crate::command::Arguments;
use crate::command::values::Shell;
use crate::console::registry::{Scope, items};
use crate::session::Session;
use crate::settings::{Settings, directory};

fn settings() -> Settings {
    Settings::load(&directory(|name| std::env::var_os(name)))
}

/// Environment variables that change what commands do.
const VARIABLES: [&str; 8] = [
    "IDUNNO_CLUSTER",
    "IDUNNO_CONTEXT",
    "IDUNNO_IDENTITY",
    "IDUNNO_MEMBER",
    "IDUNNO_READ_ONLY",
    "IDUNNO_THEME",
    "IDUNNO_CONFIG_DIR",
    "NO_COLOR",
];

/// `info`.
pub fn info(session: &Session) -> Result<Answer, Failure> {
    let settings = settings();
    let problems = settings.all_problems();
    let files = settings.files().into_iter().map(|(name, path, exists)| SettingsPath {
        name: name.to_owned(),
        path: path.display().to_string(),
        exists,
    });
    let environment =
        VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let contexts = settings.config.contexts.iter().map(|(name, context)| {
        (name.clone(), Context { cluster: context.cluster.clone(), read_only: context.read_only })
    });
    let info = Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: session.label(),
        directory: session.dir.display().to_string(),
        identity: session.grant.as_ref().map(Grant::describe),
        identity_ends_ms: session.ends_ms,
        read_only: session.read_only,
        timeout_s: session.timeout.map(|limit| limit.as_secs_f64()),
        files: files.collect(),
        environment: environment.collect(),
        contexts: contexts.collect(),
        problems: problems.clone(),
    };
    let answer = Answer::new(&info, info_table(&info));
    Ok(if problems.is_empty() { answer } else { answer.incomplete(problems.join("; ")) })
}

fn info_table(info: &Info) -> String {
    let limit = info.timeout_s.map_or_else(|| String::from("the commands' own"), text::seconds);
    let mut table = Table::new("WHAT VALUE");
    table.row(["version".into(), info.version.clone()]);
    table.row(["cluster".into(), info.cluster.clone()]);
    table.row(["directory of the local cluster".into(), info.directory.clone()]);
    if let Some(identity) = &info.identity {
        let ends = info.identity_ends_ms.map(|at| format!(", until {} UTC", text::moment(at)));
        table.row(["identity".into(), format!("{identity}{}", ends.unwrap_or_default())]);
    }
    table.row(["read-only".into(), info.read_only.to_string()]);
    table.row(["time limit".into(), limit]);
    for file in &info.files {
        let state = if file.exists { "" } else { " (does not exist)" };
        table.row([file.name.clone(), format!("{}{state}", file.path)]);
    }
    for (name, value) in &info.environment {
        table.row([format!("${name}"), value.clone()]);
    }
    for (name, context) in &info.contexts {
        let read_only = if context.read_only { ", read-only" } else { "" };
        table.row([format!("context {name}"), format!("{}{read_only}", context.cluster)]);
    }
    table.render()
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
        rows.push(KeyBinding {
            action: item.name.clone(),
            keys: keys.clone(),
            page: page.to_owned(),
            meaning: item.help.clone(),
        });
    }
    let answer = Answer::list(rows, table);
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
    let document = CompletionScript { shell: name.to_owned(), script: script.clone() };
    Ok(Answer::new(&document, script))
}

/// `man`.
pub fn man(directory: &Path) -> Result<Answer, Failure> {
    let wrong = |error| Failure::target(directory, &error);
    std::fs::create_dir_all(directory).map_err(wrong)?;
    clap_mangen::generate_to(Arguments::command(), directory).map_err(wrong)?;
    let pages = directory.read_dir().map_err(wrong)?.count();
    if pages == 0 {
        return Err(Failure::new(
            Exit::Error,
            format!("no manual pages were written to {}", directory.display()),
        ));
    }
    let text = format!("{} in {}", text::count(pages as u64, "page"), directory.display());
    let document = ManualPages { directory: directory.display().to_string(), pages: pages as u64 };
    Ok(Answer::new(&document, text))
}
