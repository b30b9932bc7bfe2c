//! Runs any machine of `idunno-core`: one task owns it, feeds it, and carries out its effects in order.
//!
//! What differs from machine to machine is a [`Shell`]: where inputs come from, which events they become, what an effect
//! does, where the result is published. Other tasks send inputs through a bounded queue (`XTask` is the shell, `XHandle`
//! the queue's sender).
//!
//! Order: an input's events are handled one after another, and the effects of each are carried out before the next event.
//! Events and inputs that an effect adds come before those that were queued. The next input waits for all of them.
//!
//! In debug builds the machine's invariants are checked after each event, before the effects are taken: some speak of
//! effects. A broken one ends the task, which the [`TaskMonitor`] reports. Cancelling `stop` ends the task wherever it waits.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, pending};

use idunno_core::machine::Machine;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::runtime::clock::Clock;
use crate::runtime::task_monitor::TaskMonitor;

/// What connects a machine to the rest of the process.
pub trait Shell: Sized + Send + 'static {
    type Machine: Machine<Event: Send, Effect: Send> + Send;
    /// What comes in, before it is translated into events of the machine.
    type Input: Send;

    /// Runs once, before the first input.
    fn begin(&mut self, _turn: &mut Turn<Self>) {}

    /// The next input that does not come through the queue: a socket's, a watch's, a timer's. `None` ends the task. It is
    /// cancelled and called again whenever another source is faster, so it must be cancel-safe.
    fn next_input(&mut self) -> impl Future<Output = Option<Self::Input>> + Send {
        pending()
    }

    /// The machine's deadline is due; not called for a machine that has none.
    fn on_deadline(&mut self, _turn: &mut Turn<Self>) {}

    /// Translates an input into events, which it adds to the turn.
    fn translate(&mut self, input: Self::Input, turn: &mut Turn<Self>) -> impl Future<Output = ()> + Send;

    /// Carries out an effect. Long work runs in a task of its own, whose outcome comes back as an input.
    fn carry_out(
        &mut self,
        effect: <Self::Machine as Machine>::Effect,
        turn: &mut Turn<Self>,
    ) -> impl Future<Output = ()> + Send;

    /// Publishes the machine's state, after everything that an input led to is done.
    fn publish(&mut self, _machine: &Self::Machine) {}
}

/// What a shell may use during its task's turn: the machine's getters, and the queue of further events and inputs.
pub struct Turn<S: Shell> {
    pub machine: S::Machine,
    added: Vec<Step<S>>,
}

enum Step<S: Shell> {
    Event(<S::Machine as Machine>::Event),
    Input(S::Input),
}

impl<S: Shell> Turn<S> {
    /// Hands the machine an event next.
    pub fn event(&mut self, event: <S::Machine as Machine>::Event) {
        self.added.push(Step::Event(event));
    }

    /// Translates an input next, after the effects of everything added before it are carried out.
    pub fn input(&mut self, input: S::Input) {
        self.added.push(Step::Input(input));
    }
}

/// A task that owns a machine, before it runs.
pub struct Driver<S: Shell> {
    pub machine: S::Machine,
    pub shell: S,
    pub clock: Clock,
    /// Inputs from other tasks. The bound of the queue is its documented limit.
    pub inputs: mpsc::Receiver<S::Input>,
}

impl<S: Shell> Driver<S> {
    /// Starts the task, which `monitor` expects to run until `stop`.
    pub fn spawn(self, name: &'static str, monitor: &TaskMonitor, stop: &CancellationToken) {
        let (task, stopped) = (self.run(), stop.clone());
        monitor.spawn(name, stop.clone(), async move {
            tokio::select! {
                () = task => {}
                () = stopped.cancelled() => {}
            }
        });
    }

    async fn run(self) {
        let Self { machine, mut shell, clock, mut inputs } = self;
        let mut turn = Turn { machine, added: Vec::new() };
        shell.begin(&mut turn);
        loop {
            take_turn(&mut shell, &mut turn, clock).await;
            tokio::select! {
                Some(input) = inputs.recv() => turn.input(input),
                input = shell.next_input() => match input {
                    Some(input) => turn.input(input),
                    None => return,
                },
                () = clock.sleep_until(turn.machine.next_deadline()) => shell.on_deadline(&mut turn),
            }
        }
    }
}

