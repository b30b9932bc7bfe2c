//! What the console shows while members are frozen, killed and started again, compared with what is so: for how long it is wrong.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::pty::{LIMIT, Terminal};
use super::{Cluster, coordinator};

/// What was so for this long without a difference is settled.
const SETTLED: Duration = Duration::from_secs(3);
/// Between two comparisons.
const PERIOD: Duration = Duration::from_millis(100);
/// The console may be wrong for as long as members need to find out, and a little longer.
const WRONG_MAX: Duration = Duration::from_secs(30);

/// What is so of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fact {
    Answers,
    /// Its process does not run, or stands still.
    Silent,
}

/// How wrong the console was after a fault.
#[derive(Debug)]
struct Wrong {
    fault: &'static str,
    /// How long it showed a member as up that was silent, or the other way round.
    members: Duration,
    /// How long it showed a coordinator as live that was silent.
    coordinator: Duration,
}

/// The states of members as the members page has them.
fn states(screen: &str) -> BTreeMap<&str, &str> {
    let row = |line: &'_ str| -> Option<(usize, usize)> {
        let mut words = line.split_whitespace();
        let (name, _, state) = (words.next()?, words.next()?, words.next()?);
        let is_name = name.strip_prefix('m').is_some_and(|number| number.parse::<u8>().is_ok());
        let is_state = ["up", "suspect", "dead", "left"].contains(&state);
        (is_name && is_state).then_some((name.len(), state.len()))
    };
    let rows = screen.lines().filter(|line| row(line).is_some());
    let words = rows.map(|line| line.split_whitespace());
    words.filter_map(|mut words| Some((words.next()?, words.nth(1)?))).collect()
}

/// Whether a screen says of each member what is so.
fn is_true(screen: &str, facts: &BTreeMap<String, Fact>) -> bool {
    let states = states(screen);
    facts.iter().all(|(name, fact)| match (fact, states.get(name.as_str())) {
        (Fact::Answers, Some(state)) => *state == "up",
        (Fact::Silent, Some(state)) => *state != "up",
        (_, None) => false,
    })
}

/// Whether a screen shows a coordinator as live that is silent.
fn vouches_for_silence(screen: &str, facts: &BTreeMap<String, Fact>) -> bool {
    screen.contains("● LIVE") && facts.get(&coordinator(screen)) == Some(&Fact::Silent)
}

/// Watches until the console has been right for a while.
fn watch(console: &mut Terminal, fault: &'static str, facts: &BTreeMap<String, Fact>) -> Wrong {
    let started = Instant::now();
    let (mut members, mut coordinator, mut right_since) = (Duration::ZERO, Duration::ZERO, None);
    let mut last = started;
    loop {
        console.read(PERIOD);
        let (screen, now) = (console.screen(), Instant::now());
        let (is_wrong, vouches) = (!is_true(&screen, facts), vouches_for_silence(&screen, facts));
        members += if is_wrong { now - last } else { Duration::ZERO };
        coordinator += if vouches { now - last } else { Duration::ZERO };
        last = now;
        right_since = if is_wrong || vouches { None } else { right_since.or(Some(now)) };
        if right_since.is_some_and(|since| now - since >= SETTLED) {
            return Wrong { fault, members, coordinator };
        }
        assert!(started.elapsed() < LIMIT, "after {fault} the console never shows {facts:?}:\n{screen}");
    }
}

fn pid_of(cluster: &Cluster, name: &str) -> Pid {
    let status = cluster.run(&["local", "status", "--output", "json"]).stdout;
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    let items = status["items"].as_array().unwrap();
    let item = items.iter().find(|item| item["name"] == name).unwrap();
    Pid::from_raw(i32::try_from(item["pid"].as_i64().unwrap()).unwrap()).unwrap()
}

