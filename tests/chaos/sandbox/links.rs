//! Faults of links, and the firewall rules that cause them. Pure functions.
//!
//! The receiver drops the packets of a cut link, so that the sender gets no error.

use std::net::Ipv4Addr;

/// A process with an address on the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Endpoint {
    /// The clients and the driver itself.
    Client,
    Introducer,
    /// A member, counted from 0.
    Member(usize),
}

impl Endpoint {
    pub(crate) fn address(self) -> Ipv4Addr {
        let last = match self {
            Self::Client => 254,
            Self::Introducer => 253,
            Self::Member(index) => u8::try_from(index + 1).unwrap_or(252),
        };
        Ipv4Addr::new(10, 77, 0, last)
    }
}

/// A fault of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// No packet arrives.
    Cut,
    /// No UDP packet arrives.
    NoUdp,
    /// This percentage of packets is lost.
    Loss(u32),
}

/// A fault in one direction of one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) from: Endpoint,
    pub(crate) to: Endpoint,
    pub(crate) damage: Damage,
}

/// In which direction a link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Both,
    /// From the members concerned: they receive and cannot send.
    Out,
    /// To the members concerned: they send and cannot receive.
    In,
}

/// The faults between every endpoint in `side` and every endpoint in `rest`.
pub(crate) fn between(
    side: &[Endpoint],
    rest: &[Endpoint],
    direction: Direction,
    damage: Damage,
) -> Vec<Broken> {
    let mut broken = Vec::new();
    for (&inner, &outer) in side.iter().flat_map(|inner| rest.iter().map(move |outer| (inner, outer))) {
        if inner == outer {
            continue;
        }
        if direction != Direction::In {
            broken.push(Broken { from: inner, to: outer, damage });
        }
        if direction != Direction::Out {
            broken.push(Broken { from: outer, to: inner, damage });
        }
    }
    broken
}

/// The firewall rules of one receiver, as an nft script that replaces the earlier rules atomically.
pub(crate) fn firewall(receiver: Endpoint, broken: &[Broken]) -> String {
    let rule = |broken: &Broken| {
        let source = broken.from.address();
        let packets = match broken.damage {
            Damage::Cut => String::new(),
            Damage::NoUdp => String::from(" meta l4proto udp"),
            Damage::Loss(percent) => format!(" numgen random mod 100 < {percent}"),
        };
        format!("ip saddr {source}{packets} drop\n")
    };
    let rules: Vec<String> = broken.iter().filter(|broken| broken.to == receiver).map(rule).collect();
    format!(
        "table inet chaos\ndelete table inet chaos\ntable inet chaos {{\nchain input {{\n\
         type filter hook input priority 0; policy accept;\n{}}}\n}}\n",
        rules.concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use Endpoint::{Client, Member};

    #[test]
    fn a_cut_applies_to_the_requested_directions() {
        let rest = [Member(1), Client];
        let out = between(&[Member(0)], &rest, Direction::Out, Damage::Cut);
        assert!(out.iter().all(|broken| broken.from == Member(0)) && out.len() == 2, "{out:?}");
        let into = between(&[Member(0)], &rest, Direction::In, Damage::Cut);
        assert!(into.iter().all(|broken| broken.to == Member(0)) && into.len() == 2, "{into:?}");
        let both = between(&[Member(0)], &rest, Direction::Both, Damage::Cut);
        assert!(both.len() == 4 && out.iter().chain(&into).all(|broken| both.contains(broken)));
    }

    #[test]
    fn an_endpoint_is_never_cut_off_from_itself() {
        assert_eq!(between(&[Member(0)], &[Member(0)], Direction::Both, Damage::Cut), []);
    }

    #[test]
    fn rules_are_installed_at_the_receiver() {
        let broken = [
            Broken { from: Member(0), to: Client, damage: Damage::Cut },
            Broken { from: Member(1), to: Client, damage: Damage::NoUdp },
            Broken { from: Member(2), to: Client, damage: Damage::Loss(7) },
            Broken { from: Client, to: Member(0), damage: Damage::Cut },
        ];
        let rules: Vec<String> = firewall(Client, &broken)
            .lines()
            .filter(|line| line.ends_with("drop"))
            .map(String::from)
            .collect();
        assert_eq!(
            rules,
            [
                "ip saddr 10.77.0.1 drop",
                "ip saddr 10.77.0.2 meta l4proto udp drop",
                "ip saddr 10.77.0.3 numgen random mod 100 < 7 drop",
            ]
        );
        assert!(!firewall(Member(1), &broken).contains("saddr"));
    }
}
