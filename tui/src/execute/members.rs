//! `list_mem`, `list_self`, `join`, `leave`: requests that one member answers by itself.

use std::net::SocketAddr;
use std::time::Duration;

use idunno_shared::client::cluster::Cluster;
use idunno_shared::similar::did_you_mean;
use idunno_shared::wire::control::{ClusterView, ControlReply, ControlRequest, IdentityView, MemberView};
use tokio::time::timeout;

use super::clock::now_ms;
use crate::answer::cluster::{
    Member, MemberIdentity, MemberList, Membership, MembershipChange, resources_by_member,
};
use crate::answer::shown::Shown;
use crate::answer::table::Table;
use crate::answer::{Answer, Exit, Failure, identities, text, warnings};
use crate::command::values::MemberRef;
use crate::command::{MemberOf, OneMember};
use crate::session::Session;

/// How long `list_mem` waits for what only the coordinator knows.
const VIEW_TIMEOUT: Duration = Duration::from_secs(1);
/// The error of `join` and `leave` without a member: these never go to an arbitrary one.
pub const NAME_THE_MEMBER: &str = "name the member: --member NAME or --member IP:PORT, or set IDUNNO_MEMBER";

/// The membership list of the first member that answers.
pub async fn any_list(session: &Session) -> Result<Vec<MemberView>, Failure> {
    let cluster = session.cluster();
    match cluster.ask_any(ControlRequest::Members).await? {
        (_, ControlReply::Members(members)) => {
            cluster.learn(&members);
            Ok(members)
        }
        _ => Err(Failure::unexpected()),
    }
}

/// The member that a person named.
pub async fn find(session: &Session, member: &MemberRef) -> Result<MemberView, Failure> {
    let members = any_list(session).await?;
    let matches = |view: &&MemberView| match member {
        MemberRef::Address(address) => view.address == *address,
        MemberRef::Name(name) => view.name == *name,
    };
    if let Some(found) = members.iter().find(matches) {
        return Ok(found.clone());
    }
    let meant = match member {
        MemberRef::Name(name) => did_you_mean(name.as_str(), members.iter().map(|view| view.name.as_str())),
        MemberRef::Address(_) => String::new(),
    };
    let message = format!("there is no member '{member}': list_mem lists the members{meant}");
    Err(Failure::new(Exit::NotFound, message))
}

/// A request to the named member, or to any if none is named.
async fn ask(
    session: &Session,
    of: MemberOf,
    request: ControlRequest,
) -> Result<(SocketAddr, ControlReply), Failure> {
    match of.member.or_else(|| session.own_member.clone()) {
        None => Ok(session.cluster().ask_any(request).await?),
        Some(member) => ask_one(session, &member, request).await,
    }
}

async fn ask_one(
    session: &Session,
    member: &MemberRef,
    request: ControlRequest,
) -> Result<(SocketAddr, ControlReply), Failure> {
    let address = match member {
        // The member at an address may be in nobody's list.
        MemberRef::Address(address) => *address,
        MemberRef::Name(_) => find(session, member).await?.address,
    };
    Ok((address, session.cluster().ask_member(address, request).await?))
}

/// What the coordinator knows, if it answers soon: a membership list is shown without it too.
async fn coordinators_view(session: &Session) -> Option<ClusterView> {
    let ask = async {
        let mut views = session.cluster().watch().await.ok()?;
        Cluster::view(views.recv().await?)
    };
    timeout(VIEW_TIMEOUT, ask).await.ok()?
}

