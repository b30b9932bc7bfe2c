//! `identity`: identities of people and programs. `create` makes one from the secret, as a local file; the cluster learns of it
//! when it is used.

use std::path::Path;
use std::time::Duration;

use idunno_shared::access::{Grant, Prefix, Role, SubjectName, join};
use idunno_shared::security::secret::Secret;
use idunno_shared::security::{Credentials, SecurityError, private_file};
use idunno_shared::wire::control::{
    Change, Changed, ControlReply, ControlRequest, IDENTITIES_PER_PAGE_MAX, NamedIdentity, Period,
};

use super::clock::now_ms;
use super::cluster;
use crate::answer::identities::{self, CreatedIdentity, Identity, RevokedIdentity};
use crate::answer::table::Table;
use crate::answer::{Answer, Exit, Failure, text};
use crate::command::IdentityVerb;
use crate::session::Session;

/// Runs an `identity` command that asks the cluster.
pub async fn run(session: &Session, verb: IdentityVerb) -> Result<Answer, Failure> {
    match verb {
        IdentityVerb::Create { .. } => create(verb, session.dry_run),
        IdentityVerb::Ls => list(session).await,
        IdentityVerb::Revoke { name, unseen, yes } => revoke(session, name, unseen, yes).await,
    }
}

/// Runs `identity create`, which asks no member.
pub fn create(verb: IdentityVerb, dry_run: bool) -> Result<Answer, Failure> {
    let IdentityVerb::Create { name, role, prefixes, secret, out, expires } = verb else {
        return Err(Failure::new(Exit::Usage, "only 'identity create' works without a cluster"));
    };
    if dry_run {
        return Err(Failure::no_dry_run());
    }
    let role = Role::from(role);
    if role != Role::Submitter && !prefixes.is_empty() {
        let text =
            format!("--prefix is for a submitter: {} may change files everywhere or nowhere", role.noun());
        return Err(Failure::new(Exit::Usage, text));
    }
    let mut prefixes = prefixes;
    if role == Role::Submitter && prefixes.is_empty() {
        prefixes.push(Prefix::of_home(&name));
    }
    let made = make(&Grant { name, role, prefixes }, &secret, &out, expires.0);
    made.map_err(|error| cluster::failure(&error))
}

fn make(grant: &Grant, secret: &Path, out: &Path, valid: Duration) -> Result<Answer, SecurityError> {
    let identity = Secret::load(secret)?.mint_lasting(grant, valid)?;
    private_file::create(out, &identity.render())?;
    let Grant { name, role, prefixes } = grant;
    let ends_ms = Credentials::of(&identity)?.ends_ms().unwrap_or(u64::MAX);
    let below =
        if prefixes.is_empty() { String::new() } else { format!(", with files below {}", join(prefixes)) };
    let path = out.display().to_string();
    let lines = format!(
        "{path} makes {name} {} of the cluster{below}. It ends on {} UTC.\nPass it with --identity or IDUNNO_IDENTITY. \
         'idunno identity ls' lists it once it has been used.",
        role.noun(),
        text::moment(ends_ms),
    );
    let created = CreatedIdentity {
        path,
        name: name.to_string(),
        role: role.name().to_owned(),
        prefixes: prefixes.iter().map(ToString::to_string).collect(),
        ends_ms,
    };
    Ok(Answer::new(&created, lines))
}

/// All identities that the cluster knows of.
async fn all(session: &Session) -> Result<Vec<NamedIdentity>, Failure> {
    let limit = u32::try_from(IDENTITIES_PER_PAGE_MAX).unwrap_or(u32::MAX);
    let mut all: Vec<NamedIdentity> = Vec::new();
    loop {
        let after = all.last().map(|last| last.name.clone());
        match session.cluster().control(ControlRequest::Identities { after, limit, ending: None }).await? {
            ControlReply::Identities { identities, more } => {
                let is_last = !more || identities.is_empty();
                all.extend(identities);
                if is_last {
                    return Ok(all);
                }
            }
            _ => return Err(Failure::unexpected()),
        }
    }
}

