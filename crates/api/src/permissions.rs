//! Who may call which route: every row of the table, with every kind of token.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use caracal_crypto::seal::{Kek, Keks};
use caracal_crypto::secret::{Secret, Verifier};
use caracal_custody::{BUILTIN, Custody};
use caracal_host::World;
use caracal_host::config::{Run, Sources};
use caracal_store::{Store, StoreConfig};
use caracal_testkit::Database;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::actor::{Actor, Bearers, Capability};
use crate::config::Config;
use crate::routes::{Does, ROUTES, Reach, Route};
use crate::service::{Api, service};

const ROOT: &str = "root-token-of-at-least-thirty-two-bytes";

struct Stand {
    api: Arc<Api>,
    router: Router,
    own: String,
    other: String,
    _database: Database,
}

/// An API of two zones that knows a token of each kind.
async fn stands() -> Vec<Stand> {
    let mut all = Vec::new();
    for database in caracal_testkit::backends().await {
        let world = World::system();
        let config =
            StoreConfig { database_url: database.url().map(str::to_owned), dir: database.dir().to_owned(), connections: 10 };
        let store = Store::open(&config, world.clone(), None).await.unwrap();
        let kek = Kek::from_hex("9f2b7c41d8e3065a1c94f7b26e0d8a53b7c1f0493e8d25a6704bc9e1f3825d60").unwrap();
        let custody = Custody::open(&store, Keks::new(kek, None), world.clone(), BUILTIN).await.unwrap();
        let given = [("CARACAL_MODE", "dev"), ("CARACAL_ADMIN_TOKEN", ROOT)];
        let config = || Config::read(&Sources::builder(Run::Up).environment(given).build().unwrap()).unwrap();
        let first = Api::new(config(), store.clone(), custody.clone(), world.clone());
        let mut zones = Vec::new();
        for name in ["own", "other"] {
            let made = ask(&service(&first), ROOT, &Method::POST, "/v1/zones", Some(json!({"name": name}))).await;
            zones.push(made.1["id"].as_str().unwrap().to_owned());
        }
        let mut bearers = Bearers::new(config().admin_token);
        for (token, zone, capability) in [
            ("reader", None, Capability::Read),
            ("approver", None, Capability::Approve),
            ("writer", None, Capability::Write),
            ("zone-reader", Some(&zones[0]), Capability::Read),
            ("zone-writer", Some(&zones[0]), Capability::Write),
        ] {
            let zone = zone.map(|zone| zone.parse().unwrap());
            let actor = Actor { id: token.into(), name: token.into(), zone, capability, bootstrap: false };
            bearers.add(token, actor);
        }
        let api = Arc::new(Api::with(config(), store, custody, world, bearers));
        let (own, other) = (zones.remove(0), zones.remove(0));
        all.push(Stand { router: service(&api), api, own, other, _database: database });
    }
    all
}