async fn take_turn<S: Shell>(shell: &mut S, turn: &mut Turn<S>, clock: Clock) {
    let mut steps = VecDeque::from(std::mem::take(&mut turn.added));
    while let Some(step) = steps.pop_front() {
        match step {
            Step::Input(input) => shell.translate(input, turn).await,
            Step::Event(event) => {
                turn.machine.handle(event, clock.now());
                debug_assert_eq!(turn.machine.check(), Ok(()), "a machine's invariant is broken");
                while let Some(effect) = turn.machine.poll_effect() {
                    shell.carry_out(effect, turn).await;
                }
            }
        }
        for step in turn.added.drain(..).rev() {
            steps.push_front(step);
        }
    }
    shell.publish(&turn.machine);
}

/// Sends an input that carries the way back for its answer, and waits for that; `None` once the task has ended.
pub async fn ask<I, T>(inputs: &mpsc::Sender<I>, input: impl FnOnce(oneshot::Sender<T>) -> I) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    inputs.send(input(reply)).await.ok()?;
    answer.await.ok()
}

/// Callers that wait for a machine's answer, by the number of their request.
pub struct Waiting<T> {
    next: u64,
    callers: BTreeMap<u64, oneshot::Sender<T>>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { next: 0, callers: BTreeMap::new() }
    }
}

impl<T> Waiting<T> {
    /// Adds a caller and returns its number.
    pub fn add(&mut self, caller: oneshot::Sender<T>) -> u64 {
        self.next += 1;
        self.callers.insert(self.next, caller);
        self.next
    }

