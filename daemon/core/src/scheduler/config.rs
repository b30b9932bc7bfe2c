//! The scheduler's settings.

use std::time::Duration;

use idunno_shared::wire::jobs::LEASES_PER_WORKER_MAX;

/// Models of which anything is kept, of a worker or at all.
pub(super) const MODELS_MAX: usize = 256;

/// The scheduler's settings. The defaults work for workers that report every second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// How long a lease lives without a report that lists it, and how long a silent worker counts as live.
    /// At least three reports.
    pub lease: Duration,
    /// After term start, how long workers may claim what they run before anything else is leased.
    pub claim_grace: Duration,
    /// A lease returns once two reports, at least this far apart, both lack it: the first of them may have crossed
    /// the grant. Above a round trip, below `lease`.
    pub absence_grace: Duration,
    /// Most leases of one worker that are at work, those that have run and await their commit not counted; at least 1.
    pub leases_per_worker: usize,
    /// Longest wait of an unanswered report, whatever it asks for.
    pub wait_max: Duration,
    /// Retry of a failed range: first delay, doubled by each further failure of its kind.
    pub retry_base: Duration,
    /// The same for inputs that could not be read.
    pub fetch_base: Duration,
    /// For so long an input may be unreadable before it counts as lost: longer than a cluster takes to come back.
    pub fetch_patience: Duration,
    /// Longest retry delay of both.
    pub retry_max: Duration,
    /// A worker's first pause after a fault of its own, doubled by each further one until a success.
    pub cooldown_base: Duration,
    /// Longest such pause.
    pub cooldown_max: Duration,
    /// Consecutive batch failures of a job without any success, after which it is paused.
    pub pause_failures: u32,
    /// Failed trainings of one model, after which it stays failed until asked for again.
    pub training_failures: u32,
    /// A training order is repeated when the worker has not shown it for this long.
    pub training_repeat: Duration,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(5),
            claim_grace: Duration::from_secs(1),
            absence_grace: Duration::from_secs(1),
            leases_per_worker: LEASES_PER_WORKER_MAX,
            wait_max: Duration::from_secs(2),
            retry_base: Duration::from_millis(100),
            fetch_base: Duration::from_secs(1),
            fetch_patience: Duration::from_secs(600),
            retry_max: Duration::from_secs(10),
            cooldown_base: Duration::from_secs(1),
            cooldown_max: Duration::from_secs(30),
            pause_failures: 10,
            training_failures: 3,
            training_repeat: Duration::from_secs(2),
        }
    }
}
