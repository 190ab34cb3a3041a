//! An STS over HTTP on a store of each backend, with a zone, two applications, resources, a policy, Sessions and Delegations.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, reason = "tests")]

mod golden;
mod quiet;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use caracal_core::claims::Claims;
use caracal_core::constraint::{Authority, Constraints};
use caracal_core::delegation::{Delegation, Status};
use caracal_core::id::{ApplicationId, DelegationId, ProviderId, ResourceId, SessionId, SigningKeyId, ZoneId};
use caracal_core::message::Producer;
use caracal_core::request::Operation;
use caracal_core::scope::Scopes;
use caracal_core::session::Lifecycle;
use caracal_crypto::keys::SigningKey;
use caracal_crypto::mac::{GatewayCall, MacKey};
use caracal_crypto::seal::{Kek, Keks};
use caracal_crypto::secret::{Kind, Secret, Verifier};
use caracal_crypto::verified::VerifiedMandates;
use caracal_custody::{BUILTIN, Custody, SecretDocument, provider_ref};
use caracal_ephemeral::Memory;
use caracal_host::config::{Run, Sources};
use caracal_host::{FixedClock, World};
use caracal_policy::bundle::{content_sha256, manifest_sha256};
use caracal_store::coordination::{delegations, sessions};
use caracal_store::management::{
    Application, NewApplication, NewProvider, NewZone, Object as _, Policy, PolicySet, PolicySetVersion, PolicyVersion, Provider,
    Resource, ResourceSpec, SigningKeyRow, Zone,
};
use caracal_store::{Door, Store, StoreConfig};
use caracal_stream::Spool;
use caracal_stream::spool::Table;
use caracal_sts::{Config, Sts};
use caracal_testkit::Database;
use caracal_web::Peer;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

#[allow(unused_imports, reason = "not every suite has golden files")]
pub use golden::Shapes;

pub const ISSUER: &str = "http://sts.test";
pub const LEDGER: &str = "resource://ledger";
pub const PAYROLL: &str = "resource://payroll";
pub const VAULT: &str = "resource://vault";
pub const NOTES: &str = "resource://notes";
pub const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
pub const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const MAC: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

pub struct App {
    pub id: ApplicationId,
    pub secret: String,
}

/// A zone, as its operator has set it up: `app` owns ledger, notes and vault (no upstream), `other` owns payroll.
pub struct Stack {
    pub store: Store,
    pub world: World,
    /// Moves time, where time is the test's: on the embedded backend.
    pub clock: Option<Arc<FixedClock>>,
    pub custody: Custody,
    pub sts: Sts,
    pub router: Router,
    pub zone: ZoneId,
    pub elsewhere: ZoneId,
    pub app: App,
    pub other: App,
    pub foreign: App,
    pub key: SigningKey,
    pub foreign_key: SigningKey,
    pub backend: &'static str,
    pub quiet: quiet::Quiet,
    _database: Database,
}

/// An answer as it came.
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

/// The embedded backend alone, for what moves time.
pub async fn timed() -> Stack {
    Stack::on(caracal_testkit::sqlite(), &[]).await
}

pub fn policy(app: ApplicationId, other: ApplicationId) -> String {
    let grants = json!({
        LEDGER: {"application": "app", "roles": {"clerk": ["ledger:read", "ledger:post"], "auditor": ["ledger:read"]}},
        NOTES: {"application": "app", "roles": {"clerk": ["notes:read"]}},
        VAULT: {"application": "app", "roles": {"clerk": ["vault:open"]}},
        PAYROLL: {"application": "other", "roles": {"clerk": ["payroll:read"]}},
    });
    let ids = json!({"app": app, "other": other});
    format!("# caracal:data-document\npackage caracal.authz\nimport rego.v1\napp_ids := {ids}\ngrants := {grants}\n")
}

