//! The console's loop: gathers what happens, draws when the state changed, carries effects out in tasks.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossterm::event::{Event, EventStream};
use crossterm::execute;
use crossterm::terminal::{BeginSynchronizedUpdate, EndSynchronizedUpdate};
use futures_util::StreamExt;
use idunno_shared::client::files::Progress;
use idunno_shared::wire::control::{ControlReply, ControlRequest};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::connection;
use super::log::LogLine;
use super::state::{Effect, FILES_PER_PAGE, FilesQuery, Msg, NetEvent, State};
use super::terminal::{Screen, ended_by_system};
use super::theme::Theme;
use super::update::update;
use super::view::{page_height, view};
use crate::command::Global;
use crate::execute::{self as commands, Failure, Reporter, Session};
use crate::tail::Follower;

const FRAME_PERIOD: Duration = Duration::from_millis(33);
const TAIL_PERIOD: Duration = Duration::from_millis(250);
const CHANNEL: usize = 64;

/// Runs the console until the user quits.
pub async fn run(global: &Global) -> io::Result<()> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let text = "the console needs a terminal: give a command, see 'idunno --help'";
        return Err(io::Error::other(text));
    }
    let session = Session::new(global, Arc::new(Silent)).map_err(io::Error::other)?;
    let theme = Theme::of_environment(|name| std::env::var(name).ok());
    let (net_sender, net) = channel(CHANNEL);
    let (results_sender, results) = channel(CHANNEL);
    let (log_sender, logs) = channel(CHANNEL);
    let retry = Arc::new(Notify::new());
    tokio::spawn(connection::follow(session.clone(), net_sender, Arc::clone(&retry)));
    tokio::spawn(tail(global.log_dir.clone(), session.dir.clone(), log_sender));
    let mut console = Console {
        state: State { only_seed: session.only_seed(), ..State::new(session.label()) },
        session,
        theme,
        started: Instant::now(),
        results: results_sender,
        running: BTreeMap::new(),
        retry,
    };
    let mut screen = Screen::open()?;
    console.run(&mut screen, net, results, logs).await
}

struct Console {
    state: State,
    session: Session,
    theme: Theme,
    started: Instant,
    results: Sender<Msg>,
    running: BTreeMap<u64, Arc<Counters>>,
    retry: Arc<Notify>,
}