async fn ask(router: &Router, token: &str, method: &Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let mut request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let request = request.body(body.map_or_else(Body::empty, |body| Body::from(body.to_string()))).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

impl Stand {
    async fn ask(&self, token: &str, method: &Method, path: &str, body: Option<Value>) -> (u16, Value) {
        ask(&self.router, token, method, path, body).await
    }

    /// How a route answers a token, on a zone: the code of a refusal that is about the token, or nothing.
    async fn denial(&self, token: &str, route: &Route, zone: &str) -> Option<String> {
        let path =
            route.path.replace("{zone}", zone).replace("{id}", "x-1").replace("{version}", "v-1").replace("{request}", "r-1");
        let (status, body) = self.ask(token, &route.method, &path, None).await;
        (status == 403).then(|| body["error"].as_str().unwrap().to_owned())
    }

    async fn post(&self, token: &str, path: &str, body: Value) -> (u16, Value) {
        self.ask(token, &Method::POST, path, Some(body)).await
    }
}

#[tokio::test]
async fn a_capability_opens_its_class_of_routes_and_no_other() {
    for stand in stands().await {
        for route in ROUTES {
            let told = format!("{} {}", route.method, route.path);
            // What deletes a zone is asked for one that is not there.
            let zone = if route.does == Does::Delete { "z-1" } else { &stand.own };
            let refused = |code: &str| if route.does == Does::Look { None } else { Some(code.to_owned()) };
            assert_eq!(stand.denial("reader", route, zone).await, refused("admin_token_read_only"), "{told}");
            assert_eq!(stand.denial("approver", route, zone).await, refused("admin_token_approve_only"), "{told}");
            assert_eq!(stand.denial("writer", route, zone).await, None, "{told}");
            assert_eq!(stand.denial(ROOT, route, zone).await, None, "{told}");
        }
    }
}

#[tokio::test]
async fn a_token_of_one_zone_gets_nothing_of_another() {
    for stand in stands().await {
        for route in ROUTES {
            let told = format!("{} {}", route.method, route.path);
            let elsewhere = (route.reach != Reach::Any).then(|| "admin_token_zone_mismatch".to_owned());
            assert_eq!(stand.denial("zone-writer", route, &stand.other).await, elsewhere, "{told}");
            assert_eq!(stand.denial("zone-writer", route, "_platform").await, elsewhere, "{told}");
            let at_home = if route.reach == Reach::Deployment { Some("admin_token_zone_mismatch".to_owned()) } else { None };
            assert_eq!(stand.denial("zone-writer", route, &stand.own).await, at_home, "{told}");
            if route.does != Does::Look {
                assert_eq!(
                    stand.denial("zone-reader", route, &stand.own).await,
                    Some("admin_token_read_only".to_owned()),
                    "{told}"
                );
            }
        }
        // The attempts are on record where they were made, by whom; nothing else happened.
        let (_, records) =
            stand.ask(ROOT, &Method::GET, &format!("/v1/zones/{}/admin-audit?actor_id=zone-writer", stand.other), None).await;
        let records = records["items"].as_array().unwrap();
        assert!(
            !records.is_empty() && records.iter().all(|r| r["status_code"] == 403 && r["actor_scope"] == "zone"),
            "{records:?}"
        );
        assert_eq!(records[0]["payload_json"], json!({"rls_mode": "zone_scoped", "rls_zone_guc": stand.own}));
    }
}

#[tokio::test]
async fn a_token_of_one_zone_sees_no_traits_and_touches_no_privilege() {
    for stand in stands().await {
        let list = format!("/v1/zones/{}/applications", stand.own);
        let body = |name: &str, traits: Value| json!({"name": name, "registration_method": "managed", "traits": traits});
        let (status, plain) = stand.post("zone-writer", &list, body("plain", json!(["team:a"]))).await;
        assert_eq!((status, plain.get("traits")), (201, None));
        assert_eq!(plain["created_by"], "admin:zone-writer");
        let (status, refused) = stand.post("zone-writer", &list, body("b", json!(["control:invoke"]))).await;
        assert_eq!((status, &refused["error"]), (403, &json!("trait_forbidden")));
        let (_, key) = stand.post(ROOT, &list, body("key", json!(["control:invoke"]))).await;
        let one = format!("{list}/{}", key["id"].as_str().unwrap());
        let (status, shown) = stand.ask("zone-writer", &Method::GET, &one, None).await;
        assert_eq!((status, shown.get("traits"), &shown["name"]), (200, None, &json!("key")));
        let (_, all) = stand.ask("zone-writer", &Method::GET, &list, None).await;
        assert!(all["items"].as_array().unwrap().iter().all(|item| item.get("traits").is_none()), "{all}");
        let (_, all) = stand.ask("writer", &Method::GET, &list, None).await;
        assert!(all["items"].as_array().unwrap().iter().all(|item| item["traits"].is_array()), "{all}");
        for (method, path, body) in [
            (Method::PATCH, one.clone(), Some(json!({"name": "mine"}))),
            (Method::PATCH, one.clone(), Some(json!({"traits": []}))),
            (Method::POST, format!("{one}/rotate-secret"), None),
            (Method::GET, format!("{one}/client-secret"), None),
            (Method::DELETE, one.clone(), None),
        ] {
            let (status, body) = stand.ask("zone-writer", &method, &path, body).await;
            assert_eq!((status, &body["error"]), (403, &json!("trait_forbidden")), "{method} {path}");
        }
        assert_eq!(stand.ask("writer", &Method::DELETE, &one, None).await.0, 204);
    }
}

#[tokio::test]
async fn a_chosen_secret_waits_for_its_derivation_outside_the_door() {
    for stand in stands().await {
        let list = format!("/v1/zones/{}/applications", stand.own);
        let body = |name: &str| json!({"name": name, "registration_method": "managed"});
        let (_, made) = stand.post(ROOT, &list, body("a")).await;
        let one = format!("{list}/{}", made["id"].as_str().unwrap());
        let taken = stand.api.derivations.acquire_many(2).await.unwrap();
        let secret = Some(json!({"client_secret": "0123456789012345678901234567890123456789"}));
        let mut waiting = Box::pin(stand.ask(ROOT, &Method::PATCH, &one, secret));
        // Meanwhile other writes of the zone pass, and three derivations that ask for no place are done.
        let others = async {
            for _ in 0..3 {
                let derive = || Verifier::argon2(&Secret::of("another"), [0; 16]);
                tokio::task::spawn_blocking(derive).await.unwrap();
            }
            stand.post(ROOT, &list, body("b")).await.0
        };
        tokio::select! {
            biased;
            early = &mut waiting => panic!("derived without a place: {early:?}"),
            status = others => assert_eq!(status, 201),
        }
        drop(taken);
        assert_eq!(waiting.await.0, 200);
    }
}

#[tokio::test]
async fn the_platforms_names_and_zones_are_its_own() {
    for stand in stands().await {
        let (own, zones) = (format!("/v1/zones/{}", stand.own), "/v1/zones".to_owned());
        let none = stand.post("writer", &format!("{own}/providers"), json!({"name": "p", "kind": "none"})).await.1;
        let resource = json!({"identifier": "caracal-sys://x", "upstream_url": "https://a.example", "scopes": ["a"],
            "credential_provider_id": none["id"]});
        let policy = "# caracal:data-document\npackage caracal.authz\ngrants := {}\n";
        for (path, body) in [
            (zones.clone(), json!({"name": "Caracal.SYS/x"})),
            (zones.clone(), json!({"name": "x", "slug": "caracal-sys-x"})),
            (zones.clone(), json!({"name": "Caracal Sys x"})),
            (format!("{own}/applications"), json!({"name": "caracal.sys/x", "registration_method": "managed"})),
            (format!("{own}/providers"), json!({"identifier": "provider://caracal-sys-x", "kind": "none"})),
            (format!("{own}/providers"), json!({"name": "Caracal sys x", "kind": "none"})),
            (format!("{own}/resources"), resource),
            (format!("{own}/policies"), json!({"name": "caracal.sys/x", "content": policy})),
        ] {
            let (status, refused) = stand.post("writer", &path, body.clone()).await;
            assert_eq!((status, &refused["error"]), (409, &json!("reserved_namespace")), "{body}");
        }
        for body in [json!({"name": "caracal.sys/x"}), json!({"slug": "caracal-sys-x"})] {
            let (status, refused) = stand.ask("writer", &Method::PATCH, &own, Some(body.clone())).await;
            assert_eq!((status, &refused["error"]), (409, &json!("reserved_namespace")), "{body}");
        }
        let (status, system) = stand.post(ROOT, &zones, json!({"name": "caracal.sys/console"})).await;
        assert_eq!(status, 201);
        let system = format!("/v1/zones/{}", system["id"].as_str().unwrap());
        for route in ROUTES.iter().filter(|route| route.path.contains("{zone}")) {
            let denied = if route.writes() { Some("system_zone_read_only".to_owned()) } else { None };
            assert_eq!(
                stand.denial("writer", route, system.rsplit('/').next().unwrap()).await,
                denied,
                "{} {}",
                route.method,
                route.path
            );
        }
    }
}
