//! Standard input and output in the place of local files: `put - NAME`, `get NAME -`, `cat`.

use std::io;
use std::path::Path;

use idunno_shared::client::files::NoProgress;
use tempfile::TempPath;
use tokio::task::spawn_blocking;

use crate::answer::{Answer, Failure};
use crate::command::Verb;
use crate::command::file_pattern::FilePattern;
use crate::execute::files::{STREAM, many};
use crate::session::Session;

const STDOUT: &str = "/dev/stdout";

/// Has a command write to standard output if it names that.
pub(super) fn name_stdout(verb: &mut Verb) {
    if let Verb::Get { local, .. } | Verb::GetVersions { local, .. } = verb
        && local.as_os_str() == STREAM
    {
        *local = STDOUT.into();
    }
}

/// Reads standard input into a temporary file if a command puts it: its size and digest are known only at its end. The
/// file is deleted with what is returned.
pub(super) async fn read_stdin(verb: &mut Verb) -> Result<Option<TempPath>, Failure> {
    let Verb::Put { local, .. } = verb else { return Ok(None) };
    if local.as_os_str() != STREAM {
        return Ok(None);
    }
    let wrong =
        |error: io::Error| Failure::error(format!("cannot keep standard input in a temporary file: {error}"));
    let kept = spawn_blocking(|| {
        let mut file = tempfile::NamedTempFile::new()?;
        io::copy(&mut io::stdin().lock(), &mut file)?;
        Ok(file.into_temp_path())
    });
    let path = kept.await.map_err(io::Error::from).flatten().map_err(wrong)?;
    *local = path.to_path_buf();
    Ok(Some(path))
}

/// `cat`.
pub(super) async fn cat(session: &Session, patterns: &[FilePattern]) -> Result<Answer, Failure> {
    for pattern in patterns {
        for file in many::find(session, pattern).await? {
            session.files().get_file(&file.name, None, Path::new(STDOUT), &NoProgress).await?;
        }
    }
    Ok(Answer::default())
}
