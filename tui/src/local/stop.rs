//! `local kill` and `local down`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use idunno_shared::names::MemberName;
use idunno_shared::wire::control::LogRole;
use tokio::time::{Instant, sleep};

use super::process::Signal;
use super::record::{self, Process, Record};
use super::{lock, members_of};
use crate::answer::local::{KilledMember, KilledMembers, StoppedCluster};
use crate::answer::{Answer, Exit, Failure};
use crate::session::Session;

/// How long processes may take to shut down gracefully.
const GRACE: Duration = Duration::from_secs(10);
/// How long the system may take to end killed processes.
const KILL_GRACE: Duration = Duration::from_secs(5);
const POLL_PERIOD: Duration = Duration::from_millis(20);

/// `local kill`.
pub(crate) async fn kill(
    session: &Session,
    names: &[MemberName],
    coordinator: bool,
    random: Option<u32>,
) -> Result<Answer, Failure> {
    let record = Record::require(&session.dir)?;
    let mut chosen = Vec::new();
    for name in names {
        let position = record.position(name.as_str())?;
        if !record.processes[position].is_alive() {
            return Err(Failure::new(Exit::Refused, format!("{name} is not running")));
        }
        chosen.push(position);
    }
    let leader = leader(session, &record).await;
    if coordinator {
        let text = "no member knows the coordinator: try again, or name a member";
        chosen.push(leader.ok_or_else(|| Failure::new(Exit::Unreachable, text))?);
    }
    chosen.sort_unstable();
    chosen.dedup();
    chosen.extend(at_random(&record, &chosen, random.unwrap_or(0), &mut Rng::new())?);
    // Nothing between the signals: the processes must die at the same moment.
    let hit: Vec<bool> = chosen
        .iter()
        .map(|&position| {
            record.processes[position].running.as_ref().is_some_and(|it| it.signal(Signal::Kill))
        })
        .collect();
    let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let (killed, missed): (Vec<_>, Vec<_>) = chosen.iter().zip(hit).partition(|(_, hit)| *hit);
    let names = |hits: &[(&usize, bool)]| -> Vec<&str> {
        hits.iter().map(|(position, _)| record.processes[**position].name.as_str()).collect()
    };
    if killed.is_empty() {
        let text =
            format!("nothing was killed: {} had ended or belong to another user", names(&missed).join(", "));
        return Err(Failure::new(Exit::Refused, text));
    }
    let missed = names(&missed).join(", ");
    let killed: Vec<usize> = killed.into_iter().map(|(position, _)| *position).collect();
    let shown: Vec<String> = killed
        .iter()
        .map(|&position| {
            let suffix = if Some(position) == leader { " (coordinator)" } else { "" };
            format!("{}{suffix}", record.processes[position].name)
        })
        .collect();
    let rows: Vec<KilledMember> = killed
        .iter()
        .map(|&position| {
            let process = &record.processes[position];
            KilledMember {
                name: process.name.clone(),
                pid: process.running.as_ref().map(|it| it.pid),
                coordinator: Some(position) == leader,
            }
        })
        .collect();
    let at_ms = u64::try_from(at_ms).unwrap_or(u64::MAX);
    let answer = Answer::new(&KilledMembers { killed: rows, at_ms }, format!("killed: {}", shown.join(", ")));
    if missed.is_empty() {
        return Ok(answer);
    }
    Ok(answer.incomplete(format!("not killed: {missed} had ended or belong to another user")))
}

/// The position of the coordinator's process, as the live members see it.
async fn leader(session: &Session, record: &Record) -> Option<usize> {
    let members = members_of(&session.cluster(), record).await;
    let leader = members.iter().find(|member| member.role == LogRole::Coordinator)?;
    record.processes.iter().position(|process| process.address == Some(leader.address))
}

/// Picks `count` live members that are not chosen yet.
fn at_random(record: &Record, chosen: &[usize], count: u32, rng: &mut Rng) -> Result<Vec<usize>, Failure> {
    let mut others: Vec<usize> = (0..record.processes.len())
        .filter(|position| !chosen.contains(position))
        .filter(|&position| record.processes[position].is_member() && record.processes[position].is_alive())
        .collect();
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if others.len() < count {
        let text = format!("only {} other members are running: cannot kill {count}", others.len());
        return Err(Failure::new(Exit::Refused, text));
    }
    rng.shuffle(&mut others);
    others.truncate(count);
    Ok(others)
}

