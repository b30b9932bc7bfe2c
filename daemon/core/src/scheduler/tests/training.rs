//! Which worker trains which model.

use super::*;

#[test]
fn a_model_has_one_trainer_and_a_new_one_when_it_is_lost() {
    let mut harness = Harness::new(0, 2);
    harness.handle(SchedulerEvent::ModelWanted { model: "new".parse().unwrap(), training: trained_with(7) });
    let trainer = |harness: &Harness| harness.scheduler.trainings().map(|(_, node)| node).collect::<Vec<_>>();
    assert_eq!(trainer(&harness), [NodeId(1)]);
    harness
        .handle(SchedulerEvent::ModelWanted { model: "newer".parse().unwrap(), training: trained_with(7) });
    assert_eq!(trainer(&harness), [NodeId(1), NodeId(2)]);
    harness.handle(SchedulerEvent::ModelGone("newer".parse().unwrap()));
    harness.advance(u64::from(WAIT_MS));
    assert_eq!(harness.pull(1, 0, &[]).train.len(), 0, "it was sent while its report was unanswered");
    let lost = harness.handle(SchedulerEvent::WorkerDead(NodeId(1)));
    assert_eq!(trainer(&harness), [NodeId(2)], "{lost:?}");
    let mut failed = Vec::new();
    for _ in 0..3 {
        let (worker, model, reason) = (NodeId(2), "new".parse().unwrap(), "no".to_owned());
        failed.extend(harness.handle(SchedulerEvent::TrainingFailed { worker, model, reason }));
    }
    assert!(failed.iter().any(|effect| matches!(effect, SchedulerEffect::TrainingFailed { .. })));
    assert!(trainer(&harness).is_empty());
    harness.handle(SchedulerEvent::ModelWanted { model: "new".parse().unwrap(), training: trained_with(7) });
    assert_eq!(trainer(&harness), [NodeId(2)]);
}

#[test]
fn a_worker_that_has_the_model_trains_it_before_an_idle_one_that_has_not() {
    let mut harness = Harness::new(0, 2);
    let new: ModelName = "new".parse().unwrap();
    harness.receive(WorkerReport { offers: Some(Vec::new()), wait_ms: 0, ..report(1) });
    harness.receive(WorkerReport { offers: Some(vec![new.clone()]), wait_ms: 0, ..report(2) });
    harness.handle(SchedulerEvent::ModelWanted { model: new, training: trained_with(7) });
    assert_eq!(harness.scheduler.trainings().map(|(_, node)| node).collect::<Vec<_>>(), [NodeId(2)]);
}

#[test]
fn a_worker_that_trains_an_unwanted_model_is_told_to_stop() {
    let mut harness = Harness::new(0, 2);
    let new: ModelName = "new".parse().unwrap();
    harness.handle(SchedulerEvent::ModelWanted { model: new.clone(), training: trained_with(7) });
    let trains = |node, harness: &mut Harness| {
        let models = vec![(new.clone(), ModelState::Training)];
        reply_to(node, harness.receive(WorkerReport { models, wait_ms: 0, ..report(node) })).stop_training
    };
    assert_eq!(trains(1, &mut harness), [], "it is the trainer");
    assert_eq!(trains(2, &mut harness), std::slice::from_ref(&new), "another worker is the trainer");
    harness.handle(SchedulerEvent::ModelGone(new.clone()));
    assert_eq!(trains(1, &mut harness), std::slice::from_ref(&new), "it was cancelled");
}

#[test]
fn a_new_request_replaces_the_training_parameters() {
    let mut harness = Harness::new(0, 1);
    let new: ModelName = "new".parse().unwrap();
    for seed in [7, 8] {
        harness.handle(SchedulerEvent::ModelWanted { model: new.clone(), training: trained_with(seed) });
        harness.advance(u64::from(WAIT_MS) + 2_000);
        let ordered = harness.pull(1, 0, &[]).train;
        assert_eq!(ordered, [(new.clone(), trained_with(seed))]);
    }
}
