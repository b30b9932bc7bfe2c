//! The terminal: taken over at the start, given back however the program ends.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::Show;
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::execute;
use crossterm::style::Print;
use crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, enable_raw_mode};
use ratatui::backend::CrosstermBackend;
use ratatui::{DefaultTerminal, Terminal};

/// A task has panicked: the terminal is given back already, so nothing may be drawn.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// The terminal while it is ours; dropping it gives it back.
pub struct Screen {
    /// What to draw on.
    pub terminal: DefaultTerminal,
}

impl Screen {
    /// Takes the terminal over: alternate screen, raw mode, and a panic in any task gives it back.
    pub fn open(mouse: bool) -> io::Result<Self> {
        // Crossterm's own reading of NO_COLOR eats the selection bar; the theme leaves colours out instead.
        crossterm::style::force_color_output(true);
        let terminal = ratatui::try_init()?;
        let restoring = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICKED.store(true, Ordering::SeqCst);
            // The hook below leaves raw mode and the alternate screen; the rest is ours to undo.
            let _ = ours(false, true);
            restoring(panic);
        }));
        ours(true, mouse)?;
        Ok(Self { terminal })
    }

    /// Takes the mouse, or gives it back.
    pub fn mouse(&self, taken: bool) -> io::Result<()> {
        if taken { execute!(io::stdout(), Print(MOUSE_ON)) } else { execute!(io::stdout(), Print(MOUSE_OFF)) }
    }

    /// Gives the terminal back and stops until the shell has the program go on.
    #[cfg(unix)]
    pub fn suspend(&mut self, mouse: bool) -> io::Result<()> {
        ours(false, true)?;
        ratatui::restore();
        // All processes of the job, so that a script around the console stops, too.
        rustix::process::kill_current_process_group(rustix::process::Signal::STOP)?;
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, Clear(ClearType::All))?;
        ours(true, mouse)?;
        // A new one knows nothing of what was on screen. The old one's clear() would ask the terminal where the cursor
        // is, and not every terminal answers.
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
            let _ = ours(false, true);
            ratatui::restore();
        }
    }
}

/// Presses and the wheel only: what crossterm asks for reports every motion, a flood over a slow line.
const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1006h";
const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1000l";

/// Sets, or undoes, what the console asks of the terminal beyond the alternate screen.
fn ours(on: bool, mouse: bool) -> io::Result<()> {
    match (on, mouse) {
        (true, true) => execute!(io::stdout(), EnableBracketedPaste, Print(MOUSE_ON)),
        (true, false) => execute!(io::stdout(), EnableBracketedPaste),
        (false, _) => execute!(io::stdout(), DisableBracketedPaste, Print(MOUSE_OFF), Show),
    }
}

/// Ends when the system asks the program to end.
#[cfg(unix)]
pub async fn ended_by_system() {
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

/// The system's requests to stop as a shell's job. One that comes while nobody waits is kept.
#[derive(Debug)]
pub struct Stops {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Stops {
    /// Takes the requests from now on.
    #[cfg(unix)]
    pub fn listen() -> Self {
        let stop = tokio::signal::unix::SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw());
        Self { signal: tokio::signal::unix::signal(stop).ok() }
    }

    /// There is no job control here.
    #[cfg(not(unix))]
    pub fn listen() -> Self {
        Self {}
    }

    /// Waits for the next one.
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

/// Ends when the system asks the program to end.
#[cfg(not(unix))]
pub async fn ended_by_system() {
    std::future::pending().await
}
