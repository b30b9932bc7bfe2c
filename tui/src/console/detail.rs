//! The details of one job, member or file, in tabs that the left and right keys switch.

use idunno_shared::ids::{JobId, NodeId};
use idunno_shared::names::FileName;
use idunno_shared::wire::control::ClusterView;

use super::query::{DetailData, DetailQuery, QueryError};
use super::table::DataTable;

/// A tab is refreshed at most this often.
const PERIOD_MS: u64 = 1000;
/// The same for results and for long lists.
const LONG_PERIOD_MS: u64 = 5000;
/// A list of more rows is long.
const LONG_ROWS: usize = 1000;

/// What the details are of, bound by its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetailTarget {
    Job(JobId),
    Member {
        id: NodeId,
        name: String,
    },
    File(FileName),
    /// A row of a job's results.
    Row {
        query: u64,
        /// As the job has it.
        json: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetailTab {
    JobMembers,
    JobBatches,
    JobDeadLetters,
    JobResults,
    MemberFiles,
    MemberModels,
    MemberBatches,
    FileExtents,
    FileVersions,
    FilePreview,
    Row,
}

impl DetailTab {
    /// Whether it shows text, whose long lines can be wrapped.
    pub const fn is_text(self) -> bool {
        matches!(self, Self::FilePreview | Self::Row)
    }

    pub const fn title(self) -> &'static str {
        match self {
            Self::JobMembers => "members",
            Self::JobBatches | Self::MemberBatches => "batches",
            Self::JobDeadLetters => "dead letters",
            Self::JobResults => "results",
            Self::MemberFiles => "files",
            Self::MemberModels => "models",
            Self::FileExtents => "extents",
            Self::FileVersions => "versions",
            Self::FilePreview => "preview",
            Self::Row => "row",
        }
    }
}

impl DetailTarget {
    /// In the order in which they stand on screen.
    pub const fn tabs(&self) -> &'static [DetailTab] {
        match self {
            Self::Job(_) => &[
                DetailTab::JobMembers,
                DetailTab::JobBatches,
                DetailTab::JobDeadLetters,
                DetailTab::JobResults,
            ],
            Self::Member { .. } => {
                &[DetailTab::MemberFiles, DetailTab::MemberModels, DetailTab::MemberBatches]
            }
            Self::File(_) => &[DetailTab::FileExtents, DetailTab::FileVersions, DetailTab::FilePreview],
            Self::Row { .. } => &[DetailTab::Row],
        }
    }

    pub fn title(&self) -> String {
        match self {
            Self::Job(id) => id.to_string(),
            Self::Member { name, .. } => name.clone(),
            Self::File(name) => crate::tail::printable(name.as_str()),
            Self::Row { query, .. } => format!("query {query}"),
        }
    }

    /// The query for a tab's contents; `None` if the view has them.
    fn query(&self, tab: DetailTab) -> Option<DetailQuery> {
        Some(match (self, tab) {
            (Self::Job(id), DetailTab::JobBatches) => DetailQuery::Leases { job: Some(*id), worker: None },
            (Self::Job(id), DetailTab::JobDeadLetters) => DetailQuery::DeadLetters(*id),
            (Self::Job(id), DetailTab::JobResults) => DetailQuery::Results(*id),
            (Self::Member { id, .. }, DetailTab::MemberFiles) => DetailQuery::Stored(*id),
            (Self::Member { id, .. }, DetailTab::MemberBatches) => {
                DetailQuery::Leases { job: None, worker: Some(*id) }
            }
            (Self::File(name), DetailTab::FileExtents | DetailTab::FileVersions) => {
                DetailQuery::Versions(name.clone())
            }
            (Self::File(name), DetailTab::FilePreview) => DetailQuery::Preview(name.clone()),
            _ => return None,
        })
    }
}

#[derive(Clone, Debug)]
pub struct Detail {
    pub target: DetailTarget,
    pub tab: DetailTab,
    pub table: DataTable,
    /// The newest answer.
    pub data: Option<DetailData>,
    /// Why the last query failed.
    pub error: Option<String>,
    /// The query in flight.
    pub in_flight: Option<DetailQuery>,
    /// Counts answers and tab switches.
    pub generation: u64,
    queried_ms: u64,
    /// The metadata's revision at the last query.
    revision: Option<u64>,
}

impl Detail {
    pub fn new(target: DetailTarget) -> Self {
        Self {
            tab: target.tabs()[0],
            target,
            table: DataTable::default(),
            data: None,
            error: None,
            in_flight: None,
            generation: 0,
            queried_ms: 0,
            revision: None,
        }
    }

    /// Switches to the next or the previous tab.
    pub fn switch_tab(&mut self, forward: bool) {
        let tabs = self.target.tabs();
        let index = tabs.iter().position(|tab| *tab == self.tab).unwrap_or(0);
        let step = if forward { 1 } else { tabs.len() - 1 };
        *self = Self {
            tab: tabs[(index + step) % tabs.len()],
            generation: self.generation + 1,
            queried_ms: self.queried_ms,
            ..Self::new(self.target.clone())
        };
    }

    /// Takes the answer to the query in flight.
    pub fn accept(&mut self, result: Result<DetailData, QueryError>) {
        self.in_flight = None;
        match result {
            Ok(data) => {
                if self.data.as_ref() != Some(&data) || self.error.is_some() {
                    self.data = Some(data);
                    self.error = None;
                    self.generation += 1;
                }
            }
            Err(error) => self.error = Some(error.to_string()),
        }
    }

    /// The query to send now, if what is shown may be out of date.
    pub fn next_query(&mut self, view: &ClusterView, now_ms: u64) -> Option<DetailQuery> {
        let query = self.target.query(self.tab)?;
        let is_long = matches!(query, DetailQuery::Results(_)) || self.table.total > LONG_ROWS;
        let period_ms = if is_long { LONG_PERIOD_MS } else { PERIOD_MS };
        let due = now_ms.saturating_sub(self.queried_ms) >= period_ms;
        let outdated = match (&query, self.revision) {
            (_, None) => true,
            // The bytes of a version never change.
            (DetailQuery::Preview(_), Some(_)) => self.error.is_some() && due,
            // Leases are no part of the metadata.
            (DetailQuery::Leases { .. }, Some(_)) => due,
            (_, Some(revision)) => due && (revision != view.revision || self.error.is_some()),
        };
        if self.in_flight.is_some() || !outdated {
            return None;
        }
        self.in_flight = Some(query.clone());
        self.queried_ms = now_ms;
        self.revision = Some(view.revision);
        Some(query)
    }
}
