//! What an order hits: bound while it is typed, so that nothing that moves later changes it.

use super::state::State;
use crate::command::values::MemberRef;
use crate::command::{DeadLettersVerb, JobRef, OneMember, Verb};
use crate::execute::job_ref::{self, Scope};
use crate::execute::members::NAME_THE_MEMBER;

/// Fills in the member that is meant where the console was given one address alone, and the job that a model's name
/// stands for. Returns the target as a person knows it; refused with the reason if it could be any.
pub(super) fn bind(state: &State, verb: &mut Verb) -> Result<Option<String>, String> {
    match verb {
        Verb::Leave(to) | Verb::Join(to) => bind_member(state, to).map(Some),
        Verb::DeleteJob { job, yes } => {
            // The console asks before it gives it.
            *yes = true;
            bind_job(state, job, Scope::Any)
        }
        Verb::DeadLetters(DeadLettersVerb::Drop { job, .. }) => bind_job(state, job, Scope::Any),
        Verb::CancelJob { job } => bind_job(state, job, Scope::Unfinished),
        Verb::StopJob { jobs } => {
            let mut bound = Vec::new();
            for job in jobs {
                bound.extend(bind_job(state, job, Scope::Unfinished)?);
            }
            Ok((!bound.is_empty()).then(|| bound.join(", ")))
        }
        _ => Ok(None),
    }
}

fn bind_member(state: &State, to: &mut OneMember) -> Result<String, String> {
    let member = to.member.take().or_else(|| state.default_member.clone()).ok_or(NAME_THE_MEMBER)?;
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
    Ok(shown)
}

/// Puts a job's number in place of its model's name. A number, a job's own name, and one that the view does not have
/// are left as they are: the cluster knows.
fn bind_job(state: &State, job: &mut JobRef, scope: Scope) -> Result<Option<String>, String> {
    let Some(view) = &state.view else { return Ok(None) };
    match job_ref::find(&view.jobs, job, scope) {
        Ok(found) => {
            if found.note.is_some() {
                *job = JobRef::Id(found.id);
            }
            Ok(found.note)
        }
        Err(job_ref::JobRefError::Unknown(_)) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}
