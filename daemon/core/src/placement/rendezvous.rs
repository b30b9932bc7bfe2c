//! The members for a blob: rendezvous hashing, weighted by free space.
//!
//! Each member draws a number from the blob's digest and its own id; the largest win. A member that comes or goes
//! moves nothing but its own share.

use idunno_shared::ids::{Digest, NodeId};

/// A member with less free space is chosen only when there is no other.
pub const SPACE_RESERVE_BYTES: u64 = 256 << 20;

/// A member that may store a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The member.
    pub node: NodeId,
    /// Bytes free on its disk.
    pub free_bytes: u64,
}

/// A number of (0, 1), the same for the same blob and member, evenly spread over all others.
fn draw(digest: &Digest, node: NodeId) -> f64 {
    let head = digest.0.iter().take(8).fold(0, |head: u64, byte| head << 8 | u64::from(*byte));
    let mut bits = head ^ node.0.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    // The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^= bits >> 31;
    ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// Larger is better. The weight is the free space rounded down to a power of two, so that small changes move nothing.
fn score(digest: &Digest, candidate: &Candidate) -> (bool, f64) {
    let weight = (1u64 << candidate.free_bytes.max(1).ilog2()) as f64;
    let spacious = candidate.free_bytes >= SPACE_RESERVE_BYTES;
    (spacious, -weight / draw(digest, candidate.node).ln())
}

/// The `copies` best members for a blob, best first; fewer while there are fewer. None of `exclude`.
pub fn choose(digest: &Digest, candidates: &[Candidate], exclude: &[NodeId], copies: usize) -> Vec<NodeId> {
    let allowed = candidates.iter().filter(|candidate| !exclude.contains(&candidate.node));
    let mut ranked: Vec<_> = allowed.map(|candidate| (score(digest, candidate), candidate.node)).collect();
    ranked.sort_unstable_by(|((a_spacious, a), a_node), ((b_spacious, b), b_node)| {
        b_spacious.cmp(a_spacious).then(b.total_cmp(a)).then(a_node.cmp(b_node))
    });
    ranked.dedup_by_key(|(_, node)| *node);
    ranked.into_iter().take(copies).map(|(_, node)| node).collect()
}
