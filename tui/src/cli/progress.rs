//! Progress on stderr: bars where a person looks, nothing where a program does.

use std::io::{self, IsTerminal};
use std::time::Duration;

use idunno_shared::client::files::{NoProgress, Progress};
use indicatif::{ProgressBar, ProgressStyle};

use crate::execute::Reporter;

/// Bars on stderr, if that is a terminal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bars;

impl Reporter for Bars {
    fn start(&self, label: &str, files: u64, bytes: u64) -> Box<dyn Progress> {
        if !io::stderr().is_terminal() {
            return Box::new(NoProgress);
        }
        let by_files = files > 0;
        let template = match (by_files, bytes > 0) {
            (true, _) => "{msg} [{bar:30}] {pos}/{len} {per_sec} {eta}",
            (false, true) => "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            (false, false) => "{msg} {spinner} {bytes} {bytes_per_sec}",
        };
        let bar = ProgressBar::new(if by_files { files } else { bytes });
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(label.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Box::new(Bar { bar, by_files })
    }

    fn note(&self, text: &str) {
        eprintln!("{text}");
    }
}

struct Bar {
    bar: ProgressBar,
    by_files: bool,
}

impl Progress for Bar {
    fn bytes(&self, count: u64) {
        if !self.by_files {
            self.bar.inc(count);
        }
    }

    fn file(&self) {
        if self.by_files {
            self.bar.inc(1);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
