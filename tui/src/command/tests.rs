use std::net::{SocketAddr, ToSocketAddrs};

use clap::{CommandFactory, Parser};
use idunno_shared::wire::records::{Keep, Quote};

use super::adding::Adding;
use super::line::{CompletionNames, Line, complete, parse, split};
use super::reaching::Reaching;
use super::registry::{CommandInfo, Danger, entries};
use super::starting::Starting;
use super::{Arguments, JobRef, LocalVerb, Seeds, Verb};

#[test]
fn the_grammar_is_sound_and_every_command_has_help_and_an_example() {
    Arguments::command().debug_assert();
    let root = Arguments::command();
    let all = root.get_subcommands().flat_map(|command| {
        let nested: Vec<_> = command.get_subcommands().collect();
        if nested.is_empty() { vec![command] } else { nested }
    });
    for command in all {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(after.starts_with("Example:\n  idunno "), "{}", command.get_name());
        // The example is a command that is understood.
        let example = after.lines().nth(1).unwrap().trim();
        Arguments::try_parse_from(split(example).unwrap())
            .unwrap_or_else(|error| panic!("{example}: {error}"));
    }
}

#[test]
fn the_commands_have_their_exact_names() {
    let names: Vec<String> = entries().into_iter().map(|entry| entry.name).collect();
    assert_eq!(
        names,
        [
            "populate-test-data",
            "reference-data",
            "get-dataset",
            "train-start",
            "train-stop",
            "add-job",
            "set-batch-size",
            "set-weight",
            "set-policy",
            "start-job",
            "stop-job",
            "wait-job",
            "cancel-job",
            "delete-job",
            "get-job-stats",
            "explain",
            "get-job-assigned-VMs",
            "get-job-leases",
            "get-job-history",
            "get-job-results",
            "get-job-confusion",
            "dead-letters list",
            "dead-letters show",
            "dead-letters retry",
            "dead-letters drop",
            "get-models",
            "model add",
            "model ls",
            "model show",
            "model test",
            "model rm",
            "join",
            "leave",
            "list_mem",
            "list_self",
            "put",
            "get",
            "cat",
            "delete",
            "rm",
            "cp",
            "mv",
            "ls",
            "store",
            "get-versions",
            "status",
            "backup",
            "events",
            "logs",
            "deploy",
            "shell",
            "info",
            "keys",
            "gen-config",
            "completions",
            "man",
            "cluster init",
            "cluster rotate",
            "identity create",
            "identity ls",
            "identity revoke",
            "key create",
            "key webhook",
            "local up",
            "local start",
            "local kill",
            "local status",
            "local down",
        ]
    );
}

#[test]
fn dangers_are_those_of_the_registry() {
    let dangerous: Vec<String> =
        entries().into_iter().filter(|entry| entry.danger > Danger::None).map(|entry| entry.name).collect();
    assert_eq!(
        dangerous,
        [
            "train-stop",
            "stop-job",
            "cancel-job",
            "delete-job",
            "dead-letters drop",
            "model rm",
            "leave",
            "delete",
            "rm",
            "identity revoke",
            "local kill",
            "local down"
        ]
    );
    for (text, danger) in [
        ("delete a", Danger::Irreversible),
        ("delete-job nightly", Danger::Irreversible),
        ("rm old/ 'logs/*.jsonl'", Danger::Irreversible),
        ("mv a b", Danger::None),
        ("identity revoke anna", Danger::Irreversible),
        ("dead-letters drop 1 17", Danger::Irreversible),
        ("model rm mine --force", Danger::Irreversible),
        ("model add ./mine", Danger::None),
        ("dead-letters retry 1", Danger::None),
        ("local down --purge", Danger::Irreversible),
        ("local down", Danger::Disruptive),
        ("leave --member m1", Danger::Disruptive),
        ("ls", Danger::None),
    ] {
        let Line::Verb { verb, .. } = parse(text) else { panic!("{text}") };
        assert_eq!(verb.danger().0, danger, "{text}");
    }
}

#[test]
fn what_read_only_refuses_is_the_same_in_the_grammar_and_in_the_registry() {
    for command in Arguments::command().get_subcommands() {
        let nested: Vec<_> = command.get_subcommands().collect();
        for inner in if nested.is_empty() { vec![command] } else { nested } {
            let after = inner.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = after.lines().nth(1).unwrap().trim().to_owned();
            let verb = Arguments::try_parse_from(split(&example).unwrap()).unwrap().verb.unwrap();
            let words: Vec<&str> = example.split(' ').skip(1).collect();
            let named = |entry: &CommandInfo| {
                words.join(" ").starts_with(&entry.name) && entry.name.ends_with(inner.get_name())
            };
            let entry = entries().into_iter().find(named).unwrap();
            assert_eq!(entry.changes, verb.changes(), "{example}");
            assert!(entry.changes || entry.danger == Danger::None, "{example}");
        }
    }
}

