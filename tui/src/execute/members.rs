//! `list_mem`, `list_self`, `join`, `leave`: what one member says of itself.

use std::net::SocketAddr;

use idunno_shared::wire::control::{ControlReply, ControlRequest, IdentityView, MemberView};
use serde_json::json;

use crate::answer::table::Table;
use crate::answer::{Answer, Exit, Failure, text};
use crate::command::values::MemberRef;
use crate::command::{MemberOf, OneMember};
use crate::session::Session;

/// To `join` and `leave`, which nobody wants to go to just any member.
pub const NAME_THE_MEMBER: &str = "name the member: --member NAME or --member IP:PORT, or set IDUNNO_MEMBER";

/// The membership list as the first member that answers has it.
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
    members.into_iter().find(|view| matches(&view)).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("there is no member '{member}': list_mem shows those there are"))
    })
}

/// A question, which any member may answer if none is named.
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
        // An address is asked as it is: the member there may be in no list.
        MemberRef::Address(address) => *address,
        MemberRef::Name(_) => find(session, member).await?.address,
    };
    Ok((address, session.cluster().ask_member(address, request).await?))
}

/// `list_mem`.
pub async fn list(session: &Session, of: MemberOf) -> Result<Answer, Failure> {
    let (address, reply) = ask(session, of, ControlRequest::Members).await?;
    let ControlReply::Members(mut members) = reply else { return Err(Failure::unexpected()) };
    members.sort_by(|a, b| natural(a.name.as_str()).cmp(&natural(b.name.as_str())));
    let mut table = Table::new("NAME ADDRESS STATE SINCE ROLE >INCARNATION >GENERATION ID");
    for member in &members {
        let blocked = if member.udp_blocked { " (UDP blocked)" } else { "" };
        table.row([
            member.name.to_string(),
            member.address.to_string(),
            format!("{}{blocked}", text::liveness(member.liveness)),
            text::moment(member.since_ms),
            text::role(member.role).to_owned(),
            member.incarnation.to_string(),
            member.generation.to_string(),
            member.id.to_string(),
        ]);
    }
    let rows: Vec<_> = members.iter().map(member_json).collect();
    Ok(Answer::new(json!({"asked": address, "members": rows}), table.render()))
}

/// A name with its number apart, so that m2 comes before m10.
pub fn natural(name: &str) -> (&str, u64, &str) {
    let head = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = name[head.len()..].parse().unwrap_or(0);
    (head, number, name)
}

/// A member for programs.
pub fn member_json(member: &MemberView) -> serde_json::Value {
    json!({
        "id": member.id.to_string(),
        "name": member.name,
        "address": member.address,
        "state": text::liveness(member.liveness),
        "since_ms": member.since_ms,
        "role": text::role(member.role),
        "udp_blocked": member.udp_blocked,
        "incarnation": member.incarnation,
        "generation": member.generation,
    })
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
    let mut data = member_json(&member);
    if let Some(fields) = data.as_object_mut() {
        fields.insert("joined".into(), joined.into());
        fields.insert("data_dir".into(), data_dir.into());
        fields.insert("pid".into(), pid.into());
        fields.insert("program_version".into(), program_version.into());
    }
    Ok(Answer::new(data, lines.join("\n")))
}

/// `join`.
pub async fn join(session: &Session, to: OneMember) -> Result<Answer, Failure> {
    order(session, to, ControlRequest::Join, "joined").await
}

/// `leave`.
pub async fn leave(session: &Session, to: OneMember) -> Result<Answer, Failure> {
    order(session, to, ControlRequest::Leave, "left").await
}

/// The member that is meant.
pub fn one(session: &Session, to: OneMember) -> Result<MemberRef, Failure> {
    let member = to.member.or_else(|| session.default_member());
    member.ok_or_else(|| Failure::new(Exit::Usage, NAME_THE_MEMBER))
}

async fn order(
    session: &Session,
    to: OneMember,
    request: ControlRequest,
    done: &str,
) -> Result<Answer, Failure> {
    match ask_one(session, &one(session, to)?, request).await? {
        (address, ControlReply::Done) => {
            Ok(Answer::new(json!({"member": address, "done": done}), format!("{address} {done}")))
        }
        _ => Err(Failure::unexpected()),
    }
}
