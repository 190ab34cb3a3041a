//! The real binary, started in a directory of its own on free ports.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code, reason = "tests")]

pub mod apart;
pub mod work;

use std::fs;
use std::net::TcpListener as Probe;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use caracal_client::Admin;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The administrator's token of every stack here.
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";
const PORTS: [u16; 5] = [3000, 4000, 8080, 8081, 9090];
/// Offsets: below the ports that the system gives to outgoing connections, and at distances at which no two stacks share a port.
const OFFSETS: std::ops::Range<u16> = 10_000..10_990;

/// An offset at which all five ports are free. It is this process's until it ends: a lock on a file of its own says so to every other
/// test process of this machine, also before the stack listens and after it was killed.
pub fn offset() -> u16 {
    static HELD: Mutex<Vec<fs::File>> = Mutex::new(Vec::new());
    let locks = std::env::temp_dir().join("caracal-test-ports");
    fs::create_dir_all(&locks).unwrap();
    // Processes that start together look in different places first.
    let first = usize::try_from(std::process::id()).unwrap() * 37 % (OFFSETS.len() / 2);
    for offset in OFFSETS.step_by(2).cycle().skip(first).take(OFFSETS.len() / 2) {
        let lock = fs::File::options().create(true).append(true).open(locks.join(offset.to_string())).unwrap();
        if lock.try_lock().is_ok() && PORTS.iter().all(|port| Probe::bind(("127.0.0.1", port + offset)).is_ok()) {
            HELD.lock().unwrap().push(lock);
            return offset;
        }
    }
    panic!("no offset is free");
}

pub fn up(home: &Path, offset: u16, more: &[(&str, &str)]) -> Child {
    let log = fs::File::options().create(true).append(true).open(home.join("log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_caracal"))
        .args(["up", "--data-dir"])
        .arg(home.join("stack"))
        .args(["--port-offset", &offset.to_string()])
        .env("CARACAL_ADMIN_TOKEN", TOKEN)
        .env("LOG_LEVEL", "warn")
        .env_remove("DATABASE_URL")
        .env_remove("REDIS_URL")
        .envs(more.iter().copied())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

pub async fn ready(offset: u16, home: &Path) {
    for _ in 0..600 {
        let admin = Admin::new(format!("http://localhost:{}", 3000 + offset), TOKEN.to_owned());
        let gateway = async {
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", 8081 + offset)).await.ok()?;
            stream.write_all(b"GET /ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await.ok()?;
            text.starts_with("HTTP/1.1 200").then_some(())
        };
        if gateway.await.is_some() && admin.call(Method::GET, "/v1/zones", None).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never ready: {}", fs::read_to_string(home.join("log")).unwrap_or_default());
}