impl Stack {
    pub async fn on(database: Database, environment: &[(&'static str, &str)]) -> Self {
        let quiet = quiet::start();
        let backend = database.name();
        // PostgreSQL keeps its own time.
        let (world, clock) = if database.url().is_none() {
            let (world, clock) = World::fixed(7);
            (world, Some(clock))
        } else {
            (World::system(), None)
        };
        let config =
            StoreConfig { database_url: database.url().map(str::to_owned), dir: database.dir().to_owned(), connections: 8 };
        let store = Store::open(&config, world.clone(), None).await.unwrap();
        let kek = Kek::from_hex("101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e30").unwrap();
        let custody = Custody::open(&store, Keks::new(kek, None), world.clone(), BUILTIN).await.unwrap();
        let mut vars: HashMap<&str, String> = HashMap::from([
            ("CARACAL_MODE", "dev".to_owned()),
            ("CARACAL_ADMIN_TOKEN", "admin".to_owned()),
            ("METRICS_BEARER", "metrics".to_owned()),
            ("ISSUER_URL", ISSUER.to_owned()),
            ("GATEWAY_STS_HMAC_KEY", MAC.to_owned()),
        ]);
        vars.extend(environment.iter().map(|(k, v)| (*k, (*v).to_owned())));
        let config = Config::read(&Sources::builder(Run::Up).environment(vars).build().unwrap()).unwrap();
        let sts = Sts::new(
            config,
            store.clone(),
            Spool::Table(Table::open(store.clone(), u64::MAX).await.unwrap()),
            Memory::embedded(store.journal().clone(), world.clone()),
            custody.clone(),
            world.clone(),
            Arc::new(VerifiedMandates::new(1024)),
        );
        let router = caracal_sts::service(&sts);
        let (zone, elsewhere) = (world.mint(), world.mint());
        let app = App::new(&world);
        let other = App::new(&world);
        let foreign = App::new(&world);
        let (kid, sealed) = custody.new_signing_key().unwrap();
        let key = custody.signing_key(kid, &sealed).unwrap();
        let (foreign_kid, foreign_sealed) = custody.new_signing_key().unwrap();
        let foreign_key = custody.signing_key(foreign_kid, &foreign_sealed).unwrap();
        let stack = Self {
            store,
            world,
            clock,
            custody,
            sts,
            router,
            zone,
            elsewhere,
            app,
            other,
            foreign,
            key,
            foreign_key,
            backend,
            quiet,
            _database: database,
        };
        stack.found(zone, kid, sealed, &[(&stack.app, "app"), (&stack.other, "other")]).await;
        stack.found(elsewhere, foreign_kid, foreign_sealed, &[(&stack.foreign, "foreign")]).await;
        stack.resource(LEDGER, Some("http://ledger.test/base"), &["ledger:read", "ledger:post"], None, &[]).await;
        stack.resource(NOTES, Some("http://notes.test"), &["notes:read"], None, &[]).await;
        stack.resource(VAULT, None, &["vault:open"], None, &[]).await;
        stack.resource(PAYROLL, Some("http://payroll.test"), &["payroll:read"], None, &[]).await;
        stack.activate(&[policy(stack.app.id, stack.other.id)]).await;
        stack
    }

    /// A write, through the one door.
    pub async fn write<T, F>(&self, zone: ZoneId, work: F) -> T
    where
        T: Send + 'static,
        F: for<'t> FnOnce(
                &'t mut Door<'_>,
            ) -> std::pin::Pin<Box<dyn Future<Output = Result<T, caracal_store::StoreError>> + Send + 't>>
            + Send
            + 'static,
    {
        self.store
            .door::<_, (), _>(Some(zone), Producer::Api, move |door| Box::pin(async move { Ok(work(door).await?) }))
            .await
            .unwrap_or_else(|e| panic!("{}: {e:?}", self.backend))
    }

    async fn found(&self, zone: ZoneId, kid: SigningKeyId, sealed: Vec<u8>, apps: &[(&App, &str)]) {
        let hash = self.custody.verifier_key().clone();
        let new: Vec<NewApplication> = apps
            .iter()
            .map(|(app, name)| NewApplication {
                id: app.id,
                zone,
                name: (*name).to_owned(),
                traits: vec![],
                verifier: Verifier::keyed(&hash, &Secret::of(app.secret.as_str())).to_text(),
                by: "test".into(),
            })
            .collect();
        self.store
            .door::<_, (), _>(None, Producer::Api, move |door| {
                Box::pin(async move {
                    let slug = zone.to_string();
                    Zone::insert(door, NewZone { id: zone, name: "z".into(), slug, dcr_enabled: false, by: "test".into() }).await?;
                    SigningKeyRow::insert(door, zone, kid, sealed).await?;
                    for application in new {
                        Application::insert(door, application).await?;
                    }
                    Ok(())
                })
            })
            .await
            .unwrap();
    }

    pub async fn resource(
        &self,
        identifier: &str,
        url: Option<&str>,
        scopes: &[&str],
        provider: Option<ProviderId>,
        operations: &[(&str, &str, &str)],
    ) -> ResourceId {
        let id = self.world.mint();
        let operation = |(method, path, scope): &(&str, &str, &str)| Operation {
            method: (*method).into(),
            path: (*path).into(),
            scope: (*scope).into(),
        };
        let new = ResourceSpec {
            name: identifier.to_owned(),
            identifier: identifier.to_owned(),
            upstream_url: url.map(str::to_owned),
            scopes: scopes.iter().map(|s| (*s).to_owned()).collect(),
            credential_provider_id: provider,
            operations: operations.iter().map(operation).collect(),
            operation_enforcement: if operations.is_empty() { "transport_uniform" } else { "enforced" }.to_owned(),
        };
        let zone = self.zone;
        self.write(zone, move |door| Box::pin(async move { Resource::insert(door, zone, id, new, "test").await })).await;
        id
    }

    /// A provider of a kind, with its secrets sealed.
    pub async fn provider(&self, kind: &'static str, config: Value, secrets: &[(&str, &str)]) -> ProviderId {
        let (id, zone) = (self.world.mint::<ProviderId>(), self.zone);
        let document: SecretDocument = secrets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned().into())).collect();
        let sealed = self.custody.seal_provider(zone, id, &document).unwrap();
        let new = NewProvider {
            id,
            zone,
            name: kind.into(),
            identifier: format!("provider://{kind}-{}", &id.to_string()[30..]),
            kind,
            config,
            secret_keys: document.keys().cloned().collect(),
            by: "test".into(),
        };
        self.write(zone, move |door| {
            Box::pin(async move {
                Provider::insert(door, new).await?;
                door.put_document(&provider_ref(zone, id), sealed).await
            })
        })
        .await;
        id
    }

    /// Makes documents the zone's policy.
    pub async fn activate(&self, texts: &[String]) {
        let (zone, texts, set) = (self.zone, texts.to_vec(), self.world.mint());
        let policies: Vec<_> = texts.iter().map(|_| self.world.mint()).collect();
        self.write(zone, move |door| {
            Box::pin(async move {
                let mut manifest = Vec::new();
                for (id, text) in policies.into_iter().zip(&texts) {
                    Policy::make(door, zone, id, vec![("name", id.to_string().into())], "t").await?;
                    manifest.push(PolicyVersion::insert(door, zone, id, text, &content_sha256(text), "t").await?.id);
                }
                PolicySet::make(door, zone, set, vec![("name", set.to_string().into())], "t").await?;
                let ids: Vec<String> = manifest.iter().map(ToString::to_string).collect();
                let sha = manifest_sha256(ids.iter().map(String::as_str));
                let version = PolicySetVersion::insert(door, zone, set, &manifest, &sha, "t").await?;
                PolicySet::activate(door, zone, &version, "t", "r").await.map(|_| ())
            })
        })
        .await;
    }

    /// A live Session of an application.
    pub async fn session(&self, of: &App, labels: &[&str]) -> SessionId {
        self.session_of(of, labels, 3600).await
    }

    pub async fn session_of(&self, of: &App, labels: &[&str], ttl_seconds: i64) -> SessionId {
        let new = sessions::NewSession {
            id: self.world.mint(),
            zone: self.zone,
            application: of.id,
            record: self.world.mint(),
            user: false,
            parent: None,
            depth: 0,
            lifecycle: Lifecycle::Task { ttl_seconds },
            labels: labels.iter().map(|l| (*l).to_owned()).collect(),
            metadata: json!({}),
        };
        let id = new.id;
        self.write(self.zone, move |door| Box::pin(async move { sessions::insert(door, &new).await })).await;
        id
    }

    /// An edge; what it may is given as the Coordinator would have narrowed it.
    pub async fn edge(&self, from: (&App, SessionId), to: (&App, SessionId), authority: Authority) -> DelegationId {
        self.edge_below(None, from, to, authority).await
    }

    pub async fn edge_below(
        &self,
        parent: Option<DelegationId>,
        from: (&App, SessionId),
        to: (&App, SessionId),
        authority: Authority,
    ) -> DelegationId {
        let zone = self.zone;
        let edge = Delegation {
            id: self.world.mint(),
            parent,
            source: from.1,
            target: to.1,
            issuer: from.0.id,
            receiver: to.0.id,
            resource_id: None,
            authority,
            status: Status::Active,
            version: 0,
            budget_spent: 0,
            presented: false,
            created_at: self.store.now().await.unwrap(),
            revoked_at: None,
        };
        let id = edge.id;
        self.write(zone, move |door| Box::pin(async move { delegations::insert(door, zone, &edge).await })).await;
        id
    }

    /// Authority over the ledger for ten minutes.
    pub async fn authority(&self, scopes: &str) -> Authority {
        Authority {
            scopes: Scopes::of_text(scopes),
            resource: None,
            expires_at: self.store.now().await.unwrap().plus_secs(600),
            constraints: Constraints { resources: vec![LEDGER.to_owned()], max_hops: Some(2), ..Constraints::default() },
        }
    }

    /// Two Sessions of `app` and an edge between them: what a delegated mint needs.
    pub async fn delegated(&self, scopes: &str) -> (SessionId, DelegationId) {
        self.delegated_with(scopes, &["clerk"], |_| {}).await
    }

    pub async fn delegated_with(
        &self,
        scopes: &str,
        labels: &[&str],
        change: impl FnOnce(&mut Authority),
    ) -> (SessionId, DelegationId) {
        let (source, target) = (self.session(&self.app, &[]).await, self.session(&self.app, labels).await);
        let mut authority = self.authority(scopes).await;
        change(&mut authority);
        (target, self.edge((&self.app, source), (&self.app, target), authority).await)
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!text.contains("panicked"), "{text}");
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_str(&text).unwrap_or_default(),
            text,
        }
    }

    /// The token route, from an address.
    pub async fn post_from(&self, address: &str, body: Vec<u8>, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::post("/oauth/2/token")
            .extension(Peer { address: format!("{address}:9").parse::<SocketAddr>().unwrap(), tls: false });
        if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-type")) {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        for (name, value) in headers.iter().filter(|(_, v)| *v != "-") {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    pub async fn raw(&self, body: impl Into<Vec<u8>>, headers: &[(&str, &str)]) -> Answer {
        self.post_from("192.0.2.1", body.into(), headers).await
    }

    pub async fn post(&self, form: &[(&str, &str)]) -> Answer {
        self.raw(encode(form), &[]).await
    }

    /// A form with the application's credentials and the grant type, `-` taking a field out.
    pub fn form<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, String)> {
        self.form_of(&self.app, more)
    }

    pub fn form_of<'a>(&self, app: &App, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, String)> {
        let mut form = vec![
            ("grant_type", GRANT.to_owned()),
            ("zone_id", self.zone.to_string()),
            ("application_id", app.id.to_string()),
            ("client_secret", app.secret.clone()),
        ];
        for (name, value) in more {
            if *value == "-" {
                form.retain(|(n, _)| n != name);
            } else if let Some(found) = form.iter_mut().find(|(n, _)| n == name && *n != "resource") {
                (*value).clone_into(&mut found.1);
            } else {
                form.push((name, (*value).to_owned()));
            }
        }
        form
    }

    pub async fn exchange(&self, more: &[(&str, &str)]) -> Answer {
        self.exchange_of(&self.app, more).await
    }

    pub async fn exchange_of(&self, app: &App, more: &[(&str, &str)]) -> Answer {
        let form = self.form_of(app, more);
        self.raw(encode(&form), &[]).await
    }

    pub async fn bootstrap(&self) -> Answer {
        self.exchange(&[("scope", "agent:lifecycle"), ("resource", LEDGER)]).await
    }

    pub async fn mint(&self, session: SessionId, edge: DelegationId, scope: &str) -> Answer {
        self.mint_with(session, edge, &[("scope", scope), ("resource", LEDGER)]).await
    }

    pub async fn mint_with(&self, session: SessionId, edge: DelegationId, more: &[(&str, &str)]) -> Answer {
        let (session, edge) = (session.to_string(), edge.to_string());
        let mut all = vec![("agent_session_id", session.as_str()), ("delegation_edge_id", edge.as_str())];
        all.extend(more);
        self.exchange(&all).await
    }

    /// A gateway mandate for the ledger, and its claims.
    pub async fn mandate(&self, scope: &str) -> (String, Value) {
        let (session, edge) = self.delegated(scope).await;
        let answer = self.mint(session, edge, scope).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let token = answer.token();
        let claims = payload(&token);
        (token, claims)
    }

    /// The Gateway's exchange, signed as the Gateway signs it; `more` changes fields of the form.
    pub async fn gateway(&self, token: &str, more: &[(&str, &str)]) -> Answer {
        let body = self.gateway_form(token, more);
        let headers = self.signed(&body, "POST", "/oauth/2/token", 0);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        self.raw(body, &headers).await
    }

    pub fn gateway_form(&self, token: &str, more: &[(&str, &str)]) -> Vec<u8> {
        let (zone, app) = (self.zone.to_string(), self.app.id.to_string());
        let mut form = vec![
            ("grant_type", GRANT),
            ("zone_id", &zone),
            ("application_id", &app),
            ("subject_token", token),
            ("subject_token_type", ACCESS_TOKEN),
            ("resource", LEDGER),
            ("request_method", "GET"),
            ("request_path", "/items"),
            ("gateway_request_id", "req-7"),
        ];
        for (name, value) in more {
            form.retain(|(n, _)| n != name);
            if *value != "-" {
                form.push((name, value));
            }
        }
        encode(&form)
    }

    pub fn signed(&self, body: &[u8], method: &str, path: &str, skew: i64) -> Vec<(&'static str, String)> {
        let timestamp = self.world.now().as_secs() + skew;
        let nonce = hex::encode(self.world.random::<16>());
        let signature = GatewayCall { timestamp, nonce: &nonce, method, path, body }.sign(&MacKey::from_hex(MAC).unwrap());
        vec![
            ("x-request-id", "req-7".to_owned()),
            ("x-caracal-gateway-timestamp", timestamp.to_string()),
            ("x-caracal-gateway-request", nonce),
            ("x-caracal-gateway-signature", signature),
        ]
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// A token as the zone signs it, with other claims.
    pub fn signed_token(&self, claims: &Value) -> String {
        forged(&json!({"alg": "ES256", "typ": "JWT", "kid": self.key.id()}), &claims.to_string(), &self.key)
    }

    /// Events that are in the spool, each as its data.
    pub async fn evidence(&self) -> Vec<Value> {
        let spooled = self.store.spooled(10_000).await.unwrap();
        spooled.iter().map(|s| serde_json::from_slice(&s.data).unwrap()).collect()
    }
}

