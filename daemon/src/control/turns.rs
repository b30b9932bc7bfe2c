//! Turns for requests that occupy a processor or much memory: few run at once, and fewer of one identity.
//!
//! Bounds: those given to [`Turns::new`]. Further requests wait, within the limit on an identity's requests, and are refused
//! as busy after [`WAIT_MAX`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long a request waits for its turn: with the work itself less than a client waits for an answer.
const WAIT_MAX: Duration = Duration::from_secs(4);

/// The turns of one kind of request.
pub(super) struct Turns {
    all: Arc<Semaphore>,
    identity_max: usize,
    /// [`WAIT_MAX`], unless a test changes it.
    wait_max: Duration,
    /// Of identities that have a turn or wait for one.
    identities: Mutex<BTreeMap<Arc<str>, Arc<Semaphore>>>,
}

/// A turn, until it is dropped. Work on another thread takes it along: it goes on after its caller is gone.
#[derive(Debug)]
pub(super) struct Turn {
    _of_identity: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Turns {
    /// At most `all_max` turns at once, and `identity_max` of one identity.
    pub(super) fn new(all_max: usize, identity_max: usize) -> Self {
        let all = Arc::new(Semaphore::new(all_max));
        Self { all, identity_max, wait_max: WAIT_MAX, identities: Mutex::default() }
    }

    /// Waits for a turn of `identity`.
    pub(super) async fn take(&self, identity: &Arc<str>) -> Result<Turn, Refusal> {
        let own = self.of_identity(identity);
        let take = async {
            // An identity waits for its own turns first, so that it occupies one place among all at most.
            let of_identity = own.acquire_owned().await.ok()?;
            let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Turn { _of_identity: of_identity, _of_all: of_all })
        };
        timeout(self.wait_max, take).await.ok().flatten().ok_or_else(|| {
            Refusal::new(RefusalCode::Busy, "too many such requests run at this member: try again later")
        })
    }

    fn of_identity(&self, identity: &Arc<str>) -> Arc<Semaphore> {
        let mut identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        identities.retain(|_, turns| Arc::strong_count(turns) > 1);
        let turns = identities.entry(Arc::clone(identity));
        Arc::clone(turns.or_insert_with(|| Arc::new(Semaphore::new(self.identity_max))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_identity_takes_its_own_turns_only_and_waits_no_longer_than_it_may() {
        let turns = |wait_max| Turns { wait_max, ..Turns::new(2, 1) };
        let [anna, bert, carl] = ["anna", "bert", "carl"].map(Arc::<str>::from);
        let impatient = turns(Duration::ZERO);
        let first = impatient.take(&anna).await.unwrap();
        assert_eq!(impatient.take(&anna).await.unwrap_err().code, RefusalCode::Busy, "one of an identity");
        let second = impatient.take(&bert).await.unwrap();
        assert_eq!(impatient.take(&carl).await.unwrap_err().code, RefusalCode::Busy, "two in all");
        drop((first, second));
        impatient.take(&carl).await.unwrap();
        let remembered = impatient.identities.lock().unwrap().len();
        assert_eq!(remembered, 1, "identities without a turn are forgotten");

        let patient = turns(Duration::from_secs(30));
        let first = patient.take(&anna).await.unwrap();
        let (again, _released) = tokio::join!(patient.take(&anna), async { drop(first) });
        again.unwrap();
    }
}
