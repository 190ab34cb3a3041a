//! A Gateway on real sockets between a scripted upstream and a scripted STS; evidence is kept in memory.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, reason = "tests")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caracal_core::claims::{Claims, SubjectType, Use};
use caracal_core::directive::{AuthMode, Directive};
use caracal_core::event::AuditEvent;
use caracal_core::id::{SigningKeyId, ZoneId};
use caracal_crypto::jws::sign;
use caracal_crypto::keys::SigningKey;
use caracal_crypto::verified::VerifiedMandates;
use caracal_egress::{Client, Guard, Settings, Trust};
use caracal_gateway::consumed::Recent;
use caracal_gateway::evidence::{Evidence, NoEvidence};
use caracal_gateway::exchange::{Call, Exchange, Failure, Granted, StsRefusal};
use caracal_gateway::revocation::Snapshot;
use caracal_gateway::{Config, Gateway, Parts, RevocationSource};
use caracal_host::config::{Run, Sources};
use caracal_host::jobs::Stop;
use caracal_host::{FixedClock, Metrics, Supervisor, World};
use caracal_web::Listener;
use caracal_web::mandate::{FixedKeys, Verifier};
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What an upstream does with each request: the bytes it answers, in steps, and whether it then closes.
#[derive(Clone)]
pub enum Script {
    /// Answers at once and keeps the connection.
    Answer(&'static str),
    /// Writes a head, then each part after a pause, then closes.
    Parts(&'static str, Vec<(u64, &'static str)>),
    /// Never answers.
    Silent,
    /// Closes without answering.
    Close,
}

/// An upstream that keeps what it received, byte for byte.
pub struct Upstream {
    pub address: SocketAddr,
    pub received: Arc<Mutex<Vec<String>>>,
    pub script: Arc<Mutex<Script>>,
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(Mutex::new(Script::Answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")));
        let (seen, says) = (received.clone(), script.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(talk(stream, seen.clone(), says.clone()));
            }
        });
        Self { address, received, script }
    }

    pub fn says(&self, script: Script) {
        *self.script.lock().unwrap() = script;
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.received.lock().unwrap())
    }
}

async fn talk(mut stream: TcpStream, seen: Arc<Mutex<Vec<String>>>, says: Arc<Mutex<Script>>) {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 65536];
    loop {
        let Some(end) = bytes.windows(4).position(|w: &[u8]| w == b"\r\n\r\n") else {
            match stream.read(&mut buffer).await {
                Ok(n @ 1..) => bytes.extend_from_slice(&buffer[..n]),
                _ => return,
            }
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end + 4]).into_owned();
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1).and_then(|r| r.split("\r\n").next()).and_then(|n| n.parse().ok());
        let chunked = lower.contains("transfer-encoding: chunked");
        let mut total = end + 4 + length.unwrap_or(0);
        loop {
            if chunked && let Some(at) = bytes[end + 4..].windows(5).position(|w| w == b"0\r\n\r\n") {
                total = end + 4 + at + 5;
                break;
            }
            if !chunked && bytes.len() >= total {
                break;
            }
            match stream.read(&mut buffer).await {
                Ok(n @ 1..) => bytes.extend_from_slice(&buffer[..n]),
                _ => return,
            }
        }
        let request: Vec<u8> = bytes.drain(..total).collect();
        seen.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
        let script = says.lock().unwrap().clone();
        match script {
            Script::Answer(text) => stream.write_all(text.as_bytes()).await.unwrap(),
            Script::Parts(head, parts) => {
                stream.write_all(head.as_bytes()).await.unwrap();
                for (pause, part) in parts {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    if stream.write_all(part.as_bytes()).await.is_err() {
                        return;
                    }
                }
                return;
            }
            Script::Silent => tokio::time::sleep(Duration::from_hours(1)).await,
            Script::Close => return,
        }
    }
}

/// An STS that grants what it is told to and counts.
pub struct Sts {
    pub asked: AtomicUsize,
    pub answer: Mutex<Result<Granted, Failure>>,
    pub operations: Mutex<Vec<String>>,
}

impl Exchange for Sts {
    fn exchange<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Result<Granted, Failure>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.operations.lock().unwrap().push(format!("{} {} {}", call.method, call.path, call.resource));
        let answer = self.answer.lock().unwrap().clone();
        Box::pin(std::future::ready(answer))
    }
}

#[derive(Default)]
pub struct Events {
    pub all: Mutex<Vec<AuditEvent>>,
    pub broken: std::sync::atomic::AtomicBool,
}

impl Evidence for Ledger {
    fn record(&self, event: AuditEvent) -> BoxFuture<'static, Result<(), NoEvidence>> {
        let broken = self.0.broken.load(Ordering::SeqCst);
        if !broken {
            self.0.all.lock().unwrap().push(event);
        }
        Box::pin(std::future::ready(if broken { Err(NoEvidence("full".into())) } else { Ok(()) }))
    }

    fn unready(&self) -> Option<&'static str> {
        self.0.broken.load(Ordering::SeqCst).then_some("audit_replay_unavailable")
    }
}

pub struct Ledger(pub Arc<Events>);

#[derive(Default)]
pub struct Source(pub Mutex<Option<Snapshot>>);

impl RevocationSource for SourceOf {
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, String>> {
        let snapshot = self.0.0.lock().unwrap().clone().ok_or_else(|| "away".to_owned());
        Box::pin(std::future::ready(snapshot))
    }
}

