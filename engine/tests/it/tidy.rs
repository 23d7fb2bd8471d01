//! The house rules that no compiler checks: which crate may import which, who owns which foreign crate, that every file
//! says what it is, and that functions stay short.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Our crates, and which of ours each may import.
const ARROWS: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("documents", &["protocol"]),
    ("hsm-pool", &["protocol"]),
    ("store", &["protocol"]),
    ("sla", &["protocol"]),
    ("actors", &["documents", "hsm-pool", "store", "sla", "protocol"]),
    (
        "engine",
        &["actors", "documents", "hsm-pool", "store", "sla", "protocol"],
    ),
    ("loadtest", &["sla", "protocol"]),
    (
        "benches",
        &["actors", "documents", "hsm-pool", "store", "protocol"],
    ),
    ("hsm-pool/fault-script", &[]),
    ("hsm-pool/faulty-token", &["hsm-pool/fault-script"]),
    ("hsm-pool/soft-sdf", &["hsm-pool/fault-script"]),
];

/// Foreign crates that one or two of ours own.
const OWNERS: &[(&str, &[&str])] = &[
    ("actix", &["actors"]),
    ("axum", &["engine"]),
    ("cryptoki", &["hsm-pool"]),
    ("figment", &["engine"]),
    ("lettre", &["engine"]),
    ("quinn", &["engine", "protocol"]),
    ("rusqlite", &["store"]),
];

const FUNCTION_LINES_MAX: usize = 70;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Names in the `[dependencies]` table of a crate; what only tests use is not an arrow.
fn dependencies(folder: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let table = text.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    table
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn crates_import_only_what_stands_to_their_right() {
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for (name, allowed) in ARROWS {
        for dependency in dependencies(name) {
            let forbidden = ours.contains(dependency.as_str()) && !allowed.contains(&dependency.as_str());
            assert!(!forbidden, "{name} must not import {dependency}");
        }
    }
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = workspace
        .lines()
        .find(|line| line.starts_with("members"))
        .unwrap();
    for member in members.split('"').skip(1).step_by(2) {
        assert!(ours.contains(member), "{member} has no arrows in this test");
    }
}

#[test]
fn each_foreign_thing_has_its_owners() {
    for (foreign, owners) in OWNERS {
        for (name, _) in ARROWS {
            if dependencies(name).contains(*foreign) {
                assert!(
                    owners.contains(name),
                    "{foreign} belongs to {owners:?}, not to {name}"
                );
            }
        }
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let table = workspace
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]")
        .skip(1);
    let ours = |line: &str| line.contains("path = ");
    for line in table.take_while(|line| !line.starts_with('[')) {
        let is_entry = !line.trim().is_empty() && !line.starts_with('#') && !ours(line);
        assert!(!is_entry || line.contains("# "), "no reason: {line}");
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (name, _) in ARROWS {
        sources(&root().join(name), &mut found);
    }
    found.sort();
    found.dedup();
    assert!(found.len() > 60, "only {} files were found", found.len());
    found
}

#[test]
fn every_file_says_what_it_is() {
    for path in all_sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("//! "),
            "{} does not begin by saying what it is",
            path.display()
        );
    }
}

/// Functions by name and length: from a line with `fn` to the closing brace at the same indentation.
fn functions(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut open: Option<(String, usize, usize)> = None;
    for (number, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words = line.trim_start();
        let is_function =
            words.split_whitespace().take(4).any(|word| word == "fn") && !words.starts_with("//");
        match &open {
            Some((name, start, at)) if words == "}" && indent == *at => {
                found.push((name.clone(), number - start + 1));
                open = None;
            }
            None if is_function && words.ends_with(['{', '(', '>', ',']) => {
                open = Some((words.chars().take(60).collect(), number, indent));
            }
            _ => {}
        }
    }
    found
}

#[test]
fn functions_stay_short() {
    for path in all_sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        for (name, lines) in functions(&text) {
            assert!(
                lines <= FUNCTION_LINES_MAX,
                "{}: {lines} lines: {name}",
                path.display()
            );
        }
    }
}

#[test]
fn the_measure_of_functions_measures() {
    let text = "fn short() {\n    1\n}\n\nimpl X {\n    pub fn long(\n        a: u8,\n    ) -> u8 {\n        a\n    }\n}\n";
    let found: Vec<usize> = functions(text).into_iter().map(|(_, lines)| lines).collect();
    assert_eq!(found, [3, 5]);
}
