//! The fuzz targets' corpus, played through their checks: what fuzzing once found stays found, without cargo-fuzz.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets, in a crate of their own, call these functions")]
mod checks;

use std::fs;
use std::path::{Path, PathBuf};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz");

#[test]
fn every_file_of_the_corpus_holds() {
    for (target, check) in checks::TARGETS {
        let files = files(&Path::new(FOLDER).join("corpus").join(target));
        assert!(files.len() > 9, "{target}: only {} files", files.len());
        for file in files {
            let input = fs::read(&file).unwrap();
            let held = std::panic::catch_unwind(|| check(&input));
            assert!(held.is_ok(), "{}: see above", file.display());
        }
    }
}

#[test]
fn each_target_is_played_and_each_folder_has_its_target() {
    let names = |folder: &str| -> Vec<String> {
        let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
        files(&Path::new(FOLDER).join(folder)).into_iter().map(stem).collect()
    };
    let played: Vec<&str> = checks::TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names("fuzz_targets"), played);
    assert_eq!(names("corpus"), played);
}

/// In the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}
