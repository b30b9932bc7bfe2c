//! The log of a model server: what its process writes, the newest lines in `server.log`, earlier ones in `server.log.1`.
//!
//! Bounds: each of the two has at most [`FILE_BYTES_MAX`]. A new process begins a new file, so what the last one wrote
//! before it ended is kept.

use std::io;
use std::path::{Path, PathBuf};

use tokio::fs::{File, rename};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

/// Largest file of a log.
const FILE_BYTES_MAX: usize = 2 << 20;
const NAME: &str = "server.log";
const EARLIER_NAME: &str = "server.log.1";

pub(super) struct ServerLog {
    folder: PathBuf,
    /// `None` after a failed write or rotation, until the next rotation is due.
    file: Option<File>,
    bytes: usize,
}

impl ServerLog {
    /// Begins a new file in the folder.
    pub(super) async fn begin(folder: &Path) -> io::Result<Self> {
        let file = begin_file(folder).await?;
        Ok(Self { folder: folder.to_owned(), file: Some(file), bytes: 0 })
    }

    /// Copies output until its writer ends. What cannot be written is read and dropped.
    pub(super) async fn copy(mut self, mut output: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = output.read(&mut buffer).await {
            self.write(&buffer[..count]).await;
        }
    }

    async fn write(&mut self, output: &[u8]) {
        if self.bytes + output.len() > FILE_BYTES_MAX {
            self.file = begin_file(&self.folder).await.ok();
            self.bytes = 0;
        }
        self.bytes += output.len();
        if let Some(file) = &mut self.file
            && (file.write_all(output).await.is_err() || file.flush().await.is_err())
        {
            self.file = None;
        }
    }
}

async fn begin_file(folder: &Path) -> io::Result<File> {
    let path = folder.join(NAME);
    match rename(&path, folder.join(EARLIER_NAME)).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::create(&path).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_lines_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let lines: Vec<String> = (0..1_000_000).map(|line| format!("line {line}\n")).collect();
        let lines = lines.concat();
        ServerLog::begin(folder.path()).await.unwrap().copy(lines.as_bytes()).await;
        let newest = std::fs::read_to_string(folder.path().join(NAME)).unwrap();
        let earlier = std::fs::read_to_string(folder.path().join(EARLIER_NAME)).unwrap();
        assert!(newest.len() <= FILE_BYTES_MAX && earlier.len() <= FILE_BYTES_MAX);
        assert!(lines.len() > 3 * FILE_BYTES_MAX && earlier.len() > FILE_BYTES_MAX / 2);
        assert!(lines.ends_with(&format!("{earlier}{newest}")), "without a gap, up to the last line");
    }

    #[tokio::test]
    async fn what_the_last_process_wrote_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        for output in ["the first one crashed\n", "the second one runs\n"] {
            ServerLog::begin(folder.path()).await.unwrap().copy(output.as_bytes()).await;
        }
        let read = |name| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            (&*read(EARLIER_NAME), &*read(NAME)),
            ("the first one crashed\n", "the second one runs\n")
        );
    }
}
