//! The console's loop: gathers what happens, draws when the state changed, carries effects out in tasks.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossterm::clipboard::CopyToClipboard;
use crossterm::event::{Event, EventStream};
use crossterm::execute;
use crossterm::terminal::{BeginSynchronizedUpdate, EndSynchronizedUpdate};
use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::counters::{Counters, Silent};
use super::state::{Effect, Link, Msg, NetEvent, State};
use super::terminal::{Screen, Stops, ended_by_system};
use super::theme::{Role, Theme};
use super::update::update;
use super::view::view;
use super::{connection, feed, queries};
use crate::answer::Failure;
use crate::command::Global;
use crate::execute as commands;
use crate::session::Session;
use crate::settings::{Settings, Symbols};
use crate::tail::LogLine;

const FRAME_PERIOD: Duration = Duration::from_millis(33);
const CHANNEL: usize = 64;

/// Runs the console until the user quits.
pub async fn run(global: &Global, settings: Settings) -> io::Result<()> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let text = "the console needs a terminal: give a command, see 'idunno --help'";
        return Err(io::Error::other(text));
    }
    let (results_sender, results) = channel(CHANNEL);
    let state = first_state(global, &settings);
    let watched = Watched::start(global).map_err(io::Error::other)?;
    let mut console = Console {
        state,
        settings,
        global: global.clone(),
        started: Instant::now(),
        results: results_sender,
        running: BTreeMap::new(),
        watched,
    };
    console.enter_cluster();
    let mut screen = Screen::open(console.state.mouse)?;
    console.run(&mut screen, results).await
}

/// A state as the settings say.
fn first_state(global: &Global, settings: &Settings) -> State {
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
        state.tell(format!("{first} ('idunno keys' and 'idunno info' tell all)"), Role::Warn, 0);
    }
    state
}

/// The cluster that is watched, and the tasks that watch it: they end with it.
struct Watched {
    session: Session,
    net: Receiver<NetEvent>,
    logs: Receiver<Vec<LogLine>>,
    wanted: watch::Sender<feed::Wanted>,
    retry: Arc<Notify>,
    tasks: [AbortHandle; 2],
}

