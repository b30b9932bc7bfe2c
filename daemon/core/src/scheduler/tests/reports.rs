//! Reports that arrive in another order than they were sent in.

use idunno_shared::ids::{NodeId, Term};
use idunno_shared::wire::jobs::{Lease, WorkerReport};

use super::{Bench, JOB, OrdersPlan, orders, range, report};

#[test]
fn a_report_that_was_overtaken_is_not_looked_at() {
    let mut bench = Bench::claiming(30);
    let old = Lease { job: JOB, range: range(0, 10), attempt: 1, term: Term(1) };
    let given_up = WorkerReport { number: 2, wanted: 0, ..report(1) };
    let overtaken = WorkerReport { number: 1, wanted: 2, leases: vec![old], ..report(1) };
    bench.hear(given_up.clone());
    let answer = orders(1, bench.hear(overtaken.clone()));
    assert_eq!((answer, bench.scheduler.leases(NodeId(1)).count()), (OrdersPlan::default(), 0));
    let rebooted = WorkerReport { generation: 2, ..overtaken };
    bench.hear(rebooted);
    assert_eq!(bench.scheduler.leases(NodeId(1)).collect::<Vec<_>>(), [old], "a new boot counts anew");
    bench.hear(given_up);
    assert_eq!(bench.scheduler.leases(NodeId(1)).count(), 1, "of a boot that is over");
}

#[test]
fn a_grant_of_an_older_term_that_came_late_is_cancelled_at_a_worker_that_has_its_fill() {
    let mut bench = Bench::new(40, 1);
    let late = Lease { job: JOB, range: range(30, 10), attempt: 1, term: Term(1) };
    let held = bench.pull(1, 2, &[]).grants;
    assert_eq!(held.len(), 2);
    assert_eq!(bench.pull(1, 0, &[late]).cancelled, [late]);
    assert_eq!(bench.scheduler.leases(NodeId(1)).collect::<Vec<_>>(), held);
}
