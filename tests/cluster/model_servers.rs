//! Model servers that fail in every supported way during a job.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{LocalCluster, dataset, heavy, put_dataset};

const FAULTS: &str = "/idunno/test/faults";
const JOB_LIMIT: Duration = Duration::from_secs(60);

impl LocalCluster {
    async fn arm(&self, index: usize, plan: Value) {
        if let Err(error) = self.ask_model_server(index, FAULTS, Some(&plan)).await {
            self.fail(&error);
        }
    }

    /// How often the model server of member `index` has failed in this way.
    async fn committed(&self, index: usize, kind: &str) -> u64 {
        let answer = self.ask_model_server(index, FAULTS, None).await;
        let answer = answer.unwrap_or_else(|error| self.fail(&error));
        answer["committed"][kind].as_u64().unwrap_or(0)
    }
}

/// One server returns errors, garbage and truncated replies at random, one hangs, one exits.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_failing_model_servers_yields_the_rows_of_a_clean_run() {
    let _turn = heavy().await;
    let cluster = LocalCluster::start(3, true).await;
    put_dataset(&cluster, &dataset("digits", 200).await, "digits").await;
    cluster.train(&["mnist-mlp"]).await;
    let clean = cluster.add_job("mnist-mlp", "digits", 8).await;
    cluster.start_job(clean).await;
    cluster.finished(clean, JOB_LIMIT).await;

    cluster.arm(0, json!({"kinds": ["error", "garbage", "half"], "share": 0.5, "seed": 7})).await;
    cluster.arm(1, json!({"kinds": ["hang"], "calls": 1})).await;
    cluster.arm(2, json!({"kinds": ["exit"], "calls": 1})).await;
    let before = cluster.model_server_started(2);
    let broken = cluster.add_job("mnist-mlp", "digits", 2).await;
    cluster.start_job(broken).await;
    cluster
        .eventually("one hangs", JOB_LIMIT, async || match cluster.committed(1, "hang").await {
            0 => Err(String::from("it has not been asked yet")),
            _ => Ok(()),
        })
        .await;
    let view = cluster.finished(broken, JOB_LIMIT).await;
    assert_eq!((view.done, view.dead), (200, 0), "{view:?}");
    let (clean, broken) = (cluster.all_results(clean, 200).await, cluster.all_results(broken, 200).await);
    assert_eq!(clean, broken);

    let wrong = [cluster.committed(0, "error").await, cluster.committed(0, "garbage").await];
    let half = cluster.committed(0, "half").await;
    println!("errors and garbage {wrong:?}, half answers {half}");
    assert!(wrong.iter().sum::<u64>() + half > 0, "nothing failed");
    cluster
        .eventually("the model server that ended is another process", JOB_LIMIT, async || {
            let started = cluster.model_server_started(2);
            if started.is_none() || started == before {
                Err(format!("it is the one of {started:?} still"))
            } else {
                Ok(())
            }
        })
        .await;
}
