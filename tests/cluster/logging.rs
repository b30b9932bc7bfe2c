//! Logs and audit lines, on which operators of long-running clusters rely.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::access::Grant;
use idunno_shared::client::cluster::Cluster;
use idunno_shared::client::files::{Files, NoProgress, PutOptions};
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::ids::OpId;
use idunno_shared::security::secret::Secret;
use idunno_shared::security::{Credentials, Role};
use idunno_shared::wire::control::{Change, ControlReply, ControlRequest, LogSearch};
use idunno_shared::wire::jobs::Policy;
use rustix::process::Signal;
use time::OffsetDateTime;

use crate::harness::{Expected, LocalCluster, SOON, idunnod, light, name};

const DAY: Duration = Duration::from_secs(24 * 3_600);

#[tokio::test(flavor = "multi_thread")]
async fn a_member_keeps_running_when_its_log_cannot_be_written() {
    let _turn = light().await;
    let mut cluster = LocalCluster::launch(0, false).await;
    let introducer = cluster.introducer.address();
    let mut member = cluster.new_member("m1", introducer, false);
    let logs = member.data_dir.join("logs");
    fs::create_dir_all(&logs).unwrap();
    for day in [OffsetDateTime::now_utc(), OffsetDateTime::now_utc() + DAY] {
        symlink("/dev/full", logs.join(format!("idunnod.{}", day.date()))).unwrap();
    }
    member.spawn();
    member.started().await;
    cluster.members.push(member);
    cluster.ready().await;
    let kept = Expected::small("kept", 0..20);
    kept.put(&cluster).await;
    kept.verify(&cluster).await;
    cluster.members[0].signal(Signal::TERM);
    assert!(cluster.members[0].ended(SOON).await.success());
    // Standard error, which a service manager writes to its journal.
    let errors = cluster.members[0].errors();
    for word in ["ready", "cannot write the log", "received a stop signal", "stopped"] {
        assert_eq!(errors.matches(word).count(), 1, "'{word}' does not occur exactly once in: {errors}");
    }
}

