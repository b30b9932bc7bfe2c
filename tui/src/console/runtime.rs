//! The console's loop: gathers messages, draws when the state has changed, carries effects out in tasks.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossterm::clipboard::CopyToClipboard;
use crossterm::event::{Event, EventStream};
use crossterm::execute;
use crossterm::terminal::{BeginSynchronizedUpdate, EndSynchronizedUpdate};
use futures_util::StreamExt;
use idunno_shared::client::files::{NoProgress, Progress};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::mode::Mode;
use super::msg::SaveError;
use super::state::{ConnectionState, Effect, LogSource, Msg, NetEvent, State, TransferProgress};
use super::terminal::{Screen, SuspendSignals, termination_signal};
use super::theme::{Theme, Tone};
use super::update::update;
use super::view::view;
use super::{connection, event_log, fetch, local_paths, log_source};
use crate::answer::Failure;
use crate::command::Global;
use crate::execute as commands;
use crate::session::{Reporter, Session};
use crate::settings::{Settings, Symbols};
use crate::tail::LogLine;

const FRAME_PERIOD: Duration = Duration::from_millis(33);
const CHANNEL: usize = 64;
/// How long the console's end waits for a disk.
const KEEP_TIMEOUT: Duration = Duration::from_secs(1);
/// A file in the directory of the settings: the tour was seen.
const TOUR_SEEN: &str = "tour-seen";

/// Runs the console until the user quits.
pub async fn run(global: &Global, settings: Settings) -> io::Result<()> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let text = "the console needs a terminal: give a command, see 'idunno --help'";
        return Err(io::Error::other(text));
    }
    let (results_sender, results) = channel(CHANNEL);
    let mut state = initial_state(global, &settings);
    if !settings.dir.join(TOUR_SEEN).exists() {
        state.mode = Mode::Tour { screen: 0 };
    }
    let cluster = ClusterWatch::start(global).map_err(io::Error::other)?;
    let mut console = Console {
        state,
        settings,
        global: global.clone(),
        started: Instant::now(),
        results: results_sender,
        running: BTreeMap::new(),
        cluster,
        event_log: EventLog::default(),
    };
    console.enter_cluster();
    let mut screen = Screen::open(console.state.mouse)?;
    let ended = console.run(&mut screen, results).await;
    console.event_log.keep(&console.state).await;
    ended
}

fn initial_state(global: &Global, settings: &Settings) -> State {
    let mut state = State::new(String::new());
    let theme = Theme::of_environment(global.theme.unwrap_or_default(), |name| std::env::var(name).ok());
    let unicode = match settings.config.symbols {
        _ if global.ascii => false,
        Symbols::Auto => theme.unicode,
        Symbols::Unicode => true,
        Symbols::Ascii => false,
    };
    state.theme = Theme { unicode, ..theme };
    state.mouse = settings.config.mouse;
    state.contexts = settings.config.contexts.keys().cloned().collect();
    state.aliases = settings.config.aliases.clone();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    state.epoch_ms = u64::try_from(now.as_millis()).unwrap_or(0);
    state.keymap = Arc::clone(&settings.keymap);
    if let Some(first) = settings.all_problems().first() {
        let text = format!("{first} ('idunno keys' and 'idunno info' list all problems)");
        state.notify(text, Tone::Warn, 0);
    }
    state
}

/// The cluster on screen and the tasks that watch it, which end with it.
struct ClusterWatch {
    session: Session,
    net: Receiver<NetEvent>,
    logs: Receiver<Vec<LogLine>>,
    log_sources: watch::Sender<Vec<LogSource>>,
    retry: Arc<Notify>,
    tasks: [AbortHandle; 2],
}

impl ClusterWatch {
    fn start(global: &Global) -> Result<Self, Failure> {
        let session = Session::new(global, Arc::new(NoReport))?;
        let (net_sender, net) = channel(CHANNEL);
        let (log_sender, logs) = channel(CHANNEL);
        let (log_sources, wanted_sources) = watch::channel(Vec::new());
        let retry = Arc::new(Notify::new());
        let follow = tokio::spawn(connection::follow(session.clone(), net_sender, Arc::clone(&retry)));
        let log_dir = global.log_dir.clone();
        let logging = tokio::spawn(log_source::run(session.clone(), log_dir, wanted_sources, log_sender));
        let tasks = [follow.abort_handle(), logging.abort_handle()];
        Ok(Self { session, net, logs, log_sources, retry, tasks })
    }
}

