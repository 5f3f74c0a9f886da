//! The targets of the fuzzer on what is kept of its inputs, in `fuzz/`: captures of real programs in `corpus`, and what
//! was once found wrong in `regressions`.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use rov_tests::fuzz::TARGETS;

fn folder(of: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(of).join(target)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

#[test]
fn every_target_takes_its_corpus_and_what_was_once_found() {
    let mut failed = Vec::new();
    for (name, target) in TARGETS.iter().copied() {
        let seeds = files(&folder("corpus", name));
        assert!(!seeds.is_empty(), "{name} has a corpus");
        for file in seeds.into_iter().chain(files(&folder("regressions", name))) {
            let input = fs::read(&file).expect("a readable file");
            // Cut off and empty as well, as it might come from the network; a sample of lengths, for the sake of time.
            let cut = (0..input.len()).step_by(input.len() / 16 + 1);
            for length in cut.chain([input.len()]) {
                if catch_unwind(|| target(&input[..length])).is_err() {
                    failed.push(format!("{name}: the first {length} bytes of {}", file.display()));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The fuzzer's own workspace is not built here, as it needs a nightly toolchain.
#[test]
fn the_fuzzer_has_the_same_targets() {
    let ours: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let manifest = fs::read_to_string(folder("", "Cargo.toml")).expect("fuzz/Cargo.toml");
    let names = manifest.split("[[bin]]").skip(1).filter_map(|bin| bin.split('"').nth(1));
    assert_eq!(names.map(str::to_owned).collect::<BTreeSet<_>>(), ours);
    for name in &ours {
        let source = fs::read_to_string(folder("fuzz_targets", &format!("{name}.rs"))).expect("a target's source");
        assert!(source.contains(&format!("rov_tests::fuzz::{name}(data)")), "{name}");
    }
    for of in ["corpus", "regressions"] {
        let kept = files(&folder(of, ""));
        let names = kept.iter().filter_map(|path| path.file_name()?.to_str());
        assert!(names.into_iter().all(|name| ours.contains(name)), "{kept:?}");
    }
}
