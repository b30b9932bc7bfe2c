//! Metrics of one member.

use idunno_shared::wire::control::ClusterView;
use idunno_shared::wire::jobs::ServerState;
use idunno_shared::wire::membership::MemberState;
use idunno_shared::wire::resources::WorkerResources;
use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::coordinator::{Coordinator, Deps};
use idunno_store::blobs::BlobStore;
use idunno_worker::supervisor::{NamedStatus, ServerStatuses};

/// Where the metrics are read.
pub struct Sources {
    pub deps: Deps,
    pub coordinator: Coordinator,
    pub store: BlobStore,
    pub server: watch::Receiver<ServerStatuses>,
}

impl Sources {
    /// The cluster as its coordinator sees it; `None` at every other member.
    pub(super) async fn cluster_view(&self) -> Option<ClusterView> {
        let leader_term = self.coordinator.leader_term()?;
        leader_term.may_decide().ok()?;
        leader_term.cluster_view().await
    }

    /// Disk space that blobs may still use.
    pub(super) async fn usable_bytes(&self) -> u64 {
        let store = self.store.clone();
        spawn_blocking(move || store.usable_bytes()).await.unwrap_or_default()
    }

    /// Why this member is not ready, if it is not.
    pub(super) fn unready(&self) -> Option<&'static str> {
        if !self.deps.membership.current().joined {
            return Some("this member is not in the cluster");
        }
        let leader = self.deps.consensus.leadership().borrow().leader;
        let is_led = leader.is_some_and(|leader| self.deps.membership.current().is_live(leader));
        (!is_led).then_some("this member knows no coordinator")
    }
}

pub(super) fn register(registry: &Registry, sources: &Sources, usable_bytes: u64) -> prometheus::Result<()> {
    let Sources { deps, coordinator, store, server } = sources;
    let gauge = |name: &str, help: &str, value: u64| {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(Box::new(gauge))
    };
    let view = deps.membership.current();
    let info = IntGaugeVec::new(Opts::new("build_info", "Version of the program."), &["version", "member"])?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION"), view.name(deps.me).as_str()]).set(1);
    registry.register(Box::new(info))?;

    let states = [MemberState::Alive, MemberState::Suspect, MemberState::Dead, MemberState::Left];
    let members =
        IntGaugeVec::new(Opts::new("members", "Members by state, as seen by this member."), &["state"])?;
    for state in states {
        let count = view.members.values().filter(|peer| peer.record.state == state).count();
        let state = format!("{state:?}").to_lowercase();
        members.with_label_values(&[&state]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    registry.register(Box::new(members))?;
    let blocked = view.members.values().filter(|peer| peer.udp_blocked).count();
    gauge("members_udp_blocked", "Members that this member reaches only by TCP.", blocked as u64)?;

    let ahead_s = view.clock_ahead_s(deps.me);
    let clock = IntGauge::new(
        "clock_ahead_seconds",
        "How far this member's clock is ahead of the members' median, behind it if negative; 0 within 5 s.",
    )?;
    clock.set(ahead_s);
    registry.register(Box::new(clock))?;

    let leadership = deps.consensus.leadership().borrow().clone();
    gauge("term", "The highest term that this member knows.", leadership.term.0)?;
    let coordinates = coordinator.leader_term().is_some_and(|leader_term| leader_term.may_decide().is_ok());
    gauge("coordinator", "1 if this member coordinates and reaches a majority.", u64::from(coordinates))?;
    if let Some(leader_term) = coordinator.leader_term() {
        let built = IntCounter::new(
            "views_built_total",
            "Views of the cluster built for its watchers since this member coordinates.",
        )?;
        built.inc_by(leader_term.views_built());
        registry.register(Box::new(built))?;
    }
    let revision = deps.consensus.state().borrow().revision();
    gauge("log_revision", "Metadata changes applied by this member.", revision)?;

    if let Some(memory) = ProcessMemory::read() {
        gauge(
            "memory_resident_bytes",
            "Memory of this process, program and mapped files included.",
            memory.resident,
        )?;
        gauge(
            "memory_anonymous_bytes",
            "Memory that this process has allocated and the system has not got back.",
            memory.anonymous,
        )?;
    }

    let (blobs, bytes) = store.totals();
    gauge("store_blobs", "Blobs on this member's disk.", blobs)?;
    gauge("store_bytes", "Bytes of the blobs on this member's disk.", bytes)?;
    gauge(
        "store_usable_bytes",
        "Disk space that blobs may still use; 0 once the disk has failed.",
        usable_bytes,
    )?;
    let damaged =
        IntCounter::new("store_damaged_blobs_total", "Blobs found damaged since the process started.")?;
    damaged.inc_by(store.damaged());
    registry.register(Box::new(damaged))?;

    register_servers(registry, &server.borrow())
}

fn register_servers(registry: &Registry, servers: &ServerStatuses) -> prometheus::Result<()> {
    let ready = IntGauge::new("model_server_ready", "1 if this member's own model server is ready.")?;
    let backends = IntGaugeVec::new(
        Opts::new("backend_ready", "1 if a model server of others is ready."),
        &["backend"],
    )?;
    for NamedStatus { backend, status, .. } in servers.all() {
        let is_ready = i64::from(status.state == ServerState::Ready);
        match backend {
            None => ready.set(is_ready),
            Some(name) => backends.with_label_values(&[name]).set(is_ready),
        }
    }
    registry.register(Box::new(ready))?;
    registry.register(Box::new(backends))?;
    register_resources(registry, &servers.resources())
}

fn register_resources(registry: &Registry, resources: &WorkerResources) -> prometheus::Result<()> {
    let gauges = |name: &str, help: &str, labels: &[&str]| {
        let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
        registry.register(Box::new(gauges.clone()))?;
        Ok::<_, prometheus::Error>(gauges)
    };
    let runners = gauges(
        "model_runner_memory_bytes",
        "Memory of the process that runs a version of a model on a device, with its children.",
        &["model", "version", "device"],
    )?;
    for runner in &resources.runners {
        let version = runner.version.to_string();
        let labels = [runner.model.as_str(), &version, &runner.device];
        runners.with_label_values(&labels).set(mebibytes(runner.memory_mib));
    }
    let of_device = ["device", "uuid", "name"];
    let memory = gauges("device_memory_bytes", "Memory of a GPU.", &of_device)?;
    let used = gauges(
        "device_memory_used_bytes",
        "Memory of a GPU that processes of this machine use.",
        &of_device,
    )?;
    let usable = gauges("device_usable", "1 if models can use a GPU.", &of_device)?;
    for device in &resources.devices {
        let index = device.index.to_string();
        let labels = [index.as_str(), &device.uuid, &device.name];
        memory.with_label_values(&labels).set(mebibytes(device.memory_mib));
        used.with_label_values(&labels).set(mebibytes(device.memory_used_mib));
        usable.with_label_values(&labels).set(i64::from(device.reason.is_empty()));
    }
    Ok(())
}

fn mebibytes(count: u64) -> i64 {
    i64::try_from(count.saturating_mul(1 << 20)).unwrap_or(i64::MAX)
}

/// Memory of this process in RAM, from `/proc` (proc_pid_status(5)).
struct ProcessMemory {
    resident: u64,
    anonymous: u64,
}

impl ProcessMemory {
    /// `None` where there is no `/proc`.
    fn read() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let bytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? << 10)
        };
        Some(Self { resident: bytes("VmRSS:")?, anonymous: bytes("RssAnon:")? })
    }
}

