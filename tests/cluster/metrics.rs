//! Metrics: they match the state of the cluster, and a real Prometheus fires the documented alerts.
//!
//! Without `prometheus` and `promtool` (Debian's package `prometheus`) that part is skipped, and says so.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::http::http;
use crate::harness::{Expected, LocalCluster, SOON, light};

/// Longer than an alert's delay plus several scrapes.
const FIRES_WITHIN: Duration = Duration::from_secs(90);
const ALERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/monitoring/alerts.yml");

#[tokio::test(flavor = "multi_thread")]
async fn metrics_match_the_state_of_the_cluster() {
    let _turn = light().await;
    let mut cluster = LocalCluster::start_with(3, &["--metrics-listen", "127.0.0.1:0"]).await;
    Expected::small("kept", 1..6).put(&cluster).await;
    let (coordinator, _) = cluster.coordinator().await;
    let other = (coordinator + 1) % 3;
    assert_eq!(cluster.figure(coordinator, "idunno_coordinator").await, Some(1.0));
    assert_eq!(cluster.figure(other, "idunno_coordinator").await, Some(0.0));
    assert_eq!(cluster.figure(other, "idunno_members{state=\"alive\"}").await, Some(3.0));
    assert_eq!(cluster.figure(coordinator, "idunno_files").await, Some(5.0));
    assert_eq!(cluster.figure(other, "idunno_files").await, None, "only the coordinator exports it");
    cluster
        .eventually("every member holds all of them", SOON, async || {
            match cluster.figure(other, "idunno_store_blobs").await {
                Some(5.0) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    assert!(cluster.figure(other, "process_resident_memory_bytes").await.unwrap() > 1e6);
    let health =
        async |cluster: &LocalCluster, index, path| http(cluster.metrics(index), path, None).await.unwrap().0;
    assert_eq!(health(&cluster, other, "/health/ready").await, 200);
    assert_eq!(health(&cluster, other, "/nothing").await, 404);
    assert_eq!(http(cluster.metrics(other), "/metrics", Some("x")).await.unwrap().0, 405);

    cluster.kill(&[coordinator, (coordinator + 2) % 3]);
    cluster
        .eventually("a member without a cluster is not ready", SOON, async || {
            match health(&cluster, other, "/health/ready").await {
                503 => Ok(()),
                status => Err(format!("{status}")),
            }
        })
        .await;
    assert_eq!(health(&cluster, other, "/health/live").await, 200);
}

/// A Prometheus process, killed when dropped.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_prometheus(dir: &Path, targets: &[SocketAddr]) -> (Prometheus, SocketAddr) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let targets: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{ALERTS}]\nscrape_configs: \
         [{{job_name: idunno, static_configs: [{{targets: [{}]}}]}}]\n",
        targets.join(", ")
    );
    std::fs::write(dir.join("prometheus.yml"), config).unwrap();
    let process = Command::new("prometheus")
        .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    (Prometheus(process.unwrap()), address)
}

/// The alerts that Prometheus fires.
async fn firing(prometheus: SocketAddr) -> Result<Vec<String>, String> {
    let (_, page) = http(prometheus, "/api/v1/alerts", None).await.map_err(|error| error.to_string())?;
    // The reply is chunked: a line with the length precedes each chunk.
    let json = &page[page.find('{').unwrap_or(0)..=page.rfind('}').unwrap_or(0)];
    let answer: Value = serde_json::from_str(json).map_err(|error| format!("{error}: {page}"))?;
    let alerts = answer["data"]["alerts"].as_array().into_iter().flatten();
    let firing = alerts.filter(|alert| alert["state"] == "firing");
    Ok(firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap_or_default().to_owned()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_scrapes_the_metrics_and_fires_when_a_member_dies() {
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("skipped: promtool is missing; install Debian's package prometheus");
        return;
    }
    let _turn = light().await;
    let mut cluster = LocalCluster::start_with(3, &["--metrics-listen", "127.0.0.1:0"]).await;
    for index in 0..3 {
        let (_, page) = http(cluster.metrics(index), "/metrics", None).await.unwrap();
        let mut check =
            Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn().unwrap();
        check.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
        assert!(check.wait().unwrap().success(), "{page}");
    }
    let rules = Command::new("promtool").args(["check", "rules", ALERTS]).output().unwrap();
    assert!(rules.status.success(), "{rules:?}");

    let targets = [0, 1, 2].map(|index| cluster.metrics(index));
    let (_prometheus, address) = start_prometheus(cluster.path(), &targets);
    cluster
        .eventually("Prometheus scrapes all three members", FIRES_WITHIN, async || {
            let query = "/api/v1/query?query=sum(up%7Bjob%3D%22idunno%22%7D)";
            let (_, page) = http(address, query, None).await.map_err(|error| error.to_string())?;
            if page.contains(",\"3\"]") { Ok(()) } else { Err(page) }
        })
        .await;
    let is_down = |alerts: &[String]| alerts.iter().any(|alert| alert == "IdunnoMemberDown");
    assert!(!is_down(&firing(address).await.unwrap()), "all are up");
    cluster.kill(&[2]);
    cluster
        .eventually("the alert fires", FIRES_WITHIN, async || {
            let alerts = firing(address).await?;
            if is_down(&alerts) { Ok(()) } else { Err(format!("{alerts:?} fire")) }
        })
        .await;
}
