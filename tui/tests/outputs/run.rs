//! Runs the program in a folder of its own, and writes down what it printed.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::scenes::{self, Scene, Way};

/// The formats, and how they are asked for.
pub(crate) const FORMATS: [&str; 6] = ["", " -o wide", " -o name", " -o json", " -o jsonl", " -o csv"];
/// What the member's address is written down as. It has as many characters, so that tables keep their widths.
const ADDRESS: &str = "127.0.0.1:47401";

/// A folder with the files that the commands read.
pub(crate) struct Place {
    dir: TempDir,
    address: SocketAddr,
}

impl Place {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // A daemon that is the member, and then only waits.
        let daemon = format!(
            "#!/bin/sh\nprintf '{{\"pid\":%d,\"address\":\"{address}\",\"node\":null}}' $$ > \"$5/runtime.json\"\nexec sleep 600\n"
        );
        scenes::prepare(dir.path(), &daemon);
        Self { dir, address }
    }

    /// What a scene prints in a format.
    pub(crate) fn run(&self, scene: &Scene, format: &str) -> String {
        let cluster = format!(" --cluster {}", self.address);
        for line in scene.before {
            assert!(self.command(&format!("{line}{cluster}")).output().unwrap().status.success(), "{line}");
        }
        let printed = scene.lines.iter().map(|line| {
            let printed = self.printed(&format!("{line}{format}{cluster}"), scene.way, format);
            self.written(&format!("{line}{format}"), &printed, scene.way == Way::Fresh)
        });
        printed.collect()
    }

    /// The same of a command on the cluster of this machine.
    pub(crate) fn run_locally(&self, scene: &Scene, format: &str) -> String {
        let printed = scene.lines.iter().map(|line| {
            let line = format!("{line}{format}");
            self.written(&line, &self.command(&line).output().unwrap(), true)
        });
        printed.collect()
    }

    pub(crate) fn help(&self, command: &str) -> String {
        let output = self.command(&format!("{command} --help")).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_idunno"));
        command.args(line.split_whitespace()).current_dir(self.dir.path()).env_clear();
        command.env("IDUNNO_CONFIG_DIR", "settings").env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null());
        command
    }

    fn printed(&self, line: &str, way: Way, format: &str) -> Output {
        let mut command = self.command(line);
        match way {
            Way::Plain | Way::Fresh => command.output().unwrap(),
            Way::Reads(text) => {
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                let mut child = command.spawn().unwrap();
                child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
                child.wait_with_output().unwrap()
            }
            Way::Endless(rows) => {
                let titles = usize::from(format.ends_with("csv"));
                let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
                let lines = BufReader::new(child.stdout.take().unwrap()).lines().take(rows + titles);
                let stdout: String = lines.map(|line| line.unwrap() + "\n").collect();
                child.kill().unwrap();
                child.wait().unwrap();
                // The kill is the test's doing.
                Output { stdout: stdout.into(), status: std::process::ExitStatus::default(), stderr: vec![] }
            }
        }
    }

    /// What is kept of a run: the line, standard output, then standard error and the exit code unless it is 0.
    fn written(&self, line: &str, output: &Output, is_fresh: bool) -> String {
        let mut text = format!("$ idunno {line}\n");
        text.push_str(&String::from_utf8_lossy(&output.stdout));
        if !text.ends_with('\n') {
            text.push_str("<no line end>\n");
        }
        String::from_utf8_lossy(&output.stderr).lines().for_each(|line| {
            let _ = writeln!(text, "stderr: {line}");
        });
        if !output.status.success() {
            let _ = writeln!(text, "exit {}", output.status.code().unwrap());
        }
        let text = text.replace(&self.address.to_string(), ADDRESS);
        let dir = std::fs::canonicalize(self.dir.path()).unwrap();
        let text = text.replace(dir.to_str().unwrap(), "/DIR");
        if is_fresh { without_what_differs(&text) } else { text }
    }
}

/// The text with `#` in place of each number, date and key. Tables lose their alignment, which depends on them.
fn without_what_differs(text: &str) -> String {
    let is_key =
        |word: &str| word.len() > 15 && word.chars().all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c));
    let mut made = String::new();
    for line in text.lines() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let word_end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+/=".contains(c)));
            let (word, after) = rest.split_at(word_end.unwrap_or(rest.len()).max(first.len_utf8()));
            let number = word.starts_with(|c: char| c.is_ascii_digit());
            if number || is_key(word) && word.contains(|c: char| c.is_ascii_digit()) {
                made.push('#');
            } else if !(word == " " && made.ends_with("  ")) {
                made.push_str(word);
            }
            rest = after;
        }
        made.push('\n');
    }
    made
}
