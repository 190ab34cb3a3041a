//! Every code that a service answers with is asked for by a test of that service.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use caracal_core::error::{coordinator, sts};

/// Situations that no request brings about on purpose: what stands below the service must fail, or a later release must reach them.
const UNREACHED: [&str; 6] = [
    "internal_error",
    "service_unavailable",
    "sts_unavailable",
    "interaction_required",
    "approval_consumed",
    "application_not_found",
];

fn texts(dir: &Path) -> String {
    let mut all = String::new();
    let mut open: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                open.push(entry);
            } else if entry.extension().is_some_and(|e| e == "rs") {
                all.push_str(&fs::read_to_string(entry).unwrap());
            }
        }
    }
    all
}

#[test]
fn every_code_is_tested() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (name, rows) in [("sts", sts::ALL), ("coordinator", coordinator::ALL)] {
        let tests = texts(&crates.join(name).join("tests"));
        let codes: BTreeSet<&str> = rows.iter().map(|row| row.code).filter(|code| !UNREACHED.contains(code)).collect();
        let untested: Vec<&str> = codes.into_iter().filter(|code| !tests.contains(&format!("\"{code}\""))).collect();
        assert!(untested.is_empty(), "{name}: no test asks for {untested:?}");
    }
}