    /// Answers a caller, once.
    pub fn answer(&mut self, number: u64, answer: T) {
        if let Some(caller) = self.callers.remove(&number) {
            // The caller may have given up.
            let _ = caller.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use idunno_core::invariant::InvariantViolation;
    use idunno_core::time::Instant;

    use super::*;

    /// Returns each event as an effect, as many times as its last digit says, and must not return 61; its deadline is `due_in` after the last event.
    #[derive(Default)]
    struct RepeatMachine {
        effects: VecDeque<u32>,
        due_in: Option<Duration>,
        due_at: Option<Instant>,
    }

    impl Machine for RepeatMachine {
        type Event = u32;
        type Effect = u32;

        fn handle(&mut self, event: u32, now: Instant) {
            self.effects.extend(std::iter::repeat_n(event, event as usize % 10));
            self.due_at = self.due_in.map(|due_in| now + due_in);
        }

        fn next_deadline(&self) -> Option<Instant> {
            self.due_at
        }

        fn poll_effect(&mut self) -> Option<u32> {
            self.effects.pop_front()
        }

        fn check(&self) -> Result<(), InvariantViolation> {
            InvariantViolation::unless(!self.effects.contains(&61), || {
                String::from("an effect that must not be")
            })
        }
    }

    /// Records every call. An input is a list of events; 5 stands for an input `[11]`, 99 blocks, and effect 12 adds an
    /// event 21.
    struct Recorder {
        seen: mpsc::Sender<String>,
        gate: mpsc::Receiver<Option<Vec<u32>>>,
    }

    impl Recorder {
        fn note(&self, line: String) {
            self.seen.try_send(line).unwrap();
        }
    }

    impl Shell for Recorder {
        type Machine = RepeatMachine;
        type Input = Vec<u32>;

        fn begin(&mut self, turn: &mut Turn<Self>) {
            turn.event(1);
        }

        async fn next_input(&mut self) -> Option<Vec<u32>> {
            self.gate.recv().await.flatten()
        }

        fn on_deadline(&mut self, turn: &mut Turn<Self>) {
            self.note(String::from("due"));
            turn.event(0);
        }

        async fn translate(&mut self, input: Vec<u32>, turn: &mut Turn<Self>) {
            self.note(format!("input {input:?}"));
            if input == [99] {
                pending::<()>().await;
            }
            for event in input {
                if event == 5 { turn.input(vec![11]) } else { turn.event(event) }
            }
        }

        async fn carry_out(&mut self, effect: u32, turn: &mut Turn<Self>) {
            self.note(format!("effect {effect}"));
            if effect == 12 {
                turn.event(21);
            }
        }

        fn publish(&mut self, _machine: &RepeatMachine) {
            self.note(String::from("published"));
        }
    }

    struct Fixture {
        inputs: mpsc::Sender<Vec<u32>>,
        source: mpsc::Sender<Option<Vec<u32>>>,
        seen: mpsc::Receiver<String>,
        monitor: TaskMonitor,
        stop: CancellationToken,
    }

    impl Fixture {
        async fn next(&mut self, lines: usize) -> Vec<String> {
            let mut next = Vec::new();
            for _ in 0..lines {
                let line = tokio::time::timeout(Duration::from_secs(5), self.seen.recv()).await;
                next.push(line.unwrap().unwrap());
            }
            next
        }
    }

    fn start(due_in: Option<Duration>) -> Fixture {
        let (monitor, stop) = (TaskMonitor::default(), CancellationToken::new());
        let (inputs, queued) = mpsc::channel(1);
        let ((source, gate), (note, seen)) = (mpsc::channel(1), mpsc::channel(64));
        let driver = Driver {
            machine: RepeatMachine { due_in, ..RepeatMachine::default() },
            shell: Recorder { seen: note, gate },
            clock: Clock::start(),
            inputs: queued,
        };
        driver.spawn("repeat machine", &monitor, &stop);
        Fixture { inputs, source, seen, monitor, stop }
    }

    #[tokio::test]
    async fn effects_are_carried_out_in_order_and_their_additions_come_next() {
        let mut fixture = start(None);
        assert_eq!(fixture.next(2).await, ["effect 1", "published"]);
        fixture.inputs.send(vec![12, 5, 1]).await.unwrap();
        let lines = fixture.next(8).await;
        // Both effects of 12 come before the two events 21 that they add, and these before the input that followed 12.
        let wanted = ["input [12, 5, 1]", "effect 12", "effect 12", "effect 21", "effect 21", "input [11]"];
        assert_eq!(lines[..6], wanted);
        assert_eq!(lines[6..], ["effect 11", "effect 1"]);
        assert_eq!(fixture.next(1).await, ["published"], "once per input");
    }

    #[tokio::test]
    async fn a_deadline_is_kept_and_moves_with_each_event() {
        let mut fixture = start(Some(Duration::from_millis(20)));
        let began = std::time::Instant::now();
        assert_eq!(fixture.next(6).await, ["effect 1", "published", "due", "published", "due", "published"]);
        assert!(began.elapsed() >= Duration::from_millis(40), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_task_stops_wherever_it_waits_and_reports_no_fault() {
        for busy in [false, true] {
            let mut fixture = start(None);
            fixture.next(2).await;
            if busy {
                fixture.inputs.send(vec![99]).await.unwrap();
                assert_eq!(fixture.next(1).await, ["input [99]"]);
            }
            fixture.stop.cancel();
            assert_eq!(fixture.seen.recv().await, None, "the shell is gone");
            let fault = tokio::time::timeout(Duration::from_millis(20), fixture.monitor.fault()).await;
            assert!(fault.is_err(), "{fault:?}");
        }
    }

    #[tokio::test]
    async fn callers_wait_while_the_queue_is_full() {
        let mut fixture = start(None);
        fixture.next(2).await;
        fixture.inputs.send(vec![99]).await.unwrap();
        fixture.next(1).await;
        fixture.inputs.try_send(vec![1]).unwrap();
        assert!(fixture.inputs.try_send(vec![2]).is_err(), "the queue holds one input");
    }

    #[tokio::test]
    async fn a_source_that_ends_and_a_broken_invariant_are_faults() {
        let mut fixture = start(None);
        fixture.inputs.send(vec![61]).await.unwrap();
        assert_eq!(fixture.monitor.fault().await, "repeat machine ended early");
        let seen = std::iter::from_fn(|| fixture.seen.try_recv().ok());
        assert_eq!(seen.last(), Some(String::from("input [61]")), "the effect is not carried out");
        let mut fixture = start(None);
        fixture.source.send(Some(vec![2])).await.unwrap();
        assert_eq!(fixture.next(6).await[2..], ["input [2]", "effect 2", "effect 2", "published"]);
        fixture.source.send(None).await.unwrap();
        assert_eq!(fixture.monitor.fault().await, "repeat machine ended early");
    }
}
