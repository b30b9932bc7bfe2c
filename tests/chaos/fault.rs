//! The faults there are, and whom they strike.

use std::fmt;
use std::time::Duration;

use crate::ground::links::Direction;

/// A fault, its victims known. Members are counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL to all of them at once; started again at the end.
    Kill(Vec<usize>),
    /// SIGSTOP; SIGCONT at the end.
    Freeze(Vec<usize>),
    /// SIGKILL, and everything they kept destroyed; started again, with new identities, at the end.
    Wipe(Vec<usize>),
    /// Not a byte is left on their disks.
    FillDisk(Vec<usize>),
    /// Nothing passes between these and all other members and the introducer.
    CutOff { side: Vec<usize>, direction: Direction, from_clients: bool },
    /// Nothing passes between two members.
    CutLink { ends: [usize; 2], direction: Direction },
    /// So many of 100 packets to and from these are lost.
    Loss { side: Vec<usize>, percent: u32 },
    /// No UDP reaches these or comes from them.
    BlockUdp(Vec<usize>),
    /// What these send is late by about so many milliseconds.
    Delay { side: Vec<usize>, ms: u32 },
    /// The model servers beside these are killed; the members are to start them again.
    KillModelServers(Vec<usize>),
    /// The introducer is killed; started again at the end.
    KillIntroducer,
}

impl Fault {
    /// Those that are down, frozen, cut off or without room: at most three at a time in a cluster of seven.
    pub(crate) fn victims(&self) -> &[usize] {
        match self {
            Self::Kill(side)
            | Self::Freeze(side)
            | Self::Wipe(side)
            | Self::FillDisk(side)
            | Self::CutOff { side, .. } => side,
            // Either end may be taken for the dead one.
            Self::CutLink { ends, .. } => ends,
            Self::Loss { .. }
            | Self::BlockUdp(_)
            | Self::Delay { .. }
            | Self::KillModelServers(_)
            | Self::KillIntroducer => &[],
        }
    }

    /// Puts the coordinator in the place of the first victim, unless it is a victim already or `spared`.
    pub(crate) fn aim(&mut self, coordinator: usize, spared: &[usize]) {
        if spared.contains(&coordinator) || self.victims().contains(&coordinator) {
            return;
        }
        let first = match self {
            Self::Kill(side)
            | Self::Freeze(side)
            | Self::Wipe(side)
            | Self::FillDisk(side)
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

/// A fault, as the schedule has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) fault: Fault,
    /// Whether the coordinator of that moment is to be among the victims.
    pub(crate) at_coordinator: bool,
}

/// What is waited for between two rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    /// Nothing: the next faults meet a cluster that is still recovering.
    Not,
    /// All are one cluster again.
    Ready,
    /// And all blobs have all their copies.
    Healed,
}

/// Faults that begin together and end together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) faults: Vec<Planned>,
    pub(crate) hold: Duration,
    /// What must be before it begins, and after it ended.
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
            Settle::Not => "go on at once",
            Settle::Ready => "wait until they are one cluster",
            Settle::Healed => "wait until all copies are there",
        };
        write!(f, "{} for {:.1} s; {after}", faults.join("; "), self.hold.as_secs_f64())
    }
}