pub struct SourceOf(pub Arc<Source>);

pub struct Stack {
    pub world: World,
    pub clock: Arc<FixedClock>,
    pub address: SocketAddr,
    pub gateway: Gateway,
    pub upstream: Upstream,
    pub sts: Arc<Sts>,
    pub events: Arc<Events>,
    pub source: Arc<Source>,
    pub key: SigningKey,
    pub zone: ZoneId,
    pub stop: Stop,
}

impl Stack {
    pub async fn start(environment: &[(&'static str, &str)]) -> Self {
        let (world, clock) = World::fixed(7);
        let mut vars: HashMap<&str, String> = HashMap::from([
            ("CARACAL_MODE", "dev".to_owned()),
            ("CARACAL_ADMIN_TOKEN", "admin".to_owned()),
            ("METRICS_BEARER", "metrics".to_owned()),
            ("ISSUER_URL", "http://sts".to_owned()),
        ]);
        vars.extend(environment.iter().map(|(k, v)| (*k, (*v).to_owned())));
        let config = Config::read(&Sources::builder(Run::Up).environment(vars).build().unwrap()).unwrap();
        let limits = config.limits;
        let key = SigningKey::generate(world.mint::<SigningKeyId>()).unwrap();
        let keys = Arc::new(FixedKeys::default());
        let zone = world.mint();
        keys.set(zone, vec![key.public().unwrap()]);
        let upstream = Upstream::start().await;
        let sts = Arc::new(Sts {
            asked: AtomicUsize::new(0),
            answer: Mutex::new(Ok(granted(&format!("http://{}/base", upstream.address), AuthMode::CaracalJwt))),
            operations: Mutex::default(),
        });
        let (events, source) = (Arc::new(Events::default()), Arc::new(Source(Mutex::new(Some(Snapshot::default())))));
        let guard = Guard::upstreams(config.upstream_hosts.clone(), vec![]);
        let supervisor = Supervisor::new(world.clone());
        let gateway = Gateway::new(Parts {
            config,
            world: world.clone(),
            verifier: Verifier::new(keys, Arc::new(VerifiedMandates::new(1024)), world.clone()),
            exchange: sts.clone(),
            consumed: Arc::new(Recent::new(65_536)),
            evidence: Arc::new(Ledger(events.clone())),
            revocations: Arc::new(SourceOf(source.clone())),
            upstreams: Client::new(Settings::new(guard, Trust::new(None))),
            metrics: Metrics::new("gateway"),
            supervisor,
        });
        gateway.reload().await.unwrap();
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), limits, None).unwrap();
        let (address, stop) = (listener.address().unwrap(), Stop::new());
        tokio::spawn(listener.serve(gateway.clone(), stop.clone(), Duration::from_secs(1)));
        Self { world, clock, address, gateway, upstream, sts, events, source, key, zone, stop }
    }

    /// What the STS answers from now on.
    pub fn grants(&self, granted: Granted) {
        *self.sts.answer.lock().unwrap() = Ok(granted);
    }

    pub fn refuses(&self, refusal: StsRefusal) {
        *self.sts.answer.lock().unwrap() = Err(refusal.into());
    }

    pub fn claims(&self) -> Claims {
        let now = self.world.now().as_secs();
        let application = self.world.mint();
        Claims {
            iss: "http://sts".into(),
            sub: "a".into(),
            aud: vec!["http://sts".into()],
            exp: now + 900,
            iat: now,
            jti: self.world.mint(),
            zone_id: self.zone,
            client_id: application,
            scope: Some("ledger:post".into()),
            sid: self.world.mint(),
            root_sid: self.world.mint(),
            usage: Use::Gateway,
            sub_type: SubjectType::Application,
            target: vec!["resource://ledger".into()],
            session: Some(self.world.mint()),
            delegated: None,
            bound_request: None,
        }
    }

    pub fn token(&self, claims: &Claims) -> String {
        sign(&self.key, &serde_json::to_vec(claims).unwrap()).unwrap()
    }

    /// A fresh mandate.
    pub fn mandate(&self) -> String {
        self.token(&self.claims())
    }

    /// Sends raw bytes and reads until the connection ends.
    pub async fn raw(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await.unwrap();
        Answer::of(&bytes)
    }

    /// A governed call that closes its connection.
    pub async fn call(&self, line: &str, token: &str, more: &str) -> Answer {
        self.raw(&format!(
            "{line} HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nX-Caracal-Resource: resource://ledger\r\n{more}\r\n"
        ))
        .await
    }

    pub fn take_events(&self) -> Vec<AuditEvent> {
        std::mem::take(&mut *self.events.all.lock().unwrap())
    }

    pub fn asked(&self) -> usize {
        self.sts.asked.swap(0, Ordering::SeqCst)
    }
}

pub fn granted(url: &str, mode: AuthMode) -> Granted {
    Granted { resource_token: Some("RT".into()), directive: Directive::new(url.to_owned(), mode) }
}

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub fn header(&self, name: &str) -> Vec<String> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|l| l.split_once(": "))
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.to_owned())
            .collect()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// Status and code of a refusal.
    pub fn refused(&self) -> (u16, String) {
        assert_eq!(self.header("x-request-id").len(), 1, "{}", self.head);
        (self.status, self.json()["error"].as_str().unwrap_or_default().to_owned())
    }
}
