//! `get-job-confusion`: how often each label was answered with which, counted from the rows.
//!
//! A label that is a number is compared with the answer's number, any other with its name. Bounds: of more than
//! [`MATRIX_MAX`] labels only the most frequent mistakes are printed; programs get all pairs.

use std::collections::{BTreeMap, BTreeSet};

use idunno_shared::client::results::{Answer as Answered, scalar};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::fetch;
use crate::answer::results::{ConfusionPair, JobConfusion};
use crate::answer::table::Table;
use crate::answer::{Answer, Exit, Failure};
use crate::command::JobRef;
use crate::execute::job_lookup::resolve;
use crate::session::Session;

/// Labels that get a column each.
const MATRIX_MAX: usize = 12;
/// Mistakes that are printed where there are more labels.
const MISTAKES_MAX: usize = 30;
/// Stands for an output that names no label.
const NOTHING: &str = "-";

/// Counts by true label and answer.
#[derive(Debug, Default)]
struct Confusion {
    pairs: BTreeMap<(String, String), u64>,
}

impl Confusion {
    fn add(&mut self, row: &str) -> Result<(), serde_json::Error> {
        #[derive(Deserialize)]
        struct Row<'a> {
            #[serde(borrow)]
            label: Option<&'a RawValue>,
            #[serde(borrow)]
            output: Option<&'a RawValue>,
        }
        let Row { label: Some(label), output: Some(output) } = serde_json::from_str(row)? else {
            return Ok(());
        };
        // What cannot be represented here is no label, and names none.
        let [label, output] =
            [label, output].map(|raw| serde_json::from_str::<Value>(raw.get()).unwrap_or_default());
        let Some(truth) = scalar(&label) else { return Ok(()) };
        let answered = Answered::of(&output);
        let number = answered.index.filter(|_| truth.parse::<u64>().is_ok()).map(|index| index.to_string());
        let answer =
            if answered.is(&truth) { Some(truth.clone()) } else { number.or_else(|| answered.shown()) };
        *self.pairs.entry((truth, answer.unwrap_or_else(|| NOTHING.to_owned()))).or_default() += 1;
        Ok(())
    }

    fn labels(&self) -> BTreeSet<&str> {
        self.pairs.keys().flat_map(|(truth, answer)| [truth.as_str(), answer.as_str()]).collect()
    }

    fn matrix(&self, labels: &BTreeSet<&str>) -> String {
        let heads: Vec<String> = labels.iter().map(|label| format!(">{}", label.replace(' ', "_"))).collect();
        let mut table = Table::new(&format!("TRUE {} >RIGHT", heads.join(" ")));
        for truth in labels.iter().filter(|truth| self.pairs.keys().any(|(known, _)| known == *truth)) {
            let count = |answer: &str| {
                self.pairs.get(&((*truth).to_owned(), answer.to_owned())).copied().unwrap_or(0)
            };
            let total: u64 = labels.iter().map(|answer| count(answer)).sum();
            let mut row = vec![(*truth).to_owned()];
            row.extend(labels.iter().map(|answer| count(answer).to_string()));
            row.push(share(count(truth), total));
            table.push(row);
        }
        table.render()
    }

    fn mistakes(&self) -> String {
        let mut table = Table::new("TRUE ANSWERED >COUNT");
        let mut wrong: Vec<_> = self.pairs.iter().filter(|((truth, answer), _)| truth != answer).collect();
        wrong.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
        for ((truth, answer), times) in wrong.iter().take(MISTAKES_MAX) {
            table.row([truth.clone(), answer.clone(), times.to_string()]);
        }
        let rest = wrong.len().saturating_sub(MISTAKES_MAX);
        let more = if rest > 0 {
            format!("\nand {rest} less frequent ones: --output json has all")
        } else {
            String::new()
        };
        format!("{}{more}", table.render())
    }
}

fn share(part: u64, total: u64) -> String {
    if total == 0 { String::from("-") } else { format!("{:.1} %", part as f64 * 100.0 / total as f64) }
}

/// `get-job-confusion`.
pub async fn confusion(session: &Session, job: &JobRef) -> Result<Answer, Failure> {
    let job = resolve(session, job).await?.id;
    let rows = fetch::collect(session, job).await?.rows;
    let mut confusion = Confusion::default();
    for row in &rows {
        confusion.add(row).map_err(|error| Failure::error(format!("a row of {job} is not JSON: {error}")))?;
    }
    let labelled: u64 = confusion.pairs.values().sum();
    if labelled == 0 {
        let text = format!("{job} has no labelled answers: add labels to the dataset before the job starts");
        return Err(Failure::new(Exit::NotFound, text));
    }
    let right: u64 =
        confusion.pairs.iter().filter(|((truth, answer), _)| truth == answer).map(|(_, n)| n).sum();
    let pairs = confusion.pairs.iter().map(|((label, answer), &count)| ConfusionPair {
        label: label.clone(),
        answer: answer.clone(),
        count,
    });
    let document = JobConfusion { job: job.to_string(), labelled, correct: right, pairs: pairs.collect() };
    let labels = confusion.labels();
    let table = if labels.len() <= MATRIX_MAX { confusion.matrix(&labels) } else { confusion.mistakes() };
    let text = format!(
        "{job}: {right} of {labelled} labelled answers are correct, {}\n{table}",
        share(right, labelled)
    );
    Ok(Answer::new(&document, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &[&str]) -> Confusion {
        let mut confusion = Confusion::default();
        rows.iter().for_each(|row| confusion.add(row).unwrap());
        confusion
    }

    #[test]
    fn names_and_numbers_are_counted_by_true_label() {
        let confusion = of(&[
            r#"{"label":"good","output":{"label":"good"}}"#,
            r#"{"label":"good","output":{"label":"bad"}}"#,
            r#"{"label":"bad","output":{"label":"bad"}}"#,
            r#"{"label":"bad","output":[1]}"#,
            r#"{"output":{"label":"bad"}}"#,
            r#"{"query":3,"error":"no words","name":"x"}"#,
        ]);
        let text = confusion.matrix(&confusion.labels());
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["TRUE", "-", "bad", "good", "RIGHT"]);
        assert_eq!(rows[1], ["bad", "1", "1", "0", "50.0", "%"]);
        assert_eq!(rows[2], ["good", "0", "1", "1", "50.0", "%"]);
        let numbers = of(&[
            r#"{"label":"7","output":{"top5":[{"index":7,"label":"seven"}]}}"#,
            r#"{"label":"7","output":{"top5":[{"index":1,"label":"one"}]}}"#,
        ]);
        assert_eq!(numbers.labels().into_iter().collect::<Vec<_>>(), ["1", "7"]);
        assert!(numbers.mistakes().lines().nth(1).unwrap().starts_with('7'), "{}", numbers.mistakes());
    }
}
