//! The names whose identities this member refuses.
//!
//! They come from the log, where this member receives it, and from the coordinator's announcements, where it does not. What a
//! member has learned it does not forget: a file outlives its process, so that a member without the log refuses a revoked
//! identity before it hears of the coordinator again, and a log that was restored from an older backup gets back what it
//! lacks. Revocations are final, so all sources agree on what is in any of them.
//!
//! Bounds: [`NAMES_MAX`](idunno_shared::access::NAMES_MAX) names in each source.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use idunno_core::metadata::State;
use idunno_shared::access::SubjectName;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::runtime::data_dir::{DataDir, DataDirError};

pub const REVOKED_FILE: &str = "revoked.json";

/// The pause before a file that could not be written is written again.
const WRITE_PAUSE: Duration = Duration::from_secs(5);

/// The names of a moment.
pub type Names = Arc<BTreeSet<SubjectName>>;

/// The names whose identities are refused. Cheap to clone; clones share what they learn.
#[derive(Clone, Debug)]
pub struct Revocations {
    names: Arc<watch::Sender<Names>>,
}

impl Default for Revocations {
    fn default() -> Self {
        Self { names: Arc::new(watch::channel(Names::default()).0) }
    }
}

impl Revocations {
    /// What an earlier process of this member learned.
    pub fn open(data_dir: &DataDir) -> Result<Self, DataDirError> {
        let known = data_dir.read_json::<BTreeSet<SubjectName>>(REVOKED_FILE)?.unwrap_or_default();
        Ok(Self { names: Arc::new(watch::channel(Arc::new(known)).0) })
    }

    /// Whether identities of this name are refused.
    pub fn contains(&self, name: &SubjectName) -> bool {
        self.names.borrow().contains(name)
    }

    /// The names, now and whenever there are more.
    pub fn names(&self) -> watch::Receiver<Names> {
        self.names.subscribe()
    }

    /// Adds names, and ends the connections of their identities.
    pub fn learn(&self, learned: impl IntoIterator<Item = SubjectName>) {
        self.names.send_if_modified(|names| {
            let new: Vec<_> = learned.into_iter().filter(|name| !names.contains(name)).collect();
            let is_news = !new.is_empty();
            for name in &new {
                info!(%name, "identities of this name are revoked");
            }
            if is_news {
                Arc::make_mut(names).extend(new);
            }
            is_news
        });
    }

    /// Returns when identities of this name are refused; never without a name.
    pub async fn revoked(&self, name: Option<&SubjectName>) {
        let Some(name) = name else { return std::future::pending().await };
        // The sender lives as long as `self`.
        let _ = self.names().wait_for(|names| names.contains(name)).await;
    }

    /// Learns what the log says, as it is applied.
    pub async fn follow(self, mut state: watch::Receiver<Arc<State>>) {
        let mut known = None;
        loop {
            let revoked = Arc::clone(state.borrow_and_update().revoked());
            if known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &revoked)) {
                self.learn(revoked.keys().cloned());
                known = Some(revoked);
            }
            if state.changed().await.is_err() {
                return;
            }
        }
    }

    /// Keeps the file as it should be.
    pub async fn keep(self, data_dir: Arc<DataDir>) {
        let mut names = self.names();
        loop {
            let now = Arc::clone(&names.borrow_and_update());
            let dir = Arc::clone(&data_dir);
            let written = tokio::task::spawn_blocking(move || {
                if now.is_empty() { Ok(()) } else { dir.write_json(REVOKED_FILE, &*now) }
            });
            let is_stored = match written.await {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    warn!(%error, "cannot store which identities are revoked yet");
                    false
                }
                Err(error) => {
                    warn!(%error, "storing which identities are revoked was aborted");
                    false
                }
            };
            tokio::select! {
                changed = names.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep(WRITE_PAUSE), if !is_stored => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SubjectName {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn what_was_learned_outlives_the_process_and_is_never_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = Arc::new(DataDir::open(dir.path()).unwrap());
        let before = Revocations::open(&data_dir).unwrap();
        let keeping = tokio::spawn(before.clone().keep(Arc::clone(&data_dir)));
        before.learn([name("anna"), name("ben")]);
        before.learn([name("ben")]);
        before.revoked(Some(&name("anna"))).await;
        while data_dir.read_json::<Vec<SubjectName>>(REVOKED_FILE).unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        keeping.abort();
        let after = Revocations::open(&data_dir).unwrap();
        after.learn([]);
        assert!(["anna", "ben"].iter().all(|text| after.contains(&name(text))));
        assert!(!after.contains(&name("carl")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_written_is_written_once_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = Arc::new(DataDir::open(dir.path()).unwrap());
        // A folder of its name is in the way, whoever runs the test.
        let in_the_way = dir.path().join(REVOKED_FILE);
        std::fs::create_dir(&in_the_way).unwrap();
        let revocations = Revocations::default();
        revocations.learn([name("anna")]);
        assert!(data_dir.write_json(REVOKED_FILE, &["anna"]).is_err());
        let keeping = tokio::spawn(revocations.keep(Arc::clone(&data_dir)));
        tokio::time::sleep(WRITE_PAUSE / 2).await;
        assert!(in_the_way.is_dir());
        std::fs::remove_dir(&in_the_way).unwrap();
        tokio::time::sleep(2 * WRITE_PAUSE).await;
        while !in_the_way.is_file() {
            tokio::task::yield_now().await;
        }
        keeping.abort();
        assert!(Revocations::open(&data_dir).unwrap().contains(&name("anna")));
    }
}
