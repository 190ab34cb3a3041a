//! One Caracal as five processes, each of the real binary, on one PostgreSQL and one Redis.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use caracal_client::{Admin, Places};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::TOKEN;

/// The key of the chain.
pub const AUDIT_KEY: &str = "5f1d0c3b9e8a7d6c4b2a19087f6e5d4c3b2a1f0e9d8c7b6a5948372615f4e3d2";
const SERVICES: [(&str, u16); 5] = [("api", 3000), ("coordinator", 4000), ("sts", 8080), ("gateway", 8081), ("audit", 9090)];

/// The processes, by name; killed when dropped.
pub struct Apart {
    dir: PathBuf,
    offset: u16,
    environment: Vec<(String, String)>,
    running: BTreeMap<String, Child>,
}

impl Apart {
    pub fn new(dir: &Path, offset: u16, database: &str, redis: &str) -> Self {
        let sts = format!("http://localhost:{}", 8080 + offset);
        let spool = dir.join("spool").display().to_string();
        let environment = [
            ("DATABASE_URL", database),
            ("REDIS_URL", redis),
            ("STREAMS_HMAC_KEY", "a31f0c3b9e8a7d6c4b2a19087f6e5d4c3b2a1f0e9d8c7b6a5948372615f4e3d2"),
            ("REVOCATION_STREAMS_HMAC_KEY", "b21f0c3b9e8a7d6c4b2a19087f6e5d4c3b2a1f0e9d8c7b6a5948372615f4e3d2"),
            ("AUDIT_HMAC_KEY", AUDIT_KEY),
            ("GATEWAY_STS_HMAC_KEY", "c11f0c3b9e8a7d6c4b2a19087f6e5d4c3b2a1f0e9d8c7b6a5948372615f4e3d2"),
            ("IDEMPOTENCY_HMAC_KEY", "d01f0c3b9e8a7d6c4b2a19087f6e5d4c3b2a1f0e9d8c7b6a5948372615f4e3d2"),
            ("SECRET_STORE_KEK", "e91f0c3b9e8a7d6c4b2a19087f6e5d4c3b2a1f0e9d8c7b6a5948372615f4e3d2"),
            ("CARACAL_ADMIN_TOKEN", TOKEN),
            ("AUDIT_REPLAY_DIR", &spool),
            ("ISSUER_URL", &sts),
            ("STS_URL", &sts),
            ("LOG_LEVEL", "warn"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Self { dir: dir.to_owned(), offset, environment, running: BTreeMap::new() }
    }

    /// All five, ready.
    pub async fn start(&mut self) {
        for (service, _) in SERVICES {
            self.spawn(service, service, 0);
        }
        for (service, _) in SERVICES {
            self.ready(service, 0).await;
        }
    }

    /// One more process of a service, on its port plus `more`.
    pub fn spawn(&mut self, name: &str, service: &str, more: u16) {
        let log = fs::File::options().create(true).append(true).open(self.dir.join(format!("{name}.log"))).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_caracal"))
            .args(["serve", service, "--port", &self.port(service, more).to_string()])
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.running.insert(name.to_owned(), child);
    }

    fn port(&self, service: &str, more: u16) -> u16 {
        SERVICES.iter().find(|(name, _)| *name == service).unwrap().1 + self.offset + more
    }

    pub fn url(&self, service: &str, more: u16) -> String {
        format!("http://localhost:{}", self.port(service, more))
    }

    pub fn admin(&self) -> Admin {
        Admin::new(self.url("api", 0), TOKEN.to_owned())
    }

    pub fn places(&self) -> Places {
        let at = |service| self.url(service, 0);
        Places { sts: at("sts"), coordinator: at("coordinator"), gateway: at("gateway") }
    }

    /// Waits until a service says that it can serve.
    pub async fn ready(&self, service: &str, more: u16) {
        let port = self.port(service, more);
        let mut last = String::new();
        for _ in 0..600 {
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await {
                let asked = stream.write_all(b"GET /ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
                last.clear();
                if asked.is_ok() && stream.read_to_string(&mut last).await.is_ok() && last.starts_with("HTTP/1.1 200") {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the {service} was never ready: {last}\n{}", self.logs());
    }

    pub fn logs(&self) -> String {
        let read = |name: &String| fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default();
        self.running.keys().map(|name| format!("== {name}\n{}", read(name))).collect::<Vec<_>>().concat()
    }

    /// `kill -9`.
    pub fn kill(&mut self, name: &str) {
        let mut child = self.running.remove(name).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Tells a process to end, and says whether it ended well.
    pub fn stop(&mut self, name: &str) -> bool {
        let mut child = self.running.remove(name).unwrap();
        let told = Command::new("kill").arg(child.id().to_string()).status().unwrap();
        told.success() && child.wait().unwrap().success()
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
