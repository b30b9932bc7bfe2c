//! Which job a person means: by number, by the job's name, or by its model's name, in this order.
//!
//! A model's name stands for its one job that is not over. If all its jobs are over, it stands for the newest in commands
//! that only look, and for its only one in those that change a job that is over. Nothing else is guessed.

use std::fmt;

use idunno_shared::ids::JobId;
use idunno_shared::names::JobName;
use idunno_shared::similar::did_you_mean;
use idunno_shared::wire::control::JobView;
use thiserror::Error;

use crate::answer::{Exit, Failure, text};
use crate::command::JobRef;

/// Which jobs a model's name may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Only one that is not over.
    Unfinished,
    /// That, or its only one.
    Only,
    /// That, or the newest if all are over.
    Any,
}

/// The job that a person means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Its number.
    pub id: JobId,
    /// Which job a model's name stood for.
    pub note: Option<String>,
}

/// Why a name stands for no job.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JobRefError {
    /// There is no such job.
    #[error(
        "there is no job named {name}, and no job of a model {name}: get-job-stats lists the jobs{meant}"
    )]
    Unknown {
        /// What was given.
        name: JobName,
        /// What may have been meant, as a part of the sentence.
        meant: String,
    },
    /// The model has several jobs in the scope.
    #[error("{model} could mean {}: say {}", list(.jobs), list(&.jobs.iter().map(|job| job.id).collect::<Vec<_>>()))]
    Ambiguous {
        /// What was given.
        model: JobName,
        /// Two or more, by number.
        jobs: Vec<Candidate>,
    },
    /// All jobs of the model are over.
    #[error(
        "{model} has no job that can still change: {job} is over ({state}), and add-job {model} adds another"
    )]
    Over {
        /// What was given.
        model: JobName,
        /// The newest.
        job: JobId,
        /// Its state in a word.
        state: &'static str,
    },
}

impl JobRefError {
    const fn exit(&self) -> Exit {
        match self {
            Self::Unknown { .. } => Exit::NotFound,
            Self::Ambiguous { .. } | Self::Over { .. } => Exit::Refused,
        }
    }
}

impl From<JobRefError> for Failure {
    fn from(error: JobRefError) -> Self {
        Self::new(error.exit(), error.to_string())
    }
}

/// A job that a name could mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub id: JobId,
    /// Its dataset and state.
    pub about: String,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id, self.about)
    }
}

