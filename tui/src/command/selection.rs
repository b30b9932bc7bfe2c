//! Arguments that say which files of a directory are taken.

use clap::{ArgMatches, Args, Command, Error, FromArgMatches};

/// Which files of a directory are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSelection {
    /// Patterns with whether they include, in the order in which they were given.
    pub patterns: Vec<(String, bool)>,
    /// Hidden files, and those of systems.
    pub hidden: bool,
    /// Links to directories, and links that lead out of the directory.
    pub follow_links: bool,
    /// Refuses to leave anything out.
    pub strict: bool,
}

/// The arguments, without the order of the patterns.
#[derive(Args)]
struct Given {
    /// Only files that match a pattern, such as '*.jpg' or 'train/**'; of several patterns the last that matches counts
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// No files that match a pattern
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Also hidden files and those that systems leave, such as .DS_Store and Thumbs.db
    #[arg(long)]
    hidden: bool,
    /// Follow links to directories, and links out of the directory
    #[arg(long)]
    follow_links: bool,
    /// Put nothing if anything would be left out that --exclude does not match
    #[arg(long)]
    strict: bool,
}

impl FromArgMatches for FileSelection {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let Given { include, exclude, hidden, follow_links, strict } = Given::from_arg_matches(matches)?;
        let placed = |name: &str, patterns: Vec<String>, includes: bool| {
            let places = matches.indices_of(name).into_iter().flatten();
            places.zip(patterns).map(|(place, pattern)| (place, (pattern, includes))).collect::<Vec<_>>()
        };
        let mut patterns = [placed("include", include, true), placed("exclude", exclude, false)].concat();
        patterns.sort_unstable();
        let patterns = patterns.into_iter().map(|(_, pattern)| pattern).collect();
        Ok(Self { patterns, hidden, follow_links, strict })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for FileSelection {
    fn augment_args(command: Command) -> Command {
        Given::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Given::augment_args_for_update(command)
    }
}
