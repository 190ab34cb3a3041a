//! What is archived ends what it holds (`api.md` 7.4), and leaves its evidence readable (5.7).

use std::time::Duration;

use caracal_core::constraint::{Authority, Constraints};
use caracal_core::delegation::{Delegation, Status};
use caracal_core::id::{ApplicationId, SessionId, ZoneId};
use caracal_core::message::Producer;
use caracal_core::scope::Scopes;
use caracal_core::session::Lifecycle;
use caracal_store::coordination::{delegations, sessions};
use serde_json::json;

use super::support::{Stand, stands, zone_id};

async fn session(stand: &Stand, zone: ZoneId, application: ApplicationId) -> SessionId {
    let new = sessions::NewSession {
        id: stand.world.mint(),
        zone,
        application,
        record: stand.world.mint(),
        user: false,
        parent: None,
        depth: 0,
        lifecycle: Lifecycle::Task { ttl_seconds: 600 },
        labels: vec![],
        metadata: json!({}),
    };
    let id = new.id;
    let work = stand.store.door::<_, (), _>(Some(zone), Producer::Coordinator, move |door| {
        Box::pin(async move { Ok(sessions::insert(door, &new).await?) })
    });
    work.await.unwrap();
    id
}

async fn edge(stand: &Stand, zone: ZoneId, source: SessionId, target: SessionId, between: (ApplicationId, ApplicationId)) {
    let edge = Delegation {
        id: stand.world.mint(),
        parent: None,
        source,
        target,
        issuer: between.0,
        receiver: between.1,
        resource_id: None,
        authority: Authority {
            scopes: Scopes::of_text("a"),
            resource: None,
            expires_at: stand.world.now() + Duration::from_mins(5),
            constraints: Constraints::default(),
        },
        status: Status::Active,
        version: 0,
        budget_spent: 0,
        presented: false,
        created_at: stand.world.now(),
        revoked_at: None,
    };
    let work = stand.store.door::<_, (), _>(Some(zone), Producer::Coordinator, move |door| {
        Box::pin(async move { Ok(delegations::insert(door, zone, &edge).await?) })
    });
    work.await.unwrap();
}

#[tokio::test]
async fn an_archived_application_ends_its_sessions_and_their_edges_and_no_others() {
    for stand in stands().await {
        let path = stand.zone().await;
        let zone = zone_id(&path);
        let first: ApplicationId = stand.application(&path, "first").await.parse().unwrap();
        let second: ApplicationId = stand.application(&path, "second").await.parse().unwrap();
        let (a, b, c) =
            (session(&stand, zone, first).await, session(&stand, zone, second).await, session(&stand, zone, second).await);
        edge(&stand, zone, a, b, (first, second)).await;
        edge(&stand, zone, b, c, (second, second)).await;
        assert_eq!(stand.delete(&format!("{path}/applications/{first}")).await.status, 204);
        let record = stand.get(&format!("{path}/admin-audit?method=DELETE")).await.items()[0].clone();
        let told = &record["payload_json"];
        assert_eq!(
            (&told["terminated_sessions"], &told["revoked_delegations"]),
            (&json!(1), &json!(1)),
            "{}: {told}",
            stand.name()
        );
        assert_eq!(stand.delete(&format!("{path}/applications/{second}")).await.status, 204);
        let record = stand.get(&format!("{path}/admin-audit?method=DELETE")).await.items()[0].clone();
        let told = &record["payload_json"];
        assert_eq!(
            (&told["terminated_sessions"], &told["revoked_delegations"]),
            (&json!(2), &json!(1)),
            "{}: {told}",
            stand.name()
        );
    }
}

#[tokio::test]
async fn an_archived_zone_is_gone_but_for_its_evidence() {
    for stand in stands().await {
        let path = stand.zone().await;
        let zone = zone_id(&path);
        let application = stand.application(&path, "a").await;
        session(&stand, zone, application.parse().unwrap()).await;
        assert_eq!(stand.delete(&path).await.status, 204);
        assert_eq!(stand.delete(&path).await.no(), (404, "zone_not_found"));
        assert_eq!(stand.get(&path).await.no(), (404, "zone_not_found"));
        for gone in ["applications", "providers", "resources", "policies", "policy-sets"] {
            assert_eq!(stand.get(&format!("{path}/{gone}")).await.no(), (404, "zone_not_found"), "{gone}");
            assert_eq!(stand.post(&format!("{path}/{gone}"), json!({})).await.no(), (404, "zone_not_found"), "{gone}");
        }
        assert_eq!(stand.get(&format!("{path}/audit")).await.status, 200);
        let records = stand.get(&format!("{path}/admin-audit?entity_type=zones&method=DELETE")).await;
        assert_eq!(records.each("status_code"), [json!(404), json!(204)]);
        assert_eq!(records.items()[1]["payload_json"]["terminated_sessions"], 1);
        assert_eq!(stand.get("/v1/zones").await.items().len(), 0);
        let slug = stand.post("/v1/zones", json!({"name": "x", "slug": "a-zone"})).await;
        assert_eq!(slug.no(), (409, "zone_slug_conflict"), "a slug stays taken");
    }
}

#[tokio::test]
async fn archived_objects_are_listed_as_such_and_gone_elsewhere() {
    for stand in stands().await {
        let zone = stand.zone().await;
        let provider = stand.provider(&zone).await;
        let body = json!({"identifier": "resource://a", "upstream_url": "https://a.example", "scopes": ["a"], "credential_provider_id": provider});
        let resource = stand.made(&format!("{zone}/resources"), body).await.id();
        let application = stand.application(&zone, "a").await;
        for (noun, id) in [("resources", &resource), ("applications", &application), ("providers", &provider)] {
            let list = format!("{zone}/{noun}");
            assert_eq!(stand.get(&list).await.each("id"), [json!(id)], "{noun}");
            assert_eq!(stand.get(&format!("{list}?status=active")).await.each("id"), [json!(id)], "{noun}");
            assert_eq!(stand.get(&format!("{list}?status=archived")).await.items().len(), 0, "{noun}");
            assert_eq!(stand.delete(&format!("{list}/{id}")).await.status, 204, "{noun}");
            assert_eq!(stand.delete(&format!("{list}/{id}")).await.status, 404, "{noun}");
            assert_eq!(stand.get(&format!("{list}/{id}")).await.status, 404, "{noun}");
            assert_eq!(stand.get(&list).await.items().len(), 0, "{noun}");
            let archived = stand.get(&format!("{list}?status=archived")).await;
            assert!(archived.items()[0]["archived_at"].is_string() && archived.items().len() == 1, "{archived:?}");
            assert_eq!(stand.get(&format!("{list}?status=all")).await.no(), (400, "invalid_query"), "{noun}");
        }
    }
}