/// `a, b or c`.
fn list(items: &[impl ToString]) -> String {
    let words: Vec<String> = items.iter().map(ToString::to_string).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// The job that `job` stands for among `views`. A number stands for itself, whether there is such a job or not.
pub fn find(views: &[JobView], job: &JobRef, scope: Scope) -> Result<Resolved, JobRefError> {
    let name = match job {
        JobRef::Id(id) => return Ok(Resolved { id: *id, note: None }),
        JobRef::Name(name) => name,
    };
    if let Some(view) = views.iter().find(|view| view.details.name.as_ref() == Some(name)) {
        return Ok(Resolved { id: view.id, note: None });
    }
    let of_model = || views.iter().filter(|view| view.model.as_str() == name.as_str());
    let ambiguous = |mut jobs: Vec<&JobView>| {
        jobs.sort_by_key(|view| view.id);
        let jobs = jobs.into_iter().map(candidate).collect();
        Err(JobRefError::Ambiguous { model: name.clone(), jobs })
    };
    let unfinished: Vec<&JobView> = of_model().filter(|view| !view.state.is_over()).collect();
    match unfinished[..] {
        [only] => return Ok(of(name, only)),
        [] => {}
        _ => return ambiguous(unfinished),
    }
    let newest = of_model().max_by_key(|view| view.id);
    let newest = newest.ok_or_else(|| unknown(views, name))?;
    match scope {
        Scope::Only if of_model().count() > 1 => ambiguous(of_model().collect()),
        Scope::Only | Scope::Any => Ok(of(name, newest)),
        Scope::Unfinished => {
            let state = text::job_state(&newest.state).0;
            Err(JobRefError::Over { model: name.clone(), job: newest.id, state })
        }
    }
}

fn unknown(views: &[JobView], name: &JobName) -> JobRefError {
    let named = views.iter().filter_map(|view| view.details.name.as_ref()).map(JobName::as_str);
    let known = views.iter().map(|view| view.model.as_str()).chain(named);
    JobRefError::Unknown { name: name.clone(), meant: did_you_mean(name.as_str(), known) }
}

fn candidate(view: &JobView) -> Candidate {
    let state = text::job_state(&view.state).0;
    Candidate { id: view.id, about: format!("over {}, {state}", view.dataset) }
}

fn of(name: &JobName, view: &JobView) -> Resolved {
    Resolved { id: view.id, note: Some(format!("{name} stands for {}", candidate(view))) }
}

/// What may be typed for a job: numbers, own names, and the models whose name stands for one job that is not over.
pub fn names(views: &[JobView]) -> Vec<String> {
    let named = views.iter().filter_map(|view| view.details.name.as_ref()).map(ToString::to_string);
    let mut names: Vec<String> = views.iter().map(|view| view.id.to_string()).chain(named).collect();
    let unfinished = || views.iter().filter(|view| !view.state.is_over()).map(|view| view.model.as_str());
    for model in unfinished() {
        let only = unfinished().filter(|other| *other == model).count() == 1;
        if only && !names.iter().any(|name| name == model) {
            names.push(model.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use idunno_shared::wire::control::JobDetails;
    use idunno_shared::wire::control::JobState;

    use super::*;

    fn view(id: u64, model: &str, state: JobState, name: Option<&str>) -> JobView {
        let dataset = if id.is_multiple_of(2) { "photos" } else { "test-data" };
        let added = JobView::added(JobId(id), model.parse().unwrap(), dataset.parse().unwrap(), 32.into());
        let name = name.map(|name| name.parse().unwrap());
        JobView { state, details: JobDetails { name, ..added.details.clone() }, ..added }
    }

    fn meant(views: &[JobView], text: &str, scope: Scope) -> Result<u64, String> {
        let found = find(views, &text.parse().unwrap(), scope);
        found.map(|found| found.id.0).map_err(|error| error.to_string())
    }

    const ALL: [Scope; 3] = [Scope::Unfinished, Scope::Only, Scope::Any];

    #[test]
    fn a_models_name_stands_for_its_one_job_that_is_not_over() {
        for state in [
            JobState::Added,
            JobState::Running,
            JobState::Stopped,
            JobState::Paused(String::from("every worker fails")),
        ] {
            let views = [
                view(1, "squeezenet1.1", JobState::Done, None),
                view(2, "squeezenet1.1", state, None),
                view(3, "squeezenet1.1", JobState::Cancelled, None),
                view(4, "mnist-mlp", JobState::Running, None),
            ];
            for scope in ALL {
                assert_eq!(meant(&views, "squeezenet1.1", scope), Ok(2));
            }
        }
    }

    #[test]
    fn where_a_name_could_mean_several_jobs_the_refusal_says_what_to_type() {
        let mut views = vec![
            view(5, "squeezenet1.1", JobState::Added, None),
            view(4, "squeezenet1.1", JobState::Running, None),
            view(2, "squeezenet1.1", JobState::Done, None),
        ];
        for scope in ALL {
            assert_eq!(
                meant(&views, "squeezenet1.1", scope).unwrap_err(),
                "squeezenet1.1 could mean job-4 (over photos, running) or job-5 (over test-data, added): \
                 say job-4 or job-5"
            );
        }
        views.push(view(8, "squeezenet1.1", JobState::Stopped, None));
        let error = meant(&views, "squeezenet1.1", Scope::Any).unwrap_err();
        assert!(error.ends_with("or job-8 (over photos, stopped): say job-4, job-5 or job-8"), "{error}");
        assert_eq!(meant(&views, "job-5", Scope::Unfinished), Ok(5));
    }

    #[test]
    fn where_all_are_over_the_newest_is_looked_at_and_not_steered() {
        let views = [
            view(9, "squeezenet1.1", JobState::Cancelled, None),
            view(7, "squeezenet1.1", JobState::Done, None),
        ];
        let found = find(&views, &"squeezenet1.1".parse().unwrap(), Scope::Any).unwrap();
        let note = "squeezenet1.1 stands for job-9 (over test-data, cancelled)";
        assert_eq!((found.id, found.note.as_deref()), (JobId(9), Some(note)));
        assert_eq!(
            meant(&views, "squeezenet1.1", Scope::Unfinished).unwrap_err(),
            "squeezenet1.1 has no job that can still change: job-9 is over (cancelled), and \
             add-job squeezenet1.1 adds another"
        );
    }

    #[test]
    fn a_job_that_is_over_is_changed_by_its_models_name_only_if_it_is_the_only_one() {
        let mut views = vec![view(7, "squeezenet1.1", JobState::Done, None)];
        assert_eq!(meant(&views, "squeezenet1.1", Scope::Only), Ok(7));
        views.push(view(9, "squeezenet1.1", JobState::Cancelled, None));
        assert_eq!(
            meant(&views, "squeezenet1.1", Scope::Only).unwrap_err(),
            "squeezenet1.1 could mean job-7 (over test-data, done) or job-9 (over test-data, cancelled): \
             say job-7 or job-9"
        );
        views.push(view(11, "squeezenet1.1", JobState::Running, None));
        assert_eq!(meant(&views, "squeezenet1.1", Scope::Only), Ok(11));
    }

    #[test]
    fn a_number_comes_before_a_jobs_name_and_that_before_a_models() {
        let views = [
            view(1, "mnist-mlp", JobState::Running, None),
            view(2, "squeezenet1.1", JobState::Done, Some("mnist-mlp")),
        ];
        let found = find(&views, &"mnist-mlp".parse().unwrap(), Scope::Unfinished).unwrap();
        assert_eq!(found, Resolved { id: JobId(2), note: None });
        assert_eq!(meant(&views, "1", Scope::Unfinished), Ok(1));
        // A number is the cluster's to refuse.
        assert_eq!(meant(&views, "job-77", Scope::Unfinished), Ok(77));
        let error = meant(&views, "lenet", Scope::Any).unwrap_err();
        assert!(error.contains("no job named lenet") && !error.contains("did you mean"), "{error}");
        let error = meant(&views, "sqeezenet", Scope::Any).unwrap_err();
        assert!(
            error.contains("a model sqeezenet: get-job-stats lists the jobs; did you mean squeezenet1.1?"),
            "{error}"
        );
    }

    #[test]
    fn a_models_name_is_offered_where_it_stands_for_one_job() {
        let mut views = vec![
            view(1, "squeezenet1.1", JobState::Running, Some("nightly")),
            view(2, "mnist-mlp", JobState::Done, None),
        ];
        assert_eq!(names(&views), ["job-1", "job-2", "nightly", "squeezenet1.1"]);
        views.push(view(3, "squeezenet1.1", JobState::Added, None));
        assert_eq!(names(&views), ["job-1", "job-2", "job-3", "nightly"]);
    }
}