#[test]
fn synopses_are_readable() {
    let synopsis = |name: &str| entries().into_iter().find(|entry| entry.name == name).unwrap().arguments;
    assert_eq!(
        synopsis("add-job"),
        "MODEL [--dataset DATASET] [--batch-size N] [--name TEXT] [--weight W] [--param NAME=VALUE] [--input-column COL] \
         [--label-column COL] [--id-column COL] [--delimiter CHAR] [--quote QUOTE] [--no-header] [--keep COLS]"
    );
    assert_eq!(
        synopsis("start-job"),
        "JOB... [--limit N] [--sample N] [--only-new] [--max-failed N|P%] [--after JOB] [--on-end URL|COMMAND] [--wait]"
    );
    assert_eq!(
        synopsis("get-job-results"),
        "JOB [LOCAL] [--raw] [--failed] [--format FORMAT] [--follow] [--force] [--endpoint-url URL] [--region REGION] \
         [--anonymous]"
    );
    assert_eq!(synopsis("get"), "SDFS LOCAL [--version N] [--force]");
    assert_eq!(synopsis("cp"), "FILES... TARGET [--force]");
}

#[test]
fn lines_become_commands() {
    let verb = |text: &str| match parse(text) {
        Line::Verb { verb, .. } => *verb,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(
        verb(r#"put "my file.txt" docs/my\ file.txt"#),
        Verb::Put {
            local: "my file.txt".into(),
            name: "docs/my file.txt".parse().unwrap(),
            reaching: Reaching::default()
        }
    );
    let kill = verb("local kill m2 --coordinator --random 2");
    let names = vec!["m2".parse().unwrap()];
    assert_eq!(kill, Verb::Local(LocalVerb::Kill { names, coordinator: true, random: Some(2) }));
    assert_eq!(
        verb("get-job-assigned-VMs 3"),
        Verb::GetJobAssignedVms { job: Some("job-3".parse().unwrap()) }
    );
    assert_eq!(
        verb("cancel-job nightly"),
        Verb::CancelJob { job: JobRef::Name("nightly".parse().unwrap()), yes: false }
    );
    let Verb::AddJob { adding: Adding { name, weight, parameters, .. }, .. } =
        verb("add-job m --name nightly --weight 3 --param a=1 --param b=x=y")
    else {
        panic!()
    };
    assert_eq!((name.unwrap().as_str(), weight), ("nightly", Some(3)));
    let shown: Vec<_> = parameters.iter().map(|it| (it.0.as_str(), it.1.as_str())).collect();
    assert_eq!(shown, [("a", "1"), ("b", "x=y")]);
    let Verb::AddJob { adding: Adding { reading, keep, .. }, .. } = verb(
        "add-job m --dataset d.csv --input-column text --delimiter tab --quote none --keep 'a,\"b, c\"'",
    ) else {
        panic!()
    };
    let options = reading.options(keep);
    let name = |name: &str| name.parse().unwrap();
    assert_eq!((options.columns.input, options.delimiter), (Some(name("text")), Some(b'\t')));
    assert_eq!(
        (options.quote, options.keep),
        (Some(Quote::None), Keep::Columns(vec![name("a"), name("b, c")]))
    );
    let Verb::PopulateTestData { files, .. } =
        verb("populate-test-data d --exclude '*' --include '*.jpg' --exclude tmp/** --strict")
    else {
        panic!()
    };
    let patterns: Vec<_> = files.patterns.iter().map(|(glob, includes)| (glob.as_str(), *includes)).collect();
    assert_eq!(
        patterns,
        [("*", false), ("*.jpg", true), ("tmp/**", false)],
        "in the order in which they stand"
    );
    assert!(files.strict && !files.hidden);
    assert!(matches!(parse("put --help"), Line::Show(text) if text.contains("Example")));
}

/// A start without options.
fn started(jobs: Vec<JobRef>) -> Verb {
    Verb::StartJob { jobs, starting: Starting::default(), wait: false }
}

#[test]
fn the_manual_is_understood_word_for_word() {
    let job = || JobRef::Name("squeezenet1.1".parse().unwrap());
    for (text, understood) in [
        ("populate-test-data ./images", None),
        ("train-start", None),
        ("add-job squeezenet1.1", None),
        ("set-batch-size squeezenet1.1 16", Some(Verb::SetBatchSize { job: job(), batch_size: 16.into() })),
        ("start-job squeezenet1.1", Some(started(vec![job()]))),
        ("stop-job squeezenet1.1", Some(Verb::StopJob { jobs: vec![job()] })),
        ("get-job-stats", Some(Verb::GetJobStats { job: None })),
        ("get-job-assigned-VMs", Some(Verb::GetJobAssignedVms { job: None })),
        ("join", None),
        ("leave", None),
        ("list_mem", None),
        ("list_self", None),
        ("put local.txt docs/stored.txt", None),
        ("get docs/stored.txt local.txt", None),
        ("delete docs/stored.txt", None),
        ("ls docs/stored.txt", None),
        ("ls", None),
        ("store", None),
        ("get-versions docs/stored.txt 3 history.txt", None),
        // Every other command that takes a job takes a model's name.
        ("set-weight squeezenet1.1 2", Some(Verb::SetWeight { job: job(), weight: 2 })),
        ("cancel-job squeezenet1.1", Some(Verb::CancelJob { job: job(), yes: false })),
        ("delete-job squeezenet1.1", Some(Verb::DeleteJob { job: job(), yes: false })),
        ("get-job-stats squeezenet1.1", Some(Verb::GetJobStats { job: Some(job()) })),
        ("get-job-results squeezenet1.1", None),
        ("get-job-confusion squeezenet1.1", Some(Verb::GetJobConfusion { job: job() })),
        ("get-job-leases squeezenet1.1", Some(Verb::GetJobLeases { job: Some(job()) })),
        ("dead-letters list squeezenet1.1", None),
        ("dead-letters retry squeezenet1.1 17", None),
    ] {
        let Line::Verb { verb, .. } = parse(text) else { panic!("{text}: {:?}", parse(text)) };
        assert!(understood.is_none_or(|wanted| *verb == wanted), "{text}: {verb:?}");
        let words = split(&format!("idunno {text}")).unwrap();
        let read = Arguments::try_parse_from(words).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(read.verb, Some(*verb), "{text}");
    }
}

#[test]
fn bad_input_is_refused_before_the_network_with_the_reason() {
    for (text, reason) in [
        ("put a /etc/passwd", "starts with a slash"),
        ("put a ../b", "'..'"),
        ("put a ''", "empty"),
        ("delete \"a\u{1}b\"", "control character"),
        ("add-job 'no model'", "only letters"),
        ("add-job m --batch-size 0", "0"),
        ("set-batch-size job-1 5000", "5000"),
        ("start-job 'a b'", "give its id as job-N"),
        ("start-job job-1 --on-end http://anna:secret@host/", "no user name"),
        ("add-job m --name job-7", "job's id"),
        ("add-job m --param labels", "write NAME=VALUE"),
        ("set-weight job-1 0", "0"),
        ("set-policy fair", "rate"),
        ("get-job-results job-1 x --follow", "cannot be used"),
        ("start-job", "required"),
        ("get a b --version 0", "0"),
        ("get-versions a 6 b", "6"),
        ("local kill", "required"),
        ("get-job-assigned-vms", "no command"),
        ("'open", "quote"),
    ] {
        match parse(text) {
            Line::Invalid(error) => assert!(error.contains(reason), "{text}: {error}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn words_are_split_as_in_a_shell() {
    assert_eq!(split("  a 'b c'd \"e 'f\" \\ g '' ").unwrap(), ["a", "b cd", "e 'f", " g", ""]);
    assert_eq!(split("a\\").unwrap(), ["a\\"]);
    assert!(split("'a").is_err());
}

#[test]
fn completion_knows_commands_options_and_names() {
    let known = CompletionNames {
        jobs: vec!["job-1".into()],
        models: vec!["mnist-mlp".into()],
        members: vec!["m1".into(), "m2".into()],
        files: vec!["docs/a".into()],
        datasets: vec!["photos".into()],
        local_paths: vec!["./a.csv".into(), "./b/".into()],
    };
    assert_eq!(complete("loc", &known), ["local"]);
    assert_eq!(complete("local st", &known), ["start", "status"]);
    assert_eq!(
        complete("add-job ", &known),
        [
            "mnist-mlp",
            "--dataset",
            "--batch-size",
            "--name",
            "--weight",
            "--param",
            "--input-column",
            "--label-column",
            "--id-column",
            "--delimiter",
            "--quote",
            "--no-header",
            "--keep"
        ]
    );
    assert_eq!(complete("dead-letters r", &known), ["retry"]);
    assert_eq!(complete("dead-letters drop j", &known), ["job-1"]);
    assert_eq!(complete("leave --member m", &known), ["m1", "m2"]);
    assert_eq!(complete("get d", &known), ["docs/a"]);
    assert_eq!(complete("local kill m", &known), ["m1", "m2"]);
    assert!(complete("no-such x", &known).is_empty());
    // Each place takes what fits there.
    assert_eq!(complete("put ./", &known), ["./a.csv", "./b/"]);
    assert_eq!(complete("put ./a.csv d", &known), ["docs/a"]);
    assert_eq!(complete("add-job mnist-mlp --dataset ", &known), ["photos"], "an option's value alone");
    assert_eq!(complete("add-job --dataset photos m", &known), ["mnist-mlp"]);
    assert_eq!(complete("set-policy f", &known), ["fifo"]);
    assert_eq!(complete("rm docs/a d", &known), ["docs/a"], "the last argument may be repeated");
    assert!(complete("add-job mnist-mlp m", &known).is_empty());
}

#[test]
fn addresses_are_several_or_none() {
    let parsed = |text: &str| text.parse::<Seeds>().map_err(|error| error.to_string());
    assert_eq!(parsed(""), Ok(Seeds::default()));
    let two = vec![([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into()];
    assert_eq!(parsed("127.0.0.1:1, 127.0.0.1:2,"), Ok(Seeds(two)));
    // A host's name stands for all its addresses.
    let all: Vec<SocketAddr> = "localhost:7401".to_socket_addrs().unwrap().collect();
    assert_eq!(parsed("localhost:7401"), Ok(Seeds(all)));
    assert!(parsed("127.0.0.1").unwrap_err().contains("HOST:PORT"));
}
