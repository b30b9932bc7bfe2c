//! Answers that go on: `--watch`, and `events`.

use std::sync::Arc;
use std::time::Duration;

use idunno_shared::names::MemberName;
use idunno_shared::wire::control::LogSearch;
use tokio::sync::Notify;
use tokio::sync::mpsc::channel;
use tokio::time::sleep;

use super::{note, write};
use crate::answer::cluster::Event as EventJson;
use crate::answer::document::to_json;
use crate::answer::{Exit, Failure, text};
use crate::command::{Output, Verb};
use crate::console::connection::follow;
use crate::console::events::{Event, Events};
use crate::console::msg::NetEvent;
use crate::execute;
use crate::execute::logs::{self, Follow};
use crate::session::Session;

/// The pause between two looks.
const PERIOD: Duration = Duration::from_secs(1);
const CHANNEL: usize = 64;

/// Prints the answer whenever it changes. That nobody coordinates for a while is told and waited out.
pub(super) async fn repeat(session: &Session, verb: Verb, output: Output) -> Result<(), Failure> {
    if verb.changes()
        || matches!(
            verb,
            Verb::Backup { .. }
                | Verb::Events
                | Verb::Logs { follow: true, .. }
                | Verb::Completions { .. }
                | Verb::Man { .. }
        )
    {
        return Err(Failure::new(Exit::Usage, "--watch is for commands that only look"));
    }
    let (mut last, mut told) = (None, false);
    loop {
        match execute::run(session, verb.clone()).await {
            Ok(answer) => {
                told = false;
                let text = answer.rendered(output);
                if last.as_ref() != Some(&text) {
                    write(&text)?;
                    last = Some(text);
                }
            }
            Err(failure) if failure.exit == Exit::Unreachable => {
                if !told {
                    note(&failure.message, output);
                }
                told = true;
            }
            Err(failure) => return Err(failure),
        }
        sleep(PERIOD).await;
    }
}

/// Prints the newest lines of logs, and goes on with what is logged.
pub(super) async fn logs(
    session: &Session,
    names: &[MemberName],
    search: &LogSearch,
    count: usize,
    output: Output,
) -> Result<(), Failure> {
    // The place first, then what stands before it: a line of the moment between is rather told twice than not at all.
    let mut following = Follow::start(session, names, search).await?;
    // A stream has no end, so it is a line a row in both.
    let form = if output == Output::Table { Output::Table } else { Output::Jsonl };
    let mut text = logs::run(session, names, search, count).await?.rendered(form);
    loop {
        write(&text)?;
        sleep(PERIOD).await;
        let found = following.next(session).await?;
        text = match (form, found.as_slice()) {
            (_, []) => String::new(),
            (Output::Table, found) => logs::text(found) + "\n",
            (_, found) => found.iter().flat_map(|line| [logs::row(line), String::from("\n")]).collect(),
        };
    }
}

/// Prints what happens, from now on.
pub(super) async fn events(session: &Session, output: Output) -> Result<(), Failure> {
    let (sender, mut news) = channel(CHANNEL);
    tokio::spawn(follow(session.clone(), sender, Arc::new(Notify::new())));
    let (mut events, mut shown, mut printed) = (Events::default(), None, 0);
    while let Some(event) = news.recv().await {
        match event {
            NetEvent::View(view) => {
                if let Some(before) = shown.replace(view.clone()) {
                    events.compare(&before, &view);
                }
            }
            NetEvent::Waiting { reason, attempt: 1, .. } => note(&reason, output),
            NetEvent::Connecting | NetEvent::Confirmed | NetEvent::Waiting { .. } => {}
        }
        for event in events.list.iter().filter(|event| event.number > printed) {
            write(&line(event, output))?;
        }
        printed = events.list.back().map_or(printed, |event| event.number);
    }
    Ok(())
}

fn line(event: &Event, output: Output) -> String {
    match output {
        Output::Table => format!("{}  {:<9} {}\n", text::moment(event.at_ms), event.kind, event.text),
        // A stream has no end, so it is a line an event in both.
        Output::Json | Output::Jsonl => {
            let (at_ms, subject, text) = (event.at_ms, event.kind.to_owned(), event.text.clone());
            to_json(&EventJson { at_ms, subject, text }) + "\n"
        }
    }
}
