//! Drives the failure detector: one task owns the machine, feeds it datagrams, calls and time, and obeys its effects.
//!
//! Everyone else sees the list through a watch, and talks to the task through [`Membership`]. Bounds: inputs queue up
//! to [`INPUTS_MAX`], then callers wait.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use idunno_core::membership::{AdmissionError, Swim, SwimConfig, SwimEffect, SwimEvent, TcpPingOutcome};
use idunno_core::time::Instant;
use idunno_shared::client::connections::Connections;
use idunno_shared::ids::NodeId;
use idunno_shared::wire::blobs::Holder;
use idunno_shared::wire::frame::{Reply, Request};
use idunno_shared::wire::membership::{Datagram, MemberRecord, PushPull, TcpPing, TcpPong};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::discovery::cluster_id::{ClusterId, ClusterMismatch};
use crate::net::transport::{DATAGRAM_BYTES_MAX, Datagrams};
use crate::runtime::clock::Clock;

/// Inputs that may wait for the task.
pub const INPUTS_MAX: usize = 256;
const PUSH_PULL_TIMEOUT: Duration = Duration::from_secs(3);

/// A member, as this one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What is believed of it.
    pub record: MemberRecord,
    /// Whether only TCP reaches it.
    pub udp_blocked: bool,
    /// Since when it is in its state, in milliseconds since the epoch.
    pub since_ms: u64,
}

/// The membership list at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipView {
    /// This member.
    pub me: NodeId,
    /// All members known, this one included.
    pub members: BTreeMap<NodeId, Peer>,
    /// Whether this member takes part.
    pub joined: bool,
}

impl MembershipView {
    /// Whether a member is up, as far as is known. A suspect is.
    pub fn is_live(&self, id: NodeId) -> bool {
        self.members.get(&id).is_some_and(|peer| peer.record.state.is_live())
    }

    /// The members that are up.
    pub fn live(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().filter(|(_, peer)| peer.record.state.is_live()).map(|(&id, _)| id)
    }

    /// Where a member listens, whether it is up or not.
    pub fn address(&self, id: NodeId) -> Option<SocketAddr> {
        self.members.get(&id).map(|peer| peer.record.address)
    }

    /// A member's name, or its id while the name is unknown.
    pub fn name(&self, id: NodeId) -> String {
        self.members.get(&id).map_or_else(|| id.to_string(), |peer| peer.record.name.to_string())
    }

    /// A member as a holder, if it is up.
    pub fn holder(&self, node: NodeId) -> Option<Holder> {
        let peer = self.members.get(&node).filter(|peer| peer.record.state.is_live())?;
        Some(Holder { node, address: peer.record.address })
    }
}

enum Input {
    PushPull(PushPull, oneshot::Sender<Reply>),
    Ping(TcpPing, oneshot::Sender<Reply>),
    SwimEvent(SwimEvent),
    Leave(oneshot::Sender<()>),
    RequestPermit(oneshot::Sender<()>),
}

/// What the failure detector works with.
pub struct MembershipDeps {
    /// Time.
    pub clock: Clock,
    /// Datagrams, both ways.
    pub datagrams: Datagrams,
    /// Calls.
    pub peers: Connections,
    /// Whose lists it may take and give.
    pub cluster_id: ClusterId,
}

/// The failure detector's handle. Cheap to clone.
#[derive(Clone)]
pub struct Membership {
    inputs: mpsc::Sender<Input>,
    view: watch::Receiver<Arc<MembershipView>>,
}

impl Membership {
    /// Starts the task.
    pub fn start(
        me: MemberRecord,
        seed: u64,
        deps: MembershipDeps,
        refusals: broadcast::Receiver<SocketAddr>,
        stop: CancellationToken,
    ) -> Self {
        let swim = Swim::new(SwimConfig::default(), me, seed, deps.clock.now());
        let (inputs, queued) = mpsc::channel(INPUTS_MAX);
        let (publish, view) = watch::channel(Arc::new(view_of(&swim, deps.clock)));
        let driver = Driver {
            swim,
            deps,
            inputs: inputs.clone(),
            exchanges: BTreeMap::new(),
            next_exchange: 0,
            leaving: Vec::new(),
            publish,
        };
        tokio::spawn(driver.run(queued, refusals, stop));
        Self { inputs, view }
    }

    /// The list, now and as it changes.
    pub fn view(&self) -> watch::Receiver<Arc<MembershipView>> {
        self.view.clone()
    }

    /// The list now.
    pub fn current(&self) -> Arc<MembershipView> {
        Arc::clone(&self.view.borrow())
    }

    /// Answers another member's list with ours, or refuses a newcomer that does not answer where it says it listens.
    pub async fn push_pull(&self, theirs: PushPull) -> Reply {
        let (reply, answer) = oneshot::channel();
        self.ask(Input::PushPull(theirs, reply), answer).await
    }

    /// Answers another member's ping.
    pub async fn ping(&self, ping: TcpPing) -> Reply {
        let (reply, answer) = oneshot::channel();
        self.ask(Input::Ping(ping, reply), answer).await
    }

