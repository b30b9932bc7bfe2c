//! Jobs: the same rows with failures as without, and inputs that cannot be answered.

use std::collections::BTreeMap;
use std::time::Duration;

use idunno_shared::wire::control::{Change, Changed, JobOptions, JobState};
use idunno_shared::wire::refusal::RefusalCode::Invalid;

use crate::harness::{LocalCluster, ResultRow, assert_refused, dataset, heavy, put_dataset};

const JOB_LIMIT: Duration = Duration::from_secs(60);
/// So many that a job takes seconds: it must not be over before it is broken.
const DIGITS: u64 = 800;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_three_killed_members_yields_the_rows_of_a_clean_run() {
    let _turn = heavy().await;
    let mut cluster = LocalCluster::start(7, true).await;
    put_dataset(&cluster, &dataset("digits", DIGITS).await, "digits").await;
    cluster.train(&["mnist-mlp"]).await;
    let clean = cluster.add_job("mnist-mlp", "digits", 16).await;
    assert_eq!(cluster.start_job(clean).await, DIGITS);
    let view = cluster.finished(clean, JOB_LIMIT).await;
    assert_eq!((view.done, view.dead, view.labelled), (DIGITS, 0, DIGITS), "{view:?}");
    assert!(view.correct > DIGITS / 10 * 9, "an MLP trained on these digits knows them: {view:?}");

    // The same rows whatever the size; here it sets itself. With three members more than hold a blob, some is not at hand.
    let auto = cluster.add_job("mnist-mlp", "digits", 0).await;
    cluster.start_job(auto).await;
    let view = cluster.finished(auto, JOB_LIMIT).await;
    assert!(view.local_share > 0.0 && view.local_share <= 1.0, "{view:?}");
    assert_eq!(cluster.all_results(auto, DIGITS).await, cluster.all_results(clean, DIGITS).await);

    let broken = cluster.add_job("mnist-mlp", "digits", 1).await;
    cluster.start_job(broken).await;
    let (coordinator, term) = cluster.coordinator().await;
    cluster.midway(broken, 1).await;
    cluster.kill(&[coordinator, (coordinator + 1) % 7, (coordinator + 4) % 7]);
    let at_failover = cluster.coordinator().await;
    assert!(at_failover.1 > term);
    let interrupted = cluster.job(broken).await.unwrap();
    println!("after the failover {} of {DIGITS} queries were answered", interrupted.done);
    let view = cluster.finished(broken, JOB_LIMIT).await;
    assert_eq!((view.done, view.dead), (DIGITS, 0), "{view:?}");
    let (clean, broken) =
        (cluster.all_results(clean, DIGITS).await, cluster.all_results(broken, DIGITS).await);
    for (clean, broken) in clean.values().zip(broken.values()) {
        assert_eq!(clean, broken);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_that_cannot_be_answered_are_dead_letters() {
    let _turn = heavy().await;
    let cluster = LocalCluster::start(3, true).await;
    let source = dataset("digits", 58).await;
    let dir = cluster.scratch("bad");
    std::fs::create_dir_all(&dir).unwrap();
    for entry in std::fs::read_dir(&source).unwrap().flatten() {
        std::fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    let mut bad: Vec<String> = (0..10).map(|number| format!("digit_00020_corrupt_{number}.png")).collect();
    for name in &bad {
        std::fs::write(dir.join(name), b"\x89PNG\r\n\x1a\nand then no image").unwrap();
    }
    bad.push("digit_00055_empty.png".to_owned());
    std::fs::write(dir.join("digit_00055_empty.png"), b"").unwrap();
    put_dataset(&cluster, &dir, "bad").await;
    cluster.train(&["mnist-mlp"]).await;
    let job = cluster.add_job("mnist-mlp", "bad", 32).await;
    let calls_before = cluster.infer_calls("mnist-mlp").await;
    assert_eq!(cluster.start_job(job).await, 69);
    let view = cluster.finished(job, JOB_LIMIT).await;
    assert_eq!((view.done, view.dead), (58, 11), "{view:?}");
    // Before a model is measured, its first batch is smaller. Ten bad inputs in one batch cost as little as one.
    let (batches, extra_max) = (4, 3 * 5 + 3);
    let calls = cluster.infer_calls("mnist-mlp").await - calls_before;
    println!("{calls} infer calls");
    assert!(calls <= batches + extra_max, "{calls} infer calls");

    let letters = cluster.dead_letters(job).await;
    let names: Vec<&str> = letters.iter().map(|dead_letter| dead_letter.name.as_str()).collect();
    assert_eq!(names, bad.iter().map(|name| format!("bad/{name}")).collect::<Vec<_>>());
    assert!(
        letters.iter().all(|dead_letter| !dead_letter.reason.is_empty() && dead_letter.attempts >= 1),
        "{letters:?}"
    );
    println!("reasons: {:?}", letters.iter().map(|dead_letter| &dead_letter.reason).collect::<Vec<_>>());
    let rows = cluster.results(job).await;
    let dead: Vec<u64> = letters.iter().map(|dead_letter| dead_letter.index).collect();
    assert!(rows.keys().copied().eq((0..69).filter(|index| !dead.contains(index))));

    model_takes_its_parameters(&cluster, &rows).await;

    assert_eq!(
        cluster.change(Change::RetryDeadLetters { job, queries: vec![] }).await,
        Changed::Retried { queries: 11 }
    );
    let view = cluster.finished(job, JOB_LIMIT).await;
    assert_eq!((view.state, view.done, view.dead), (JobState::Done, 58, 11));
    let again = cluster.dead_letters(job).await;
    assert_eq!(again.iter().map(|dead_letter| dead_letter.index).collect::<Vec<_>>(), dead);
    assert_eq!(cluster.results(job).await, rows);
}

/// A parameter that the model has changes its answers, and any other is refused when the job starts.
async fn model_takes_its_parameters(cluster: &LocalCluster, plain: &BTreeMap<u64, ResultRow>) {
    let add = async |name: &str, value: &str| {
        let parameters = [(name.parse().unwrap(), value.to_owned())].into();
        let options = JobOptions { parameters, ..JobOptions::default() };
        let (model, dataset) = ("mnist-mlp".parse().unwrap(), "bad".parse().unwrap());
        match cluster.change(Change::AddJob { model, dataset, batch_size: 7.into(), options }).await {
            Changed::JobAdded(job) => job,
            other => panic!("{other:?}"),
        }
    };
    for (name, value, why) in [("colour", "red", "colour"), ("labels", "9", "from 1 to 5")] {
        let job = add(name, value).await;
        assert_refused(cluster.client().change(Change::start(job)).await, &Invalid, why);
    }
    let job = add("labels", "2").await;
    cluster.start_job(job).await;
    cluster.finished(job, JOB_LIMIT).await;
    let rows = cluster.results(job).await;
    assert!(rows.keys().eq(plain.keys()));
    for (row, plain) in rows.values().zip(plain.values()) {
        let (shown, all) = (row.output["top5"].as_array().unwrap(), plain.output["top5"].as_array().unwrap());
        assert_eq!(shown[..], all[..2], "the first two labels, in batches of 7 as in those of 16");
    }
}