/// The first page of the identities that end soon and have no successor.
pub async fn ending(session: &Session, now_ms: u64) -> Result<Vec<NamedIdentity>, Failure> {
    let ending = Some(Period { after_ms: now_ms, until_ms: now_ms.saturating_add(identities::ENDING_MS) });
    let limit = u32::try_from(IDENTITIES_PER_PAGE_MAX).unwrap_or(u32::MAX);
    match session.cluster().control(ControlRequest::Identities { after: None, limit, ending }).await? {
        ControlReply::Identities { identities, .. } => Ok(identities),
        _ => Err(Failure::unexpected()),
    }
}

async fn list(session: &Session) -> Result<Answer, Failure> {
    let (named, now_ms) = (all(session).await?, now_ms());
    let rows: Vec<Identity> = named.iter().flat_map(|named| identities::rows(named, now_ms)).collect();
    if rows.is_empty() {
        return Ok(Answer::list(rows, "no identities: each is listed once it has been used"));
    }
    let mut table = Table::new("NAME ROLE +FILES ENDS +FIRST_SEEN STATE");
    let moment = |at_ms: Option<u64>| at_ms.map_or_else(|| String::from("-"), text::moment);
    for row in &rows {
        table.row([
            row.name.clone(),
            row.role.clone().unwrap_or_else(|| String::from("-")),
            if row.prefixes.is_empty() { String::from("-") } else { row.prefixes.join(" ") },
            moment(row.ends_ms),
            moment(row.first_seen_ms),
            identities::state_text(row, now_ms),
        ]);
    }
    Ok(Answer::list(rows, table))
}

async fn revoke(session: &Session, name: SubjectName, unseen: bool, yes: bool) -> Result<Answer, Failure> {
    if !yes {
        let what = format!("this ends all identities and access keys of {name}, at once and for good");
        return Err(Failure::unconfirmed(what, "--yes"));
    }
    match session.cluster().change(Change::RevokeIdentity { name: name.clone(), unseen }).await? {
        Changed::Done => {}
        _ => return Err(Failure::unexpected()),
    }
    let lines = format!(
        "all identities of {name} are revoked, for good: every member that the coordinator reaches refuses them"
    );
    Ok(Answer::new(&RevokedIdentity { name: name.to_string() }, lines))
}

#[cfg(test)]
mod tests {
    use super::create as create_identity;
    use super::*;
    use crate::command::values::{ConsoleRole, Validity};

    #[test]
    fn an_identity_is_what_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        private_file::create(&path("secret.pem"), &Secret::generate().unwrap().render()).unwrap();
        let create = |name: &str, role, prefixes: &[&str]| {
            let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
            let (secret, out) = (path("secret.pem"), path(&format!("{name}.pem")));
            let expires = Validity::default();
            let name = name.parse().unwrap();
            create_identity(IdentityVerb::Create { name, role, prefixes, secret, out, expires }, false)
        };
        let granted = |name: &str| Credentials::load(&path(&format!("{name}.pem"))).unwrap();
        create("anna", ConsoleRole::Submitter, &[]).unwrap();
        assert_eq!(granted("anna").grant().unwrap().prefixes, ["users/anna/".parse().unwrap()]);
        let day_ms = 24 * 3_600_000;
        let left_ms = granted("anna").ends_ms().unwrap() - now_ms();
        assert!(left_ms <= 90 * day_ms && left_ms > 89 * day_ms, "{left_ms}");
        create("ben", ConsoleRole::Submitter, &["photos", "a/b/"]).unwrap();
        assert_eq!(
            granted("ben").grant().unwrap().prefixes,
            ["photos/".parse().unwrap(), "a/b/".parse().unwrap()]
        );
        create("olga", ConsoleRole::Operator, &[]).unwrap();
        assert_eq!(granted("olga").grant().unwrap().role, Role::Operator);
        for (refused, role, prefixes) in [
            ("anna", ConsoleRole::Viewer, &[][..]),
            ("vera", ConsoleRole::Viewer, &["photos"]),
            ("secret-holder", ConsoleRole::Operator, &[]),
            ("many", ConsoleRole::Submitter, &["a"; 9]),
        ] {
            assert!(create(refused, role, prefixes).is_err(), "{refused}");
        }
    }
}
