//! Examples of the JSON of commands on the program and on a cluster of this machine.

use idunno_console::answer::document::List;
use idunno_console::answer::identities::{
    CreatedIdentity, CreatedKey, Identity, IdentityState, RevokedIdentity, WebhookKeys,
};
use idunno_console::answer::local::{
    DeployedHost, KilledMember, KilledMembers, LocalCluster, LocalMember, LocalProcess, StartedProcesses,
    StoppedCluster,
};
use idunno_console::answer::program::{
    ClusterSecret, CompletionScript, Context, DryRun, Error, ErrorDetail, Info, KeyBinding, ManualPages,
    SettingsFile, SettingsPath,
};
use idunno_console::answer::words::{LogRole, MemberState};

use super::cluster::member;
use super::examples::{CREATED_MS, Examples, words};

fn secret() -> ClusterSecret {
    ClusterSecret { path: "secret.pem".into(), keys: words(&["3f5a", "90b1"]) }
}

pub(super) fn program(command: &str) -> Option<Examples> {
    Some(match command {
        "info" => {
            let file = |name: &str, exists| SettingsPath {
                name: name.into(),
                path: format!("/home/ada/.config/idunno/{name}"),
                exists,
            };
            let lab = Context { cluster: "127.0.0.1:7401".into(), read_only: false };
            let info = Info {
                version: "0.1.0".into(),
                cluster: "127.0.0.1:7401".into(),
                directory: ".idunno".into(),
                identity: Some("submitter ada, below users/ada/".into()),
                identity_ends_ms: Some(CREATED_MS),
                read_only: false,
                timeout_s: Some(30.0),
                files: vec![file("config.toml", true), file("keymap.toml", false)],
                environment: [("IDUNNO_MEMBER".into(), "m1".into())].into(),
                contexts: [("lab".into(), lab)].into(),
                problems: words(&["config.toml: unknown field 'thema'"]),
            };
            Examples::of(&info).and(&Info { timeout_s: None, identity: None, identity_ends_ms: None, ..info })
        }
        "keys" => Examples::of(&List {
            items: vec![KeyBinding {
                action: "freeze".into(),
                keys: words(&["f9"]),
                page: "all".into(),
                meaning: "Freeze the screen".into(),
            }],
        }),
        "gen-config" => {
            Examples::of(&SettingsFile { path: "config.toml".into(), text: "#theme = \"dark\"\n".into() })
        }
        "completions" => {
            Examples::of(&CompletionScript { shell: "bash".into(), script: "complete -F _idunno".into() })
        }
        "man" => Examples::of(&ManualPages { directory: "man".into(), pages: 52 }),
        "cluster init" | "cluster rotate" => Examples::of(&secret()),
        "identity create" => Examples::of(&CreatedIdentity {
            path: "ada.pem".into(),
            name: "ada".into(),
            role: "submitter".into(),
            prefixes: words(&["users/ada/"]),
            ends_ms: CREATED_MS,
        }),
        "key create" => Examples::of(&CreatedKey {
            access_key_id: "ada.submitter.1.1780000000".into(),
            secret_access_key: "3f5a90b13f5a90b13f5a90b13f5a90b13f5a90b1".into(),
            name: "ada".into(),
            role: "submitter".into(),
            prefixes: words(&["users/ada/"]),
            ends_ms: CREATED_MS,
        }),
        "key webhook" => {
            Examples::of(&WebhookKeys { keys: words(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]) })
        }
        "identity revoke" => Examples::of(&RevokedIdentity { name: "ada".into() }),
        "identity ls" => {
            let ada = Identity {
                name: "ada".into(),
                role: Some("submitter".into()),
                prefixes: words(&["users/ada/"]),
                ends_ms: Some(CREATED_MS),
                first_seen_ms: Some(CREATED_MS),
                state: IdentityState::Valid,
                revoked_ms: None,
                revoked_by: None,
                certificate: Some("3f5a90b13f5a90b1".into()),
            };
            let ben = Identity {
                name: "ben".into(),
                role: None,
                prefixes: Vec::new(),
                ends_ms: None,
                first_seen_ms: None,
                state: IdentityState::Revoked,
                revoked_ms: Some(CREATED_MS),
                revoked_by: Some("olga".into()),
                certificate: None,
            };
            Examples::of(&List { items: vec![ada, ben] })
        }
        "--dry-run" => Examples::of(&DryRun { would: words(&["start m2", "start m3"]) }),
        "error" => Examples::of(&Error {
            error: ErrorDetail {
                code: 3,
                kind: "not-found".into(),
                message: "no file matches 'docs/'".into(),
            },
        }),
        _ => return None,
    })
}

pub(super) fn local(command: &str) -> Option<Examples> {
    let name = || String::from("m1");
    let data_dir = || String::from("/tmp/idunno/m1");
    Some(match command {
        "local up" => Examples::of(&LocalCluster {
            directory: "/tmp/idunno".into(),
            members: vec![LocalMember {
                name: name(),
                address: Some(member().address),
                data_dir: data_dir(),
            }],
            model_servers: true,
            ready_s: 1.5,
            gateway: Some("http://127.0.0.1:9000".into()),
        }),
        "local start" => Examples::of(&StartedProcesses { started: words(&["m1", "m2"]) }),
        "local kill" => Examples::of(&KilledMembers {
            killed: vec![KilledMember { name: name(), pid: Some(4242), coordinator: true }],
            at_ms: CREATED_MS,
        }),
        "deploy" => Examples::of(&List {
            items: vec![DeployedHost {
                host: "root@10.0.0.1".into(),
                address: "10.0.0.1".into(),
                version: "0.1.0".into(),
                is_introducer: true,
                took_s: 12.5,
            }],
        }),
        "local down" => Examples::of(&StoppedCluster { stopped: 8, forced: 1, purged: true }),
        "local status" => {
            let running = LocalProcess {
                name: name(),
                running: true,
                pid: Some(4242),
                address: Some(member().address),
                state: Some(MemberState::Up),
                role: Some(LogRole::Voter),
                data_dir: data_dir(),
            };
            let stopped = LocalProcess {
                name: "introducer".into(),
                running: false,
                pid: None,
                address: None,
                state: None,
                role: None,
                data_dir: "/tmp/idunno/introducer".into(),
            };
            Examples::of(&List { items: vec![running, stopped] })
        }
        _ => return None,
    })
}