impl Drop for ClusterWatch {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// For queries, whose progress is not shown.
struct NoReport;

impl Reporter for NoReport {
    fn start(&self, _label: &str, _files: u64, _bytes: u64) -> Box<dyn Progress> {
        Box::new(NoProgress)
    }
}

/// A command's progress, counted by its tasks and read by the loop.
#[derive(Clone, Default)]
struct Counters {
    files: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Counters {
    fn read(&self) -> TransferProgress {
        TransferProgress {
            files: self.files.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
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

struct Console {
    state: State,
    settings: Settings,
    global: Global,
    started: Instant,
    results: Sender<Msg>,
    /// By operation id.
    running: BTreeMap<u64, Arc<Counters>>,
    cluster: ClusterWatch,
    event_log: EventLog,
}

/// Where the events on screen are kept.
#[derive(Default)]
struct EventLog {
    file: PathBuf,
    /// Of the newest event in it.
    last_number: u64,
    writing: Option<JoinHandle<io::Result<()>>>,
}

impl EventLog {
    /// Goes on with the file of the cluster on screen, whose events are put before those that are there.
    fn open(&mut self, settings: &Path, state: &mut State) -> io::Result<()> {
        let file = event_log::file(settings, &state.label);
        if file == self.file {
            return Ok(());
        }
        self.file = file;
        let earlier = event_log::read(&self.file)?;
        self.last_number = state.events.restore(earlier);
        Ok(())
    }

    /// Starts to write what is new, unless a disk still has the events before it.
    fn write(&mut self, state: &State) {
        let is_written = self.writing.as_ref().is_none_or(JoinHandle::is_finished);
        if is_written && state.events.last_number() > self.last_number {
            let new: Vec<_> = state.events.after(self.last_number).cloned().collect();
            self.last_number = state.events.last_number();
            let file = self.file.clone();
            // What cannot be kept is still on screen.
            self.writing = Some(tokio::task::spawn_blocking(move || event_log::append(&file, &new)));
        }
    }

    /// Writes what is new, before the console ends.
    async fn keep(&mut self, state: &State) {
        for _ in 0..2 {
            self.write(state);
            if let Some(writing) = self.writing.take() {
                let _ = timeout(KEEP_TIMEOUT, writing).await;
            }
        }
    }
}

enum LoopControl {
    Continue,
    Suspend,
    Quit,
}

impl Console {
    async fn run(&mut self, screen: &mut Screen, mut results: Receiver<Msg>) -> io::Result<()> {
        let mut events = EventStream::new();
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_frame = Instant::now();
        let mut suspend_signals = SuspendSignals::listen();
        let terminated = termination_signal();
        tokio::pin!(terminated);
        let size = screen.terminal.size()?;
        self.take(Msg::Resized(size.width, size.height), screen);
        loop {
            if screen.is_lost() {
                return Err(io::Error::other("a task of the console panicked: see the message above"));
            }
            let control = tokio::select! {
                biased;
                () = &mut terminated => return Ok(()),
                () = suspend_signals.next() => LoopControl::Suspend,
                () = sleep_until(next_frame), if self.state.dirty => {
                    self.draw(screen)?;
                    next_frame = Instant::now() + FRAME_PERIOD;
                    LoopControl::Continue
                }
                event = events.next() => match event {
                    Some(Ok(event)) => message(event).map_or(LoopControl::Continue, |msg| self.take(msg, screen)),
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                },
                Some(result) = results.recv() => self.take(result, screen),
                Some(event) = self.cluster.net.recv() => {
                    // A local cluster may have started meanwhile; it has a name of its own.
                    if self.state.connection != ConnectionState::Live {
                        self.show_label();
                    }
                    self.take(Msg::Net(event), screen)
                }
                Some(lines) = self.cluster.logs.recv() => self.take(Msg::Log(lines), screen),
                _ = ticks.tick() => {
                    self.report_progress(screen);
                    self.event_log.write(&self.state);
                    self.take(Msg::Tick, screen)
                }
            };
            match control {
                LoopControl::Continue => {}
                LoopControl::Quit => return Ok(()),
                LoopControl::Suspend => {
                    // The stream would read what is typed into the shell.
                    drop(events);
                    screen.suspend(self.state.mouse)?;
                    events = EventStream::new();
                    let size = screen.terminal.size()?;
                    self.take(Msg::Resized(size.width, size.height), screen);
                }
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn draw(&mut self, screen: &mut Screen) -> io::Result<()> {
        let now_ms = self.now_ms();
        execute!(io::stdout(), BeginSynchronizedUpdate)?;
        screen.terminal.draw(|frame| view(&self.state, frame, now_ms))?;
        execute!(io::stdout(), EndSynchronizedUpdate)?;
        self.state.dirty = false;
        Ok(())
    }

    /// Takes a message and carries its effects out.
    fn take(&mut self, msg: Msg, screen: &Screen) -> LoopControl {
        if let Msg::Finished(id, _) = &msg {
            self.running.remove(id);
        }
        let now_ms = self.now_ms();
        let mut control = LoopControl::Continue;
        for effect in update(&mut self.state, msg, now_ms) {
            match effect {
                Effect::Quit => control = LoopControl::Quit,
                Effect::Suspend => control = LoopControl::Suspend,
                Effect::CaptureMouse(capture) => self.check_terminal(screen.capture_mouse(capture), now_ms),
                Effect::Copy(text) => {
                    let copied = execute!(io::stdout(), CopyToClipboard::to_clipboard_from(text));
                    self.check_terminal(copied, now_ms);
                }
                Effect::SwitchCluster(name) => self.switch_cluster(&name, now_ms),
                other => self.spawn(other),
            }
        }
        control
    }

    fn check_terminal(&mut self, result: io::Result<()>, now_ms: u64) {
        if let Err(error) = result {
            self.state.notify(format!("terminal error: {error}"), Tone::Bad, now_ms);
        }
    }

    /// Carries out an effect that takes time.
    fn spawn(&mut self, effect: Effect) {
        let (session, results) = (self.cluster.session.clone(), self.results.clone());
        match effect {
            Effect::RetryNow => self.cluster.retry.notify_one(),
            Effect::StreamLogs(sources) => _ = self.cluster.log_sources.send(sources),
            Effect::FetchFiles(query) => send(results, async move {
                let page = fetch::files(&session, &query).await;
                Msg::Files(query, page)
            }),
            Effect::FetchDetail(query) => send(results, async move {
                let data = fetch::detail(&session, &query).await;
                Msg::Detail(query, data)
            }),
            Effect::FetchOldJobs(count) => {
                send(results, async move { Msg::OldJobs(fetch::old_jobs(&session, count).await) });
            }
            Effect::ListDirectory(directory) => send(results, async move {
                let place = directory.clone();
                let read = tokio::task::spawn_blocking(move || local_paths::read(&place)).await;
                Msg::LocalPaths(directory, read.unwrap_or_default())
            }),
            Effect::EndTour => {
                let dir = self.settings.dir.clone();
                // If it cannot be remembered, the tour is shown again.
                tokio::task::spawn_blocking(move || {
                    let _ =
                        std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(dir.join(TOUR_SEEN), ""));
                });
            }
            Effect::Save(path, text) => send(results, async move { Msg::Saved(save(path, text).await) }),
            Effect::Run(id, verb) => {
                let counters = Arc::new(Counters::default());
                self.running.insert(id, Arc::clone(&counters));
                let session = session.reporting(counters);
                // On a thread of its own: a command may read local disks, and a panic ends only the command.
                let handle = Handle::current();
                let work =
                    tokio::task::spawn_blocking(move || handle.block_on(commands::run(&session, *verb)));
                send(results, async move {
                    let result = work.await;
                    Msg::Finished(id, result.unwrap_or_else(|error| Err(Failure::error(error.to_string()))))
                });
            }
            _ => {}
        }
    }

    /// Switches to another cluster; the state of this one is dropped.
    fn switch_cluster(&mut self, name: &str, now_ms: u64) {
        let requested = Global {
            context: Some(name.to_owned()),
            cluster_given: false,
            theme: None,
            ..self.global.clone()
        };
        let started =
            self.settings.resolve(requested).and_then(|global| Ok((ClusterWatch::start(&global)?, global)));
        match started {
            Ok((cluster, global)) => {
                self.event_log.write(&self.state);
                self.event_log = EventLog::default();
                self.state = State { mouse: self.state.mouse, ..initial_state(&global, &self.settings) };
                self.cluster = cluster;
                self.started = Instant::now();
                self.state.read_only = global.read_only;
                self.enter_cluster();
            }
            Err(failure) => self.state.notify(failure.to_string(), Tone::Bad, now_ms),
        }
    }

    fn enter_cluster(&mut self) {
        self.show_label();
        let session = &self.cluster.session;
        self.state.default_member = session.default_member();
        self.state.read_only = session.read_only;
        self.state.grant.clone_from(&session.grant);
    }

    /// Shows what the cluster is called, and the events that were kept under that name.
    fn show_label(&mut self) {
        self.state.label = self.cluster.session.label();
        if let Err(error) = self.event_log.open(&self.settings.dir, &mut self.state) {
            let text = format!("cannot read earlier events: {}: {error}", self.event_log.file.display());
            self.state.notify(text, Tone::Warn, self.now_ms());
        }
    }

    fn report_progress(&mut self, screen: &Screen) {
        let progress: Vec<Msg> =
            self.running.iter().map(|(id, counters)| Msg::Progress(*id, counters.read())).collect();
        for msg in progress {
            self.take(msg, screen);
        }
    }
}

fn message(event: Event) -> Option<Msg> {
    Some(match event {
        Event::Key(key) => Msg::Key(key),
        Event::Mouse(event) => Msg::Mouse(event),
        Event::Paste(text) => Msg::Paste(text),
        Event::Resize(width, height) => Msg::Resized(width, height),
        Event::FocusGained | Event::FocusLost => return None,
    })
}

/// Spawns work whose message goes to the loop, which may have ended meanwhile.
fn send(results: Sender<Msg>, work: impl Future<Output = Msg> + Send + 'static) {
    tokio::spawn(async move {
        let _ = results.send(work.await).await;
    });
}

async fn save(path: PathBuf, text: String) -> Result<PathBuf, SaveError> {
    let write = async {
        let mut file = tokio::fs::File::create_new(&path).await?;
        file.write_all(text.as_bytes()).await?;
        file.flush().await
    };
    match write.await {
        Ok(()) => Ok(path),
        Err(source) => Err(SaveError { path, source }),
    }
}
