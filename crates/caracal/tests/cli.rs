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

/// Weak keys are refused before anything is reached for: the database that nobody runs is not what is complained of.
#[test]
fn a_weak_key_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (database, weak) = (format!("postgres://nobody@127.0.0.1:{closed}/x"), "ab".repeat(32));
    let good = "5f1d0c3b9e8a7d6c4b2a19087f6e5d4c3b2a1f0e9d8c7b6a5948372615f4e3d2";
    for (current, previous, named) in
        [(weak.as_str(), good, "SECRET_STORE_KEK"), (good, weak.as_str(), "SECRET_STORE_KEK_PREVIOUS")]
    {
        let env = [("SECRET_STORE_KEK", current), ("SECRET_STORE_KEK_PREVIOUS", previous), ("DATABASE_URL", &database)];
        let home = dir.path().join("home");
        let output = caracal(&home, &["up", "--port-offset", &offset().to_string()], &env);
        refuses(&output, &[&format!("{named}: "), "without a pattern"]);
        assert!(!String::from_utf8_lossy(&output.stderr).contains(&weak));
        assert!(empty(&home), "{named}");
    }
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

/// What every service apart needs, on a database and a Redis that nobody runs.
fn given(closed: u16) -> Vec<(&'static str, String)> {
    let key = "5f1d0c3b9e8a7d6c4b2a19087f6e5d4c3b2a1f0e9d8c7b6a5948372615f4e3d2";
    let mut all = vec![
        ("DATABASE_URL", format!("postgres://nobody:hunter2@127.0.0.1:{closed}/x")),
        ("REDIS_URL", format!("redis://:hunter2@127.0.0.1:{closed}/")),
        ("ISSUER_URL", "http://localhost:8080".to_owned()),
        ("STS_URL", "http://localhost:8080".to_owned()),
        ("PORT", "0".to_owned()),
    ];
    let keys = ["STREAMS_HMAC_KEY", "AUDIT_HMAC_KEY", "GATEWAY_STS_HMAC_KEY", "IDEMPOTENCY_HMAC_KEY", "SECRET_STORE_KEK"];
    all.extend(keys.map(|name| (name, key.to_owned())));
    all
}

#[test]
fn a_service_apart_says_in_one_line_what_it_misses() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path().join("home");
    for (service, words) in [
        ("api", &["DATABASE_URL", "REDIS_URL", "STREAMS_HMAC_KEY", "AUDIT_HMAC_KEY", "GATEWAY_STS_HMAC_KEY"][..]),
        ("coordinator", &["DATABASE_URL", "STREAMS_HMAC_KEY", "IDEMPOTENCY_HMAC_KEY", "STS_URL", "ISSUER_URL"]),
        ("sts", &["REDIS_URL", "STREAMS_HMAC_KEY", "AUDIT_HMAC_KEY", "GATEWAY_STS_HMAC_KEY", "ISSUER_URL"]),
        ("gateway", &["REDIS_URL", "STREAMS_HMAC_KEY", "GATEWAY_STS_HMAC_KEY", "STS_URL"]),
        ("audit", &["DATABASE_URL", "REDIS_URL", "AUDIT_HMAC_KEY"]),
    ] {
        refuses(&caracal(&home, &["serve", service], &[]), words);
    }
    assert!(!caracal(&home, &["serve", "everything"], &[]).status.success());
    assert!(empty(&home));
}

#[test]
fn a_service_apart_refuses_what_is_weak_wrong_taken_or_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let (home, file) = (dir.path().join("home"), dir.path().join("caracal.toml"));
    fs::write(&file, "prot = 1\n").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = file.to_str().unwrap();
    for (args, changed, words) in [
        (&["serve", "sts"][..], ("GATEWAY_STS_HMAC_KEY", "abcd"), &["GATEWAY_STS_HMAC_KEY"][..]),
        (&["serve", "gateway"], ("STS_URL", "http://sts.example.com"), &["STS_URL", "https"]),
        (&["serve", "gateway"], ("STREAMS_HMAC_KEY", "not hex"), &["STREAMS_HMAC_KEY"]),
        (&["serve", "api"], ("CARACAL_ADMIN_TOKEN", "short"), &["CARACAL_ADMIN_TOKEN"]),
        (&["serve", "audit", "--config", file], ("LOG_LEVEL", "info"), &["prot"]),
        (&["serve", "audit", "--port", &port], ("LOG_LEVEL", "info"), &[&port, "audit", "--port"]),
        (&["serve", "audit"], ("LOG_LEVEL", "info"), &["REDIS_URL"]),
        (&["serve", "coordinator"], ("REDIS_URL", "nonsense"), &["REDIS_URL"]),
    ] {
        let mut env = given(closed);
        if changed.0 == "LOG_LEVEL" && args.contains(&"--port") {
            env.retain(|(name, _)| *name != "PORT");
        }
        env.retain(|(name, _)| *name != changed.0);
        env.push((changed.0, changed.1.to_owned()));
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let output = caracal(&home, args, &env);
        refuses(&output, words);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"), "a password is shown");
    }
    assert!(empty(&home));
}
