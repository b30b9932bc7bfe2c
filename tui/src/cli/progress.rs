//! Progress bars on stderr, if it is a terminal.

use std::io::{self, IsTerminal};
use std::time::Duration;

use idunno_shared::client::files::{NoProgress, Progress};
use idunno_shared::text::visible;
use indicatif::{ProgressBar, ProgressStyle};

use crate::session::Reporter;

const FILES: &str = "{msg} [{bar:30}] {pos}/{len} {per_sec} {eta}";
const BYTES: &str = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const UNKNOWN: &str = "{msg} {spinner} {elapsed}";

/// Reports progress by bars on stderr, if it is a terminal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bars;

impl Reporter for Bars {
    fn start(&self, label: &str, files: u64, bytes: u64) -> Box<dyn Progress> {
        if !io::stderr().is_terminal() {
            return Box::new(NoProgress);
        }
        let bar = Bar::new(ProgressBar::new(0), files, bytes);
        bar.bar.set_message(visible(label).into_owned());
        bar.bar.enable_steady_tick(Duration::from_millis(200));
        Box::new(bar)
    }
}

struct Bar {
    bar: ProgressBar,
    by_files: bool,
}

impl Bar {
    fn new(bar: ProgressBar, files: u64, bytes: u64) -> Self {
        let bar = Self { bar, by_files: files > 0 };
        match (files, bytes) {
            (0, 0) => bar.style(UNKNOWN),
            (0, _) => bar.set_total(bytes),
            _ => {
                bar.bar.set_length(files);
                bar.style(FILES);
            }
        }
        bar
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("=> "));
        }
    }
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

    fn set_total(&self, bytes: u64) {
        if !self.by_files {
            self.bar.set_length(bytes);
            self.style(BYTES);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_found_later_becomes_the_bars_length() {
        let bar = |files, bytes| Bar::new(ProgressBar::hidden(), files, bytes);
        let one = bar(0, 0);
        one.set_total(4096);
        one.bytes(1024);
        one.file();
        assert_eq!((one.bar.length(), one.bar.position()), (Some(4096), 1024));
        let many = bar(10, 9999);
        many.set_total(5);
        many.bytes(1024);
        many.file();
        assert_eq!((many.bar.length(), many.bar.position()), (Some(10), 1));
    }
}