    async fn ask(&self, input: Input, answer: oneshot::Receiver<Reply>) -> Reply {
        let stopping = || Reply::Refused(Refusal::internal("this member is stopping"));
        match self.inputs.send(input).await {
            Ok(()) => answer.await.unwrap_or_else(|_| stopping()),
            Err(_) => stopping(),
        }
    }

    /// Looks for the cluster at these addresses.
    pub async fn join(&self, seeds: Vec<SocketAddr>) {
        // The task ends only with the process.
        let _ = self.inputs.send(Input::SwimEvent(SwimEvent::Join { seeds })).await;
    }

    /// The introducer names these: those that are not in sight are offered the list.
    pub async fn introduced(&self, addresses: Vec<SocketAddr>) {
        // The task ends only with the process.
        let _ = self.inputs.send(Input::SwimEvent(SwimEvent::Introduced { addresses })).await;
    }

    /// Returns when the task has taken its next turn; never, if it is stuck.
    pub async fn turn(&self) {
        let (done, taken) = oneshot::channel();
        if self.inputs.send(Input::RequestPermit(done)).await.is_ok() {
            // One that has ended is a fault, and told as such.
            let _ = taken.await;
        }
    }

    /// Says good-bye, and returns when it is said.
    pub async fn leave(&self) {
        let (done, said) = oneshot::channel();
        if self.inputs.send(Input::Leave(done)).await.is_ok() {
            let _ = said.await;
        }
    }
}

struct Driver {
    swim: Swim,
    deps: MembershipDeps,
    inputs: mpsc::Sender<Input>,
    exchanges: BTreeMap<u64, oneshot::Sender<Reply>>,
    next_exchange: u64,
    leaving: Vec<oneshot::Sender<()>>,
    publish: watch::Sender<Arc<MembershipView>>,
}

impl Driver {
    async fn run(
        mut self,
        mut queued: mpsc::Receiver<Input>,
        mut refusals: broadcast::Receiver<SocketAddr>,
        stop: CancellationToken,
    ) {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        loop {
            let event = tokio::select! {
                received = self.deps.datagrams.receive(&mut buffer) => match received {
                    Ok((bytes, from)) => match rmp_serde::from_slice::<Datagram>(bytes) {
                        Ok(message) => SwimEvent::Datagram { from, message },
                        Err(error) => {
                            debug!(%from, %error, "a datagram does not decode");
                            continue;
                        }
                    },
                    Err(error) => {
                        debug!(%error, "receiving a datagram");
                        continue;
                    }
                },
                Some(input) = queued.recv() => match self.event_of(input) {
                    Some(event) => event,
                    None => continue,
                },
                refused = refusals.recv() => match refused.ok().and_then(|address| self.member_at(address)) {
                    Some(id) => SwimEvent::ConnectionRefused { id },
                    None => continue,
                },
                () = self.deps.clock.sleep_until(self.swim.next_deadline()) => SwimEvent::Tick,
                () = stop.cancelled() => return,
            };
            self.swim.handle(event, self.deps.clock.now());
            self.obey();
        }
    }

    fn event_of(&mut self, input: Input) -> Option<SwimEvent> {
        Some(match input {
            Input::SwimEvent(event) => event,
            Input::Leave(done) => {
                self.leaving.push(done);
                if self.swim.has_left() { SwimEvent::Tick } else { SwimEvent::Leave }
            }
            Input::RequestPermit(done) => {
                // The asker may have given up.
                let _ = done.send(());
                return None;
            }
            Input::PushPull(message, reply) => {
                if let Err(error) = self.check(&message) {
                    // The asker may have given up.
                    let _ = reply.send(Reply::Refused(Refusal::invalid(error.to_string())));
                    return None;
                }
                SwimEvent::PushPullRequest { exchange: self.exchange(reply), message }
            }
            Input::Ping(message, reply) => {
                SwimEvent::TcpPingRequest { exchange: self.exchange(reply), message }
            }
        })
    }

    fn check(&self, list: &PushPull) -> Result<(), ClusterMismatch> {
        let checked = self.deps.cluster_id.check(list.founder);
        if let Err(error) = &checked {
            info!(from = %list.from.address, %error, "no list taken");
        }
        checked
    }

    fn exchange(&mut self, reply: oneshot::Sender<Reply>) -> u64 {
        self.next_exchange += 1;
        self.exchanges.insert(self.next_exchange, reply);
        self.next_exchange
    }

    fn answer(&mut self, exchange: u64, reply: Reply) {
        if let Some(waiting) = self.exchanges.remove(&exchange) {
            // The asker may have given up.
            let _ = waiting.send(reply);
        }
    }

    fn member_at(&self, address: SocketAddr) -> Option<NodeId> {
        let live = |record: &MemberRecord| record.state.is_live() && record.address == address;
        self.swim.members().find(|member| live(&member.record)).map(|member| member.record.id)
    }

