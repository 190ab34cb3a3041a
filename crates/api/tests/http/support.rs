//! The API's own router on a store of its own, for each backend, and a client that looks at every answer.

use std::sync::Arc;

use axum::body::Body;
use caracal_api::{Api, Config};
use caracal_core::error::api::ALL;
use caracal_core::id::{Id, ZoneId};
use caracal_core::message::Producer;
use caracal_crypto::mac::MacKey;
use caracal_crypto::seal::{Kek, Keks};
use caracal_custody::{BUILTIN, Custody};
use caracal_host::World;
use caracal_host::config::{Run, Sources};
use caracal_store::{Store, StoreConfig};
use caracal_testkit::Database;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

pub const TOKEN: &str = "an-admin-token-of-at-least-32-bytes";
pub const AUDIT_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
pub const GRANTS: &str = "# caracal:data-document\npackage caracal.authz\ngrants := {}\n";

/// An API on a backend.
pub struct Stand {
    pub store: Store,
    pub world: World,
    router: axum::Router,
    database: Database,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Answer {
    /// The id of the object.
    pub fn id(&self) -> String {
        self.text("id")
    }

    /// A text member.
    pub fn text(&self, name: &str) -> String {
        self.body[name].as_str().unwrap_or_else(|| panic!("no {name}: {self:?}")).to_owned()
    }

    /// The code of a refusal, with its status.
    pub fn no(&self) -> (u16, &str) {
        (self.status, self.body["error"].as_str().unwrap_or_default())
    }

    /// The items of a page.
    pub fn items(&self) -> &[Value] {
        self.body["items"].as_array().unwrap_or_else(|| panic!("no page: {self:?}"))
    }

    /// One member of every item.
    pub fn each(&self, name: &str) -> Vec<Value> {
        self.items().iter().map(|item| item[name].clone()).collect()
    }
}

/// One on every backend.
pub async fn stands() -> Vec<Stand> {
    with(&[]).await
}

/// One on every backend, configured.
pub async fn with(variables: &[(&str, &str)]) -> Vec<Stand> {
    let mut all = Vec::new();
    for database in caracal_testkit::backends().await {
        let world = World::system();
        let config =
            StoreConfig { database_url: database.url().map(str::to_owned), dir: database.dir().to_owned(), connections: 10 };
        let key = MacKey::from_hex(AUDIT_KEY).unwrap();
        let store = Store::open(&config, world.clone(), Some(key)).await.unwrap_or_else(|e| panic!("{}: {e}", database.name()));
        let kek = Kek::from_hex("9f2b7c41d8e3065a1c94f7b26e0d8a53b7c1f0493e8d25a6704bc9e1f3825d60").unwrap();
        let custody = Custody::open(&store, Keks::new(kek, None), world.clone(), BUILTIN).await.unwrap();
        let mut given = vec![("CARACAL_MODE", "dev"), ("CARACAL_ADMIN_TOKEN", TOKEN)];
        given.extend_from_slice(variables);
        let config = Config::read(&Sources::builder(Run::Up).environment(given).build().unwrap()).unwrap();
        let api: Arc<Api> = Api::new(config, store.clone(), custody, world.clone());
        all.push(Stand { store, world, router: caracal_api::service(&api), database });
    }
    all
}

impl Stand {
    /// Which backend, for messages.
    pub fn name(&self) -> &'static str {
        self.database.name()
    }

    /// Any request. Whatever is refused is refused in the envelope, with a code of the catalogue.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        let head = request.method() == http::Method::HEAD;
        let told = format!("{} {}", request.method(), request.uri());
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, body, text };
        let id = answer.headers["x-request-id"].to_str().unwrap();
        if answer.status >= 400 && !head {
            let code = answer.body["error"].as_str().unwrap_or_else(|| panic!("{told}: no envelope: {answer:?}"));
            assert!(ALL.iter().any(|row| row.code == code && row.status == answer.status), "{told}: {answer:?}");
            assert_eq!(answer.body["requestId"], id, "{told}");
            assert!(answer.body["error_description"].as_str().is_some_and(|t| !t.is_empty()), "{told}: {answer:?}");
        }
        for (name, value) in
            [("cache-control", "no-store"), ("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")]
        {
            assert_eq!(answer.headers[name], value, "{told}");
        }
        answer
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    pub fn router(&self) -> axum::Router {
        self.router.clone()
    }

    /// A request as the published clients make it.
    pub fn request(method: &str, path: &str, body: Option<Value>) -> Request<Body> {
        let mut request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {TOKEN}"));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        request.body(body.map_or_else(Body::empty, |body| Body::from(body.to_string()))).unwrap()
    }

    pub async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.send(Self::request(method, path, body)).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask("POST", path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.ask("PATCH", path, Some(body)).await
    }

    pub async fn patch_owned(&self, path: String, body: Value) -> Answer {
        self.patch(&path, body).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, None).await
    }

    /// Makes what must be makeable.
    pub async fn made(&self, path: &str, body: Value) -> Answer {
        let answer = self.post(path, body).await;
        assert_eq!(answer.status, 201, "{}: POST {path}: {answer:?}", self.name());
        answer
    }

    /// From here on the database refuses every administrative record.
    pub async fn refuse_records(&self) {
        let refuse = self.store.door::<_, (), _>(None, Producer::Api, |door| {
            Box::pin(async move {
                let sql = door.tx().dialect().pick(
                    "CREATE TRIGGER no_more BEFORE INSERT ON admin_audit BEGIN SELECT RAISE(ABORT, 'no more'); END",
                    "CREATE TRIGGER no_more BEFORE INSERT ON admin_audit FOR EACH ROW EXECUTE FUNCTION refuse_change()",
                );
                door.execute(sql, vec![]).await?;
                Ok(())
            })
        });
        refuse.await.unwrap();
    }

    /// A zone; gives its path.
    pub async fn zone(&self) -> String {
        format!("/v1/zones/{}", self.made("/v1/zones", json!({"name": "A zone"})).await.id())
    }

    /// An application of a zone; gives its id.
    pub async fn application(&self, zone: &str, name: &str) -> String {
        self.made(&format!("{zone}/applications"), json!({"name": name, "registration_method": "managed"})).await.id()
    }

    /// A provider of a zone without a credential; gives its id.
    pub async fn provider(&self, zone: &str) -> String {
        self.made(&format!("{zone}/providers"), json!({"name": "None", "kind": "none"})).await.id()
    }

    /// A policy and a set with one version of it; gives the path of the set, and its version.
    pub async fn set(&self, zone: &str) -> (String, String) {
        let policy = self.made(&format!("{zone}/policies"), json!({"name": "grants", "content": GRANTS})).await;
        let set = self.made(&format!("{zone}/policy-sets"), json!({"name": "main"})).await.id();
        let manifest = json!({"manifest": [{"policy_version_id": policy.body["version_id"]}]});
        let version = self.made(&format!("{zone}/policy-sets/{set}/versions"), manifest).await.text("version_id");
        (format!("{zone}/policy-sets/{set}"), version)
    }
}

/// The id in a zone's path.
pub fn zone_id(path: &str) -> ZoneId {
    path.rsplit('/').next().unwrap().parse().unwrap()
}

/// An id that nothing has.
pub fn nobody<I: Id>(stand: &Stand) -> I {
    stand.world.mint()
}
