//! Builds the view of the cluster once for all watchers, however many there are.
//!
//! Bounds: a view each [`PUSH_PERIOD`] while anybody watches, and one each [`ARRIVAL_PERIOD`] while watchers arrive; every
//! watcher's first view is built after its arrival.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use idunno_shared::wire::control::ClusterView;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

/// The time between two views.
const PUSH_PERIOD: Duration = Duration::from_millis(200);
/// The least time between two views that are built for new watchers.
const ARRIVAL_PERIOD: Duration = Duration::from_millis(50);
/// An unchanged view is sent after this many skipped ones, so that a watcher knows that the connection is alive.
const SKIPPED_MAX: u32 = 5;

/// What came of an attempt to build a view.
#[expect(clippy::large_enum_variant, reason = "one exists at a time, and a view is what it nearly always is")]
pub(super) enum Built {
    View(ClusterView),
    /// There is none at the moment.
    Nothing,
    /// The term is over.
    Over,
}

#[derive(Clone)]
struct Published {
    view: Arc<ClusterView>,
    built: Instant,
}

/// The views of a term. Cheap to clone.
#[derive(Clone)]
pub(super) struct ViewPublisher {
    published: watch::Sender<Option<Published>>,
    arrived: Arc<Notify>,
    built: Arc<AtomicU64>,
}

impl Default for ViewPublisher {
    fn default() -> Self {
        Self { published: watch::Sender::new(None), arrived: Arc::default(), built: Arc::default() }
    }
}

/// The views that one watcher gets. One that is slow misses those in between.
pub(super) struct ViewFollower {
    published: watch::Receiver<Option<Published>>,
    since: Instant,
}

impl ViewFollower {
    /// The next view; `None` once the term is over.
    pub(super) async fn next(&mut self) -> Option<Arc<ClusterView>> {
        self.published.changed().await.ok()?;
        let since = self.since;
        let is_new = |published: &Option<Published>| published.as_ref().is_some_and(|it| it.built >= since);
        let published = self.published.wait_for(is_new).await.ok()?;
        published.as_ref().map(|published| Arc::clone(&published.view))
    }
}

impl ViewPublisher {
    pub(super) fn follow(&self) -> ViewFollower {
        let follower = ViewFollower { published: self.published.subscribe(), since: Instant::now() };
        self.arrived.notify_one();
        follower
    }

    /// Views built so far.
    pub(super) fn built(&self) -> u64 {
        self.built.load(Ordering::Relaxed)
    }

    /// Publishes what `build` builds, until the term is over.
    pub(super) async fn run<B: Future<Output = Built>>(&self, mut build: impl FnMut() -> B) {
        let (mut built, mut skipped) = (Instant::now(), 0);
        loop {
            let has_arrived = tokio::select! {
                () = self.arrived.notified() => true,
                () = sleep_until(built + PUSH_PERIOD), if self.published.receiver_count() > 0 => false,
            };
            if has_arrived {
                sleep_until(built + ARRIVAL_PERIOD).await;
            }
            built = Instant::now();
            self.built.fetch_add(1, Ordering::Relaxed);
            let view = match build().await {
                Built::View(view) => view,
                Built::Nothing => continue,
                Built::Over => return,
            };
            if !has_arrived && skipped < SKIPPED_MAX && self.is_published(&view) {
                skipped += 1;
                continue;
            }
            skipped = 0;
            self.published.send_replace(Some(Published { view: Arc::new(view), built }));
        }
    }

    /// Whether the view is the last one, but for its time.
    fn is_published(&self, view: &ClusterView) -> bool {
        let last = self.published.borrow();
        last.as_ref()
            .is_some_and(|last| ClusterView { at_ms: view.at_ms, ..ClusterView::clone(&last.view) } == *view)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use idunno_shared::ids::{NodeId, Term};
    use idunno_shared::wire::control::StoreView;
    use idunno_shared::wire::jobs::Policy;
    use tokio::time::sleep;

    use super::*;

    fn view(revision: u64) -> ClusterView {
        ClusterView {
            term: Term(1),
            coordinator: NodeId(1),
            at_ms: 0,
            revision,
            members: Vec::new(),
            workers: Vec::new(),
            models: Vec::new(),
            jobs: Vec::new(),
            assignments: Vec::new(),
            store: StoreView::default(),
            loads: Vec::new(),
            policy: Policy::default(),
            rebalances: Vec::new(),
            rates: None,
            jobs_left_out: 0,
        }
    }

    #[tokio::test]
    async fn any_number_of_watchers_shares_one_view_a_period() {
        const WATCHERS: usize = 300;
        const BUILDS: u64 = 8;
        let (publisher, builds) = (ViewPublisher::default(), Cell::new(0));
        let mut followers = (0..WATCHERS).map(|_| publisher.follow()).collect::<Vec<_>>();
        let publishing = publisher.run(|| async {
            builds.set(builds.get() + 1);
            // Every other view is as the one before it.
            if builds.get() > BUILDS { Built::Over } else { Built::View(view(builds.get() / 2)) }
        });
        let mut last = vec![0; WATCHERS];
        let watching = async {
            loop {
                for (follower, last) in followers.iter_mut().zip(&mut last) {
                    *last = follower.next().await.unwrap().revision;
                }
            }
        };
        tokio::select! {
            () = publishing => {}
            () = watching => unreachable!("the watchers go on"),
        }
        assert!(last.iter().all(|last| *last + 1 >= BUILDS / 2), "all of them saw what was built: {last:?}");
        assert_eq!(publisher.built(), BUILDS + 1);
    }

    #[tokio::test]
    async fn nothing_is_built_for_nobody_and_a_first_view_is_fresh() {
        let (publisher, builds) = (ViewPublisher::default(), Cell::new(0));
        let publishing = publisher.run(|| async {
            builds.set(builds.get() + 1);
            Built::View(view(builds.get()))
        });
        let watching = async {
            sleep(3 * PUSH_PERIOD).await;
            assert_eq!(builds.get(), 0);
            for _ in 0..10 {
                let before = builds.get();
                let first = publisher.follow().next().await.unwrap();
                assert!(first.revision > before, "built after the watcher arrived");
            }
        };
        tokio::select! {
            () = publishing => unreachable!("the term goes on"),
            () = watching => {}
        }
    }

    #[tokio::test]
    async fn an_unchanged_view_is_sent_again_as_a_sign_of_life() {
        let (publisher, builds) = (ViewPublisher::default(), Cell::new(0));
        let publishing = publisher.run(|| async {
            builds.set(builds.get() + 1);
            Built::View(view(7))
        });
        let watching = async {
            let mut follower = publisher.follow();
            follower.next().await.unwrap();
            let first = builds.get();
            follower.next().await.unwrap();
            assert_eq!(builds.get() - first, u64::from(SKIPPED_MAX) + 1);
        };
        tokio::select! {
            () = publishing => unreachable!("the term goes on"),
            () = watching => {}
        }
    }
}
