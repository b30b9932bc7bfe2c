//! The terminal: set up at the start, restored however the program ends.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::Show;
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::execute;
use crossterm::style::Print;
use crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, enable_raw_mode};
use ratatui::backend::CrosstermBackend;
use ratatui::{DefaultTerminal, Terminal};

/// A task has panicked: the terminal is restored already, so nothing may be drawn.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// The terminal in the console's modes; dropping it restores the terminal.
pub struct Screen {
    pub terminal: DefaultTerminal,
}

impl Screen {
    /// Sets up the alternate screen and raw mode. A panic in any task restores the terminal.
    pub fn open(mouse: bool) -> io::Result<Self> {
        // Crossterm's handling of NO_COLOR also drops the selection bar; the theme leaves out colours instead.
        crossterm::style::force_color_output(true);
        let terminal = ratatui::try_init()?;
        let previous_hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICKED.store(true, Ordering::SeqCst);
            // ratatui's hook leaves raw mode and the alternate screen only.
            let _ = disable_modes();
            previous_hook(panic);
        }));
        enable_modes(mouse)?;
        Ok(Self { terminal })
    }

    pub fn capture_mouse(&self, capture: bool) -> io::Result<()> {
        execute!(io::stdout(), Print(if capture { MOUSE_ON } else { MOUSE_OFF }))
    }

    /// Restores the terminal and stops the process until the shell resumes it.
    #[cfg(unix)]
    pub fn suspend(&mut self, mouse: bool) -> io::Result<()> {
        disable_modes()?;
        ratatui::restore();
        // The whole process group, so that a script around the console stops too.
        rustix::process::kill_current_process_group(rustix::process::Signal::STOP)?;
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, Clear(ClearType::All))?;
        enable_modes(mouse)?;
        // A new one draws every cell again. The old one's clear() would query the cursor position, which not every
        // terminal answers.
        self.terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        Ok(())
    }

    /// There is no job control here.
    #[cfg(not(unix))]
    pub fn suspend(&mut self, _mouse: bool) -> io::Result<()> {
        Ok(())
    }

    /// Whether a task has panicked.
    pub fn is_lost(&self) -> bool {
        PANICKED.load(Ordering::SeqCst)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if !self.is_lost() {
            // Nothing is left to do if the terminal has gone.
            let _ = disable_modes();
            ratatui::restore();
        }
    }
}

/// Buttons and the wheel only: crossterm also enables motion events, a flood over a slow connection.
const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1006h";
const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1000l";

/// Enables what the console needs beyond raw mode and the alternate screen.
fn enable_modes(mouse: bool) -> io::Result<()> {
    execute!(io::stdout(), EnableBracketedPaste, Print(if mouse { MOUSE_ON } else { "" }))
}

fn disable_modes() -> io::Result<()> {
    execute!(io::stdout(), DisableBracketedPaste, Print(MOUSE_OFF), Show)
}

/// Completes when the system asks the program to end: SIGTERM or SIGHUP.
#[cfg(unix)]
pub async fn termination_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut hangup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// Requests to suspend (SIGTSTP). One that arrives while nobody waits is kept.
#[derive(Debug)]
pub struct SuspendSignals {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl SuspendSignals {
    #[cfg(unix)]
    pub fn listen() -> Self {
        let kind = tokio::signal::unix::SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw());
        Self { signal: tokio::signal::unix::signal(kind).ok() }
    }

    /// There is no job control here.
    #[cfg(not(unix))]
    pub fn listen() -> Self {
        Self {}
    }

    pub async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// Never completes.
#[cfg(not(unix))]
pub async fn termination_signal() {
    std::future::pending().await
}
