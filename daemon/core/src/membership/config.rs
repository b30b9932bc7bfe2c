//! The times and counts of the failure detector.

use std::time::Duration;

/// How fast and how broadly a member probes, gossips and gives up. All members should agree on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwimConfig {
    /// One member is probed each period. At least twice `ping_timeout`. Default 500 ms.
    pub probe_period: Duration,
    /// How long a direct ping may take before others are asked to ping. Above the network's 99th percentile round
    /// trip. Default 200 ms.
    pub ping_timeout: Duration,
    /// How many others are asked. 1 to 8. Default 3.
    pub ping_request_peers: usize,
    /// A member in poor local health stretches its period and its ping timeout by up to this many times (Lifeguard's S).
    /// 0 to 16. Default 8.
    pub local_health_max: u32,
    /// The least time that a suspect has to refute, once others have confirmed the suspicion. Longer than the
    /// longest pause of a starved but healthy member. Default 2 s.
    pub suspicion_min: Duration,
    /// A suspect has at least this many probe periods times the decimal logarithm of the cluster's size, so that the
    /// rumour reaches it. Default 4.
    pub suspicion_multiplier: u32,
    /// An unconfirmed suspicion lasts this many times as long. At least 1. Default 6.
    pub suspicion_stretch: u32,
    /// A member that refutes so many suspicions in a row without answering a probe of this one is believed only once it
    /// has been dialled back. At least 1. Default 3.
    pub flaps_max: u32,
    /// While there are rumours, some are sent each period. Default 100 ms.
    pub gossip_period: Duration,
    /// To how many members each period. 1 to 8. Default 3.
    pub gossip_peers: usize,
    /// Each rumour is sent this many times the binary logarithm of the cluster's size. Default 2, which is about 3 times
    /// the natural one, as in SWIM's experiments.
    pub rumour_multiplier: u32,
    /// Full lists are exchanged with one live member each period; in a cluster of more than 10, whose list is longer, with
    /// a chance of 10 to its size, so that it costs no more bytes a second. Default 15 s.
    pub push_pull_period: Duration,
    /// How long a newcomer may take to answer at the address that it advertises. Below the time after which the driver
    /// gives up on [`super::SwimEffect::StartPushPull`]. Default 2 s.
    pub dial_back_timeout: Duration,
    /// For so long the gossip of a newcomer that did not answer starts no further dial-back. Default 5 s.
    pub dial_back_pause: Duration,
    /// The period in which lost members are reconnected to, and the least time between two exchanges of lists with unknown
    /// senders. Default 1 s.
    pub reconnect_period: Duration,
    /// The wait after the first reconnect to a lost member; it doubles. Default 1 s.
    pub reconnect_wait_min: Duration,
    /// The longest wait between reconnects of this member to a lost one, in a cluster of up to 8; it grows with the
    /// cluster, because all its members reconnect. Default 30 s.
    pub reconnect_wait_max: Duration,
    /// A dead or left member is forgotten after so long. At most 2^32 s, and more than a member that was cut off takes to
    /// find the others dead (`local_health_max` and one periods for each), or they come back to life for a moment through its
    /// list. Default 24 h.
    pub forget_after: Duration,
    /// The first wait between attempts to join; it doubles. Default 250 ms.
    pub join_retry_min: Duration,
    /// The longest wait between attempts to join. Default 2 s.
    pub join_retry_max: Duration,
    /// How many gossip periods a leaving member announces itself before it is done. Default 4.
    pub leave_gossips: u32,
    /// A tick this late proves that this member itself was starved: its running probe then says nothing, and suspects get
    /// the lost time back. Default 200 ms.
    pub stall: Duration,
}

impl Default for SwimConfig {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_millis(500),
            ping_timeout: Duration::from_millis(200),
            ping_request_peers: 3,
            local_health_max: 8,
            suspicion_min: Duration::from_secs(2),
            suspicion_multiplier: 4,
            suspicion_stretch: 6,
            flaps_max: 3,
            gossip_period: Duration::from_millis(100),
            gossip_peers: 3,
            rumour_multiplier: 2,
            push_pull_period: Duration::from_secs(15),
            dial_back_timeout: Duration::from_secs(2),
            dial_back_pause: Duration::from_secs(5),
            reconnect_period: Duration::from_secs(1),
            reconnect_wait_min: Duration::from_secs(1),
            reconnect_wait_max: Duration::from_secs(30),
            forget_after: Duration::from_secs(24 * 3_600),
            join_retry_min: Duration::from_millis(250),
            join_retry_max: Duration::from_secs(2),
            leave_gossips: 4,
            stall: Duration::from_millis(200),
        }
    }
}

/// ln(c + 1) / ln(k + 1) in a thousand, by k and c: whole numbers, alike on every machine.
const CONFIRMED_PER_MILLE: [&[u32]; 4] = [&[1_000], &[0, 1_000], &[0, 631, 1_000], &[0, 500, 792, 1_000]];

impl SwimConfig {
    /// How many independent confirmations bring a suspicion down to its least time: 3 (Lifeguard's K), but no more than
    /// the minority whose loss a cluster of `members` survives leaves behind, so that the others always suffice.
    pub fn confirmations_wanted(members: usize) -> usize {
        (members.saturating_sub(1) / 2).min(CONFIRMED_PER_MILLE.len() - 1)
    }

    /// How long a suspect has to refute in a cluster of `members`, with so many independent confirmations:
    /// `max - (max - min) * ln(c + 1) / ln(k + 1)` (Lifeguard, section IV-B).
    pub fn suspicion_timeout(&self, members: usize, confirmations: usize) -> Duration {
        let scaled = self.probe_period * self.suspicion_multiplier * log10_per_mille(members) / 1_000;
        let min = scaled.max(self.suspicion_min);
        let max = min * self.suspicion_stretch.max(1);
        let confirmed = CONFIRMED_PER_MILLE[Self::confirmations_wanted(members)];
        let per_mille = confirmed.get(confirmations).copied().unwrap_or(1_000);
        max.saturating_sub(max.saturating_sub(min) * per_mille / 1_000)
    }

    /// How often one rumour is sent in a cluster of `members`.
    pub fn rumour_sends(&self, members: usize) -> u32 {
        self.rumour_multiplier.saturating_mul(binary_log(members).max(1))
    }

    /// The longest wait between reconnects to one lost member in a cluster of `members`.
    pub(super) fn reconnect_wait_max(&self, members: usize) -> Duration {
        self.reconnect_wait_max * u32::try_from(members / 8).unwrap_or(u32::MAX).max(1)
    }
}

/// The decimal logarithm of `members`, in a thousand: log10(x) = 0.301 log2(x), and log2(x) = log2(x^8) / 8. Whole
/// numbers, alike on every machine.
fn log10_per_mille(members: usize) -> u32 {
    let eighths = (members.max(1) as u128).saturating_pow(8).ilog2();
    eighths * 301 / 8
}

/// The binary logarithm of `members + 1`, rounded up.
fn binary_log(members: usize) -> u32 {
    usize::BITS - members.leading_zeros()
}
