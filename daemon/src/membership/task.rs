//! The shell of the membership machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use idunno_core::clocks::ClockOffsets;
use idunno_core::membership::{
    AdmissionError, Member, MemberChange, Swim, SwimConfig, SwimEffect, SwimEvent, TcpPingOutcome,
};
use idunno_core::time::Instant;
use idunno_shared::client::connections::Connections;
use idunno_shared::ids::NodeId;
use idunno_shared::wire::frame::{Reply, Request};
use idunno_shared::wire::membership::{Datagram, MemberRecord, MemberState, PushPull, TcpPing, TcpPong};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{INPUTS_MAX, Input, ListedMember, MembershipHandle, MembershipView, address};
use crate::discovery::cluster_id::{ClusterId, ClusterMismatch};
use crate::net::transport::{DATAGRAM_BYTES_MAX, Datagrams};
use crate::runtime::clock::{Clock, wall_ms};
use crate::runtime::driver::{Driver, Shell, Turn, Waiting};
use crate::runtime::task_monitor::TaskMonitor;

const PUSH_PULL_TIMEOUT: Duration = Duration::from_secs(3);
/// Addresses for which the reason of a distrust is remembered; beyond it all are logged once more.
const DISTRUSTED_MAX: usize = 256;

/// What the failure detector works with.
pub struct MembershipDeps {
    pub clock: Clock,
    /// Where this process listens.
    pub listen: SocketAddr,
    pub datagrams: Datagrams,
    pub peers: Connections,
    /// Addresses whose host has just refused a connection.
    pub refusals: broadcast::Receiver<SocketAddr>,
    /// The cluster whose lists it exchanges.
    pub cluster_id: ClusterId,
}

/// Carries the machine's messages, and publishes its list.
pub(crate) struct MembershipTask {
    deps: MembershipDeps,
    inputs: mpsc::Sender<Input>,
    exchanges: Waiting<Reply>,
    leaving: Vec<oneshot::Sender<()>>,
    published: watch::Sender<Arc<MembershipView>>,
    clocks: ClockOffsets,
    /// Why no lists are exchanged with these, as it was logged last.
    distrusted: BTreeMap<SocketAddr, String>,
    buffer: [u8; DATAGRAM_BYTES_MAX],
}

impl MembershipTask {
    /// Starts the task.
    pub(crate) fn spawn(
        me: MemberRecord,
        seed: u64,
        deps: MembershipDeps,
        monitor: &TaskMonitor,
        stop: &CancellationToken,
    ) -> MembershipHandle {
        let clock = deps.clock;
        let machine = Swim::new(SwimConfig::default(), me, seed, clock.now());
        let (inputs, queued) = mpsc::channel(INPUTS_MAX);
        let clocks = ClockOffsets::default();
        let (published, view) = watch::channel(Arc::new(view_of(&machine, clock, &clocks)));
        let handle = MembershipHandle { inputs: inputs.clone(), view };
        let address = address::watch(deps.listen, handle.view(), inputs.clone());
        let stopped = stop.clone();
        monitor.spawn("address watch", stop.clone(), async move {
            stopped.run_until_cancelled(address).await;
        });
        let shell = Self {
            deps,
            inputs,
            exchanges: Waiting::default(),
            leaving: Vec::new(),
            published,
            clocks,
            distrusted: BTreeMap::new(),
            buffer: [0; DATAGRAM_BYTES_MAX],
        };
        Driver { machine, shell, clock, inputs: queued }.spawn("failure detector", monitor, stop);
        handle
    }
}

impl Shell for MembershipTask {
    type Machine = Swim;
    type Input = Input;

    async fn next_input(&mut self) -> Option<Input> {
        let Self { deps: MembershipDeps { datagrams, refusals, .. }, buffer, .. } = self;
        loop {
            tokio::select! {
                received = datagrams.receive(buffer) => match received {
                    Ok((bytes, from)) => match rmp_serde::from_slice::<Datagram>(bytes) {
                        Ok(message) => return Some(Input::Event(SwimEvent::Datagram { from, message })),
                        Err(error) => debug!(%from, %error, "cannot decode a datagram"),
                    },
                    Err(error) => debug!(%error, "cannot receive a datagram"),
                },
                refused = refusals.recv() => if let Ok(address) = refused {
                    return Some(Input::ConnectionRefused(address));
                },
            }
        }
    }

    fn on_deadline(&mut self, turn: &mut Turn<Self>) {
        turn.event(SwimEvent::Tick);
    }

