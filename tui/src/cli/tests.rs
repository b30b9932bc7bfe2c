use std::time::Duration;

use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::files::GetError;
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use serde_json::{Value, json};

use super::wants_json;
use crate::answer::jobs::CancelledJob;
use crate::answer::results::DeadLetter;
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
        serde_json::from_str::<Value>(&failure.json()).unwrap(),
        json!({"apiVersion": "idunno/v1", "kind": "Error",
            "error": {"code": 3, "kind": "not-found", "message": "there is no job-9"}})
    );
    let words = |text: &str| text.split(' ').map(Into::into).collect::<Vec<_>>();
    assert!(wants_json(&words("idunno --output json put")));
    assert!(wants_json(&words("idunno put --output=json")));
    for short in ["idunno -o json ls", "idunno ls -ojsonl", "idunno ls -o=json"] {
        assert!(wants_json(&words(short)), "{short}");
    }
    assert!(!wants_json(&words("idunno put json")));
    assert!(!wants_json(&words("idunno -o name ls")));
}

#[test]
fn stdout_carries_data_and_nothing_else() {
    let answer = Answer::new(&CancelledJob { job: "job-1".into() }, "one");
    let document = "{\"apiVersion\":\"idunno/v1\",\"kind\":\"CancelledJob\",\"job\":\"job-1\"}\n";
    assert_eq!(answer.rendered(Output::Json), document);
    assert_eq!(answer.rendered(Output::Jsonl), document);
    assert_eq!(answer.rendered(Output::Table), "one\n");
    let rows = Answer { data: Data::Lines, text: "{\"query\":0}".into(), ..Answer::default() };
    assert_eq!(rows.rendered(Output::Json), "{\"query\":0}\n");
    let dead_letter = |query| DeadLetter {
        query,
        name: "d/a".into(),
        error: "no image".into(),
        member: "m1".into(),
        attempts: 3,
        dropped: false,
        id: None,
        label: None,
    };
    let two = Answer::list(vec![dead_letter(0), dead_letter(1)], "two");
    let lines = two.rendered(Output::Jsonl);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<(&Value, &Value)> = lines.iter().map(|line| (&line["kind"], &line["query"])).collect();
    assert_eq!(kinds, [(&json!("DeadLetter"), &json!(0)), (&json!("DeadLetter"), &json!(1))]);
    let list: Value = serde_json::from_str(&two.rendered(Output::Json)).unwrap();
    assert_eq!((&list["kind"], &list["items"][1]["query"]), (&json!("DeadLetterList"), &json!(1)));
    assert_eq!(two.rendered(Output::Name), "0\n1\n");
    assert!(
        two.rendered(Output::Csv)
            .starts_with("query,name,error,member,attempts,dropped,id,label\n0,d/a,no image,")
    );
    let none = Answer { data: Data::Lines, ..Answer::default() };
    assert_eq!(none.rendered(Output::Json), "");
}
