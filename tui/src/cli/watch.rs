//! Commands that keep printing: `--watch`, `events`, `logs --follow`.

use std::time::Duration;

use idunno_shared::names::MemberName;
use idunno_shared::wire::control::LogSearch;
use tokio::time::sleep;

use super::output::{note, terminal_width, write};
use crate::answer::cluster::Event as EventJson;
use crate::answer::document::to_json;
use crate::answer::{Answer, Exit, Failure, text};
use crate::command::{Output, Verb};
use crate::console::event_stream::{EventStream, News};
use crate::console::events::Event;
use crate::execute;
use crate::execute::logs::{self, Follow};
use crate::session::Session;

/// The pause between two requests.
const PERIOD: Duration = Duration::from_secs(1);
/// The first line of events as CSV.
const EVENT_TITLES: &str = "at_ms,subject,text\n";

/// Prints the answer whenever it changes. While no coordinator is reachable it says so once and keeps trying.
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
        return Err(Failure::new(Exit::Usage, "--watch works only with commands that change nothing"));
    }
    let (mut last, mut is_reported) = (None, false);
    loop {
        match execute::run(session, verb.clone()).await {
            Ok(answer) => {
                is_reported = false;
                let text = answer.rendered_within(output, terminal_width());
                if last.as_ref() != Some(&text) {
                    write(&text)?;
                    last = Some(text);
                }
            }
            Err(failure) if failure.exit == Exit::Unreachable => {
                if !is_reported {
                    note(&failure.message, output);
                }
                is_reported = true;
            }
            Err(failure) => return Err(failure),
        }
        sleep(PERIOD).await;
    }
}

/// Prints the newest lines of the logs, then new ones as they are logged.
pub(super) async fn logs(
    session: &Session,
    names: &[MemberName],
    search: &LogSearch,
    count: usize,
    output: Output,
) -> Result<(), Failure> {
    // First the position, then the lines before it: a line logged in between appears twice rather than not at all.
    let mut following = Follow::start(session, names, search).await?;
    // A stream has no end, so both JSON formats print one row per line.
    let form = if output.is_json() { Output::Jsonl } else { Output::Table };
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

/// Prints events as they happen.
pub(super) async fn events(session: &Session, output: Output) -> Result<(), Failure> {
    let mut stream = EventStream::open(session);
    if output == Output::Csv {
        write(EVENT_TITLES)?;
    }
    while let Some(news) = stream.next().await {
        match news {
            News::Events(events) => {
                for event in &events {
                    write(&line(event, output))?;
                }
            }
            News::Waiting { attempt: 1, reason } => note(&reason, output),
            News::Waiting { .. } => {}
        }
    }
    Ok(())
}

fn line(event: &Event, output: Output) -> String {
    let json = || to_json(&EventJson::from(event));
    match output {
        Output::Table | Output::Wide => {
            format!("{}  {:<9} {}\n", text::moment(event.at_ms), event.kind, event.text)
        }
        // A stream has no end, so both JSON formats print one event per line.
        Output::Json | Output::Jsonl => json() + "\n",
        Output::Name => Answer::of_json(json()).rendered(output),
        // The titles were printed before the first.
        Output::Csv => Answer::of_json(json())
            .rendered(output)
            .lines()
            .skip(1)
            .map(|row| row.to_owned() + "\n")
            .collect(),
    }
}
