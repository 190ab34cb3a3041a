//! A Coordinator over HTTP on a store of each backend, with a zone, two applications and resources; mandates are signed here.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, reason = "tests")]

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use caracal_coordinator::{Config, Coordinator};
use caracal_core::claims::SubjectType;
use caracal_core::id::{ApplicationId, AuthorityRecordId, ResourceId, SigningKeyId, ZoneId};
use caracal_core::message::Producer;
use caracal_crypto::jws::sign;
use caracal_crypto::keys::SigningKey;
use caracal_crypto::verified::VerifiedMandates;
use caracal_host::config::{Run, Sources};
use caracal_host::{FixedClock, World};
use caracal_store::journal::{Entry, NewRecord, Outcome};
use caracal_store::management::{Application, NewApplication, NewZone, Resource, ResourceSpec, Zone};
use caracal_store::{Store, StoreConfig};
use caracal_testkit::Database;
use caracal_web::mandate::{FixedKeys, Verifier};
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

pub const ISSUER: &str = "http://sts.test";
pub const OPERATOR: &str = "operator-token-of-the-coordinator";

pub struct App {
    pub id: ApplicationId,
    /// Its lifecycle mandate.
    pub bearer: String,
    pub record: AuthorityRecordId,
}

pub struct Stack {
    pub store: Store,
    pub world: World,
    pub clock: Option<Arc<FixedClock>>,
    pub router: Router,
    pub zone: ZoneId,
    pub elsewhere: ZoneId,
    pub a: App,
    pub b: App,
    pub foreign: App,
    pub key: SigningKey,
    pub ledger: ResourceId,
    pub notes: ResourceId,
    database: Database,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
}

pub async fn stacks() -> Vec<Stack> {
    let mut all = Vec::new();
    for database in caracal_testkit::backends().await {
        all.push(Stack::on(database, &[]).await);
    }
    all
}

