//! The command line: reads arguments, has them carried out, prints the answer, says how it went by the exit code.

pub mod progress;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;

use crate::command::{Arguments, LocalVerb, Output, Verb};
use crate::console;
use crate::execute::{self, Answer, Data, Exit, Failure, Session};
use crate::local::STILL_RUN;
use progress::Bars;

/// Runs the program.
pub async fn run(arguments: Vec<OsString>) -> ExitCode {
    let json = wants_json(&arguments);
    let parsed = match Arguments::read(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => return refuse(&error, json),
    };
    let output = parsed.global.output;
    let Some(verb) = parsed.verb else {
        return match console::run(&parsed.global).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report(&Failure::error(error.to_string()), output),
        };
    };
    let starts = matches!(verb, Verb::Local(LocalVerb::Up { .. } | LocalVerb::Start { .. }));
    let run = async { execute::run(&Session::new(&parsed.global, Arc::new(Bars))?, verb).await };
    let done = tokio::select! {
        done = run => done,
        // What is dropped here deletes what it had begun to write.
        () = interrupted() => {
            let text = if starts { format!("interrupted: {STILL_RUN}") } else { String::from("interrupted") };
            Err(Failure::new(Exit::Interrupted, text))
        }
    };
    match done {
        Ok(answer) => print(&answer, output),
        Err(failure) => report(&failure, output),
    }
}

/// Waits for Ctrl-C.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Whether the arguments ask for JSON, even if they are wrong otherwise.
fn wants_json(arguments: &[OsString]) -> bool {
    let pairs = arguments.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json");
    pairs || arguments.iter().any(|argument| argument == "--output=json")
}

fn refuse(error: &clap::Error, json: bool) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed pipe is the reader's choice.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        _ if json => {
            let message = error.to_string().trim_start_matches("error: ").trim_end().to_owned();
            report(&Failure::new(Exit::Usage, message), Output::Json)
        }
        _ => {
            let _ = error.print();
            code(Exit::Usage)
        }
    }
}

fn code(exit: Exit) -> ExitCode {
    ExitCode::from(exit as u8)
}

fn report(failure: &Failure, output: Output) -> ExitCode {
    match output {
        Output::Table => eprintln!("error: {failure}"),
        Output::Json => eprintln!("{}", failure.json()),
    }
    code(failure.exit)
}

/// What an answer puts on stdout.
pub fn rendered(answer: &Answer, output: Output) -> String {
    match (&answer.data, output) {
        (Data::Value(value), Output::Json) => format!("{value}\n"),
        (Data::Lines, Output::Json) | (_, Output::Table) if answer.text.is_empty() => String::new(),
        _ => format!("{}\n", answer.text),
    }
}

fn print(answer: &Answer, output: Output) -> ExitCode {
    let text = rendered(answer, output);
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // The reader of a pipe has seen enough: quiet.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return ExitCode::SUCCESS;
        }
        return report(&Failure::error(format!("cannot write to stdout: {error}")), output);
    }
    match &answer.incomplete {
        None => ExitCode::SUCCESS,
        Some(why) => report_note(why, output),
    }
}

fn report_note(why: &str, output: Output) -> ExitCode {
    match output {
        Output::Table => eprintln!("note: {why}"),
        Output::Json => eprintln!("{}", Failure::new(Exit::Partial, why).json()),
    }
    code(Exit::Partial)
}
