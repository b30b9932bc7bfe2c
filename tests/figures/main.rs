//! The failure detector in figures, beside foca on the same simulated network: `cargo bench -p idunno-tests --bench
//! membership`. In virtual time: the machine's load changes nothing but how long it takes, a few minutes.
//!
//! Each row: clusters of so many members, all knowing each other, on a local network (0.1 to 2 ms) that loses so many
//! messages in a hundred. After 2 s the traffic is counted for 10 s. Then members die silently, host and all, one every
//! half second, and the time is taken until the last healthy member holds them dead. "Starved": one member runs for 10 to
//! 100 ms, then sleeps for 0.5 to 3 s, over and over; what comes meanwhile waits in its sockets. False deaths are those
//! that one member sees in an hour: of healthy members, and of the starved one.

mod cluster;
mod ours;
mod theirs;

use std::thread;
use std::time::Duration;

use self::cluster::{Cluster, Detector};
use self::ours::Ours;
use self::theirs::Theirs;

const WARM_UP: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_secs(10);
const BETWEEN_DEATHS: Duration = Duration::from_millis(500);
/// A death that is not known everywhere after so long is not found.
const DETECTION_MAX: Duration = Duration::from_secs(40);

/// Members, clusters run, and deaths in each.
const SIZES: [(usize, u64, usize); 5] =
    [(5, 200, 1), (10, 200, 1), (30, 50, 4), (100, 20, 10), (1_000, 1, 30)];
/// Loss in a thousand, and whether one is starved.
const CONDITIONS: [(u32, bool); 4] = [(0, false), (100, false), (300, false), (0, true)];

type Measure = fn(usize, u64, usize, u32, bool) -> Figures;
const DETECTORS: [(&str, Measure); 3] = [
    ("IDunno", measure::<Ours>),
    ("foca, our periods", measure::<Theirs<true>>),
    ("foca, its LAN periods", measure::<Theirs<false>>),
];

#[derive(Default)]
struct Figures {
    detections: Vec<Option<Duration>>,
    datagrams: f64,
    bytes: f64,
    false_deaths: [u64; 2],
    hours: f64,
}

impl Figures {
    /// What `per_cent` of the deaths were found within, in seconds.
    fn detection(&self, per_cent: usize) -> String {
        let mut sorted: Vec<_> = self.detections.iter().map(|time| time.unwrap_or(Duration::MAX)).collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * per_cent).div_ceil(100).max(1) - 1;
        match sorted.get(rank) {
            Some(&Duration::MAX) | None => format!("> {}", DETECTION_MAX.as_secs()),
            Some(time) => format!("{:.1}", time.as_secs_f64()),
        }
    }
}

fn measure<D: Detector>(
    hosts: usize,
    runs: u64,
    deaths: usize,
    loss_per_mille: u32,
    starve: bool,
) -> Figures {
    let mut figures = Figures::default();
    for seed in 0..runs {
        let mut cluster = Cluster::<D>::new(seed, hosts, loss_per_mille, starve);
        cluster.run_for(WARM_UP);
        let before = cluster.traffic;
        cluster.run_for(QUIET);
        let member_seconds = hosts as f64 * QUIET.as_secs_f64() * runs as f64;
        figures.datagrams += (cluster.traffic.datagrams - before.datagrams) as f64 / member_seconds;
        figures.bytes += (cluster.traffic.bytes - before.bytes) as f64 / member_seconds;
        for _ in 0..deaths {
            cluster.kill_one();
            cluster.run_for(BETWEEN_DEATHS);
        }
        let started = cluster.now;
        while cluster.now.since(started) < DETECTION_MAX && cluster.detections().contains(&None) {
            cluster.run_for(Duration::from_millis(500));
        }
        figures.detections.extend(cluster.detections());
        figures.false_deaths[0] += cluster.false_deaths[0];
        figures.false_deaths[1] += cluster.false_deaths[1];
        figures.hours +=
            hosts as f64 * cluster.now.since(idunno_core::time::Instant::START).as_secs_f64() / 3_600.0;
    }
    figures
}

fn network(loss_per_mille: u32, starve: bool) -> String {
    if starve { String::from("starved") } else { format!("{}%", loss_per_mille / 10) }
}

fn print_row(hosts: usize, loss_per_mille: u32, starve: bool, name: &str, figures: &Figures) {
    let network = network(loss_per_mille, starve);
    let an_hour = |count: u64| {
        if count == 0 { String::from("0") } else { format!("{:.1}", count as f64 / figures.hours) }
    };
    let [healthy, starved] = figures.false_deaths.map(an_hour);
    let starved = if starve { starved } else { String::from("-") };
    println!(
        "| {hosts} | {network} | {name} | {} | {} | {} | {healthy} | {starved} | {:.1} | {:.0} |",
        figures.detections.len(),
        figures.detection(50),
        figures.detection(99),
        figures.datagrams,
        figures.bytes,
    );
}

fn main() {
    // Only those sizes and networks that are named, if any is, and without foca, which takes long in the worst of them, if
    // that is said: `-- 1000 30% starved ours`.
    let named: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let (ours, named): (Vec<_>, Vec<_>) = named.into_iter().partition(|word| word == "ours");
    let (sizes, networks): (Vec<_>, Vec<_>) =
        named.into_iter().partition(|word| word.parse::<usize>().is_ok());
    let with_foca = ours.is_empty();
    let wanted = |named: &[String], word: &str| named.is_empty() || named.iter().any(|name| name == word);
    println!(
        "| members | network | detector | deaths | found p50 s | p99 s | false deaths of healthy /h | of starved /h | \
         datagrams /s | bytes /s |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for (hosts, runs, deaths) in SIZES {
        for (loss, starve) in CONDITIONS {
            if !wanted(&sizes, &hosts.to_string()) || !wanted(&networks, &network(loss, starve)) {
                continue;
            }
            thread::scope(|scope| {
                let detectors = DETECTORS.iter().take(if with_foca { DETECTORS.len() } else { 1 });
                let measured: Vec<_> = detectors
                    .map(|&(name, measure)| {
                        (name, scope.spawn(move || measure(hosts, runs, deaths, loss, starve)))
                    })
                    .collect();
                for (name, figures) in measured {
                    // A panic is printed by its thread.
                    let Ok(figures) = figures.join() else { continue };
                    print_row(hosts, loss, starve, name, &figures);
                }
            });
        }
    }
}
