//! Model servers of others beside the member's own: who answers for which model, and how calls to them are protected.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use idunno_shared::ids::Digest;
use idunno_shared::security::private_file;
use idunno_shared::wire::jobs::{Grant, ModelArtefact, ModelState, WorkerReport};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig as TlsConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::super::model_server::{Endpoint, Header, ModelServerClient, ServerError, ValueSource};
use super::super::supervisor::Backend;
use super::super::testing::fake_server::FakeServer;
use super::{Harness, committed};

async fn foreign_server() -> FakeServer {
    let server = FakeServer::start().await;
    server.set(|state| state.ours = false);
    server
}

fn triton(endpoint: Endpoint) -> Backend {
    let models = ["theirs".parse().unwrap()].into();
    Backend { name: "triton".to_owned(), endpoint, models, shared_in_flight: Some(3) }
}

/// Orders to load the backend's model.
fn order_theirs(harness: &Harness) {
    let extents = vec![harness.store.add(b"its metadata")];
    let version = Digest::of(b"its metadata");
    let artefact = ModelArtefact { model: "theirs".parse().unwrap(), version, extents, is_package: false };
    harness.coordinator.set(|state| state.load.push(artefact));
}

/// A grant of one query for the backend's model.
fn grant_of_theirs(harness: &Harness, query: u64) -> Grant {
    let grant = harness.grant(query, &["x"]);
    Grant { model: "theirs".parse().unwrap(), version: Digest::of(b"its metadata"), ..grant }
}

fn is_ready(report: &WorkerReport, model: &str) -> bool {
    report.models.iter().any(|(name, state)| name.as_str() == model && matches!(state, ModelState::Ready(_)))
}

async fn both_loaded(harness: &Harness) {
    harness
        .until("both are loaded", |state| {
            state.reports.last().is_some_and(|report| is_ready(report, "m") && is_ready(report, "theirs"))
        })
        .await;
}

#[tokio::test]
async fn each_model_runs_on_the_server_that_answers_for_it() {
    let theirs = foreign_server().await;
    let harness =
        Harness::with_backends(FakeServer::start().await, vec![triton(Endpoint::open(theirs.url()))]);
    order_theirs(&harness);
    let offered = vec!["mine".parse().unwrap(), "theirs".parse().unwrap()];
    harness
        .until("both are loaded", |state| {
            state.reports.last().is_some_and(|report| {
                let shared = report.resources.shared.first();
                is_ready(report, "m")
                    && is_ready(report, "theirs")
                    && report.offers == Some(offered.clone())
                    && shared.is_some_and(|shared| shared.id == "triton" && shared.in_flight == 3)
            })
        })
        .await;
    let grants = [harness.grant(0, &["x"]), grant_of_theirs(&harness, 1), harness.grant(2, &["x"])];
    harness.coordinator.set(|state| state.grants.extend(grants));
    harness.until("all are answered", |state| committed(state) == 3).await;
    assert_eq!(harness.queries(), [0, 1, 2]);
    assert_eq!((theirs.calls("/v2/models/theirs/infer"), theirs.calls("/infer")), (1, 1));
    assert_eq!((harness.server.calls("/theirs/"), harness.server.calls("/infer")), (0, 2));
    harness.stop().await;
}

#[tokio::test]
async fn a_backend_that_is_down_has_a_reason_and_leaves_the_other_server_at_work() {
    let mut theirs = foreign_server().await;
    let harness =
        Harness::with_backends(FakeServer::start().await, vec![triton(Endpoint::open(theirs.url()))]);
    order_theirs(&harness);
    both_loaded(&harness).await;
    theirs.crash().await;
    let is_named = |(_, state): &(_, ModelState)| matches!(state, ModelState::Failed(why) if why.contains("backend triton"));
    harness
        .until("the reason is reported", |state| {
            state
                .reports
                .last()
                .is_some_and(|report| report.models.iter().any(is_named) && is_ready(report, "m"))
        })
        .await;
    let grant = harness.grant(0, &["x"]);
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("the own server answers", |state| committed(state) == 1).await;

    theirs.listen().await;
    harness
        .until("it is loaded again", |state| {
            state.reports.last().is_some_and(|report| is_ready(report, "theirs"))
        })
        .await;
    let grant = grant_of_theirs(&harness, 1);
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("it answers", |state| committed(state) == 2).await;
    harness.stop().await;
}

