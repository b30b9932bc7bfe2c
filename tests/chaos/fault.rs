//! The faults that can be injected, and the members that they affect.

use std::fmt;
use std::time::Duration;

use crate::sandbox::links::Direction;

/// A fault and its victims. Members are numbered from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL all of them at once; restarted at the end.
    Kill(Vec<usize>),
    /// SIGSTOP; SIGCONT at the end.
    Freeze(Vec<usize>),
    /// SIGKILL and delete their data; restarted, with new ids, at the end.
    Wipe(Vec<usize>),
    /// Fill their disks completely.
    FillDisk(Vec<usize>),
    /// Have their renames of blobs hang.
    HangRenames(Vec<usize>),
    /// Set their wall clocks ahead, or behind.
    StepClocks { side: Vec<usize>, ahead_s: i64 },
    /// Cut these off from all other members and the introducer.
    CutOff { side: Vec<usize>, direction: Direction, from_clients: bool },
    /// Cut the link between two members.
    CutLink { ends: [usize; 2], direction: Direction },
    /// Lose this percentage of packets to and from these members.
    Loss { side: Vec<usize>, percent: u32 },
    /// Drop all UDP to and from these members.
    BlockUdp(Vec<usize>),
    /// Delay what these members send by about `ms` milliseconds.
    Delay { side: Vec<usize>, ms: u32 },
    /// Kill the model servers of these members, which must restart them.
    KillModelServers(Vec<usize>),
    /// Kill the introducer; restarted at the end.
    KillIntroducer,
}

impl Fault {
    /// The members that are down, frozen, cut off, out of disk space or of time: at most three at a time in a cluster of seven.
    pub(crate) fn victims(&self) -> &[usize] {
        match self {
            Self::Kill(side)
            | Self::Freeze(side)
            | Self::Wipe(side)
            | Self::FillDisk(side)
            | Self::HangRenames(side)
            | Self::StepClocks { side, .. }
            | Self::CutOff { side, .. } => side,
            // Either end may be declared dead.
            Self::CutLink { ends, .. } => ends,
            Self::Loss { .. }
            | Self::BlockUdp(_)
            | Self::Delay { .. }
            | Self::KillModelServers(_)
            | Self::KillIntroducer => &[],
        }
    }

    /// Replaces the first victim with the coordinator, unless the coordinator is a victim already or is in `spared`.
    pub(crate) fn aim(&mut self, coordinator: usize, spared: &[usize]) {
        if spared.contains(&coordinator) || self.victims().contains(&coordinator) {
            return;
        }
        let first = match self {
            Self::Kill(side)
            | Self::Freeze(side)
            | Self::Wipe(side)
            | Self::FillDisk(side)
            | Self::HangRenames(side)
            | Self::StepClocks { side, .. }
            | Self::CutOff { side, .. } => side.first_mut(),
            Self::CutLink { ends, .. } => ends.first_mut(),
            _ => None,
        };
        if let Some(first) = first {
            *first = coordinator;
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(side) => write!(f, "kill {}", names(side)),
            Self::Freeze(side) => write!(f, "freeze {}", names(side)),
            Self::Wipe(side) => write!(f, "wipe {}", names(side)),
            Self::FillDisk(side) => write!(f, "fill the disks of {}", names(side)),
            Self::HangRenames(side) => write!(f, "hang the renames of {}", names(side)),
            Self::StepClocks { side, ahead_s } => {
                let way = if *ahead_s < 0 { "behind" } else { "ahead" };
                write!(f, "set the clocks of {} {} s {way}", names(side), ahead_s.unsigned_abs())
            }
            Self::CutOff { side, direction, from_clients } => {
                let clients = if *from_clients { ", from clients too" } else { "" };
                write!(f, "cut {} off{}{clients}", names(side), way(*direction))
            }
            Self::CutLink { ends: [one, other], direction } => {
                write!(f, "cut the link of {} with {}{}", names(&[*one]), names(&[*other]), way(*direction))
            }
            Self::Loss { side, percent } => write!(f, "lose {percent} % at {}", names(side)),
            Self::BlockUdp(side) => write!(f, "block UDP at {}", names(side)),
            Self::Delay { side, ms } => write!(f, "delay {} by {ms} ms", names(side)),
            Self::KillModelServers(side) => write!(f, "kill the model servers of {}", names(side)),
            Self::KillIntroducer => write!(f, "kill the introducer"),
        }
    }
}

fn names(side: &[usize]) -> String {
    side.iter().map(|index| format!("m{}", index + 1)).collect::<Vec<_>>().join(" ")
}

fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Both => "",
        Direction::Out => ", what it sends",
        Direction::In => ", what is sent to it",
    }
}

/// A scheduled fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) fault: Fault,
    /// Whether the coordinator at that moment is to be among the victims.
    pub(crate) at_coordinator: bool,
}

/// What to wait for between two rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    /// Nothing: the next faults hit a cluster that is still recovering.
    Not,
    /// All members form one cluster.
    Ready,
    /// All members form one cluster, and all blobs have all their copies.
    Healed,
}

/// Faults that start and end together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) faults: Vec<Planned>,
    pub(crate) hold: Duration,
    /// What to wait for before the round and after it.
    pub(crate) before: Settle,
    pub(crate) after: Settle,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self
            .faults
            .iter()
            .map(|planned| {
                let aim = if planned.at_coordinator { " (the coordinator among them)" } else { "" };
                format!("{}{aim}", planned.fault)
            })
            .collect();
        let after = match self.after {
            Settle::Not => "continue at once",
            Settle::Ready => "wait until all members form one cluster",
            Settle::Healed => "wait until all copies exist",
        };
        write!(f, "{} for {:.1} s; {after}", faults.join("; "), self.hold.as_secs_f64())
    }
}