impl Watched {
    fn start(global: &Global) -> Result<Self, Failure> {
        let session = Session::new(global, Arc::new(Silent))?;
        let (net_sender, net) = channel(CHANNEL);
        let (log_sender, logs) = channel(CHANNEL);
        let (wanted, wanted_logs) = watch::channel(Vec::new());
        let retry = Arc::new(Notify::new());
        let follow = tokio::spawn(connection::follow(session.clone(), net_sender, Arc::clone(&retry)));
        let feed = tokio::spawn(feed::run(session.clone(), global.log_dir.clone(), wanted_logs, log_sender));
        let tasks = [follow.abort_handle(), feed.abort_handle()];
        Ok(Self { session, net, logs, wanted, retry, tasks })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

struct Console {
    state: State,
    settings: Settings,
    global: Global,
    started: Instant,
    results: Sender<Msg>,
    running: BTreeMap<u64, Arc<Counters>>,
    watched: Watched,
}

/// What the loop does next.
enum Next {
    GoOn,
    Suspend,
    End,
}

impl Console {
    async fn run(&mut self, screen: &mut Screen, mut results: Receiver<Msg>) -> io::Result<()> {
        let mut events = EventStream::new();
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_frame = Instant::now();
        let mut stops = Stops::listen();
        let ended = ended_by_system();
        tokio::pin!(ended);
        let size = screen.terminal.size()?;
        self.take(Msg::Resized(size.width, size.height), screen);
        loop {
            if screen.is_lost() {
                return Err(io::Error::other("a part of the console failed: the message above says where"));
            }
            let next = tokio::select! {
                biased;
                () = &mut ended => return Ok(()),
                () = stops.next() => Next::Suspend,
                () = sleep_until(next_frame), if self.state.dirty => {
                    self.draw(screen)?;
                    next_frame = Instant::now() + FRAME_PERIOD;
                    Next::GoOn
                }
                event = events.next() => match event {
                    Some(Ok(event)) => message(event).map_or(Next::GoOn, |msg| self.take(msg, screen)),
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                },
                Some(result) = results.recv() => self.take(result, screen),
                Some(event) = self.watched.net.recv() => {
                    // A local cluster may have come up meanwhile, and has its own name.
                    if self.state.link != Link::Live {
                        self.state.label = self.watched.session.label();
                    }
                    self.take(Msg::Net(event), screen)
                }
                Some(lines) = self.watched.logs.recv() => self.take(Msg::Log(lines), screen),
                _ = ticks.tick() => {
                    self.report_progress(screen);
                    self.take(Msg::Tick, screen)
                }
            };
            match next {
                Next::GoOn => {}
                Next::End => return Ok(()),
                Next::Suspend => {
                    // It would go on reading what is typed at the shell.
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
    fn take(&mut self, msg: Msg, screen: &Screen) -> Next {
        if let Msg::Finished(id, _) = &msg {
            self.running.remove(id);
        }
        let now_ms = self.now_ms();
        let mut next = Next::GoOn;
        for effect in update(&mut self.state, msg, now_ms) {
            match effect {
                Effect::Quit => next = Next::End,
                Effect::Suspend => next = Next::Suspend,
                Effect::Mouse(taken) => self.try_terminal(screen.mouse(taken), now_ms),
                Effect::Copy(text) => {
                    let copied = execute!(io::stdout(), CopyToClipboard::to_clipboard_from(text));
                    self.try_terminal(copied, now_ms);
                }
                Effect::Switch(name) => self.switch(&name, now_ms),
                other => self.spawn(other),
            }
        }
        next
    }

    fn try_terminal(&mut self, done: io::Result<()>, now_ms: u64) {
        if let Err(error) = done {
            self.state.tell(format!("the terminal refuses: {error}"), Role::Bad, now_ms);
        }
    }

    /// Carries out what takes time.
    fn spawn(&mut self, effect: Effect) {
        let (session, results) = (self.watched.session.clone(), self.results.clone());
        match effect {
            Effect::RetryNow => self.watched.retry.notify_one(),
            Effect::Stream(wanted) => _ = self.watched.wanted.send(wanted),
            Effect::FetchFiles(query) => send(results, async move {
                let page = queries::files(&session, &query).await;
                Msg::Files(query, page)
            }),
            Effect::Look(question) => send(results, async move {
                let facts = queries::facts(&session, &question).await;
                Msg::Seen(question, facts)
            }),
            Effect::Save(path, text) => send(results, async move { Msg::Saved(save(path, text).await) }),
            Effect::Run(id, verb) => {
                let counters = Arc::new(Counters::default());
                self.running.insert(id, Arc::clone(&counters));
                let session = session.reporting(counters);
                // In a thread of its own: a command may read local disks, and a panic in it ends only itself.
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

    /// Goes to another cluster: what is known of this one is forgotten.
    fn switch(&mut self, name: &str, now_ms: u64) {
        let wanted = Global { context: Some(name.to_owned()), cluster_given: false, ..self.global.clone() };
        let wanted = Global { read_only: self.global.read_only, theme: None, ..wanted };
        let watched = self.settings.resolve(wanted).and_then(|global| Ok((Watched::start(&global)?, global)));
        match watched {
            Ok((watched, global)) => {
                self.state = State { mouse: self.state.mouse, ..first_state(&global, &self.settings) };
                (self.watched, self.started) = (watched, Instant::now());
                self.state.read_only = global.read_only;
                self.enter_cluster();
            }
            Err(failure) => self.state.tell(failure.message, Role::Bad, now_ms),
        }
    }

    fn enter_cluster(&mut self) {
        let session = &self.watched.session;
        (self.state.label, self.state.default_member) = (session.label(), session.default_member());
        self.state.read_only = session.read_only;
        self.state.is_viewer = session.role == idunno_shared::security::Role::Viewer;
    }

    fn report_progress(&mut self, screen: &Screen) {
        let counts: Vec<(u64, u64, u64)> = self
            .running
            .iter()
            .map(|(id, counters)| {
                let (files, bytes) = counters.done();
                (*id, files, bytes)
            })
            .collect();
        for (id, files, bytes) in counts {
            self.take(Msg::Progress(id, files, bytes), screen);
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

/// Has work done and its message sent. The console may have ended meanwhile.
fn send(results: Sender<Msg>, work: impl Future<Output = Msg> + Send + 'static) {
    tokio::spawn(async move {
        let _ = results.send(work.await).await;
    });
}

async fn save(path: PathBuf, text: String) -> Result<String, String> {
    let shown = path.display().to_string();
    tokio::fs::write(&path, text).await.map_err(|error| format!("cannot write {shown}: {error}"))?;
    Ok(shown)
}
