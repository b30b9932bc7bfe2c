//! `get-job-results --follow`: rows as they are committed, until the job is over.

use idunno_shared::client::results::{RowStream, RowsError};

use super::{csv, parquet};
use crate::answer::{Answer, Exit, Failure};
use crate::command::JobRef;
use crate::command::values::RowFormat;
use crate::command::wanted_rows::WantedRows;
use crate::execute::job_lookup::resolve;
use crate::execute::jobs::halted;
use crate::session::Session;

/// Passes rows to `print`, with their line ends. The answer has only remarks.
pub async fn follow(
    session: &Session,
    job: &JobRef,
    wanted: WantedRows,
    print: impl Fn(&str) -> Result<(), Failure>,
) -> Result<Answer, Failure> {
    if wanted.format == RowFormat::Parquet {
        parquet::check(None)?;
    }
    let found = resolve(session, job).await?;
    let mut stream =
        RowStream::new(session.files(), found.id).only_failed(wanted.failed).silence_max(session.timeout);
    // Known once the job is started.
    let mut columns: Option<csv::Columns> = None;
    loop {
        let rows = stream.next().await?;
        if columns.is_none()
            && let Some(view) = stream.view()
        {
            let found = csv::Columns::of(view);
            if wanted.format == RowFormat::Csv {
                print(&format!("{}\n", found.header()?))?;
            }
            columns = Some(found);
        }
        let Some(rows) = rows else { return Ok(Answer::default().noted(found.note)) };
        let columns = columns.clone().unwrap_or_default();
        for row in rows {
            match wanted.format {
                RowFormat::Jsonl | RowFormat::Parquet => print(&format!("{row}\n"))?,
                RowFormat::Csv => print(&format!("{}\n", columns.row(&row)?))?,
            }
        }
    }
}

impl From<RowsError> for Failure {
    fn from(error: RowsError) -> Self {
        match error {
            RowsError::Cluster(error) => error.into(),
            RowsError::Halted(view) => halted(&view).unwrap_or_else(Self::unexpected),
            RowsError::Silent(_) => Self::new(Exit::Timeout, error.to_string()),
            RowsError::Malformed { .. } => Self::error(error.to_string()),
        }
    }
}
