//! Probes, direct and indirect, and their verdicts.

use super::*;

#[test]
fn a_silent_member_is_suspected_then_dead_and_a_refused_one_dead_at_once() {
    let mut swim = knowing(3);
    let tried = run(&mut swim, at(800));
    assert!(tcp_pings(&tried).iter().any(|&(.., believed)| believed), "it is told what is believed of it");
    run(&mut swim, at(4_000));
    assert_eq!(state_of(&swim, 2), Some(MemberState::Suspect));
    swim.handle(SwimEvent::ConnectionRefused { id: NodeId(3) }, at(4_000));
    assert_eq!(state_of(&swim, 3), Some(MemberState::Dead));
    run(&mut swim, at(15_000));
    assert_eq!(state_of(&swim, 2), Some(MemberState::Dead));
    swim.handle(
        SwimEvent::PushPullReply { from: address(4), message: list(4, [record(2, 1, MemberState::Alive)]) },
        at(15_000),
    );
    assert_eq!(state_of(&swim, 2), Some(MemberState::Alive), "a higher incarnation brings it back");
}

#[test]
fn answers_over_tcp_alone_name_the_blocked_datagrams() {
    let mut swim = knowing(2);
    let mut blocked_after = 0;
    while let Some(due) = swim.next_deadline().filter(|&due| due < at(5_000)) {
        swim.handle(SwimEvent::Tick, due);
        for (seq, _, target, _) in tcp_pings(&effects(&mut swim)) {
            let outcome = TcpPingOutcome::Answered { record: alive(2) };
            swim.handle(SwimEvent::TcpPingResult { seq, target, outcome }, due);
        }
        if !swim.member(NodeId(2)).unwrap().udp_blocked {
            blocked_after = swim.counters().tcp_acks;
        }
    }
    assert_eq!(state_of(&swim, 2), Some(MemberState::Alive));
    assert!(swim.member(NodeId(2)).unwrap().udp_blocked);
    assert_eq!(blocked_after, 2, "a lost datagram or two are no blockade");
}

#[test]
fn a_member_that_was_asked_to_ping_sends_a_nack_while_there_is_no_answer() {
    let mut swim = knowing(3);
    swim.handle(datagram(2, DatagramBody::PingRequest { seq: 77, target: NodeId(3) }, []), at(0));
    let sent = run(&mut swim, at(400));
    let to_requester = |sent: &[SwimEffect]| {
        let mut to = datagrams(sent).into_iter().filter(|&(to, _)| to == address(2));
        to.find_map(|(_, message)| match message.body {
            DatagramBody::Nack { seq: 77 } => Some("nack"),
            DatagramBody::IndirectAck { seq: 77 } => Some("ack"),
            _ => None,
        })
    };
    assert_eq!(to_requester(&sent), Some("nack"));
    swim.handle(datagram(2, DatagramBody::PingRequest { seq: 77, target: NodeId(3) }, []), at(400));
    let own = effects(&mut swim);
    let seq = datagrams(&own).into_iter().find_map(|(to, message)| match message.body {
        DatagramBody::Ping { seq, .. } if to == address(3) => Some(seq),
        _ => None,
    });
    swim.handle(datagram(3, DatagramBody::Ack { seq: seq.unwrap() }, []), at(401));
    assert_eq!(to_requester(&run(&mut swim, at(400 + 400))), Some("ack"));
}

/// The local_health score of member 1 after some failed probes, in which those asked answer with nacks or say nothing.
fn health_after_failures(nacks: bool) -> u32 {
    let mut swim = knowing(5);
    while let Some(due) = swim.next_deadline().filter(|&due| due < at(3_000)) {
        swim.handle(SwimEvent::Tick, due);
        let sent = effects(&mut swim);
        for (to, message) in datagrams(&sent) {
            if let DatagramBody::PingRequest { seq, .. } = message.body
                && nacks
            {
                let from = u64::from(to.port() - 7_000);
                swim.handle(datagram(from, DatagramBody::Nack { seq }, []), due);
            }
        }
    }
    swim.local_health()
}

#[test]
fn a_member_without_any_answer_lowers_its_local_health() {
    assert_eq!(health_after_failures(true), 0, "others hear it, so the target is at fault");
    assert!(health_after_failures(false) >= 1);
}

#[test]
fn doubt_stretches_the_probes_and_answers_end_it() {
    let mut swim = knowing(2);
    for incarnation in 0..20 {
        swim.handle(rumour(2, [record(1, incarnation, MemberState::Suspect)]), at(1));
    }
    assert_eq!(swim.local_health(), SwimConfig::default().local_health_max, "it is bounded");
    let (mut probes, mut healed_at) = (0, None);
    while let Some(due) = swim.next_deadline().filter(|&due| due < at(30_000)) {
        swim.handle(SwimEvent::Tick, due);
        for (_, message) in datagrams(&effects(&mut swim)) {
            if let DatagramBody::Ping { seq, .. } = message.body {
                probes += 1;
                swim.handle(datagram(2, DatagramBody::Ack { seq }, []), due);
                healed_at = healed_at.or_else(|| (swim.local_health() == 0).then_some(due));
            }
        }
    }
    assert!((20..50).contains(&probes), "{probes} probes in 30 s, of 60 in local_health");
    assert!(healed_at.is_some_and(|healed| healed > at(10_000)));
}

#[test]
fn a_starved_member_distrusts_its_own_probes() {
    let mut swim = knowing(3);
    swim.handle(rumour(2, [record(3, 0, MemberState::Suspect)]), at(1));
    run(&mut swim, at(600));
    let before = swim.counters().suspicions;
    swim.handle(SwimEvent::Tick, at(9_900));
    assert_eq!(swim.counters().stalls, 1);
    assert_eq!(swim.local_health(), 1);
    assert_eq!(swim.counters().suspicions, before);
    assert_eq!(state_of(&swim, 3), Some(MemberState::Suspect), "it gets the lost time back");
}