/// `local down`.
pub(crate) async fn down(session: &Session, purge: bool, yes: bool) -> Result<Answer, Failure> {
    let _lock = lock(&session.dir)?;
    let mut record = Record::require(&session.dir)?;
    if purge && !yes {
        let what = format!(
            "this stops the local cluster in {} and permanently deletes its data",
            session.dir.display()
        );
        return Err(Failure::unconfirmed(what, "--yes"));
    }
    let running = alive(&record).count();
    signal_all(&record, Signal::Terminate);
    await_end(&record, session.timeout.unwrap_or(GRACE)).await;
    let stubborn = alive(&record).count();
    signal_all(&record, Signal::Kill);
    await_end(&record, KILL_GRACE).await;
    let survivors: Vec<String> = alive(&record).map(|process| process.name.clone()).collect();
    for process in record.processes.iter_mut().filter(|process| !process.is_alive()) {
        process.running = None;
    }
    record.save(&session.dir)?;
    if !survivors.is_empty() {
        let names = survivors.join(", ");
        let text = format!(
            "{names} did not end (another user's process, or stuck in the kernel); nothing was deleted"
        );
        return Err(Failure::error(text));
    }
    if purge {
        delete(session, &record)?;
    }
    let forced = if stubborn > 0 { format!(", {stubborn} of them killed") } else { String::new() };
    let deleted = if purge { "; data deleted" } else { "" };
    let noun = if running == 1 { "process" } else { "processes" };
    let text = format!("{running} {noun} stopped{forced}{deleted}");
    let stopped = StoppedCluster { stopped: running as u64, forced: stubborn as u64, purged: purge };
    Ok(Answer::new(&stopped, text))
}

fn alive(record: &Record) -> impl Iterator<Item = &Process> {
    record.processes.iter().filter(|process| process.is_alive())
}

/// Waits until no process is alive, at most for `limit`.
async fn await_end(record: &Record, limit: Duration) {
    let deadline = Instant::now() + limit;
    while alive(record).next().is_some() && Instant::now() < deadline {
        sleep(POLL_PERIOD).await;
    }
}

fn signal_all(record: &Record, signal: Signal) {
    for identity in record.processes.iter().filter_map(|process| process.running.as_ref()) {
        identity.signal(signal);
    }
}

/// Deletes the data of the processes, and the directory itself if nothing else is in it.
fn delete(session: &Session, record: &Record) -> Result<(), Failure> {
    for data_dir in record.data_dirs_below(&session.dir)? {
        if let Err(error) = std::fs::remove_dir_all(&data_dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(Failure::error(format!("cannot delete {}: {error}", data_dir.display())));
        }
    }
    for file in ["cluster.json", record::SECRET, "lock"] {
        let path = session.dir.join(file);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(Failure::error(format!("cannot delete {}: {error}", path.display())));
        }
    }
    // The directory stays if the user keeps other files there.
    let _ = std::fs::remove_dir(&session.dir);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::process::ProcessIdentity;

    #[tokio::test]
    async fn the_wait_for_processes_that_do_not_end_is_bounded() {
        let mut record = Record::new("idunnod".into(), None, 1);
        let running = Some(ProcessIdentity::of(std::process::id()));
        let process = Process { name: "m1".into(), data_dir: "m1".into(), address: None, running };
        record.processes.push(process);
        await_end(&record, Duration::from_millis(50)).await;
        assert_eq!(alive(&record).map(|process| process.name.as_str()).collect::<Vec<_>>(), ["m1"]);
    }

    #[test]
    fn random_members_are_live_and_distinct() {
        let mut record = Record::new("idunnod".into(), None, 1);
        for name in ["introducer", "m1", "m2", "m3", "m4"] {
            let running = (name != "m4").then(|| ProcessIdentity::of(std::process::id()));
            record.processes.push(Process {
                name: name.into(),
                data_dir: name.into(),
                address: None,
                running,
            });
        }
        for seed in 0..50 {
            let mut picked = at_random(&record, &[2], 2, &mut Rng::with_seed(seed)).unwrap();
            picked.sort_unstable();
            assert_eq!(picked, [1, 3], "seed {seed}");
        }
        assert!(at_random(&record, &[2], 3, &mut Rng::with_seed(0)).is_err());
    }
}