    async fn translate(&mut self, input: Input, turn: &mut Turn<Self>) {
        match input {
            Input::Event(event) => {
                if let SwimEvent::PushPullReply { from, message } = &event {
                    self.note_clock(message);
                    self.distrusted.remove(from);
                }
                turn.event(event);
            }
            Input::PushPull(message, reply) => match self.check_cluster(&message) {
                Ok(()) => {
                    self.note_clock(&message);
                    let exchange = self.exchanges.add(reply);
                    turn.event(SwimEvent::PushPullRequest { exchange, message });
                }
                Err(error) => {
                    // The caller may have given up.
                    let _ = reply.send(Reply::Refused(Refusal::invalid(error.to_string())));
                }
            },
            Input::Ping(message, reply) => {
                let exchange = self.exchanges.add(reply);
                turn.event(SwimEvent::TcpPingRequest { exchange, message });
            }
            Input::ConnectionRefused(address) => {
                if let Some(id) = live_member_at(&turn.machine, address) {
                    turn.event(SwimEvent::ConnectionRefused { id });
                }
            }
            Input::Distrusted(to, why) => self.log_distrust(to, why),
            Input::Leave(done) => {
                self.leaving.push(done);
                turn.event(if turn.machine.has_left() { SwimEvent::Tick } else { SwimEvent::Leave });
            }
            Input::Turn(done) => {
                // The caller may have given up.
                let _ = done.send(());
            }
        }
    }

    async fn carry_out(&mut self, effect: SwimEffect, turn: &mut Turn<Self>) {
        match effect {
            SwimEffect::SendDatagram { to, message } => self.send(to, &message),
            SwimEffect::StartPushPull { to, message, .. } => self.start_push_pull(to, self.ours(message)),
            SwimEffect::ReplyPushPull { exchange, message } => {
                let message = self.ours(message);
                self.exchanges.answer(exchange, Reply::PushPull(message));
            }
            SwimEffect::RefusePushPull { exchange, error } => {
                info!(%error, "refused a newcomer");
                self.exchanges.answer(exchange, Reply::Refused(refusal(&error)));
            }
            SwimEffect::TcpPing { seq, to, message, timeout } => self.ping(seq, to, message, timeout),
            SwimEffect::AnswerTcpPing { exchange, message } => {
                let founder = self.deps.cluster_id.founder();
                self.exchanges.answer(exchange, Reply::Pong(TcpPong { founder, ..message }));
            }
            SwimEffect::Changed(change) => Self::log_change(&change, &turn.machine),
            SwimEffect::Flapping(record) => {
                warn!(
                    member = %record.name, address = %record.address,
                    "a member says that it is up and answers no probe: has its address changed, or does a firewall drop what \
                     is sent to it? It is dead to this member until it is reached there"
                );
            }
            SwimEffect::Conflict(record) => {
                error!(id = %record.id, address = %record.address, "another process has this member's identity: was the data directory copied?");
            }
            SwimEffect::LeaveDone => info!("left the cluster"),
        }
    }

    fn publish(&mut self, swim: &Swim) {
        if swim.has_left() {
            for done in self.leaving.drain(..) {
                // The caller may have given up.
                let _ = done.send(());
            }
        }
        self.clocks.retain(|member| swim.is_live(member));
        let view = view_of(swim, self.deps.clock, &self.clocks);
        self.published.send_if_modified(|published| {
            let changed = **published != view;
            if changed {
                *published = Arc::new(view);
            }
            changed
        });
    }
}

impl MembershipTask {
    fn check_cluster(&self, list: &PushPull) -> Result<(), ClusterMismatch> {
        let checked = self.deps.cluster_id.check(list.founder);
        if let Err(error) = &checked {
            info!(from = %list.from.address, %error, "refused a membership list of another cluster");
        }
        checked
    }

