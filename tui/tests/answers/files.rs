//! Examples of the JSON of commands on files of the store.

use idunno_console::answer::files::{
    CopiedFile, CopiedFiles, DeletedFile, DeletedFiles, DownloadedDataset, DownloadedFile, File, FileList,
    FileVersion, FileVersions, LeftOut, ReferencedDataset, RenamedFile, UploadedDataset, UploadedFile,
};

use super::examples::{CREATED_MS, DIGEST, Examples, words};

fn file_version() -> FileVersion {
    FileVersion {
        name: "docs/report.pdf".into(),
        version: 3,
        size_bytes: 12_345,
        digest: DIGEST.into(),
        created_ms: CREATED_MS,
    }
}

fn list() -> FileList {
    let FileVersion { name, version, size_bytes, digest, created_ms } = file_version();
    let holders = words(&["m1", "m2", "m4"]);
    FileList {
        items: vec![File { name, version, versions: 3, size_bytes, digest, created_ms, holders }],
        more: true,
    }
}

pub(super) fn files(command: &str) -> Option<Examples> {
    Some(match command {
        "populate-test-data" => Examples::of(&UploadedDataset {
            dataset: "test-data".into(),
            files: 990,
            size_bytes: 52_000_000,
            files_skipped: 10,
            copies: 4,
            copies_wanted: 4,
            left_out: vec![LeftOut { reason: "junk".into(), count: 1 }],
        }),
        "reference-data" => Examples::of(&ReferencedDataset {
            dataset: "photos.refs".into(),
            version: 1,
            objects: 1_000_000,
            size_bytes: 120_000_000_000,
            left_out: vec![LeftOut { reason: "folder".into(), count: 3 }],
        }),
        "rm" => Examples::of(&DeletedFiles { files: 12, versions: 15 }),
        "cp" | "mv" => Examples::of(&CopiedFiles {
            items: vec![CopiedFile { from: "docs/a.pdf".into(), to: "old/a.pdf".into(), version: 1 }],
        }),
        "get-dataset" => Examples::of(&DownloadedDataset {
            dataset: "test-data".into(),
            directory: "./images".into(),
            files: 1000,
            size_bytes: 53_000_000,
            renamed: vec![RenamedFile { name: "test-data/a".into(), path: "./images/a~".into() }],
        }),
        "put" => {
            let put = |size_bytes, copies| UploadedFile {
                name: "docs/report.pdf".into(),
                version: 3,
                size_bytes,
                copies,
                copies_wanted: copies,
            };
            Examples::of(&put(12_345, Some(4))).and(&put(0, None))
        }
        "get" => Examples::of(&DownloadedFile { path: "report.pdf".into(), version: file_version() }),
        "delete" => Examples::of(&DeletedFile { name: "docs/report.pdf".into(), versions: 3 }),
        "ls" | "store" => Examples::of(&list()),
        "get-versions" => {
            let versions = vec![file_version(), FileVersion { version: 2, ..file_version() }];
            Examples::of(&FileVersions { path: "report.txt".into(), versions })
        }
        _ => return None,
    })
}
