//! What is wrong with the members and nobody asked about: `list_mem` and `status` tell it.

use std::collections::BTreeMap;

use idunno_shared::wire::control::{Liveness, MemberView};

use super::text;

/// One sentence a fault.
pub fn of(members: &[MemberView]) -> Vec<String> {
    [shared_names(members), wrong_clocks(members)].concat()
}

/// Members whose clocks differ from the median of all.
fn wrong_clocks(members: &[MemberView]) -> Vec<String> {
    let ahead_s = |member: &MemberView| member.doubts.map_or(0, |doubts| doubts.clock_ahead_s);
    let wrong = members.iter().filter(|member| ahead_s(member) != 0);
    let sentence = |member: &MemberView| {
        let side = if ahead_s(member) > 0 { "ahead of" } else { "behind" };
        #[expect(
            clippy::cast_precision_loss,
            reason = "an offset of that many seconds is wrong by any measure"
        )]
        let span = text::seconds(ahead_s(member).unsigned_abs() as f64);
        format!("the clock of {} is {span} {side} the others': correct it", member.name)
    };
    wrong.map(sentence).collect()
}

/// Members that are up and have one name: commands that take a name reach either.
fn shared_names(members: &[MemberView]) -> Vec<String> {
    let is_up = |member: &&MemberView| matches!(member.liveness, Liveness::Alive | Liveness::Suspect);
    let mut addresses: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for member in members.iter().filter(is_up) {
        addresses.entry(member.name.as_str()).or_default().push(member.address.to_string());
    }
    let shared = addresses.into_iter().filter(|(_, addresses)| addresses.len() > 1);
    let sentence = |(name, addresses): (&str, Vec<String>)| {
        format!(
            "{} members are named {name}, at {}: set 'name' in the settings of all but one and restart them",
            addresses.len(),
            addresses.join(" and ")
        )
    };
    shared.map(sentence).collect()
}

/// The sentences as lines of text, after an empty line if there are any.
pub fn lines(warnings: &[String]) -> String {
    let line = |warning: &String| format!("\nwarning: {warning}");
    let lines: String = warnings.iter().map(line).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

#[cfg(test)]
mod tests {
    use idunno_shared::ids::NodeId;
    use idunno_shared::wire::control::{LogRole, MemberDoubts};

    use super::*;

    fn member(id: u64, name: &str, liveness: Liveness) -> MemberView {
        MemberView {
            id: NodeId(id),
            name: name.parse().unwrap(),
            address: format!("10.0.0.{id}:7401").parse().unwrap(),
            generation: 1,
            incarnation: 0,
            liveness,
            udp_blocked: false,
            role: LogRole::Voter,
            since_ms: 0,
            doubts: None,
        }
    }

    #[test]
    fn two_members_of_one_name_are_told_while_both_are_up() {
        let mut members = vec![member(1, "vm1", Liveness::Alive), member(2, "vm2", Liveness::Alive)];
        assert_eq!(of(&members), Vec::<String>::new());
        members.push(member(3, "vm1", Liveness::Suspect));
        let [warning] = &of(&members)[..] else { panic!("{:?}", of(&members)) };
        assert!(warning.contains("vm1, at 10.0.0.1:7401 and 10.0.0.3:7401"), "{warning}");
        assert_eq!(lines(&of(&members)), format!("\n\nwarning: {warning}"));
        members[2].liveness = Liveness::Dead;
        assert_eq!((of(&members), lines(&[])), (Vec::new(), String::new()));
    }
    #[test]
    fn a_wrong_clock_is_told_with_its_side() {
        let with_clock = |id, clock_ahead_s| {
            let doubts = Some(MemberDoubts { clock_ahead_s, ..MemberDoubts::default() });
            MemberView { doubts, ..member(id, &format!("vm{id}"), Liveness::Alive) }
        };
        let told = of(&[with_clock(1, 1_200), with_clock(2, -7), member(3, "vm3", Liveness::Alive)]);
        assert_eq!(told[0], "the clock of vm1 is 20 min 0 s ahead of the others': correct it");
        assert_eq!(told[1], "the clock of vm2 is 7 s behind the others': correct it");
        assert_eq!(told.len(), 2);
    }
}
