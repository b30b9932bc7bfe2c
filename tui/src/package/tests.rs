//! Folders, and what they are as packages.

use std::fs;

use super::*;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn opened(files: &[(&str, &str)]) -> Result<LocalPackage, LocalPackageError> {
    LocalPackage::open(folder(files).path(), "mine".parse().ok(), Links::Inside)
}

fn refused(files: &[(&str, &str)]) -> String {
    opened(files).unwrap_err().to_string()
}

#[test]
fn the_runtime_is_recognised_by_what_the_folder_holds() {
    let found = |files: &[(&str, &str)]| {
        let package = opened(files).unwrap();
        (package.runtime, package.entry.to_string())
    };
    assert_eq!(found(&[("model.py", ""), ("helpers.py", "")]), (Runtime::Python, "model.py".into()));
    assert_eq!(found(&[("words.py", ""), ("lib/a.py", "")]), (Runtime::Python, "words.py".into()));
    assert_eq!(found(&[("model.py", ""), ("net.onnx", "")]).0, Runtime::Python, "code may load weights");
    assert_eq!(found(&[("net.onnx", ""), ("net.onnx.data", "")]), (Runtime::Onnx, "net.onnx".into()));
    let said = [("a.py", ""), ("b.py", ""), ("model.toml", "entry = \"b.py\"\nclass = \"B\"")];
    let package = opened(&said).unwrap();
    assert_eq!((package.runtime, package.entry.as_str()), (Runtime::Python, "b.py"));
    assert_eq!(Value::Object(package.settings), serde_json::json!({"class": "B"}));
    assert_eq!(package.files.len(), 3, "model.toml is part of the package");
}

#[test]
fn a_server_of_others_is_a_table_of_the_settings() {
    let table =
        "batch_max = 8\n[openai]\nurl = \"http://127.0.0.1:1/v1\"\nmodel = \"m\"\nextra = { seed = 1 }";
    let package = opened(&[("model.toml", table), ("answer.json", "{}")]).unwrap();
    assert_eq!((package.runtime, package.entry.as_str()), (Runtime::Openai, "model.toml"));
    let openai = serde_json::json!({"url": "http://127.0.0.1:1/v1", "model": "m", "extra": {"seed": 1}});
    assert_eq!(Value::Object(package.settings), serde_json::json!({"batch_max": 8, "openai": openai}));
    assert!(refused(&[("model.toml", "[openai]\nmodel = \"m\"")]).contains("missing field `url`"));
    let key = refused(&[("model.toml", "[openai]\nurl = \"x\"\nmodel = \"m\"\ntoken = \"secret\"")]);
    assert!(key.contains("token_file"), "{key}");
}

#[test]
fn the_network_is_asked_for_by_true_or_false() {
    let package = opened(&[("model.py", ""), ("model.toml", "network = true")]).unwrap();
    assert_eq!(Value::Object(package.settings), serde_json::json!({"network": true}));
    let error = refused(&[("model.py", ""), ("model.toml", "network = \"yes\"")]);
    assert!(error.contains("network") && error.contains("boolean"), "{error}");
}

