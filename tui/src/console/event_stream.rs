//! The cluster's events as a stream, for `idunno events` and for programs of other languages.
//!
//! A task follows the coordinator, whichever member that is; each view is compared with the one before. Bounds: views that
//! are read ahead; [`Events`] keeps the newest events only.

use std::sync::Arc;

use idunno_shared::wire::control::ClusterView;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, channel};

use super::connection::follow;
use super::events::{Event, Events};
use super::msg::NetEvent;
use crate::answer::cluster::Event as EventJson;
use crate::session::Session;

/// Views that are read ahead.
const VIEWS_AHEAD: usize = 64;

/// What the stream gives.
#[derive(Debug)]
pub enum News {
    /// What happened, oldest first. Empty at the first view, with which later ones are compared, and while nothing happens.
    Events(Vec<Event>),
    /// No coordinator was reachable; the stream tries again.
    Waiting {
        /// How many attempts have failed since the last answer.
        attempt: u32,
        reason: String,
    },
}

/// The events of a cluster from now on. Dropped, it stops following.
pub struct EventStream {
    news: Receiver<NetEvent>,
    events: Events,
    shown: Option<Box<ClusterView>>,
    given: u64,
}

impl EventStream {
    /// Starts to follow the cluster of a session, on the runtime of the caller.
    pub fn open(session: &Session) -> Self {
        let (sender, news) = channel(VIEWS_AHEAD);
        tokio::spawn(follow(session.clone(), sender, Arc::new(Notify::new())));
        Self { news, events: Events::default(), shown: None, given: 0 }
    }

    /// The next news; `None` once nothing follows the cluster any more.
    pub async fn next(&mut self) -> Option<News> {
        loop {
            match self.news.recv().await? {
                NetEvent::Connecting => {}
                NetEvent::Confirmed => return Some(News::Events(Vec::new())),
                NetEvent::Waiting { attempt, reason, .. } => return Some(News::Waiting { attempt, reason }),
                NetEvent::View(view) => return Some(News::Events(self.compare(view))),
            }
        }
    }

    fn compare(&mut self, view: Box<ClusterView>) -> Vec<Event> {
        if let Some(before) = &self.shown {
            self.events.compare(before, &view);
        }
        self.shown = Some(view);
        let new: Vec<Event> = self.events.after(self.given).cloned().collect();
        self.given = new.last().map_or(self.given, |event| event.number);
        new
    }
}

impl From<&Event> for EventJson {
    fn from(event: &Event) -> Self {
        Self { at_ms: event.at_ms, subject: event.kind.to_owned(), text: event.text.clone() }
    }
}
