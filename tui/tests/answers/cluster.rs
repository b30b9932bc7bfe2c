//! Examples of the JSON of commands on members and the cluster as a whole.

use idunno_console::answer::cluster::{
    Backup, ClusterStatus, Device, Event, LogLine, Member, MemberIdentity, MemberList, Membership,
    MembershipChange, ModelServer, Store,
};
use idunno_console::answer::document::List;
use idunno_console::answer::words::{LogRole, MemberState, Policy, ServerState};

use super::examples::{CREATED_MS, Examples, words};
use super::jobs::running_job;

pub(super) fn member() -> Member {
    Member {
        name: "m1".into(),
        node_id: "00000000000000a1".into(),
        address: "127.0.0.1:7401".into(),
        state: MemberState::Up,
        since_ms: CREATED_MS,
        role: LogRole::Coordinator,
        udp_blocked: false,
        disk_hung: false,
        incarnation: 2,
        generation: 1,
        devices: vec![Device {
            index: 0,
            uuid: "GPU-7c5b1e7c-0000-0000-0000-000000000000".into(),
            name: "NVIDIA H200".into(),
            memory_mib: 143_771,
            memory_used_mib: 512,
            reason: Some("/dev/nvidia0 may not be opened".into()),
        }],
    }
}

fn warnings() -> Vec<String> {
    words(&["2 members are named m1, at 127.0.0.1:7401 and 127.0.0.1:7402"])
}

fn status() -> ClusterStatus {
    let server = |member: &str, state, reason: Option<&str>| ModelServer {
        member: member.into(),
        state,
        reason: reason.map(Into::into),
    };
    ClusterStatus {
        coordinator: "m1".into(),
        term: 4,
        at_ms: CREATED_MS,
        revision: 1234,
        policy: Policy::Rate,
        members: vec![member()],
        model_servers: vec![
            server("m1", ServerState::Ready, None),
            server("m2", ServerState::Down, Some("it does not start")),
        ],
        jobs: vec![running_job()],
        store: Store {
            files: 1000,
            blobs: 1003,
            size_bytes: 52_012_345,
            under_replicated: 12,
            full_disks: 1,
            copying: 4,
            unavailable: 0,
        },
        warnings: warnings(),
    }
}

fn log_line() -> LogLine {
    LogLine { member: "m1".into(), line: "2026-11-23T01:50:00Z INFO joined".into() }
}

pub(super) fn cluster(command: &str) -> Option<Examples> {
    let change = |change| Examples::of(&MembershipChange { address: member().address, change });
    Some(match command {
        "join" => change(Membership::Joined),
        "leave" => change(Membership::Left),
        "list_mem" => Examples::of(&MemberList {
            answered_by: member().address,
            items: vec![member()],
            warnings: warnings(),
        }),
        "list_self" => Examples::of(&MemberIdentity {
            member: member(),
            joined: true,
            data_dir: "/var/lib/idunno".into(),
            pid: 4242,
            program_version: "0.1.0".into(),
        }),
        "status" => Examples::of(&status()),
        "backup" => {
            let backup = |founder_node_id| Backup {
                path: "idunno.backup".into(),
                founder_node_id,
                program_version: "0.1.0".into(),
                term: 4,
                index: 5678,
                created_ms: CREATED_MS,
                files: 1000,
                jobs: 2,
            };
            Examples::of(&backup(Some(member().node_id))).and(&backup(None))
        }
        "events" => Examples::of(&Event {
            at_ms: CREATED_MS,
            subject: "election".into(),
            text: "m2 coordinates in term 5".into(),
        }),
        "logs" => Examples::of(&List { items: vec![log_line()] }),
        "logs --follow" => Examples::of(&log_line()),
        _ => return None,
    })
}
