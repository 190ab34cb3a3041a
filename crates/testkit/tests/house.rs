//! The walls of the house, held by name: which room may know which, and what stays in its room.
//!
//! The table is the architecture's. A new room gets a line here first; an arrow that points up or sideways fails with both names.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every room and its level. An arrow may only point to a lower level.
const LEVELS: &[(&str, u8)] = &[
    ("core", 0),
    ("policy", 1),
    ("crypto", 1),
    ("host", 1),
    ("store", 2),
    ("egress", 2),
    ("tlog", 2),
    ("stream", 3),
    ("ephemeral", 3),
    ("provider", 3),
    ("custody", 3),
    ("web", 3),
    ("sts", 4),
    ("gateway", 4),
    ("coordinator", 4),
    ("audit", 4),
    ("api", 4),
    ("caracal", 5),
];

/// Rooms apart from the levels, and the only rooms each may know.
const APART: &[(&str, &[&str])] = &[("client", &["core", "crypto"])];

/// What stays in its room: a crate, and the rooms that may name it.
const KEPT: &[(&str, &[&str])] = &[
    ("sqlx", &["store"]),
    ("rusqlite", &["store"]),
    ("sea-orm", &["store"]),
    ("redis", &["stream", "ephemeral"]),
    ("regorus", &["policy"]),
    ("aws-lc-rs", &["crypto"]),
    ("argon2", &["crypto"]),
];

/// Words of source that stay in their rooms: who opens sockets, who writes SQL, who reads the clock.
const WORDS: &[(&str, &[&str])] = &[
    ("TcpStream::connect", &["egress", "client", "caracal"]),
    ("TcpListener::bind", &["web", "caracal"]),
    ("HttpConnector", &["egress", "client"]),
    ("sqlx::", &["store"]),
    ("rusqlite::", &["store"]),
    ("sea_orm::", &["store"]),
    ("redis::", &["stream", "ephemeral"]),
    ("SELECT ", &["store"]),
    ("INSERT INTO ", &["store"]),
    ("DELETE FROM ", &["store"]),
];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn rooms() -> Vec<String> {
    let mut rooms: Vec<String> =
        fs::read_dir(crates()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    rooms.sort();
    rooms
}

/// Names under `[dependencies]` of a room's manifest; what tests use is theirs to choose.
fn dependencies(room: &str) -> Vec<String> {
    let manifest = fs::read_to_string(crates().join(room).join("Cargo.toml")).unwrap();
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]";
        } else if inside && let Some((name, _)) = line.split_once(['.', '=', ' ']) {
            names.push(name.to_owned());
        }
    }
    names
}

fn room_of(package: &str) -> Option<&str> {
    package.strip_prefix("caracal-")
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn arrows_point_down() {
    let levels: BTreeMap<&str, u8> = LEVELS.iter().copied().collect();
    let apart: BTreeMap<&str, &[&str]> = APART.iter().copied().collect();
    let mut wrong = Vec::new();
    for room in rooms() {
        if room == "testkit" {
            continue;
        }
        for package in dependencies(&room) {
            let Some(target) = room_of(&package) else { continue };
            let allowed = if let Some(known) = apart.get(room.as_str()) {
                known.contains(&target)
            } else {
                let from = levels.get(room.as_str()).unwrap_or_else(|| panic!("room {room} has no level: add it to the table"));
                match levels.get(target) {
                    Some(to) => to < from,
                    None => apart.contains_key(target) && room == "caracal",
                }
            };
            if !allowed {
                wrong.push(format!("{room} → {target}"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point up or sideways: {wrong:?}");
}

#[test]
fn the_table_names_every_room_and_no_other() {
    let mut named: Vec<&str> = LEVELS.iter().map(|(room, _)| *room).chain(APART.iter().map(|(room, _)| *room)).collect();
    named.push("testkit");
    named.sort_unstable();
    assert_eq!(rooms(), named);
}

#[test]
fn crates_stay_in_their_rooms() {
    let kept: BTreeMap<&str, &[&str]> = KEPT.iter().copied().collect();
    let mut wrong = Vec::new();
    for room in rooms().into_iter().filter(|room| room != "testkit") {
        for package in dependencies(&room) {
            if kept.get(package.as_str()).is_some_and(|rooms| !rooms.contains(&room.as_str())) {
                wrong.push(format!("{room} depends on {package}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn sql_redis_and_sockets_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for room in rooms().into_iter().filter(|room| room != "testkit") {
        let mut files = Vec::new();
        sources(&crates().join(&room).join("src"), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            // Tests inside a file may open what they need; the shipped half may not.
            let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (word, allowed) in WORDS {
                let used = shipped.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(word));
                if used && !allowed.contains(&room.as_str()) {
                    wrong.push(format!("{} says {word:?}", file.strip_prefix(crates()).unwrap().display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_testkit_is_never_linked_into_the_binary() {
    for room in rooms() {
        assert!(!dependencies(&room).iter().any(|name| name == "caracal-testkit"), "{room} links the testkit");
    }
}
