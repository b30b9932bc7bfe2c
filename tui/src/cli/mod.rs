//! The command line: parses the arguments, runs the command, prints the answer and returns the exit code.

pub mod complete;
mod confirm;
mod on_end;
mod output;
pub mod progress;
mod shell;
mod streams;
#[cfg(test)]
mod tests;
mod watch;

use std::ffi::OsString;
use std::sync::Arc;

use clap::error::ErrorKind;

use crate::answer::{Answer, Exit, Failure};
use crate::command::values::RowFormat;
use crate::command::{Arguments, IdentityVerb, LocalVerb, Output, Verb, alias};
use crate::console::{self, terminal::termination_signal};
use crate::execute::files::STREAM;
use crate::execute::results::fetch::printed;
use crate::execute::results::follow::follow;
use crate::execute::{self, cluster, identity, logs};
use crate::local::STILL_RUN;
use crate::session::Session;
use crate::settings::{Settings, directory};
use output::{print, report, write_rows};
use progress::Bars;

/// The exit code of success.
const DONE: u8 = 0;

/// Runs the program. Returns its exit code.
pub async fn run(arguments: Vec<OsString>) -> u8 {
    let json = wants_json(&arguments);
    let settings = Settings::load(&directory(|name| std::env::var_os(name)));
    let arguments = alias::arguments(&settings.config.aliases, arguments);
    let parsed = match Arguments::read(&arguments) {
        Ok(parsed) => parsed,
        // An alias of a file that is not in force is no command.
        Err(error) => match settings.check().err().filter(|_| error.use_stderr()) {
            Some(failure) => {
                return report(&failure, if json { Output::Json } else { Output::Table });
            }
            None => return refuse(&error, json),
        },
    };
    let output = parsed.global.output;
    let is_about_itself = parsed.verb.as_ref().is_some_and(Verb::is_about_this_program);
    if let Some(failure) = settings.check().err().filter(|_| !is_about_itself) {
        return report(&failure, output);
    }
    let global = match settings.resolve(parsed.global) {
        Ok(global) => global,
        Err(failure) => return report(&failure, output),
    };
    let Some(verb) = parsed.verb else {
        return match console::run(&global, settings).await {
            Ok(()) => DONE,
            Err(error) => report(&Failure::error(error.to_string()), output),
        };
    };
    if let Verb::Cluster(verb) = verb {
        return finish(cluster::run(verb, global.dry_run), output);
    }
    if let Verb::Identity(verb @ IdentityVerb::Create { .. }) = verb {
        return finish(identity::create(verb, global.dry_run), output);
    }
    if let Verb::Key(verb) = verb {
        return finish(execute::key(verb), output);
    }
    let session = match Session::new(&global, Arc::new(Bars)) {
        Ok(session) => session,
        Err(failure) => return report(&failure, output),
    };
    match verb {
        Verb::Shell { member } => shell::run(session, member, &settings.config.aliases, output).await,
        mut verb => match streams::read_stdin(&mut verb).await {
            Ok(_kept) => run_command(&session, verb, output, global.watch).await,
            Err(failure) => report(&failure, output),
        },
    }
}

/// Runs one command, prints its answer and returns the exit code.
async fn run_command(session: &Session, mut verb: Verb, output: Output, repeated: bool) -> u8 {
    streams::name_stdout(&mut verb);
    if let (Verb::GetJobResults { rows, .. }, Output::Csv) = (&mut verb, output) {
        rows.format = RowFormat::Csv;
    }
    let starts = matches!(verb, Verb::Local(LocalVerb::Up { .. } | LocalVerb::Start { .. }));
    let run = async {
        match verb {
            Verb::Cluster(verb) => cluster::run(verb, session.dry_run),
            Verb::Events => watch::events(session, output).await.map(|()| Answer::default()),
            Verb::Logs { members, lines, grep, level, since, follow: true } => {
                let search = logs::search(grep, level, since);
                watch::logs(session, &members, &search, lines, output).await.map(|()| Answer::default())
            }
            Verb::GetJobResults { job, follow: true, rows, .. } => {
                follow(session, &job, rows, write_rows).await
            }
            Verb::GetJobResults { ref job, ref local, rows, follow: false, .. }
                if local.as_ref().is_none_or(|path| path.as_os_str() == STREAM) && !repeated =>
            {
                match printed(session, job, rows, write_rows).await? {
                    Some(answer) => Ok(answer),
                    None => execute::run(session, verb).await,
                }
            }
            Verb::StartJob { jobs, mut starting, wait: true } if !repeated => {
                let command = starting.take_command();
                let ended = execute::run(session, Verb::StartJob { jobs, starting, wait: true }).await;
                on_end::run(ended, command).await
            }
            Verb::Cat { files } => streams::cat(session, &files).await,
            verb if repeated => watch::repeat(session, verb, output).await.map(|()| Answer::default()),
            verb => confirm::run(session, verb).await,
        }
    };
    let done = tokio::select! {
        done = run => done,
        // Dropping the command deletes the files that it had begun to write.
        exit = asked_to_stop() => {
            let hint = if starts { format!(": {STILL_RUN}") } else { String::new() };
            Err(Failure::new(exit, format!("{}{hint}", exit.word())))
        }
    };
    finish(done, output)
}

fn finish(done: Result<Answer, Failure>, output: Output) -> u8 {
    match done {
        Ok(answer) => print(&answer, output),
        Err(failure) if failure == Failure::pipe_closed() => DONE,
        Err(failure) => report(&failure, output),
    }
}

/// Waits until the user, or the system, asks this program to stop. Returns the exit code that says which.
async fn asked_to_stop() -> Exit {
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => match interrupted {
            Ok(()) => Exit::Interrupted,
            Err(_) => std::future::pending().await,
        },
        () = termination_signal() => Exit::Terminated,
    }
}

/// Whether the arguments ask for JSON, even if they are otherwise invalid.
fn wants_json(arguments: &[OsString]) -> bool {
    let json = |format: &str| format == "json" || format == "jsonl";
    let words: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    let pairs = words.windows(2).any(|pair| matches!(pair[0], "--output" | "-o") && json(pair[1]));
    let joined = |word: &&str| {
        let format = word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o"));
        format.is_some_and(|format| json(format.trim_start_matches('=')))
    };
    pairs || words.iter().any(joined)
}

fn refuse(error: &clap::Error, json: bool) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed pipe is the reader's choice.
            let _ = error.print();
            DONE
        }
        _ if json => {
            let message = error.to_string().trim_start_matches("error: ").trim_end().to_owned();
            report(&Failure::new(Exit::Usage, message), Output::Json)
        }
        _ => {
            let _ = error.print();
            Exit::Usage as u8
        }
    }
}
