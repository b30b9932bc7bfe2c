//! Pages, and what is selected on them.

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Page {
    /// The cluster at a glance.
    Overview,
    /// Members.
    Members,
    /// Jobs.
    Jobs,
    /// Who works for what.
    Assignments,
    /// Files.
    Files,
    /// Models.
    Models,
    /// Logs.
    Logs,
    /// What happened.
    Events,
}

impl Page {
    /// All pages, in the order of their digits.
    pub const ALL: [Self; 8] = [
        Self::Overview,
        Self::Members,
        Self::Jobs,
        Self::Assignments,
        Self::Files,
        Self::Models,
        Self::Logs,
        Self::Events,
    ];

    /// Its name on screen.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Members => "members",
            Self::Jobs => "jobs",
            Self::Assignments => "assignments",
            Self::Files => "files",
            Self::Models => "models",
            Self::Logs => "logs",
            Self::Events => "events",
        }
    }

    /// The page `by` steps further, round about.
    #[must_use]
    pub fn step(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|page| *page == self).unwrap_or(0);
        Self::ALL[(at + by) % Self::ALL.len()]
    }
}

/// What is selected: a thing, not a line. The line is where to go on from when the thing has gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The selected thing's key.
    pub key: Option<String>,
    /// Where it was last.
    pub line: usize,
}
