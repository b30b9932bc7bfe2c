//! How a job ended is told, whoever coordinates by then.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use idunno_shared::ids::JobId;
use idunno_shared::security::secret::Secret;
use idunno_shared::wire::control::Change;
use idunno_shared::wire::refusal::RefusalCode::Invalid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::harness::{Expected, LocalCluster, SOON, SlowServer, assert_refused, heavy};

const MODEL: &str = "mnist-mlp";
const QUERIES: u64 = 20;

/// What a receiver was told.
#[derive(Clone, Debug)]
struct Told {
    headers: BTreeMap<String, String>,
    body: String,
}

/// A receiver of webhooks, which answers the first call with 503 and all others with 204.
struct Receiver {
    address: SocketAddr,
    told: Arc<Mutex<Vec<Told>>>,
    accepting: JoinHandle<()>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&told);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let Some(call) = read_call(&mut stream).await else { continue };
                let calls = {
                    let mut all = all.lock().unwrap();
                    all.push(call);
                    all.len()
                };
                let status = if calls == 1 { "503 Service Unavailable" } else { "204 No Content" };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                // The coordinator may be dead by now.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { address, told, accepting }
    }

    fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn read_call(stream: &mut BufReader<TcpStream>) -> Option<Told> {
    let (mut line, mut headers) = (String::new(), BTreeMap::new());
    stream.read_line(&mut line).await.ok()?;
    assert!(line.starts_with("POST /jobs?from=idunno "), "{line}");
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    Some(Told { headers, body: String::from_utf8(body).ok()? })
}

async fn is_told(cluster: &LocalCluster, job: JobId) -> Result<(), String> {
    let webhook = cluster.job(job).await?.details.webhook;
    let is_told = webhook.as_ref().is_some_and(|webhook| !webhook.is_due && webhook.failure.is_none());
    if is_told { Ok(()) } else { Err(format!("{webhook:?}")) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_job_is_told_although_receiver_and_coordinator_fail() {
    let _turn = heavy().await;
    let (server, receiver) = (SlowServer::start(Duration::from_millis(5)).await, Receiver::start().await);
    let mut cluster = LocalCluster::start_at(5, &server).await;
    Expected::small("inputs", 0..QUERIES).put(&cluster).await;
    cluster.train(&[MODEL]).await;
    let job = cluster.add_job(MODEL, "inputs", 4).await;

    // Nobody makes the coordinator call what stands beside it.
    for private in ["http://10.0.0.1:9/", "http://169.254.169.254/latest/meta-data/", "http://[fd00::1]/"] {
        let url = Some(private.parse().unwrap());
        let refused = cluster.client().change(Change::SetWebhook { job, url }).await;
        assert_refused(refused, &Invalid, "webhook_hosts");
    }

    let url = format!("http://{}/jobs?from=idunno", receiver.address).parse().unwrap();
    cluster.change(Change::SetWebhook { job, url: Some(url) }).await;
    cluster.start_job(job).await;
    cluster.finished(job, SOON).await;
    let called = async || if receiver.told().is_empty() { Err(String::from("no call")) } else { Ok(()) };
    cluster.eventually("the receiver is called", SOON, called).await;
    // The next try is due in five seconds: only another coordinator makes one before.
    let (coordinator, _) = cluster.coordinator().await;
    cluster.kill(&[coordinator]);
    cluster.eventually("the end is told", SOON, async || is_told(&cluster, job).await).await;

    let told = receiver.told();
    assert!(told.len() >= 2, "{told:?}");
    let keys = Secret::load(&cluster.secret()).unwrap().webhook_keys();
    for Told { headers, body } in &told {
        assert_eq!((&headers["webhook-id"], body), (&told[0].headers["webhook-id"], &told[0].body));
        let timestamp_s = headers["webhook-timestamp"].parse().unwrap();
        let signature = keys[0].sign(&headers["webhook-id"], timestamp_s, body);
        assert_eq!(headers["webhook-signature"], signature);
        assert_eq!(headers["content-type"], "application/json");
    }
    let body: Value = serde_json::from_str(&told[0].body).unwrap();
    assert_eq!(body["type"], "job.done");
    let data = &body["data"];
    assert_eq!((&data["job"], &data["results"]), (&"job-1".into(), &"results/job-1.jsonl".into()));
    assert_eq!((data["queries"].as_u64(), data["done"].as_u64()), (Some(QUERIES), Some(QUERIES)));
}
