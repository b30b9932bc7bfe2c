//! Loading and training models, on our own and on third-party servers.

use idunno_shared::ids::Digest;
use idunno_shared::wire::blobs::EXTENT_BYTES_MAX;
use idunno_shared::wire::jobs::{ServerState, Training};
use idunno_shared::wire::resources::WorkerResources;
use serde_json::json;

use super::super::testing::fake_server::FakeServer;
use super::{Harness, WEIGHTS, committed};

#[tokio::test]
async fn reports_list_the_models_of_the_repository() {
    let harness = Harness::new().await;
    let offered = Some(vec!["mine".parse().unwrap()]);
    harness
        .until("it is reported", |state| state.reports.iter().any(|report| report.offers == offered))
        .await;
    let before = harness.coordinator.state().reports.first().unwrap().offers.clone();
    assert_eq!(before, Some(Vec::new()), "nothing is offered before the server is ready");
    harness.stop().await;
}

#[tokio::test]
async fn reports_have_the_devices_and_runners_until_the_server_is_down() {
    let mut harness = Harness::new().await;
    let device = json!({"index": 0, "uuid": "GPU-1", "name": "NVIDIA H200", "memory_mib": 143_771, "memory_used_mib": 5});
    let runner = json!({"model": "m", "version": Digest::of(WEIGHTS).to_string(), "device": "cpu", "memory_mib": 812, "state": "running"});
    harness.server.set(|state| state.resources = json!({"devices": [device], "runners": [runner]}));
    harness
        .until("they are reported", |state| {
            state.reports.last().is_some_and(|report| {
                let memory: Vec<u64> =
                    report.resources.runners.iter().map(|runner| runner.memory_mib).collect();
                report.resources.devices.len() == 1 && memory == [812]
            })
        })
        .await;
    harness.server.crash().await;
    harness
        .until("they are gone", |state| {
            state.reports.last().is_some_and(|report| {
                let WorkerResources { devices, runners, .. } = &report.resources;
                matches!(report.server, ServerState::Down(_)) && devices.is_empty() && runners.is_empty()
            })
        })
        .await;
    harness.stop().await;
}

#[tokio::test]
async fn a_model_is_trained_once_stored_and_reported() {
    let harness = Harness::new().await;
    let model = "trained-here".parse().unwrap();
    harness.coordinator.set(|state| {
        state.train.push(("trained-here".parse().unwrap(), Training { seed: 7, ..Training::default() }));
    });
    harness.until("it is reported", |state| state.trained.len() == 1).await;
    {
        let state = harness.coordinator.state();
        let (told, result) = &state.trained[0];
        let (_, artefact) = result.as_ref().unwrap();
        assert_eq!((told, &artefact.model, artefact.version), (&model, &model, Digest::of(b"weights")));
        assert_eq!(harness.store.read(&artefact.extents[0].blob.digest).unwrap(), &b"weights"[..]);
    }
    assert_eq!(harness.server.calls("/train"), 1, "ordered repeatedly, done once");

    harness.server.set(|state| state.training_failure = Some("no data"));
    harness.coordinator.set(|state| {
        state.train.push(("other".parse().unwrap(), Training { seed: 7, ..Training::default() }));
    });
    harness.until("the failure is reported", |state| state.trained.len() == 2).await;
    assert!(harness.coordinator.state().trained[1].1.as_ref().unwrap_err().contains("no data"));
    harness.stop().await;
}