impl App {
    fn new(world: &World) -> Self {
        let secret = Secret::generated(Kind::Client, &world.random::<32>());
        Self { id: world.mint(), secret: secret.expose().to_owned() }
    }
}

impl Answer {
    pub fn token(&self) -> String {
        self.body["access_token"].as_str().unwrap_or_else(|| panic!("no token: {}", self.text)).to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// The claims of the token that came.
    pub fn claims(&self) -> Value {
        payload(&self.token())
    }

    pub fn read_claims(&self) -> Claims {
        serde_json::from_value(self.claims()).unwrap()
    }

    /// Status, code and reason of a refusal, after looking at what every refusal must have.
    pub fn refused(&self) -> (u16, &str, &str) {
        assert!(self.status >= 400, "not refused: {}", self.text);
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.text);
        assert_eq!(self.header("cache-control"), Some("no-store"), "{}", self.text);
        let id = self.header("x-request-id").unwrap();
        assert_eq!(self.body["requestId"], id, "{}", self.text);
        let refusal = &self.body["refusal"];
        assert_eq!(refusal["v"], 1, "{}", self.text);
        assert!(refusal.to_string().len() <= 4096 && refusal["enough"].is_array() && refusal["ask"].is_string(), "{}", self.text);
        let waits = matches!(self.status, 429 | 503);
        assert_eq!(
            self.header("retry-after").is_some(),
            waits || self.status == 500 && self.header("retry-after").is_some(),
            "{}",
            self.text
        );
        if waits {
            let seconds: u64 = self.header("retry-after").unwrap().parse().unwrap();
            assert!(seconds >= 1);
            assert_eq!(refusal["retry_after"], seconds, "{}", self.text);
            assert_eq!(refusal["ask"], "wait");
        }
        (self.status, self.body["error"].as_str().unwrap_or_default(), refusal["reason"].as_str().unwrap_or_default())
    }

    pub fn description(&self) -> &str {
        self.body["error_description"].as_str().unwrap_or_default()
    }
}

/// A token of any payload under any header, really signed by the key.
pub fn forged(header: &Value, payload: &str, key: &SigningKey) -> String {
    let signed = format!("{}.{}", B64.encode(header.to_string()), B64.encode(payload));
    let der = key.to_pkcs8().unwrap();
    let encoding = jsonwebtoken::EncodingKey::from_ec_der(&der);
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &encoding, jsonwebtoken::Algorithm::ES256).unwrap();
    format!("{signed}.{signature}")
}

/// The payload of a token, unverified.
pub fn payload(token: &str) -> Value {
    serde_json::from_slice(&B64.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

pub fn encode<V: AsRef<str>>(form: &[(&str, V)]) -> Vec<u8> {
    let mut out = url::form_urlencoded::Serializer::new(String::new());
    out.extend_pairs(form.iter().map(|(n, v)| (*n, v.as_ref())));
    out.finish().into_bytes()
}