#[tokio::test]
async fn a_failing_backend_pauses_no_other_server() {
    let theirs = foreign_server().await;
    let harness =
        Harness::with_backends(FakeServer::start().await, vec![triton(Endpoint::open(theirs.url()))]);
    order_theirs(&harness);
    both_loaded(&harness).await;
    theirs.set(|state| state.infer_status = 503);
    let grant = grant_of_theirs(&harness, 0);
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("its failure is reported", |state| state.failed.len() == 1).await;
    let reports = harness.coordinator.state().reports.len();
    harness
        .until("the next report wants a batch", |state| {
            let next =
                state.reports.get(reports..).into_iter().flatten().find(|report| !is_ready(report, "theirs"));
            next.is_some_and(|report| report.wanted > 0 && is_ready(report, "m"))
        })
        .await;
    harness.stop().await;
}

#[tokio::test]
async fn a_token_is_sent_with_every_call_and_may_be_replaced_while_the_member_runs() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    private_file::create(&token, "hunter2\n").unwrap();
    let theirs = foreign_server().await;
    theirs.set(|state| state.token = Some("Bearer hunter2".to_owned()));
    let headers = vec![Header::bearer(ValueSource::File(token.clone()))];
    let endpoint = Endpoint { headers, ..Endpoint::open(theirs.url()) };
    let harness = Harness::with_backends(FakeServer::start().await, vec![triton(endpoint)]);
    order_theirs(&harness);
    harness
        .until("it is loaded", |state| state.reports.last().is_some_and(|report| is_ready(report, "theirs")))
        .await;
    let grant = grant_of_theirs(&harness, 0);
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("it answers", |state| committed(state) == 1).await;

    theirs.set(|state| state.token = Some("Bearer swordfish".to_owned()));
    harness
        .until("the server turns it away", |state| {
            let failed = |(_, state): &(_, ModelState)| matches!(state, ModelState::Failed(why) if why.contains("401"));
            state.reports.last().is_some_and(|report| report.models.iter().any(failed))
        })
        .await;
    private_file::replace(&token, "swordfish").unwrap();
    harness
        .until("it is loaded again", |state| {
            state.reports.last().is_some_and(|report| is_ready(report, "theirs"))
        })
        .await;
    let grant = grant_of_theirs(&harness, 1);
    harness.coordinator.set(|state| state.grants.push_back(grant));
    harness.until("it answers again", |state| committed(state) == 2).await;
    let reports = format!("{:?}", harness.coordinator.state().reports);
    assert!(!reports.contains("hunter2") && !reports.contains("swordfish"), "a token was reported");
    harness.stop().await;
}

/// A certification authority, as a file, and a server with a certificate of it that forwards to `target`.
async fn tls_server(folder: &Path, name: &str, target: SocketAddr) -> (std::path::PathBuf, SocketAddr) {
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let file = folder.join(name);
    std::fs::write(&file, authority.pem()).unwrap();

    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(params, authority_key);
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &issuer).unwrap();
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = TlsConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(stream).await else { return };
                let mut inside = TcpStream::connect(target).await.unwrap();
                // Either side may close first.
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    (file, address)
}

#[tokio::test]
async fn a_server_under_tls_is_called_only_if_its_certificate_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = foreign_server().await;
    let target = SocketAddr::from(([127, 0, 0, 1], theirs.port()));
    let (authority, address) = tls_server(folder.path(), "ca.pem", target).await;
    let (stranger, _) = tls_server(folder.path(), "stranger.pem", target).await;
    let client = |ca_file: Option<&Path>| {
        let ca_file = ca_file.map(Path::to_path_buf);
        let endpoint = Endpoint { ca_file, ..Endpoint::open(format!("https://{address}")) };
        ModelServerClient::new(&endpoint).unwrap()
    };
    let live = |ca_file| {
        let client = client(ca_file);
        async move { timeout(Duration::from_secs(5), client.live()).await.unwrap() }
    };
    live(Some(&authority)).await.unwrap();
    let error = live(Some(&stranger)).await.unwrap_err();
    assert!(
        matches!(&error, ServerError::Unreachable { reason, .. } if reason.contains("certificate")),
        "{error:?}"
    );
    assert!(theirs.calls("/live") == 1, "the stranger's call did not arrive");
}