    /// Compares the sender's clock with this one, and logs when this one turns out to be wrong or right again.
    fn note_clock(&mut self, list: &PushPull) {
        let Some(sent_ms) = list.sent_ms else { return };
        let before = self.clocks.own_off_ms();
        self.clocks.note(list.from.id, sent_ms, wall_ms());
        match (before, self.clocks.own_off_ms()) {
            (None, Some(off_ms)) => {
                warn!(
                    ahead_s = off_ms / 1_000,
                    "this member's clock differs from the median of all members' clocks: correct it"
                );
            }
            (Some(_), None) => info!("this member's clock agrees with the others' again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// Logs each reason once: without this a member that all others refuse would wait for ever without a word.
    fn log_distrust(&mut self, to: SocketAddr, why: String) {
        if self.distrusted.get(&to) == Some(&why) {
            return;
        }
        warn!("no membership lists are exchanged: {why}");
        if self.distrusted.len() >= DISTRUSTED_MAX {
            self.distrusted.clear();
        }
        self.distrusted.insert(to, why);
    }

    fn log_change(change: &MemberChange, swim: &Swim) {
        let (now, before) = (&change.record, change.previous.as_ref().map(|record| record.state));
        info!(member = %now.name, id = %now.id, address = %now.address, state = ?now.state, ?before, "a member changed");
        let comes_up = now.state.is_live() && !before.is_some_and(MemberState::is_live);
        if comes_up && let Some(other) = live_namesake(swim, now) {
            warn!(
                member = %now.name, address = %now.address, other = %other.address,
                "two members have one name: set 'name' in the settings of one of them and restart it"
            );
        }
    }

    fn send(&mut self, to: SocketAddr, message: &Datagram) {
        match rmp_serde::to_vec(message) {
            Ok(bytes) => {
                if let Err(error) = self.deps.datagrams.send(&bytes, to) {
                    debug!(%to, %error, "cannot send a datagram");
                }
            }
            Err(error) => warn!(%error, "cannot encode a datagram"),
        }
    }

    fn ours(&self, list: PushPull) -> PushPull {
        PushPull { founder: self.deps.cluster_id.founder(), sent_ms: Some(wall_ms()), ..list }
    }

    fn start_push_pull(&self, to: SocketAddr, message: PushPull) {
        let (peers, inputs) = (self.deps.peers.clone(), self.inputs.clone());
        let cluster_id = self.deps.cluster_id.clone();
        tokio::spawn(async move {
            match peers.call(to, Request::PushPull(message), PUSH_PULL_TIMEOUT).await {
                Ok(Reply::PushPull(message)) if cluster_id.check(message.founder).is_err() => {
                    info!(%to, "ignored a membership list of another cluster");
                }
                Ok(Reply::PushPull(message)) => {
                    let event = SwimEvent::PushPullReply { from: to, message };
                    // The task ends only with the process.
                    let _ = inputs.send(Input::Event(event)).await;
                }
                Ok(Reply::Refused(refusal)) => {
                    warn!(%to, %refusal, "a member refused to exchange membership lists");
                }
                Ok(_) => debug!(%to, "unexpected reply to a membership list"),
                Err(error) if error.is_about_identity() => {
                    // The task ends only with the process.
                    let _ = inputs.send(Input::Distrusted(to, error.to_string())).await;
                }
                Err(error) => debug!(%error, "cannot exchange membership lists"),
            }
        });
    }

    fn ping(&self, seq: u64, to: SocketAddr, message: TcpPing, limit: Duration) {
        let (peers, inputs, target) = (self.deps.peers.clone(), self.inputs.clone(), message.target);
        let cluster_id = self.deps.cluster_id.clone();
        tokio::spawn(async move {
            let outcome = match peers.call(to, Request::Ping(message), limit).await {
                // A datagram does not name its cluster: a newcomer known only from datagrams is asked here before it is
                // listed.
                Ok(Reply::Pong(pong)) if cluster_id.check(pong.founder).is_err() => {
                    info!(%to, "not listing a member of another cluster");
                    TcpPingOutcome::TimedOut
                }
                Ok(Reply::Pong(pong)) => TcpPingOutcome::Answered { record: pong.record },
                Err(error) if error.is_refused() => TcpPingOutcome::Refused,
                Ok(_) | Err(_) => TcpPingOutcome::TimedOut,
            };
            let result = SwimEvent::TcpPingResult { seq, target, outcome };
            // The task ends only with the process.
            let _ = inputs.send(Input::Event(result)).await;
        });
    }
}

/// Another member that is up and has the same name.
fn live_namesake<'a>(swim: &'a Swim, member: &MemberRecord) -> Option<&'a MemberRecord> {
    let others = swim.members().map(|other| &other.record).chain([swim.self_record()]);
    others
        .into_iter()
        .find(|other| other.id != member.id && other.state.is_live() && other.name == member.name)
}

fn live_member_at(swim: &Swim, address: SocketAddr) -> Option<NodeId> {
    let is_match = |record: &MemberRecord| record.state.is_live() && record.address == address;
    swim.members().find(|member| is_match(&member.record)).map(|member| member.record.id)
}

fn refusal(error: &AdmissionError) -> Refusal {
    let code = match error {
        AdmissionError::NotListening { .. } | AdmissionError::NoAnswer { .. } => RefusalCode::Invalid,
        AdmissionError::Busy => RefusalCode::Busy,
    };
    Refusal::new(code, error.to_string())
}

fn view_of(swim: &Swim, clock: Clock, clocks: &ClockOffsets) -> MembershipView {
    let me = swim.self_record();
    let listed = |record: &MemberRecord, clock_off_ms: Option<i64>, since| ListedMember {
        record: record.clone(),
        udp_blocked: false,
        clock_ahead_s: clock_off_ms.map_or(0, |off_ms| off_ms / 1_000),
        since_ms: clock.wall_ms_at(since),
    };
    let other = |member: &Member| ListedMember {
        udp_blocked: member.udp_blocked,
        ..listed(&member.record, clocks.off_ms(member.record.id), member.since)
    };
    let others = swim.members().map(|member| (member.record.id, other(member)));
    let members: BTreeMap<_, _> =
        others.chain([(me.id, listed(me, clocks.own_off_ms(), Instant::START))]).collect();
    MembershipView { me: me.id, members, joined: me.state.is_live() }
}
