//! The scheduler's settings.

use std::time::Duration;

use idunno_shared::wire::jobs::LEASES_PER_WORKER_MAX;

/// Models that the scheduler tracks, per worker and in all.
pub(super) const MODELS_MAX: usize = 256;

/// The scheduler's settings. The defaults suit workers that report every second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// How long a lease lives without a report that lists it, and how long a worker counts as live without a report.
    /// At least three report intervals.
    pub lease: Duration,
    /// How long workers may claim the leases of the previous term before the new term grants anything.
    pub claim_grace: Duration,
    /// A lease returns once two reports at least this far apart lack it: the first may have crossed the grant on the
    /// network. More than a round trip, less than `lease`.
    pub absence_grace: Duration,
    /// Uncompleted leases that one worker may hold; batches that await their commit do not count. At least 1.
    pub leases_per_worker: usize,
    /// Longest time a report stays unanswered, whatever wait it asks for.
    pub wait_max: Duration,
    /// First delay before a failed range is retried; doubled by each further failure of the same kind.
    pub retry_base: Duration,
    /// First delay before inputs that could not be read are retried; doubled like `retry_base`.
    pub fetch_base: Duration,
    /// How long an input may be unreadable before it counts as lost. Longer than a restart of the whole cluster takes.
    pub fetch_patience: Duration,
    /// Longest retry delay, for both kinds.
    pub retry_max: Duration,
    /// First cooldown of a worker after a fault of its own; doubled by each further one until a success.
    pub cooldown_base: Duration,
    /// Longest cooldown of a worker.
    pub cooldown_max: Duration,
    /// Consecutive failed batches without any success after which a job is paused.
    pub pause_failures: u32,
    /// Failed trainings after which a model is given up until it is requested again.
    pub training_failures: u32,
    /// How long after sending a training request it is repeated if the worker does not report the training.
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
