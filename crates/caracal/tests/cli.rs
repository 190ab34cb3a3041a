//! What is typed wrong, or cannot work here, ends in one line that says what to do, exit code 1, and nothing created.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use support::{offset, ready, up};

fn caracal(home: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_caracal"))
        .args(args)
        .env("CARACAL_HOME", home)
        .env_remove("DATABASE_URL")
        .env_remove("REDIS_URL")
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

/// Exit code 1, an empty stdout, and one line on stderr with every one of `words`.
fn refuses(output: &Output, words: &[&str]) {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(text.trim_end().lines().count(), 1, "more than one line: {text}");
    for word in words {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
}

fn empty(dir: &Path) -> bool {
    !dir.exists() || fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn what_is_not_a_command_is_answered_with_what_is() {
    let dir = tempfile::tempdir().unwrap();
    for (args, word) in [
        (&["upp"][..], "upp"),
        (&["up", "--port-ofset", "1"], "--port-ofset"),
        (&["up", "--port-offset", "60000"], "60000"),
        (&["status", "--url", "nonsense"], "nonsense"),
    ] {
        let output = caracal(&dir.path().join("home"), args, &[]);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(word), "{args:?}: {text}");
        assert!(empty(&dir.path().join("home")), "{args:?}");
    }
}

#[test]
fn a_taken_port_names_its_service_and_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let offset = offset();
    let _taken = TcpListener::bind(("127.0.0.1", 8080 + offset)).unwrap();
    let home = dir.path().join("home");
    let output = caracal(&home, &["up", "--port-offset", &offset.to_string()], &[]);
    refuses(&output, &[&(8080 + offset).to_string(), "sts", "--port-offset"]);
    assert!(empty(&home));
}

#[test]
fn a_database_or_redis_that_is_not_there_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let offset = offset().to_string();
    let home = dir.path().join("home");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (name, value, word) in [
        ("DATABASE_URL", format!("postgres://nobody:hunter2@127.0.0.1:{closed}/x"), "DATABASE_URL"),
        ("DATABASE_URL", "not a url".to_owned(), "DATABASE_URL"),
        ("REDIS_URL", format!("redis://:hunter2@127.0.0.1:{closed}/"), "REDIS_URL"),
    ] {
        let output = caracal(&home, &["up", "--port-offset", &offset], &[(name, &value)]);
        refuses(&output, &[word]);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"), "a password is shown");
        assert!(empty(&home), "{name}={value}");
    }
}

#[test]
fn a_place_that_cannot_be_a_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let output = caracal(&file.join("home"), &["up", "--port-offset", &offset().to_string()], &[]);
    refuses(&output, &["file"]);
}

#[test]
fn a_weak_key_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let weak = "ab".repeat(32);
    let output = caracal(&dir.path().join("home"), &["up", "--port-offset", &offset().to_string()], &[("SECRET_STORE_KEK", &weak)]);
    refuses(&output, &["SECRET_STORE_KEK"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains(&weak));
}

#[tokio::test]
async fn a_directory_is_one_process_only() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (offset(), offset());
    let mut running = up(dir.path(), first, &[]);
    ready(first, dir.path()).await;
    let stack = dir.path().join("stack");
    let output = caracal(dir.path(), &["up", "--data-dir", stack.to_str().unwrap(), "--port-offset", &second.to_string()], &[]);
    running.kill().unwrap();
    running.wait().unwrap();
    refuses(&output, &[stack.to_str().unwrap()]);
}
