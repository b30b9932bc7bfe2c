//! Which ends of jobs are told, and when.

use idunno_shared::wire::webhooks::{WebhookUrl, WebhookView};

use super::*;

fn url() -> WebhookUrl {
    "https://hooks.example.com/idunno".parse().unwrap()
}

fn set(fixture: &mut Fixture) {
    fixture.change(Change::SetWebhook { job: JobId(1), url: Some(url()) }).unwrap();
}

fn due(fixture: &Fixture) -> Vec<JobId> {
    fixture.state.due_webhooks().map(|job| job.id).collect()
}

fn end(fixture: &mut Fixture, failure: Option<&str>) -> Result<Applied, Refusal> {
    let due_ms = fixture.job().webhook_due_ms().unwrap_or(u64::MAX);
    fixture.apply(Action::EndWebhook { job: JobId(1), due_ms, failure: failure.map(str::to_owned) })
}

fn file_results(fixture: &mut Fixture) {
    let finished_ms = fixture.job().finished_ms.unwrap();
    let extents = vec![extent("rows", &[1])];
    let (size, digest) = (extents[0].0.size, extents[0].0.digest);
    fixture
        .apply(Action::FileResults { job: JobId(1), finished_ms, size, digest, extents, rows: None })
        .unwrap();
}

#[test]
fn the_end_of_a_job_is_told_once_and_with_its_results_in_a_file() {
    let mut fixture = Fixture::with_job(2);
    set(&mut fixture);
    fixture.segment("half", vec![batch(JobId(1), 0, 1, &[(0, 1)])]).unwrap();
    assert!(due(&fixture).is_empty() && end(&mut fixture, None).is_err(), "it runs");
    fixture.segment("rest", vec![batch(JobId(1), 1, 1, &[(1, 1)])]).unwrap();
    assert_eq!(fixture.job().state, JobState::Done);
    assert!(due(&fixture).is_empty(), "its results are in no file yet");
    file_results(&mut fixture);
    assert_eq!(due(&fixture), [JobId(1)]);

    // It survives a snapshot.
    let restored = State::from(Snapshot::from(fixture.state.clone()));
    assert_eq!(restored.due_webhooks().count(), 1);

    end(&mut fixture, None).unwrap();
    assert!(due(&fixture).is_empty());
    assert_eq!(code(end(&mut fixture, None)), RefusalCode::Conflict);
    let late = fixture.change(Change::SetWebhook { job: JobId(1), url: None });
    assert_eq!(code(late), RefusalCode::Conflict, "it is over");
}

#[test]
fn a_job_that_goes_on_has_not_ended() {
    let mut fixture = Fixture::with_job(2);
    set(&mut fixture);
    fixture.apply(Action::PauseJob { job: JobId(1), reason: String::from("all fail") }).unwrap();
    assert_eq!(due(&fixture), [JobId(1)], "a pause needs a person");
    end(&mut fixture, Some("410: the receiver wants no more")).unwrap();
    let view = WebhookView::from(fixture.job().terms.webhook.as_ref().unwrap());
    assert_eq!((view.is_due, view.failure.as_deref()), (false, Some("410: the receiver wants no more")));

    fixture.change(Change::start(JobId(1))).unwrap();
    assert!(fixture.job().terms.webhook.as_ref().unwrap().failure.is_none(), "the next end is another");
    fixture.apply(Action::PauseJob { job: JobId(1), reason: String::from("again") }).unwrap();
    let paused_ms = fixture.job().webhook_due_ms().unwrap();
    fixture.change(Change::StopJob { job: JobId(1) }).unwrap();
    assert!(due(&fixture).is_empty(), "a person has stopped it and knows");
    fixture.change(Change::start(JobId(1))).unwrap();
    let outdated = Action::EndWebhook { job: JobId(1), due_ms: paused_ms, failure: None };
    assert_eq!(code(fixture.apply(outdated)), RefusalCode::Conflict);

    fixture.change(Change::CancelJob { job: JobId(1) }).unwrap();
    assert_eq!(due(&fixture), [JobId(1)], "a job that is cancelled has no file to wait for");
    fixture.change(Change::DeleteJob { job: JobId(1) }).unwrap();
    assert!(due(&fixture).is_empty());
}
