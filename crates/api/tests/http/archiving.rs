//! What is archived ends what it holds (`api.md` 7.4), and leaves its evidence readable (5.7).

use std::time::Duration;

use caracal_core::claims::SubjectType;
use caracal_core::constraint::{Authority, Constraints};
use caracal_core::delegation::{Delegation, Status};
use caracal_core::id::{ApplicationId, AuthorityRecordId, SessionId, ZoneId};
use caracal_core::message::Producer;
use caracal_core::scope::Scopes;
use caracal_core::session::Lifecycle;
use caracal_store::coordination::{delegations, sessions};
use caracal_store::journal::{Entry, NewRecord, Outcome};
use serde_json::json;

use super::support::{Stand, stands, zone_id};

async fn session(stand: &Stand, zone: ZoneId, application: ApplicationId) -> SessionId {
    session_on(stand, zone, application, stand.world.mint()).await
}

async fn session_on(stand: &Stand, zone: ZoneId, application: ApplicationId, record: AuthorityRecordId) -> SessionId {
    let new = sessions::NewSession {
        id: stand.world.mint(),
        zone,
        application,
        record,
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
async fn a_session_that_rides_on_a_record_below_ends_with_it() {
    for stand in stands().await {
        let path = stand.zone().await;
        let zone = zone_id(&path);
        let first: ApplicationId = stand.application(&path, "first").await.parse().unwrap();
        let second: ApplicationId = stand.application(&path, "second").await.parse().unwrap();
        let (above, below) = (stand.world.mint(), stand.world.mint());
        for (id, application, parent) in [(above, first, None), (below, second, Some(above))] {
            let now = stand.world.now();
            let record = NewRecord {
                id,
                subject_type: SubjectType::Application,
                subject: application.to_string(),
                application,
                parent,
                expires_at: now.plus_secs(600),
                at: now,
            };
            let entry = Entry { zone: Some(zone), record: Some(record), ..Entry::default() };
            assert!(matches!(stand.store.journal().commit(entry).await, Ok(Outcome::Durable)));
        }
        session_on(&stand, zone, second, below).await;
        session(&stand, zone, second).await;
        assert_eq!(stand.delete(&format!("{path}/applications/{first}")).await.status, 204);
        let record = stand.get(&format!("{path}/admin-audit?method=DELETE")).await.items()[0].clone();
        let told = &record["payload_json"];
        let wanted = (&json!(2), &json!(1));
        assert_eq!((&told["revoked_authority_records"], &told["terminated_sessions"]), wanted, "{}: {told}", stand.name());
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_made_in_a_zone_after_its_archiving() {
    for stand in stands().await {
        let stand = std::sync::Arc::new(stand);
        for _ in 0..10 {
            let zone = stand.zone().await;
            let mut all = tokio::task::JoinSet::new();
            for n in 0..12 {
                let (stand, zone) = (stand.clone(), zone.clone());
                all.spawn(async move {
                    let body = json!({"name": format!("a{n}"), "registration_method": "managed"});
                    if n == 6 { stand.delete(&zone).await } else { stand.post(&format!("{zone}/applications"), body).await }
                });
            }
            let answers = all.join_all().await;
            assert!(answers.iter().all(|a| matches!(a.status, 201 | 204) || a.no() == (404, "zone_not_found")), "{answers:?}");
            let records = stand.get(&format!("{zone}/admin-audit")).await;
            let statuses = records.each("status_code");
            let archived = statuses.iter().position(|status| *status == 204).unwrap();
            assert!(!statuses[..archived].contains(&json!(201)), "{}: {statuses:?}", stand.name());
        }
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
