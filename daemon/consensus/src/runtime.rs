//! tokio, as openraft uses it, but for the random part of election timeouts.
//!
//! openraft draws an election timeout from the whole range up to its longest one, which is also the lease, so that voters
//! that stand at the same time differ. Here the ring nominates one voter. So timeouts are drawn from the first part of the
//! range: just enough for all voters' leases to run out, and for those that may all stand after failed rounds to differ.

use std::future::Future;
use std::time::Duration;

use openraft::{AsyncRuntime, TokioRuntime};
use rand_core::RngCore;

/// Random numbers are below one in `2 ^ SHIFT` of their range.
const SHIFT: u32 = 2;

/// tokio with [`EarlyRng`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ElectionRuntime;

/// Random numbers in the first quarter of their range.
#[derive(Debug)]
pub(crate) struct EarlyRng;

impl RngCore for EarlyRng {
    fn next_u32(&mut self) -> u32 {
        // Without randomness: the least, for which the ring's nomination is enough.
        getrandom::u32().unwrap_or_default() >> SHIFT
    }

    fn next_u64(&mut self) -> u64 {
        getrandom::u64().unwrap_or_default() >> SHIFT
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            let random = self.next_u64().to_le_bytes();
            part.copy_from_slice(&random[..part.len()]);
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl AsyncRuntime for ElectionRuntime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: Send + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + Send> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = EarlyRng;
    type OneshotSender<T: Send> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiver<T: Send> = <TokioRuntime as AsyncRuntime>::OneshotReceiver<T>;
    type OneshotReceiverError = <TokioRuntime as AsyncRuntime>::OneshotReceiverError;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + Send>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        EarlyRng
    }

    fn oneshot<T: Send>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>) {
        TokioRuntime::oneshot()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConsensusConfig;

    #[test]
    fn election_timeouts_differ_and_are_short() {
        let config = ConsensusConfig::default();
        let raft = config.raft_config().unwrap();
        let longest = config.election_min_ms + (config.election_max_ms - config.election_min_ms) / 4;
        let drawn: Vec<u64> = (0..50).map(|_| raft.new_rand_election_timeout::<ElectionRuntime>()).collect();
        assert!(drawn.iter().all(|ms| (config.election_min_ms..=longest).contains(ms)), "{drawn:?}");
        assert!(drawn.iter().any(|ms| *ms != drawn[0]), "{drawn:?}");
    }
}
