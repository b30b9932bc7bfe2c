//! A program in a pseudo-terminal, whose output is parsed into frames.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The escape sequence that ends a frame.
const FRAME_END: &[u8] = b"\x1b[?2026l";
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Terminal {
    pub(crate) child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    output: Receiver<Vec<u8>>,
    parser: vt100::Parser,
    pending: Vec<u8>,
    /// Whether the program has closed its output.
    closed: bool,
    /// The terminal's settings before the program started.
    pub(crate) before: String,
    /// All output.
    pub(crate) raw: Vec<u8>,
    /// Every frame, as text.
    pub(crate) frames: Vec<String>,
    /// The settings of somebody who has changed none and has seen the tour.
    _settings: TempDir,
}

impl Terminal {
    /// Starts a program in a terminal of 120 columns and 40 lines, for somebody who has seen the console before.
    pub(crate) fn start(program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let size = PtySize { rows: 40, cols: 120, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let before = settings(pair.master.as_ref());
        let mut command = CommandBuilder::new(program);
        command.args(arguments);
        command.env("TERM", "xterm-256color");
        command.env("LANG", "C.UTF-8");
        for name in ["NO_COLOR", "LC_ALL", "IDUNNO_CLUSTER", "IDUNNO_CONTEXT", "IDUNNO_READ_ONLY"] {
            command.env_remove(name);
        }
        let own_settings = tempfile::tempdir().unwrap();
        std::fs::write(own_settings.path().join("tour-seen"), "").unwrap();
        command.env("IDUNNO_CONFIG_DIR", own_settings.path());
        for (name, value) in variables {
            command.env(name, value);
        }
        let child = pair.slave.spawn_command(command).unwrap();
        let mut reader = pair.master.try_clone_reader().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        let keys = pair.master.take_writer().unwrap();
        let parser = vt100::Parser::new(40, 120, 0);
        let (pending, raw, frames) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            child,
            master: pair.master,
            keys,
            output,
            parser,
            pending,
            closed: false,
            before,
            raw,
            frames,
            _settings: own_settings,
        }
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    pub(crate) fn screen(&self) -> String {
        self.parser.screen().contents()
    }

    /// Whether the line that starts with this text is reversed or has a background colour.
    pub(crate) fn is_selected(&self, text: &str) -> bool {
        let screen = self.parser.screen();
        let line = screen.contents().lines().position(|line| line.starts_with(text));
        let cell = line.and_then(|line| screen.cell(u16::try_from(line).unwrap(), 0));
        cell.is_some_and(|cell| cell.inverse() || cell.bgcolor() != vt100::Color::Default)
    }

    /// Reads output for up to `limit`. Returns whether there was any.
    pub(crate) fn read(&mut self, limit: Duration) -> bool {
        let bytes = match self.output.recv_timeout(limit) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.closed = error == RecvTimeoutError::Disconnected;
                return false;
            }
        };
        self.raw.extend(&bytes);
        self.pending.extend(bytes);
        let ends = |bytes: &[u8]| bytes.windows(FRAME_END.len()).position(|part| part == FRAME_END);
        while let Some(end) = ends(&self.pending) {
            let frame: Vec<u8> = self.pending.drain(..end + FRAME_END.len()).collect();
            self.parser.process(&frame);
            self.frames.push(self.screen());
        }
        true
    }

    /// Waits for a condition; panics with the screen after [`LIMIT`].
    pub(crate) fn until(&mut self, what: &str, satisfied: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !satisfied(self) {
            let over = started.elapsed() > LIMIT || self.closed;
            assert!(
                !over,
                "timed out: {what}\n{}\n{}",
                self.screen(),
                String::from_utf8_lossy(&self.pending)
            );
            self.read(Duration::from_millis(100));
        }
    }

    pub(crate) fn shows(&mut self, text: &str) {
        self.until(text, |terminal| terminal.screen().contains(text));
    }

    /// Waits until the program has written these bytes.
    pub(crate) fn writes(&mut self, bytes: &[u8]) {
        self.until("bytes", |terminal| terminal.raw.windows(bytes.len()).any(|part| part == bytes));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        let pid = self.child.process_id().unwrap();
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
    }

    /// The process state as in `/proc`: `T` is stopped.
    pub(crate) fn process_state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        stat.rsplit(") ").next()?.chars().next()
    }

    /// The terminal's settings, raw mode included.
    pub(crate) fn settings(&self) -> String {
        settings(self.master.as_ref())
    }

    pub(crate) fn exit_code(&mut self) -> u32 {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                while self.read(Duration::from_millis(50)) {}
                return status.exit_code();
            }
            assert!(started.elapsed() < LIMIT, "it never exits\n{}", self.screen());
            self.read(Duration::from_millis(50));
        }
    }
}

fn settings(master: &(dyn MasterPty + Send)) -> String {
    let termios = master.get_termios().unwrap();
    format!("{:?} {:?} {:?}", termios.local_flags, termios.input_flags, termios.output_flags)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have exited by itself.
        let _ = kill_process(self.pid(), Signal::KILL);
        let _ = self.child.wait();
    }
}