pub async fn timed(environment: &[(&'static str, &str)]) -> Stack {
    Stack::on(caracal_testkit::sqlite(), environment).await
}

impl Stack {
    pub async fn on(database: Database, environment: &[(&'static str, &str)]) -> Self {
        let (world, clock) = if database.url().is_none() {
            let (world, clock) = World::fixed(11);
            (world, Some(clock))
        } else {
            (World::system(), None)
        };
        let config =
            StoreConfig { database_url: database.url().map(str::to_owned), dir: database.dir().to_owned(), connections: 8 };
        let store = Store::open(&config, world.clone(), None).await.unwrap();
        let mut vars: HashMap<&str, String> = HashMap::from([
            ("CARACAL_MODE", "dev".to_owned()),
            ("CARACAL_ADMIN_TOKEN", "admin".to_owned()),
            ("CARACAL_COORDINATOR_TOKEN", OPERATOR.to_owned()),
            ("METRICS_BEARER", "metrics".to_owned()),
            ("ISSUER_URL", ISSUER.to_owned()),
        ]);
        vars.extend(environment.iter().map(|(k, v)| (*k, (*v).to_owned())));
        let config = Config::read(&Sources::builder(Run::Up).environment(vars).build().unwrap()).unwrap();
        let key = SigningKey::generate(world.mint::<SigningKeyId>()).unwrap();
        let keys = Arc::new(FixedKeys::default());
        let (zone, elsewhere): (ZoneId, ZoneId) = (world.mint(), world.mint());
        keys.set(zone, vec![key.public().unwrap()]);
        keys.set(elsewhere, vec![key.public().unwrap()]);
        let verifier = Verifier::new(keys, Arc::new(VerifiedMandates::new(64)), world.clone());
        let coordinator = Coordinator::new(config, store.clone(), verifier, ISSUER.to_owned(), world.clone());
        let router = caracal_coordinator::service(&coordinator);
        let blank = || App { id: world.mint(), bearer: String::new(), record: world.mint() };
        let (ledger, notes) = (world.mint(), world.mint());
        let (a, b, foreign) = (blank(), blank(), blank());
        let mut stack = Self { store, world, clock, router, zone, elsewhere, a, b, foreign, key, ledger, notes, database };
        for (zone, apps) in [(zone, vec![(stack.a.id, "a"), (stack.b.id, "b")]), (elsewhere, vec![(stack.foreign.id, "f")])] {
            stack.found(zone, apps).await;
        }
        stack.resource(ledger, "resource://ledger", &["a", "b"]).await;
        stack.resource(notes, "resource://notes", &["c"]).await;
        for (zone, id, record) in [
            (zone, stack.a.id, stack.a.record),
            (zone, stack.b.id, stack.b.record),
            (elsewhere, stack.foreign.id, stack.foreign.record),
        ] {
            stack.record(zone, id, record).await;
        }
        stack.a.bearer = stack.bearer(zone, &stack.a, &json!({}));
        stack.b.bearer = stack.bearer(zone, &stack.b, &json!({}));
        stack.foreign.bearer = stack.bearer(elsewhere, &stack.foreign, &json!({}));
        stack
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    async fn found(&self, zone: ZoneId, apps: Vec<(ApplicationId, &'static str)>) {
        self.store
            .door::<_, (), _>(None, Producer::Api, move |door| {
                Box::pin(async move {
                    let slug = zone.to_string();
                    Zone::insert(door, NewZone { id: zone, name: "z".into(), slug, dcr_enabled: false, by: "t".into() }).await?;
                    for (id, name) in apps {
                        let new =
                            NewApplication { id, zone, name: name.into(), traits: vec![], verifier: "v".into(), by: "t".into() };
                        Application::insert(door, new).await?;
                    }
                    Ok(())
                })
            })
            .await
            .unwrap();
    }

    async fn resource(&self, id: ResourceId, identifier: &'static str, scopes: &[&str]) {
        let zone = self.zone;
        let new = ResourceSpec {
            name: identifier.to_owned(),
            identifier: identifier.to_owned(),
            upstream_url: Some("http://up.test".to_owned()),
            scopes: scopes.iter().map(|s| (*s).to_owned()).collect(),
            credential_provider_id: None,
            operations: vec![],
            operation_enforcement: "transport_uniform".to_owned(),
        };
        self.store
            .door::<_, (), _>(Some(zone), Producer::Api, move |door| {
                Box::pin(async move { Ok(Resource::insert(door, zone, id, new, "t").await.map(|_| ())?) })
            })
            .await
            .unwrap();
    }

    /// An Authority record of an application, as the STS writes it.
    pub async fn record(&self, zone: ZoneId, application: ApplicationId, id: AuthorityRecordId) {
        let at = self.store.now().await.unwrap();
        let record = NewRecord {
            id,
            subject_type: SubjectType::Application,
            subject: application.to_string(),
            application,
            parent: None,
            expires_at: at.plus_secs(86_400),
            at,
        };
        let entry = Entry { zone: Some(zone), record: Some(record), ..Entry::default() };
        assert_eq!(self.store.journal().commit(entry).await.unwrap(), Outcome::Durable);
    }

    /// A lifecycle mandate with changed claims; `null` takes a claim out.
    pub fn bearer(&self, zone: ZoneId, app: &App, changes: &Value) -> String {
        let now = self.world.now().as_secs();
        let mut claims = json!({
            "iss": ISSUER, "sub": app.id, "aud": [ISSUER], "exp": now + 900, "iat": now,
            "jti": self.world.mint::<caracal_core::id::Jti>(), "zone_id": zone, "client_id": app.id, "scope": "agent:lifecycle",
            "sid": app.record, "root_sid": app.record, "use": "session", "sub_type": "application", "target": ["resource://ledger"],
        });
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        sign(&self.key, claims.to_string().as_bytes()).unwrap()
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_str(&text).unwrap_or_default(),
            text,
        }
    }

    pub async fn call(&self, bearer: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.call_with(bearer, method, path, body, &[]).await
    }

    /// `path` is what follows the zone.
    pub async fn call_with(&self, bearer: &str, method: &str, path: &str, body: Option<Value>, more: &[(&str, &str)]) -> Answer {
        let authorization = format!("Bearer {bearer}");
        let mut headers = vec![("authorization", authorization.as_str())];
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        headers.extend(more);
        let path = format!("/zones/{}{path}", self.zone);
        self.send(method, &path, &headers, body.map(|b| b.to_string()).unwrap_or_default()).await
    }

    /// A start by `a`, with more fields.
    pub async fn start(&self, more: Value) -> Answer {
        self.start_of(&self.a, more).await
    }

    pub async fn start_of(&self, app: &App, more: Value) -> Answer {
        let mut body = json!({"application_id": app.id});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.call(&app.bearer, "POST", "/agents", Some(body)).await
    }

    /// A Session that was started.
    pub async fn session(&self, app: &App, more: Value) -> String {
        let answer = self.start_of(app, more).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.body["agent_session_id"].as_str().unwrap().to_owned()
    }

    /// An edge of the ledger's scope `a` for ten minutes, with changes.
    pub async fn delegate(&self, from: (&App, &str), to: (&App, &str), changes: Value) -> Answer {
        let mut body = json!({"source_session_id": from.1, "target_session_id": to.1, "issuer_application_id": from.0.id,
            "receiver_application_id": to.0.id, "resource_id": "resource://ledger", "scopes": ["a"], "ttl_seconds": 600});
        for (name, value) in changes.as_object().unwrap() {
            if value == "-" {
                body.as_object_mut().unwrap().remove(name);
            } else {
                body[name] = value.clone();
            }
        }
        self.call(&from.0.bearer, "POST", "/delegations", Some(body)).await
    }

    pub async fn edge(&self, from: (&App, &str), to: (&App, &str), changes: Value) -> String {
        let answer = self.delegate(from, to, changes).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.body["delegation_edge_id"].as_str().unwrap().to_owned()
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// Status and code of a refusal, after looking at what every refusal must have.
    pub fn refused(&self) -> (u16, &str) {
        assert!(self.status >= 400, "not refused: {}", self.text);
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.text);
        assert_eq!(self.header("cache-control"), Some("no-store"), "{}", self.text);
        assert_eq!(self.body["request_id"], self.header("x-request-id").unwrap(), "{}", self.text);
        assert_eq!(self.header("retry-after").is_some(), matches!(self.status, 429 | 503), "{}", self.text);
        assert!(self.text.len() < 2048);
        (self.status, self.body["error"].as_str().unwrap_or_default())
    }

    /// Where a body was found wrong.
    pub fn issue(&self) -> String {
        assert_eq!(self.refused(), (400, "invalid_body"), "{}", self.text);
        self.body["details"]["issues"][0]["path"][0].as_str().unwrap_or_default().to_owned()
    }
}

/// What changes from run to run, put away by its type.
pub fn redacted(value: &Value) -> Value {
    let uuid = |t: &str| t.len() == 36 && t.bytes().enumerate().all(|(i, b)| matches!(i, 8 | 13 | 18 | 23) == (b == b'-'));
    match value {
        Value::String(text) if uuid(text) => "[id]".into(),
        Value::String(text) if text.len() == 24 && text.ends_with('Z') && text.contains('T') => "[time]".into(),
        Value::Array(items) => items.iter().map(redacted).collect(),
        Value::Object(members) => Value::Object(members.iter().map(|(k, v)| (k.clone(), redacted(v))).collect()),
        other => other.clone(),
    }
}
