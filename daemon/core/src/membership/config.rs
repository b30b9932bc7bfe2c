//! The times and counts of the failure detector.

use std::time::Duration;

/// How fast and how broadly a member probes, gossips and gives up. All members should agree on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// One member is probed each period. At least twice `ping_timeout`. Default 500 ms.
    pub probe_period: Duration,
    /// How long a direct ping may take before others are asked to ping. Above the network's 99th percentile round
    /// trip. Default 200 ms.
    pub ping_timeout: Duration,
    /// How many others are asked. 1 to 8. Default 3.
    pub ping_request_peers: usize,
    /// The least time that a suspect has to contradict. Longer than the longest pause of a starved but healthy
    /// member. Default 2 s.
    pub suspicion_min: Duration,
    /// A suspect has this many probe periods times the decimal logarithm of the cluster's size, so that the rumour
    /// reaches it. Default 4.
    pub suspicion_multiplier: u32,
    /// While there are rumours, some are sent each period. Default 100 ms.
    pub gossip_period: Duration,
    /// To how many members each period. 1 to 8. Default 3.
    pub gossip_peers: usize,
    /// Each rumour is sent this many times the binary logarithm of the cluster's size. Default 3.
    pub rumour_multiplier: u32,
    /// Full lists are exchanged with one live member each period. Default 15 s.
    pub push_pull_period: Duration,
    /// Full lists are offered to two each period, in turn, of the dead and left members and the seeds that are not
    /// live, so that the halves of a healed partition find each other. Default 5 s.
    pub reconnect_period: Duration,
    /// The first wait between attempts to join; it doubles. Default 250 ms.
    pub join_retry_min: Duration,
    /// The longest wait between attempts to join. Default 2 s.
    pub join_retry_max: Duration,
    /// How many gossip periods a leaving member announces itself before it is done. Default 4.
    pub leave_gossips: u32,
    /// Being driven this late proves that this member itself was starved: its running probe then says nothing, and
    /// suspects get the lost time back. Default 200 ms.
    pub stall: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_millis(500),
            ping_timeout: Duration::from_millis(200),
            ping_request_peers: 3,
            suspicion_min: Duration::from_secs(2),
            suspicion_multiplier: 4,
            gossip_period: Duration::from_millis(100),
            gossip_peers: 3,
            rumour_multiplier: 3,
            push_pull_period: Duration::from_secs(15),
            reconnect_period: Duration::from_secs(5),
            join_retry_min: Duration::from_millis(250),
            join_retry_max: Duration::from_secs(2),
            leave_gossips: 4,
            stall: Duration::from_millis(200),
        }
    }
}

impl Config {
    /// How long a suspect has to contradict in a cluster of `members`.
    pub fn suspicion_timeout(&self, members: usize) -> Duration {
        // log10(x) = 0.301 log2(x), the binary logarithm rounded up: whole numbers, alike on every machine.
        let scaled = self.probe_period * self.suspicion_multiplier * binary_log(members) * 301 / 1_000;
        scaled.max(self.suspicion_min)
    }

    /// How often one rumour is sent in a cluster of `members`.
    pub fn rumour_sends(&self, members: usize) -> u32 {
        self.rumour_multiplier.saturating_mul(binary_log(members).max(1))
    }
}

/// The binary logarithm of `members + 1`, rounded up.
fn binary_log(members: usize) -> u32 {
    usize::BITS - members.leading_zeros()
}