#[tokio::test]
async fn an_artefact_of_any_size_is_stored_in_extents_though_its_upload_and_a_call_end_early() {
    let harness = Harness::new().await;
    let extent_bytes = usize::try_from(EXTENT_BYTES_MAX).unwrap();
    let mut weights = vec![1; extent_bytes];
    weights.extend_from_slice(b"the end");
    harness.server.set(|state| {
        state.trained.clone_from(&weights);
        state.cuts_a_part = true;
    });
    harness.store.end_an_upload();
    harness.coordinator.set(|state| state.train.push(("large".parse().unwrap(), Training::default())));
    harness.until("it is reported", |state| state.trained.len() == 1).await;
    {
        let state = harness.coordinator.state();
        let artefact = state.trained[0].1.as_ref().unwrap().1.clone();
        let sizes: Vec<u64> = artefact.extents.iter().map(|extent| extent.blob.size).collect();
        assert_eq!((artefact.version, sizes), (Digest::of(&weights), vec![EXTENT_BYTES_MAX, 7]));
        let end = harness.store.read(&artefact.extents[1].blob.digest).unwrap();
        assert_eq!(end, &b"the end"[..]);
    }
    harness
        .until("it is over", |state| state.reports.last().is_some_and(|report| report.trainings.is_empty()))
        .await;
    assert_eq!(harness.server.calls("DELETE"), 1, "the server need not keep it");
    assert_eq!(harness.server.calls("/train"), 1, "and need not train again");
    harness.stop().await;
}

#[tokio::test]
async fn a_model_is_trained_on_the_named_dataset() {
    let harness = Harness::new().await;
    let on = |name: &str| Training { seed: 7, dataset: Some(name.parse().unwrap()), ..Training::default() };
    harness.store.add(b"cats");
    harness.coordinator.set(|state| state.train.push(("theirs".parse().unwrap(), on("cats"))));
    harness.until("it is reported", |state| state.trained.len() == 1).await;
    assert!(harness.coordinator.state().trained[0].1.is_ok());
    let folder = harness.server.set(|state| state.trained_on.clone()).remove(0).unwrap();
    assert!(folder.parent().unwrap().ends_with("training/theirs"), "{}", folder.display());

    harness.coordinator.set(|state| state.train.push(("other".parse().unwrap(), on("dogs"))));
    harness.until("the failure is reported", |state| state.trained.len() == 2).await;
    assert!(harness.coordinator.state().trained[1].1.as_ref().unwrap_err().contains("no dataset 'dogs'"));
    harness.stop().await;
}

#[tokio::test]
async fn a_training_reports_its_progress_and_can_be_stopped() {
    let harness = Harness::new().await;
    harness.server.set(|state| state.training_steps = Some((3, 12)));
    harness.coordinator.set(|state| {
        state.train.push(("trained-here".parse().unwrap(), Training { seed: 7, ..Training::default() }));
    });
    let model = || "trained-here".parse().unwrap();
    harness
        .until("its progress is reported", |state| {
            let told = state.reports.last().and_then(|report| report.trainings.first().cloned());
            told.is_some_and(|(name, progress)| {
                name == model()
                    && (progress.permille, progress.step, progress.steps) == (250, 3, 12)
                    && progress.metrics == [(String::from("loss"), String::from("0.5"))]
            })
        })
        .await;
    harness.coordinator.set(|state| {
        state.train.clear();
        state.stop_training.push(model());
    });
    harness
        .until("it has ended", |state| state.reports.last().is_some_and(|report| report.trainings.is_empty()))
        .await;
    assert_eq!(harness.server.calls("DELETE"), 1);
    assert!(harness.coordinator.state().trained.is_empty(), "no artefact was reported");
    harness.stop().await;
}

#[tokio::test]
async fn a_third_party_server_serves_its_own_models() {
    let server = FakeServer::start().await;
    server.set(|state| state.ours = false);
    let harness = Harness::with(server);
    harness.coordinator.set(|state| state.train.push(("m".parse().unwrap(), Training::default())));
    harness
        .until("it cannot list them", |state| state.reports.iter().any(|report| report.offers.is_none()))
        .await;
    harness.until("its metadata stand for an artefact", |state| state.trained.len() == 1).await;
    assert!(harness.coordinator.state().trained[0].1.is_ok());
    let grant = harness.grant(0, &["x", "xx"]);
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("it answers in JSON", |state| committed(state) == 1).await;
    assert_eq!(harness.rows()[1]["output"]["top5"][0]["index"], 2);
    assert_eq!(harness.server.calls("/artefacts"), 0);
    harness.stop().await;
}
