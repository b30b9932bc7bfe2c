//! The terminal: taken over at the start, given back however the program ends.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::DefaultTerminal;

/// A task has panicked: the terminal is given back already, so nothing may be drawn.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// The terminal while it is ours; dropping it gives it back.
pub struct Screen {
    /// What to draw on.
    pub terminal: DefaultTerminal,
}

impl Screen {
    /// Takes the terminal over: alternate screen, raw mode, and a panic in any task gives it back. The mouse stays
    /// with the terminal, so that text can be selected.
    pub fn open() -> io::Result<Self> {
        // Crossterm's own reading of NO_COLOR eats the selection bar; the theme leaves colours out instead.
        crossterm::style::force_color_output(true);
        let terminal = ratatui::try_init()?;
        let restoring = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICKED.store(true, Ordering::SeqCst);
            restoring(panic);
        }));
        Ok(Self { terminal })
    }

    /// Whether a task has panicked.
    pub fn is_lost(&self) -> bool {
        PANICKED.load(Ordering::SeqCst)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if !self.is_lost() {
            ratatui::restore();
        }
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

/// Ends when the system asks the program to end.
#[cfg(not(unix))]
pub async fn ended_by_system() {
    std::future::pending().await
}
