//! Whom an order to one member hits: bound while it is typed, so that nothing that moves later changes it.

use super::state::State;
use crate::command::Verb;
use crate::command::values::MemberRef;
use crate::execute::members::NAME_THE_MEMBER;

/// Fills in the member that is meant where the console was given one address alone. Returns the member as a person
/// knows it; refused with the reason if it could be any.
pub(super) fn bind(state: &State, verb: &mut Verb) -> Result<Option<String>, &'static str> {
    if let Verb::DeleteJob { yes, .. } = verb {
        // The console asks before it gives it.
        *yes = true;
    }
    let (Verb::Leave(to) | Verb::Join(to)) = verb else { return Ok(None) };
    let only = || state.only_seed.map(MemberRef::Address);
    let member = to.member.take().or_else(only).ok_or(NAME_THE_MEMBER)?;
    let mut members = state.view.iter().flat_map(|view| &view.members);
    let found = members.find(|view| match &member {
        MemberRef::Address(address) => view.address == *address,
        MemberRef::Name(name) => view.name == *name,
    });
    let shown = match found {
        Some(view) => format!("member {} at {}", view.name, view.address),
        None => format!("member {member}, which is in no list"),
    };
    to.member = Some(member);
    Ok(Some(shown))
}
