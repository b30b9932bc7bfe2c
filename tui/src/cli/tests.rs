use std::time::Duration;

use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::files::GetError;
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use serde_json::json;

use super::wants_json;
use crate::answer::{Answer, Data, Exit, Failure};
use crate::command::Output;

fn code(error: impl Into<Failure>) -> u8 {
    error.into().exit as u8
}

#[test]
fn refusals_become_exit_codes() {
    let refused = |code| ClusterError::Refused(Refusal::new(code, "no"));
    assert_eq!(code(refused(RefusalCode::NotFound)), 3);
    assert_eq!(code(refused(RefusalCode::NoQuorum)), 4);
    assert_eq!(code(refused(RefusalCode::Invalid)), 6);
    assert_eq!(code(refused(RefusalCode::Conflict)), 6);
    assert_eq!(code(refused(RefusalCode::Internal)), 1);
    let waited = Duration::from_secs(30);
    assert_eq!(code(ClusterError::Unreachable { waited, asked: String::new(), last: String::new() }), 4);
    assert_eq!(code(GetError::NotFound { name: "a".parse().unwrap() }), 3);
    assert_eq!(code(GetError::Cluster(refused(RefusalCode::NoQuorum))), 4);
    assert_eq!((Exit::Usage as u8, Exit::Timeout as u8, Exit::Partial as u8), (2, 5, 7));
}

#[test]
fn failures_are_json_where_json_is_asked_for() {
    let failure = Failure::new(Exit::NotFound, "there is no job-9");
    assert_eq!(
        failure.json(),
        json!({"error": {"code": 3, "kind": "not-found", "message": "there is no job-9"}})
    );
    let words = |text: &str| text.split(' ').map(Into::into).collect::<Vec<_>>();
    assert!(wants_json(&words("idunno --output json put")));
    assert!(wants_json(&words("idunno put --output=json")));
    assert!(!wants_json(&words("idunno put json")));
}

#[test]
fn stdout_carries_data_and_nothing_else() {
    let answer = Answer::new(json!([1]), "one");
    assert_eq!(answer.rendered(Output::Json), "[1]\n");
    assert_eq!(answer.rendered(Output::Table), "one\n");
    let rows = Answer { data: Data::Lines, text: "{\"query\":0}".into(), ..Answer::default() };
    assert_eq!(rows.rendered(Output::Json), "{\"query\":0}\n");
    let rows_of_two = Answer::new(json!([{"a": 1}, {"a": 2}]), "two");
    assert_eq!(rows_of_two.rendered(Output::Jsonl), "{\"a\":1}\n{\"a\":2}\n");
    let none = Answer { data: Data::Lines, ..Answer::default() };
    assert_eq!(none.rendered(Output::Json), "");
}