#[test]
fn the_console_is_right_about_members_soon_after_each_fault() {
    let cluster = Cluster::start();
    let mut console = cluster.console(&[]);
    console.shows("● LIVE");
    console.press("2");
    console.until("all are voters", |it| it.screen().matches("voter").count() == 2);
    let first = coordinator(&console.screen());
    let mut facts: BTreeMap<String, Fact> =
        ["m1", "m2", "m3"].map(|name| (name.to_owned(), Fact::Answers)).into();
    let other = facts.keys().find(|name| **name != first).unwrap().clone();
    let mut found = vec![watch(&mut console, "nothing", &facts)];

    let pid = pid_of(&cluster, &other);
    kill_process(pid, Signal::STOP).unwrap();
    facts.insert(other.clone(), Fact::Silent);
    found.push(watch(&mut console, "a member is frozen", &facts));
    kill_process(pid, Signal::CONT).unwrap();
    facts.insert(other.clone(), Fact::Answers);
    found.push(watch(&mut console, "it goes on", &facts));

    assert!(cluster.run(&["local", "kill", &other]).status.success());
    facts.insert(other.clone(), Fact::Silent);
    found.push(watch(&mut console, "a member is killed", &facts));
    assert!(cluster.run(&["local", "start", &other]).status.success());
    facts.insert(other.clone(), Fact::Answers);
    found.push(watch(&mut console, "it is started", &facts));

    console.until("all are voters", |it| it.screen().matches("voter").count() == 2);
    assert!(cluster.run(&["local", "kill", &first]).status.success());
    facts.insert(first, Fact::Silent);
    found.push(watch(&mut console, "the coordinator is killed", &facts));
    console.until("LIVE", |it| it.screen().contains("● LIVE"));
    let second = coordinator(&console.screen());
    let answers = |(_, fact): &(&String, &Fact)| **fact == Fact::Answers;
    let last =
        facts.iter().filter(answers).map(|(name, _)| name).find(|name| **name != second).unwrap().clone();
    assert!(cluster.run(&["local", "kill", &last]).status.success());
    facts.insert(last, Fact::Silent);
    // A coordinator without a majority changes nothing any more.
    let killed = Instant::now();
    console.until("nobody coordinates", |it| !it.screen().contains("● LIVE"));
    let live = killed.elapsed();
    found.push(watch(&mut console, "the majority is gone", &facts));
    assert!(!cluster.run(&["--timeout", "2", "set-policy", "rate"]).status.success());
    println!("the majority is gone: LIVE for another {live:.1?}");
    assert!(live <= WRONG_MAX, "{live:?}");

    for Wrong { fault, members, coordinator } in &found {
        println!("{fault}: members wrong for {members:.1?}, coordinator for {coordinator:.1?}");
    }
    for wrong in &found {
        assert!(wrong.members <= WRONG_MAX && wrong.coordinator <= WRONG_MAX, "{wrong:?}");
    }
}

/// What a member sees that is cut off from the others: its own console must say so.
#[test]
fn a_coordinator_that_no_longer_hears_the_others_is_not_shown_as_live() {
    let cluster = Cluster::start();
    let mut console = cluster.console(&[]);
    console.shows("● LIVE");
    console.press("2");
    console.until("all are voters", |it| it.screen().matches("voter").count() == 2);
    let first = coordinator(&console.screen());
    let others: Vec<&str> = ["m1", "m2", "m3"].into_iter().filter(|name| *name != first).collect();
    let mut facts: BTreeMap<String, Fact> = [(first.clone(), Fact::Answers)].into();
    let pids: Vec<Pid> = others.iter().map(|name| pid_of(&cluster, name)).collect();
    pids.iter().for_each(|pid| kill_process(*pid, Signal::STOP).unwrap());
    let silent = Instant::now();
    facts.extend(others.iter().map(|name| ((*name).to_owned(), Fact::Silent)));
    console.until("nobody coordinates", |it| !it.screen().contains("● LIVE"));
    let live = silent.elapsed();
    let cut = watch(&mut console, "the others are silent", &facts);
    pids.iter().for_each(|pid| kill_process(*pid, Signal::CONT).unwrap());
    facts.values_mut().for_each(|fact| *fact = Fact::Answers);
    let healed = Instant::now();
    console.until("there is a coordinator", |it| it.screen().contains("● LIVE"));
    let leaderless = healed.elapsed();
    let after = watch(&mut console, "the others answer again", &facts);
    println!("LIVE for another {live:.1?}; LIVE again after {leaderless:.1?}; {cut:?}; {after:?}");
    assert!([live, cut.members, after.members].into_iter().all(|wrong| wrong <= WRONG_MAX));
}
