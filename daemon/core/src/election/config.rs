//! The times and counts of the ring election.

use std::time::Duration;

/// The ring's timeouts and limits. All voters should agree on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// A voter that misses the coordinator waits a random time up to this before it starts a round, so that mostly one
    /// voter does.
    /// Default 20 ms.
    pub start_delay_max: Duration,
    /// How long a hop waits for its acknowledgement. Default 150 ms.
    pub hop_timeout: Duration,
    /// How often a hop is tried before its receiver is skipped. At least 1. Default 2.
    pub hop_attempts: u32,
    /// How long a round may take to name its winner, and then its winner to lead. Default 1.5 s.
    pub round_timeout: Duration,
    /// After so many rounds without a leader all voters may stand. Default 3.
    pub failed_rounds_max: u32,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self {
            start_delay_max: Duration::from_millis(20),
            hop_timeout: Duration::from_millis(150),
            hop_attempts: 2,
            round_timeout: Duration::from_millis(1_500),
            failed_rounds_max: 3,
        }
    }
}
