//! What a person may have meant by a name that does not exist.

/// How alike two names must be, from 0 to 1 (Jaro and Winkler's measure).
const LIKENESS_MIN: f64 = 0.8;

/// `; did you mean NAME?` for the name that is most like the given one, or nothing.
pub fn did_you_mean<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let likeness = |name: &'a str| (strsim::jaro_winkler(&given.to_lowercase(), &name.to_lowercase()), name);
    let best = names.into_iter().map(likeness).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|best| best.0 >= LIKENESS_MIN)
        .map_or_else(String::new, |(_, name)| format!("; did you mean {name}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let names = ["squeezenet1.1", "mnist-mlp", "nightly"];
        for (given, meant) in [
            ("sqeezenet1.1", "squeezenet1.1"),
            ("squeezenet", "squeezenet1.1"),
            ("Nightly", "nightly"),
            ("mnist_mlp", "mnist-mlp"),
        ] {
            assert_eq!(did_you_mean(given, names), format!("; did you mean {meant}?"));
        }
        assert_eq!(did_you_mean("resnet", names), "");
        assert_eq!(did_you_mean("m1", []), "");
    }
}