#[test]
fn a_program_is_recognised_by_its_mode() {
    let folder = folder(&[("run", "#!/bin/sh\ncat"), ("words.txt", "a")]);
    let path = folder.path().join("run");
    let open = || LocalPackage::open(folder.path(), "mine".parse().ok(), Links::Inside);
    assert!(open().unwrap_err().to_string().contains("does not show what runs it"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let package = open().unwrap();
    assert_eq!((package.runtime, package.entry.as_str()), (Runtime::Command, "run"));
    let executable: Vec<bool> = package.files.values().map(|file| file.executable).collect();
    assert_eq!(executable, [true, false]);
}

#[test]
fn the_name_is_given_or_said_or_the_folders() {
    let parent = tempfile::tempdir().unwrap();
    let at = parent.path().join("my-words");
    fs::create_dir(&at).unwrap();
    fs::write(at.join("model.py"), "").unwrap();
    let name = |name| LocalPackage::open(&at, name, Links::Inside).unwrap().name.to_string();
    assert_eq!((name(None), name("other".parse().ok())), ("my-words".into(), "other".into()));
    assert_eq!(LocalPackage::open(&at.join("model.py"), None, Links::Inside).unwrap().name.as_str(), "model");
    fs::write(at.join("model.toml"), "name = \"said\"").unwrap();
    assert_eq!((name(None), name("other".parse().ok())), ("said".into(), "other".into()));
    fs::write(at.join("model.toml"), "name = \"my words\"").unwrap();
    let error = LocalPackage::open(&at, None, Links::Inside).unwrap_err().to_string();
    assert!(error.contains("'my words'") && error.contains("--name"), "{error}");
}

#[test]
fn what_a_folder_holds_says_what_runs_it() {
    for (files, runtime, entry) in [
        (&[("modules.json", "[]"), ("model.onnx", "x")][..], Runtime::SentenceTransformers, "modules.json"),
        (&[("pipeline.skops", "x"), ("notes.txt", "")], Runtime::Sklearn, "pipeline.skops"),
        (&[("network.onnx", "x")], Runtime::Onnx, "network.onnx"),
        (&[("model.py", ""), ("pipeline.skops", "x")], Runtime::Python, "model.py"),
        (
            &[("config.json", "{}"), ("model-00001-of-00002.safetensors", "x"), ("tokenizer.json", "{}")],
            Runtime::Transformers,
            "config.json",
        ),
        (
            &[("config.json", "{}"), ("a.safetensors", "x"), ("tokenizer.json", "{}"), ("a.onnx", "x")],
            Runtime::Onnx,
            "a.onnx",
        ),
        (
            &[
                ("config.json", "{}"),
                ("a.safetensors", "x"),
                ("tokenizer.json", "{}"),
                ("modules.json", "[]"),
                ("model.toml", "runtime = \"transformers\"\ntask = \"feature-extraction\""),
            ],
            Runtime::Transformers,
            "config.json",
        ),
        (&[("a.skops", "x"), ("model.toml", "trusted = [\"mine.Step\"]")], Runtime::Sklearn, "a.skops"),
    ] {
        let package = opened(files).unwrap();
        assert_eq!((package.runtime, package.entry.as_str()), (runtime, entry), "{files:?}");
    }
    assert!(refused(&[("a.skops", "x"), ("b.skops", "x")]).contains("several files of skops at its top"));
    assert!(
        refused(&[("config.json", "{}"), ("tokenizer.json", "{}")]).contains("does not show what runs it")
    );
}

#[test]
fn what_tools_leave_behind_is_left_out_and_links_are_followed() {
    let weights = folder(&[("blob", "12345")]);
    let folder = folder(&[
        ("model.py", ""),
        ("__pycache__/model.pyc", "x"),
        (".git/config", "x"),
        ("lib/a.pyc", "x"),
        ("lib/.DS_Store", "x"),
    ]);
    std::os::unix::fs::symlink(weights.path().join("blob"), folder.path().join("weights.bin")).unwrap();
    std::os::unix::fs::symlink("model.py", folder.path().join("same.py")).unwrap();
    std::os::unix::fs::symlink(weights.path(), folder.path().join("dir")).unwrap();
    // A folder that somebody else made must not bring one's own files into the cluster.
    let refused =
        LocalPackage::open(folder.path(), "mine".parse().ok(), Links::Inside).unwrap_err().to_string();
    assert!(
        refused.contains("is a link out of its folder") && refused.contains("--follow-links"),
        "{refused}"
    );
    fs::remove_file(folder.path().join("same.py")).unwrap();
    fs::remove_file(folder.path().join("dir")).unwrap();
    let package = LocalPackage::open(folder.path(), "mine".parse().ok(), Links::All).unwrap();
    let names: Vec<&str> = package.files.keys().map(FileName::as_str).collect();
    assert_eq!((names, package.size()), (vec!["model.py", "weights.bin"], 5));
    assert_eq!(package.left_out, [".git", "__pycache__", ".DS_Store", "a.pyc"]);
}

#[test]
fn what_is_no_package_is_refused_and_the_error_names_it() {
    assert!(refused(&[("readme.txt", "")]).contains("does not show what runs it"));
    assert!(refused(&[("a.py", ""), ("b.py", "")]).contains("several Python files at its top (a.py, b.py)"));
    assert!(refused(&[("model.toml", "entry = \"gone.py\"")]).contains("the entry 'gone.py'"));
    assert!(refused(&[("model.toml", "entry = \"../x.py\"")]).contains("'../x.py'"));
    let artefact = [("model.py", ""), ("model.toml", "artefact = \"gone.bin\"")];
    assert!(refused(&artefact).contains("the artefact 'gone.bin'"));
    let error = refused(&[("model.py", ""), ("model.toml", "batch-max = 3")]);
    assert!(
        error.contains("model.toml") && error.contains("batch-max") && error.contains("batch_max"),
        "{error}"
    );
    let error = refused(&[("model.py", ""), ("model.toml", "runtime = \"pytorch\"")]);
    assert!(error.contains("pytorch") && error.contains("python"), "{error}");
    let gone = Path::new("/nothing/like/this");
    assert!(
        LocalPackage::open(gone, None, Links::Inside).unwrap_err().to_string().contains("/nothing/like/this")
    );
}

#[test]
fn an_environment_is_added_beside_the_files() {
    let mut package = opened(&[("model.py", ""), ("lib/requirements.txt", "")]).unwrap();
    assert!(package.requirements().is_none(), "only the one at the top counts");
    package = opened(&[("model.py", ""), ("requirements.txt", "toy==1")]).unwrap();
    assert!(package.requirements().is_some());
    let environment = folder(&[("requirements.lock", "toy==1"), ("wheels/toy-1-py3-none-any.whl", "x")]);
    package.add_environment(environment.path()).unwrap();
    let names: Vec<&str> = package.files.keys().map(FileName::as_str).collect();
    let added = [".environment/requirements.lock", ".environment/wheels/toy-1-py3-none-any.whl"];
    assert_eq!(names, [&added[..], &["model.py", "requirements.txt"]].concat());
}

#[test]
fn special_files_and_loops_are_refused() {
    let folder = folder(&[("model.py", "")]);
    let pipe = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    let open =
        || LocalPackage::open(folder.path(), "mine".parse().ok(), Links::Inside).unwrap_err().to_string();
    assert!(open().contains("pipe") && open().contains("neither a file nor a directory"), "{}", open());
    fs::remove_file(pipe).unwrap();
    std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();
    assert!(open().contains("loop"), "{}", open());
}

#[test]
fn the_manifest_lists_what_was_stored() {
    let package = opened(&[("model.py", "x = 1"), ("w.bin", ""), ("model.toml", "batch_max = 8")]).unwrap();
    let stored: Vec<NewFile> = package
        .files
        .iter()
        .map(|(name, file)| NewFile {
            name: name.clone(),
            size: file.size,
            digest: idunno_shared::ids::Digest::of(name.as_str().as_bytes()),
            extents: Vec::new(),
        })
        .collect();
    let manifest = package.manifest(&stored).unwrap();
    let names: Vec<&str> = manifest.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(names, ["model.py", "model.toml", "w.bin"]);
    assert_eq!((manifest.runtime.as_str(), &manifest.settings["batch_max"]), ("python", &Value::from(8)));
}
