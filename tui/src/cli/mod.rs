//! The command line: parses the arguments, runs the command, prints the answer and returns the exit code.

pub mod complete;
pub mod progress;
mod shell;
#[cfg(test)]
mod tests;
mod watch;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;

use crate::answer::{Answer, Exit, Failure};
use crate::command::{Arguments, LocalVerb, Output, Verb, alias};
use crate::console;
use crate::execute::results::fetch::Wanted;
use crate::execute::results::follow::follow;
use crate::execute::{self, cluster, logs};
use crate::local::STILL_RUN;
use crate::session::Session;
use crate::settings::{Settings, directory};
use progress::Bars;

/// The exit code of success.
const DONE: u8 = 0;

/// Runs the program.
pub async fn run(arguments: Vec<OsString>) -> ExitCode {
    let json = wants_json(&arguments);
    let settings = Settings::load(&directory(|name| std::env::var(name).ok()));
    let arguments = alias::arguments(&settings.config.aliases, arguments);
    let parsed = match Arguments::read(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => return ExitCode::from(refuse(&error, json)),
    };
    let output = parsed.global.output;
    let global = match settings.resolve(parsed.global) {
        Ok(global) => global,
        Err(failure) => return ExitCode::from(report(&failure, output)),
    };
    let Some(verb) = parsed.verb else {
        return match console::run(&global, settings).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => ExitCode::from(report(&Failure::error(error.to_string()), output)),
        };
    };
    if let Verb::Cluster(verb) = verb {
        return ExitCode::from(finish(cluster::run(verb, global.dry_run), output));
    }
    let session = match Session::new(&global, Arc::new(Bars)) {
        Ok(session) => session,
        Err(failure) => return ExitCode::from(report(&failure, output)),
    };
    ExitCode::from(match verb {
        Verb::Shell { member } => shell::run(session, member, &settings.config.aliases, output).await,
        verb => run_command(&session, verb, output, global.watch).await,
    })
}

/// Runs one command, prints its answer and returns the exit code.
async fn run_command(session: &Session, verb: Verb, output: Output, repeated: bool) -> u8 {
    let starts = matches!(verb, Verb::Local(LocalVerb::Up { .. } | LocalVerb::Start { .. }));
    let run = async {
        match verb {
            Verb::Cluster(verb) => cluster::run(verb, session.dry_run),
            Verb::Events => watch::events(session, output).await.map(|()| Answer::default()),
            Verb::Logs { members, lines, grep, level, since, follow: true } => {
                let search = logs::search(grep, level, since);
                watch::logs(session, &members, &search, lines, output).await.map(|()| Answer::default())
            }
            Verb::GetJobResults { job, follow: true, failed, format, .. } => {
                let wanted = Wanted { raw: false, failed, format };
                follow(session, &job, wanted, write).await
            }
            verb if repeated => watch::repeat(session, verb, output).await.map(|()| Answer::default()),
            verb => execute::run(session, verb).await,
        }
    };
    let done = tokio::select! {
        done = run => done,
        // Dropping the command deletes the files that it had begun to write.
        () = interrupted() => {
            let text = if starts { format!("interrupted: {STILL_RUN}") } else { String::from("interrupted") };
            Err(Failure::new(Exit::Interrupted, text))
        }
    };
    finish(done, output)
}

fn finish(done: Result<Answer, Failure>, output: Output) -> u8 {
    match done {
        Ok(answer) => print(&answer, output),
        Err(failure) if failure == pipe_closed() => DONE,
        Err(failure) => report(&failure, output),
    }
}

/// Waits for Ctrl-C.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Whether the arguments ask for JSON, even if they are otherwise invalid.
fn wants_json(arguments: &[OsString]) -> bool {
    let json = |format: &OsString| format == "json" || format == "jsonl";
    let pairs = arguments.windows(2).any(|pair| pair[0] == "--output" && json(&pair[1]));
    pairs || arguments.iter().any(|argument| argument == "--output=json" || argument == "--output=jsonl")
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

fn report(failure: &Failure, output: Output) -> u8 {
    match output {
        Output::Table => eprintln!("error: {failure}"),
        Output::Json | Output::Jsonl => eprintln!("{}", failure.json()),
    }
    failure.exit as u8
}

fn print(answer: &Answer, output: Output) -> u8 {
    if let Err(failure) = write(&answer.rendered(output)) {
        return if failure == pipe_closed() { DONE } else { report(&failure, output) };
    }
    if let Some(note) = answer.note.as_deref().filter(|_| output == Output::Table) {
        eprintln!("note: {note}");
    }
    match &answer.incomplete {
        None => DONE,
        Some(why) => {
            note(why, output);
            Exit::Partial as u8
        }
    }
}

/// The reader of a pipe has closed it, which is no error.
fn pipe_closed() -> Failure {
    Failure::error("the reader has closed the output")
}

fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => pipe_closed(),
        _ => Failure::error(format!("cannot write to stdout: {error}")),
    })
}

fn note(why: &str, output: Output) {
    match output {
        Output::Table => eprintln!("note: {why}"),
        Output::Json | Output::Jsonl => eprintln!("{}", Failure::new(Exit::Partial, why).json()),
    }
}
