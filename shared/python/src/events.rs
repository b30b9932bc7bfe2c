//! The cluster's events as they happen: those that `idunno events` prints.

use std::time::Instant;

use idunno_console::answer::cluster::Event;
use idunno_console::answer::document::to_json;
use idunno_console::answer::{Exit, Failure};
use idunno_console::console::event_stream::{EventStream, News};
use idunno_console::session::Session;
use idunno_shared::client::cluster::DEADLINE_DEFAULT;

use crate::stream::Sink;

/// Reads for as long as the events are wanted. The first chunk is empty: it says that what happens from now on is seen. An
/// outage that is longer than the session's time limit is a failure, given once; the stream goes on after it.
pub(crate) async fn read(session: Session, sink: Sink) {
    let patience = session.timeout.unwrap_or(DEADLINE_DEFAULT);
    let mut stream = EventStream::open(&session);
    let (mut is_open, mut is_reported, mut answered) = (false, false, Instant::now());
    while let Some(news) = stream.next().await {
        let chunk = match news {
            News::Events(events) => {
                (is_reported, answered) = (false, Instant::now());
                if events.is_empty() && is_open {
                    continue;
                }
                is_open = true;
                Ok(events
                    .iter()
                    .flat_map(|event| (to_json(&Event::from(event)) + "\n").into_bytes())
                    .collect())
            }
            News::Waiting { reason, .. } if !is_reported && answered.elapsed() >= patience => {
                is_reported = true;
                Err(Failure::new(Exit::Unreachable, reason))
            }
            News::Waiting { .. } => continue,
        };
        if !sink.put(chunk).await {
            return;
        }
    }
}
