//! The pages of the console.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Page {
    Overview,
    Members,
    Jobs,
    Assignments,
    Files,
    Models,
    Logs,
    Events,
}

impl Page {
    /// In the order of their digit keys.
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

    /// The page `by` places further, wrapping around.
    #[must_use]
    pub fn step(self, by: usize) -> Self {
        let index = Self::ALL.iter().position(|page| *page == self).unwrap_or(0);
        Self::ALL[(index + by) % Self::ALL.len()]
    }
}