#[cfg(test)]
mod tests {
    use idunno_shared::ids::Digest;
    use idunno_shared::wire::resources::{Device, Runner};

    use super::*;

    #[test]
    fn devices_and_runners_are_shown_in_bytes() {
        let device = Device {
            index: 1,
            uuid: "GPU-1".to_owned(),
            name: "NVIDIA H200".to_owned(),
            memory_mib: 2048,
            memory_used_mib: 3,
            reason: "/dev/nvidia1 may not be opened".to_owned(),
        };
        let runner = Runner {
            model: "ocr".parse().unwrap(),
            version: Digest::default(),
            device: "cuda:1".to_owned(),
            memory_mib: 812,
            state: "running".to_owned(),
        };
        let registry = Registry::new();
        register_resources(
            &registry,
            &WorkerResources {
                devices: vec![device],
                runners: vec![runner],
                shared: Vec::new(),
                reads_parquet: true,
                reads_references: false,
            },
        )
        .unwrap();
        let values: Vec<(String, f64)> = registry
            .gather()
            .iter()
            .map(|family| (family.name().to_owned(), family.get_metric()[0].get_gauge().get_value()))
            .collect();
        let value = |name: &str| values.iter().find(|(found, _)| found == name).unwrap().1;
        assert!((value("model_runner_memory_bytes") - 851_443_712.0).abs() < 1.0, "{values:?}");
        assert!((value("device_memory_bytes") - 2_147_483_648.0).abs() < 1.0, "{values:?}");
        assert!((value("device_memory_used_bytes") - 3_145_728.0).abs() < 1.0, "{values:?}");
        assert!(value("device_usable").abs() < 1.0, "{values:?}");
    }
}