impl Console {
    async fn run(
        &mut self,
        screen: &mut Screen,
        mut net: Receiver<NetEvent>,
        mut results: Receiver<Msg>,
        mut logs: Receiver<Vec<LogLine>>,
    ) -> io::Result<()> {
        let mut events = EventStream::new();
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_frame = Instant::now();
        let ended = ended_by_system();
        tokio::pin!(ended);
        self.take(Msg::Resized(page_height(screen.terminal.size()?)));
        loop {
            if screen.is_lost() {
                return Err(io::Error::other("a part of the console failed: the message above says where"));
            }
            let msg = tokio::select! {
                biased;
                () = &mut ended => return Ok(()),
                () = sleep_until(next_frame), if self.state.dirty => {
                    self.draw(screen)?;
                    next_frame = Instant::now() + FRAME_PERIOD;
                    continue;
                }
                event = events.next() => match event {
                    Some(Ok(Event::Key(key))) => Msg::Key(key),
                    Some(Ok(Event::Resize(width, height))) => Msg::Resized(page_height((width, height).into())),
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                },
                Some(result) = results.recv() => result,
                Some(event) = net.recv() => Msg::Net(event),
                Some(lines) = logs.recv() => Msg::Log(lines),
                _ = ticks.tick() => {
                    self.report_progress();
                    Msg::Tick
                }
            };
            if self.take(msg) {
                return Ok(());
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn draw(&mut self, screen: &mut Screen) -> io::Result<()> {
        let now_ms = self.now_ms();
        execute!(io::stdout(), BeginSynchronizedUpdate)?;
        screen.terminal.draw(|frame| view(&self.state, self.theme, frame, now_ms))?;
        execute!(io::stdout(), EndSynchronizedUpdate)?;
        self.state.dirty = false;
        Ok(())
    }

    /// Takes a message and carries its effects out; whether the console is to end.
    fn take(&mut self, msg: Msg) -> bool {
        if let Msg::Finished(id, _) = &msg {
            self.running.remove(id);
        }
        let now_ms = self.now_ms();
        let mut ends = false;
        for effect in update(&mut self.state, msg, now_ms) {
            match effect {
                Effect::Quit => ends = true,
                Effect::RetryNow => self.retry.notify_one(),
                Effect::FetchFiles(query) => {
                    tokio::spawn(fetch_files(self.session.clone(), query, self.results.clone()));
                }
                Effect::Run(id, verb) => {
                    let counters = Arc::new(Counters::default());
                    self.running.insert(id, Arc::clone(&counters));
                    let session = self.session.reporting(counters);
                    let results = self.results.clone();
                    // In a thread of its own: a command may read local disks, and a panic in it ends only itself.
                    let handle = Handle::current();
                    let work =
                        tokio::task::spawn_blocking(move || handle.block_on(commands::run(&session, *verb)));
                    tokio::spawn(async move {
                        let result = work.await;
                        let result = result.unwrap_or_else(|error| Err(Failure::error(error.to_string())));
                        // The console may have ended meanwhile.
                        let _ = results.send(Msg::Finished(id, result)).await;
                    });
                }
            }
        }
        ends
    }

    fn report_progress(&mut self) {
        let counts: Vec<(u64, u64, u64)> = self
            .running
            .iter()
            .map(|(id, it)| (*id, it.files.load(Ordering::Relaxed), it.bytes.load(Ordering::Relaxed)))
            .collect();
        for (id, files, bytes) in counts {
            self.take(Msg::Progress(id, files, bytes));
        }
    }
}

async fn fetch_files(session: Session, query: FilesQuery, results: Sender<Msg>) {
    let (prefix, after) = (query.prefix.clone(), query.after.clone());
    let request = ControlRequest::List { prefix, after, limit: FILES_PER_PAGE };
    let page = match session.cluster().control(request).await {
        Ok(ControlReply::Files { files, more }) => Ok((files, more)),
        Ok(_) => Err(Failure::unexpected().message),
        Err(error) => Err(error.to_string()),
    };
    // The console may have ended meanwhile.
    let _ = results.send(Msg::Files(query, page)).await;
}

struct Silent;

impl Reporter for Silent {
    fn start(&self, _label: &str, _files: u64, _bytes: u64) -> Box<dyn Progress> {
        Box::new(idunno_shared::client::files::NoProgress)
    }
}

/// How far a command is, counted for the screen.
#[derive(Clone, Default)]
struct Counters {
    files: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Reporter for Counters {
    fn start(&self, _label: &str, _files: u64, _bytes: u64) -> Box<dyn Progress> {
        self.files.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        Box::new(self.clone())
    }
}

impl Progress for Counters {
    fn bytes(&self, count: u64) {
        self.bytes.fetch_add(count, Ordering::Relaxed);
    }

    fn file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }
}

/// Follows the logs and passes new lines on, in a thread that may wait for disks.
async fn tail(given: Option<PathBuf>, local: PathBuf, lines: Sender<Vec<LogLine>>) {
    let mut followers: BTreeMap<PathBuf, (String, Follower)> = BTreeMap::new();
    loop {
        let (given, local) = (given.clone(), local.clone());
        let looked = tokio::task::spawn_blocking(move || {
            for (source, dir) in log_dirs(given.as_deref(), &local) {
                followers.entry(dir.clone()).or_insert_with(|| (source, Follower::new(dir)));
            }
            let mut found = Vec::new();
            for (source, follower) in followers.values_mut() {
                let texts = follower.look();
                found.extend(texts.into_iter().map(|text| LogLine { source: source.clone(), text }));
            }
            (followers, found)
        });
        let Ok((back, found)) = looked.await else { return };
        followers = back;
        if !found.is_empty() && lines.send(merged(found)).await.is_err() {
            return;
        }
        if lines.is_closed() {
            return;
        }
        sleep(TAIL_PERIOD).await;
    }
}

/// Lines of several logs in the order of their timestamps; lines without one stay behind the line before them.
fn merged(lines: Vec<LogLine>) -> Vec<LogLine> {
    let mut stamp = String::new();
    let mut stamped: Vec<(String, LogLine)> = Vec::with_capacity(lines.len());
    for line in lines {
        let start: String = line.text.chars().take(27).collect();
        if start.as_bytes().first().is_some_and(u8::is_ascii_digit) {
            stamp = start;
        }
        stamped.push((stamp.clone(), line));
    }
    stamped.sort_by(|a, b| a.0.cmp(&b.0));
    stamped.into_iter().map(|(_, line)| line).collect()
}

/// Where logs are, and whose: the directory asked for, else the local cluster's, else the system's.
fn log_dirs(given: Option<&Path>, local: &Path) -> Vec<(String, PathBuf)> {
    if let Some(dir) = given {
        return vec![(String::from("log"), dir.to_owned())];
    }
    let mut dirs = Vec::new();
    for entry in local.read_dir().into_iter().flatten().flatten() {
        let dir = entry.path().join("logs");
        if dir.is_dir() {
            dirs.push((entry.file_name().to_string_lossy().into_owned(), dir));
        }
    }
    if dirs.is_empty() {
        dirs.push((String::from("log"), PathBuf::from("/var/lib/idunno/logs")));
    }
    dirs
}