/// The lines of a member's log that match, as `idunno logs --grep` finds them.
async fn grep(cluster: &LocalCluster, index: usize, pattern: &str) -> Vec<String> {
    let search = LogSearch { pattern: Some(pattern.to_owned()), ..LogSearch::default() };
    let request = ControlRequest::SearchLog(search);
    match cluster.client().ask_member(cluster.members[index].address(), request).await {
        Ok(ControlReply::FoundLog(found)) => {
            String::from_utf8(found.lines).unwrap().lines().map(String::from).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// Waits for the one audit line that matches; log lines appear a moment after the reply. A line of another target may have a
/// text that looks like one.
async fn audited(cluster: &LocalCluster, index: usize, pattern: &str) -> String {
    let is_logged = async || match &grep(cluster, index, &format!(r"^\S+ +INFO audit: .*{pattern}")).await[..]
    {
        [line] => Ok(line.clone()),
        lines => Err(format!("{} lines: {lines:?}", lines.len())),
    };
    cluster.eventually(&format!("there is one audit line with {pattern}"), SOON, is_logged).await
}

/// Runs `idunnod verify-audit`; returns its output, or its standard error if it fails.
fn verify_audit(data_dir: &Path, further: &[&str]) -> Result<String, String> {
    let mut command = Command::new(idunnod());
    let output = command.arg("verify-audit").arg("--data-dir").arg(data_dir).args(further).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deciding_member_audits_a_change_once_under_its_operation_id() {
    let _turn = light().await;
    let cluster = LocalCluster::start_with(3, &["--log", "info,idunno=debug"]).await;
    let coordinator = cluster.coordinator().await.0;
    let secret = Secret::load(&cluster.secret()).unwrap();
    let grant = Grant { name: "anna".parse().unwrap(), role: Role::Operator, prefixes: Vec::new() };
    let anna = secret.mint_lasting(&grant, DAY).unwrap();
    let connector = Arc::new(TcpConnector::new(Credentials::of(&anna).unwrap()));
    let client = Cluster::new(connector, cluster.addresses());

    // A refusal that says all does not name its operation, but the audit has it.
    let failed = client.change(Change::Delete { name: name("nothing") }).await.unwrap_err().to_string();
    assert!(!failed.contains("operation"), "{failed}");
    let line = audited(&cluster, coordinator, "request=delete nothing").await;
    let op = line.split_once("op=").unwrap().1.split(' ').next().unwrap().to_owned();
    assert_eq!(op.len(), 16, "{line}");
    for part in ["by=operator anna at 127.0.0.1:", "request=delete nothing", "refused: ", "took="] {
        assert!(line.contains(part), "'{part}' is not in: {line}");
    }
    for other in (0..3).filter(|index| *index != coordinator) {
        assert_eq!(
            grep(&cluster, other, &format!("audit: .*{op}")).await,
            [""; 0],
            "a member that did not decide audited the change"
        );
    }

    // Repeated, as by a client that missed the reply, it is not audited again.
    let policy = || ControlRequest::Change { op: OpId(0xabc, 1), change: Change::SetPolicy(Policy::Time) };
    for _ in 0..3 {
        client.control(policy()).await.unwrap();
    }
    let line = audited(&cluster, coordinator, &OpId(0xabc, 1).to_string()).await;
    assert!(line.contains("audit: done") && line.contains("request=set-policy Time"), "{line}");

    // A put can be traced from the audit line to the voters by the operation id, and to the holders by the upload.
    let kept = Expected::small("kept", 1..2);
    let files = Files::new(client.clone());
    files.put_files(kept.write_local(&cluster), PutOptions::default(), &NoProgress).await.unwrap();
    let line = audited(&cluster, coordinator, "operator anna.*request=put").await;
    let op = line.split_once("op=").unwrap().1.split(' ').next().unwrap();
    let upload = line.split_once("put (").unwrap().1.split(',').next().unwrap();
    assert!(upload.starts_with("upload-"), "{line}");
    for index in 0..3 {
        let is_logged = async || {
            let applied = grep(&cluster, index, &format!("{op}.*applied|applied.*{op}")).await.len();
            let stored = grep(&cluster, index, &format!("receiving a blob.*{upload} ")).await.len();
            if (applied, stored) == (1, 1) { Ok(()) } else { Err(format!("{applied} and {stored}")) }
        };
        cluster.eventually("each member logs the put under its ids", SOON, is_logged).await;
    }

    // A name that a reader would take for the end of a line makes one event, which is on disk before the answer.
    let forged = "nothing\u{2028}2026-11-26T04:21:17.106012Z  INFO audit: done op=0 by=operator otto request=delete all";
    let delete = ControlRequest::Change { op: OpId(0xdef, 1), change: Change::Delete { name: name(forged) } };
    assert!(client.control(delete).await.is_err());
    let data_dir = cluster.members[coordinator].data_dir.clone();
    let events = fs::read_to_string(data_dir.join("audit/audit.000001.jsonl")).unwrap();
    let events: Vec<serde_json::Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let op = OpId(0xdef, 1).to_string();
    let of_op: Vec<_> = events.iter().filter(|event| event["op"] == op.as_str()).collect();
    assert_eq!(of_op.len(), 1, "{events:#?}");
    assert!(of_op[0]["by"].as_str().unwrap().starts_with("operator anna at "), "{of_op:?}");
    assert_eq!(of_op[0]["request"], format!("delete {forged}"));
    assert!(!audited(&cluster, coordinator, &op).await.contains('\u{2028}'));
    let noted = verify_audit(&data_dir, &[]).unwrap();
    let noted = noted.lines().find_map(|line| line.strip_prefix("last event: ")).unwrap();
    verify_audit(&data_dir, &["--known", noted]).unwrap();
    let wrong = noted.replace(':', ":0");
    assert!(verify_audit(&data_dir, &["--known", &wrong[..noted.len()]]).unwrap_err().contains("noted"));

    // A request that the member itself decides.
    let leaver = (coordinator + 1) % 3;
    client.ask_member(cluster.members[leaver].address(), ControlRequest::Leave).await.unwrap();
    let line = audited(&cluster, leaver, "operator anna.*request=leave").await;
    assert!(line.contains("audit: done") && line.contains("op="), "{line}");
}