/// `list_mem`.
pub async fn list(session: &Session, of: MemberOf) -> Result<Answer, Failure> {
    let (address, reply) = ask(session, of, ControlRequest::Members).await?;
    let ControlReply::Members(mut members) = reply else { return Err(Failure::unexpected()) };
    members.sort_by(|a, b| natural(a.name.as_str()).cmp(&natural(b.name.as_str())));
    let view = coordinators_view(session).await;
    let resources = view.as_ref().map(resources_by_member).unwrap_or_default();
    let has_devices = resources.values().any(|resources| !resources.devices.is_empty());
    let devices = if has_devices { " +DEVICES" } else { "" };
    let mut table =
        Table::new(&format!("NAME ADDRESS STATE SINCE ROLE +>INCARNATION +>GENERATION +ID{devices}"));
    for member in &members {
        let blocked = if member.udp_blocked { " (UDP blocked)" } else { "" };
        let devices = resources.get(&member.id).map(|resources| text::devices(&resources.devices));
        let cells = [
            member.name.to_string(),
            member.address.to_string(),
            format!("{}{blocked}", text::liveness(member.liveness)),
            text::moment(member.since_ms),
            text::role(member.role).to_owned(),
            member.incarnation.to_string(),
            member.generation.to_string(),
            member.id.to_string(),
        ];
        table.push(cells.into_iter().chain(has_devices.then(|| devices.unwrap_or_default())).collect());
    }
    let item = |member: &MemberView| Member::new(member, resources.get(&member.id).copied());
    let items = members.iter().map(item).collect();
    let own = identities::own_warning(session.ends_ms, now_ms());
    let warnings: Vec<String> = warnings::of(&members).into_iter().chain(own).collect();
    let warned = warnings::lines(&warnings);
    let text = match warned.strip_prefix('\n') {
        None => Shown::from(table),
        Some(warned) => Shown::from(table).then(warned),
    };
    Ok(Answer::new(&MemberList { answered_by: address.to_string(), items, warnings }, text))
}

/// A sort key that splits off a name's number, so that m2 comes before m10.
pub fn natural(name: &str) -> (&str, u64, &str) {
    let head = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = name[head.len()..].parse().unwrap_or(0);
    (head, number, name)
}

/// `list_self`.
pub async fn identity(session: &Session, of: MemberOf) -> Result<Answer, Failure> {
    let (_, reply) = ask(session, of, ControlRequest::Identity).await?;
    let ControlReply::Identity(view) = reply else { return Err(Failure::unexpected()) };
    let IdentityView { member, joined, data_dir, pid, program_version } = view;
    let shown = [
        ("name", member.name.to_string()),
        ("id", member.id.to_string()),
        ("address", member.address.to_string()),
        ("joined", String::from(if joined { "yes" } else { "no" })),
        ("role", text::role(member.role).to_owned()),
        ("incarnation", member.incarnation.to_string()),
        ("generation", member.generation.to_string()),
        ("data directory", data_dir.clone()),
        ("process", pid.to_string()),
        ("version", program_version.clone()),
    ];
    let lines: Vec<String> = shown.iter().map(|(key, value)| format!("{key:<15} {value}")).collect();
    let identity =
        MemberIdentity { member: Member::new(&member, None), joined, data_dir, pid, program_version };
    Ok(Answer::new(&identity, lines.join("\n")))
}

/// `join`.
pub async fn join(session: &Session, to: OneMember) -> Result<Answer, Failure> {
    change(session, to, ControlRequest::Join, Membership::Joined).await
}

/// `leave`.
pub async fn leave(session: &Session, to: OneMember) -> Result<Answer, Failure> {
    change(session, to, ControlRequest::Leave, Membership::Left).await
}

/// The member that is meant.
pub fn one(session: &Session, to: OneMember) -> Result<MemberRef, Failure> {
    let member = to.member.or_else(|| session.default_member());
    member.ok_or_else(|| Failure::new(Exit::Usage, NAME_THE_MEMBER))
}

async fn change(
    session: &Session,
    to: OneMember,
    request: ControlRequest,
    change: Membership,
) -> Result<Answer, Failure> {
    match ask_one(session, &one(session, to)?, request).await? {
        (address, ControlReply::Done) => {
            let text = format!("{address} {}", change.word());
            Ok(Answer::new(&MembershipChange { address: address.to_string(), change }, text))
        }
        _ => Err(Failure::unexpected()),
    }
}