    fn obey(&mut self) {
        while let Some(effect) = self.swim.poll_effect() {
            match effect {
                SwimEffect::SendDatagram { to, message } => self.send(to, &message),
                SwimEffect::StartPushPull { to, message, .. } => self.start_push_pull(to, self.ours(message)),
                SwimEffect::ReplyPushPull { exchange, message } => {
                    self.answer(exchange, Reply::PushPull(self.ours(message)));
                }
                SwimEffect::RefusePushPull { exchange, error } => {
                    info!(%error, "not admitted");
                    self.answer(exchange, Reply::Refused(refusal(&error)));
                }
                SwimEffect::TcpPing { seq, to, message, timeout } => self.ping(seq, to, message, timeout),
                SwimEffect::AnswerTcpPing { exchange, message } => {
                    let founder = self.deps.cluster_id.founder();
                    self.answer(exchange, Reply::Pong(TcpPong { founder, ..message }));
                }
                SwimEffect::Changed(change) => {
                    let (now, before) = (&change.record, change.previous.as_ref().map(|record| record.state));
                    info!(member = %now.name, id = %now.id, address = %now.address, state = ?now.state, ?before, "member");
                }
                SwimEffect::Conflict(record) => {
                    error!(id = %record.id, address = %record.address, "another process has this member's identity: was the data directory copied?");
                }
                SwimEffect::LeaveDone => info!("said good-bye"),
            }
        }
        if self.swim.has_left() {
            for done in self.leaving.drain(..) {
                // The asker may have given up.
                let _ = done.send(());
            }
        }
        let view = view_of(&self.swim, self.deps.clock);
        self.publish.send_if_modified(|published| {
            let changed = **published != view;
            if changed {
                *published = Arc::new(view);
            }
            changed
        });
    }

    fn send(&mut self, to: SocketAddr, message: &Datagram) {
        match rmp_serde::to_vec(message) {
            Ok(bytes) => {
                if let Err(error) = self.deps.datagrams.send(&bytes, to) {
                    debug!(%to, %error, "sending a datagram");
                }
            }
            Err(error) => warn!(%error, "a datagram does not encode"),
        }
    }

    fn ours(&self, list: PushPull) -> PushPull {
        PushPull { founder: self.deps.cluster_id.founder(), ..list }
    }

    fn start_push_pull(&self, to: SocketAddr, message: PushPull) {
        let (peers, inputs) = (self.deps.peers.clone(), self.inputs.clone());
        let cluster_id = self.deps.cluster_id.clone();
        tokio::spawn(async move {
            match peers.call(to, Request::PushPull(message), PUSH_PULL_TIMEOUT).await {
                Ok(Reply::PushPull(message)) if cluster_id.check(message.founder).is_err() => {
                    info!(%to, "no list taken: it belongs to another cluster");
                }
                Ok(Reply::PushPull(message)) => {
                    // The task ends only with the process.
                    let _ =
                        inputs.send(Input::SwimEvent(SwimEvent::PushPullReply { from: to, message })).await;
                }
                Ok(Reply::Refused(refusal)) => warn!(%to, %refusal, "refused"),
                Ok(_) => debug!(%to, "no list in the answer"),
                Err(error) => debug!(%error, "exchanging lists"),
            }
        });
    }

    fn ping(&self, seq: u64, to: SocketAddr, message: TcpPing, limit: Duration) {
        let (peers, inputs, target) = (self.deps.peers.clone(), self.inputs.clone(), message.target);
        let cluster_id = self.deps.cluster_id.clone();
        tokio::spawn(async move {
            let outcome = match peers.call(to, Request::Ping(message), limit).await {
                // Datagrams do not say whose they are: who is heard of by them is asked here before it is listed.
                Ok(Reply::Pong(pong)) if cluster_id.check(pong.founder).is_err() => {
                    info!(%to, "not listed: it belongs to another cluster");
                    TcpPingOutcome::TimedOut
                }
                Ok(Reply::Pong(pong)) => TcpPingOutcome::Answered { record: pong.record },
                Err(error) if error.is_refused() => TcpPingOutcome::Refused,
                Ok(_) | Err(_) => TcpPingOutcome::TimedOut,
            };
            let result = SwimEvent::TcpPingResult { seq, target, outcome };
            // The task ends only with the process.
            let _ = inputs.send(Input::SwimEvent(result)).await;
        });
    }
}

fn refusal(error: &AdmissionError) -> Refusal {
    let code = match error {
        AdmissionError::NobodyThere { .. } | AdmissionError::NoAnswer { .. } => RefusalCode::Invalid,
        AdmissionError::Busy => RefusalCode::Busy,
    };
    Refusal::new(code, error.to_string())
}

fn view_of(swim: &Swim, clock: Clock) -> MembershipView {
    let me = swim.self_record();
    let peer = |record: &MemberRecord, udp_blocked, since| {
        (record.id, Peer { record: record.clone(), udp_blocked, since_ms: clock.wall_ms_at(since) })
    };
    let others = swim.members().map(|member| peer(&member.record, member.udp_blocked, member.since));
    let members: BTreeMap<_, _> = others.chain([peer(me, false, Instant::START)]).collect();
    MembershipView { me: me.id, members, joined: me.state.is_live() }
}
