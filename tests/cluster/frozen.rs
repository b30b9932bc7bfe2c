//! The coordinator is suspended for a while and resumes in the belief that it still leads.

use std::time::{Duration, Instant};

use idunno_shared::wire::control::{ControlReply, ControlRequest};
use rustix::process::Signal;

use crate::harness::{Expected, LocalCluster, SOON, dataset, heavy, put_dataset};

/// How long it is suspended: 4 s, or IDUNNO_TEST_FROZEN_S.
fn frozen_for() -> Duration {
    let seconds = std::env::var("IDUNNO_TEST_FROZEN_S");
    Duration::from_secs(seconds.map_or(4, |seconds| seconds.parse().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_coordinator_decides_nothing_after_it_resumes() {
    let _turn = heavy().await;
    let begun = Instant::now();
    let cluster = LocalCluster::start(4, true).await;
    put_dataset(&cluster, &dataset("digits", 2000).await, "digits").await;
    cluster.train(&["mnist-mlp"]).await;
    let before = Expected::small("before", 0..20);
    before.put(&cluster).await;
    let job = cluster.add_job("mnist-mlp", "digits", 2).await;
    cluster.start_job(job).await;
    cluster.midway(job, 1).await;
    let (old, term) = cluster.coordinator().await;
    println!("the coordinator is frozen {:?} after the start", begun.elapsed());
    let frozen = Instant::now();
    cluster.members[old].signal(Signal::STOP);
    let others: Vec<usize> = cluster.up().into_iter().filter(|&index| index != old).collect();
    let (new, next) = cluster
        .eventually("another member coordinates in a higher term", SOON, async || {
            match cluster.who_coordinates(&others).await[..] {
                [(new, next)] if next > term => Ok((new, next)),
                ref other => Err(format!("{other:?} after term {term}")),
            }
        })
        .await;
    println!("m{} leads term {next} {:?} after m{} was frozen", new + 1, frozen.elapsed(), old + 1);
    let meanwhile = Expected::small("meanwhile", 100..120);
    meanwhile.put(&cluster).await;
    println!("files were put {:?} after the freeze", frozen.elapsed());
    tokio::time::sleep_until((frozen + frozen_for()).into()).await;
    let at_work = cluster.add_job("mnist-mlp", "digits", 2).await;
    cluster.start_job(at_work).await;
    cluster.midway(at_work, 1).await;
    // A job must be at work when the old coordinator wakes: no batch ends until it follows.
    cluster.members.iter().for_each(|member| member.signal_model_server(Signal::STOP));
    cluster.members[old].signal(Signal::CONT);

    cluster.ready().await;
    println!("all were one cluster again {:?} after the freeze", frozen.elapsed());
    let deciding = cluster.who_coordinates(&cluster.up()).await;
    assert_eq!(deciding.len(), 1, "{deciding:?}");
    assert!(deciding[0].1 >= next, "{deciding:?}");
    assert_ne!(deciding[0].0, old, "it was to follow");
    let going_on = cluster.midway(at_work, 0).await.done;
    match cluster.client().control(ControlRequest::Leases { job: Some(at_work), worker: None }).await {
        Ok(ControlReply::Leases { leases: rows, more: false }) => {
            assert!(!rows.is_empty() && rows.iter().all(|row| row.lease.job == at_work), "{rows:?}");
        }
        other => cluster.fail(&format!("the batches of {at_work}: {other:?}")),
    }
    println!("the job had {going_on} answers {:?} after the freeze", frozen.elapsed());
    cluster.members.iter().for_each(|member| member.signal_model_server(Signal::CONT));
    Expected::small("after", 200..220).put(&cluster).await;
    for files in [before, meanwhile, Expected::small("after", 200..220)] {
        files.verify(&cluster).await;
    }
    println!("all files were verified {:?} after the freeze", frozen.elapsed());
    for job in [job, at_work] {
        let end = cluster.finished(job, Duration::from_secs(60)).await;
        println!("{job} was done {:?} after the freeze", frozen.elapsed());
        assert_eq!((end.done, end.dead), (2000, 0), "{end:?}");
        cluster.all_results(job, 2000).await;
    }
}
