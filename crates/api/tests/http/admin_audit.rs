//! Administrative records (`api.md` 21): one for each change, in a chain that can be made again from what is stored.

use caracal_core::id::ZoneId;
use caracal_core::message::Producer;
use caracal_crypto::mac::{MacKey, chain_link};
use caracal_store::management::{AdminChains, AdminFilter};
use serde_json::{Value, json};

use super::support::{AUDIT_KEY, GRANTS, Stand, stands, zone_id};

/// Makes one of every change of a zone; gives what each record must say: kind, entity, id, status, fields.
async fn changes(stand: &Stand, zone: &str) -> Vec<(&'static str, &'static str, Value, u16, Value)> {
    let z = json!(zone.rsplit('/').next().unwrap());
    let mut all = vec![("create", "zones", z.clone(), 201, json!(["name"]))];
    stand.patch(zone, json!({"dcr_enabled": false})).await;
    all.push(("update", "zones", z, 200, json!(["dcr_enabled"])));
    let application = stand.application(zone, "a").await;
    all.push(("create", "applications", json!(application), 201, json!(["name", "registration_method"])));
    let one = format!("{zone}/applications/{application}");
    stand.patch(&one, json!({"traits": ["x"], "name": "b"})).await;
    all.push(("update", "applications", json!(application), 200, json!(["name", "traits"])));
    stand.patch(&one, json!({"client_secret": "0123456789012345678901234567890123456789"})).await;
    all.push(("secret_rotation", "applications", json!(application), 200, Value::Null));
    stand.ask("POST", &format!("{one}/rotate-secret"), None).await;
    all.push(("secret_rotation", "applications", json!(application), 200, Value::Null));
    let key = json!({"name": "k", "kind": "api_key", "config_json": {"header_name": "X-Key", "api_key": "never-recorded"}});
    let provider = stand.made(&format!("{zone}/providers"), key).await.id();
    all.push(("create", "providers", json!(provider), 201, json!(["config_json.header_name", "kind", "name"])));
    let policy = stand.made(&format!("{zone}/policies"), json!({"name": "p", "content": GRANTS})).await;
    all.push(("create", "policies", policy.body["id"].clone(), 201, json!(["content", "name"])));
    let more = stand.made(&format!("{zone}/policies/{}/versions", policy.id()), json!({"content": GRANTS})).await;
    all.push(("create", "versions", more.body["id"].clone(), 201, json!(["content"])));
    let set = stand.made(&format!("{zone}/policy-sets"), json!({"name": "s"})).await.id();
    all.push(("create", "policy-sets", json!(set), 201, json!(["name"])));
    let manifest = json!({"manifest": [{"policy_version_id": more.body["id"]}]});
    let version = stand.made(&format!("{zone}/policy-sets/{set}/versions"), manifest).await.id();
    all.push(("create", "versions", json!(version), 201, json!(["manifest"])));
    stand.post(&format!("{zone}/policy-sets/{set}/activate"), json!({"version_id": version})).await;
    all.push(("action", "policy-sets", json!(set), 202, json!(["version_id"])));
    stand.delete(&format!("{zone}/providers/{provider}")).await;
    all.push(("delete", "providers", json!(provider), 204, Value::Null));
    all
}

#[tokio::test]
async fn each_change_leaves_one_signed_record_that_names_it() {
    for stand in stands().await {
        let zone = stand.zone().await;
        let mut wanted = changes(&stand, &zone).await;
        wanted.reverse();
        let page = stand.get(&format!("{zone}/admin-audit")).await;
        assert_eq!(page.items().len(), wanted.len(), "{}", page.text);
        for (row, (kind, entity, id, status, fields)) in page.items().iter().zip(&wanted) {
            let payload = &row["payload_json"];
            assert_eq!(
                (&payload["change_kind"], &row["entity_type"], &row["entity_id"], &row["status_code"], &payload["changed_fields"]),
                (&json!(kind), &json!(entity), id, &json!(status), fields),
                "{row}"
            );
            assert_eq!(row["action"], json!(format!("{} {}", row["method"].as_str().unwrap(), row["path"].as_str().unwrap())));
            assert_eq!((&row["signed"], row["chain_seq"].is_u64()), (&json!(true), true), "{row}");
            assert_eq!((&row["actor_id"], &row["actor_scope"]), (&json!("bootstrap"), &json!("global")));
            let rotated = matches!(*kind, "secret_rotation") || *entity == "providers" && *kind == "create";
            assert_eq!(payload["secret_rotated"].as_bool().unwrap_or(false), rotated, "{row}");
        }
        assert!(!page.text.contains("never-recorded") && !page.text.contains("0123456789"), "{}", page.text);
    }
}

#[tokio::test]
async fn a_chain_is_made_again_from_what_is_stored() {
    for stand in stands().await {
        let zone = stand.zone().await;
        changes(&stand, &zone).await;
        let key = MacKey::from_hex(AUDIT_KEY).unwrap();
        for chains in [AdminChains::Zone(zone_id(&zone), None)] {
            let mut records = stand.store.admin_audit(chains, AdminFilter::default(), 1000).await.unwrap();
            records.reverse();
            let mut previous = None;
            for (n, record) in records.iter().enumerate() {
                assert_eq!(record.seq, n as u64 + 1);
                assert_eq!(record.recomputed(), record.content, "{record:?}");
                assert_eq!(record.previous, previous);
                assert_eq!(record.link, Some(chain_link(&key, &record.content, previous.as_ref())));
                previous = Some(record.content);
            }
        }
    }
}

#[tokio::test]
async fn refused_writes_and_denials_are_recorded_reads_and_validation_are_not() {
    for stand in stands().await {
        let zone = stand.zone().await;
        let application = stand.application(&zone, "a").await;
        stand.get(&format!("{zone}/applications/{application}")).await;
        stand.get(&format!("{zone}/applications/a-1")).await;
        stand.get(&format!("{zone}/applications/{application}/client-secret")).await;
        stand.post("/v1/policies/validate", json!({"content": GRANTS})).await;
        stand.post("/v1/policies/validate", json!({})).await;
        assert_eq!(stand.get(&format!("{zone}/admin-audit")).await.items().len(), 2);
        stand.post(&format!("{zone}/applications"), json!({"name": "a", "registration_method": "managed"})).await;
        stand.patch(&format!("{zone}/applications/{application}"), json!({"traits": 1})).await;
        stand.delete(&format!("{zone}/applications/a-1")).await;
        let refused = stand.get(&format!("{zone}/admin-audit?limit=3")).await;
        assert_eq!(refused.each("status_code"), [json!(404), json!(400), json!(409)]);
        assert_eq!(refused.each("entity_id"), [json!("a-1"), json!(application), Value::Null]);
        assert_eq!(refused.items()[0]["payload_json"], json!({"rls_mode": "control_plane_wildcard", "rls_zone_guc": "*"}));
        // What happens in no zone, or in one that never was, is in the chain of none.
        stand.post("/v1/zones", json!({})).await;
        stand.delete(&format!("/v1/zones/{}", stand.world.mint::<ZoneId>())).await;
        let all = stand.get("/v1/admin-audit?limit=2").await;
        assert_eq!((all.each("zone_id"), all.each("status_code")), (vec![Value::Null; 2], vec![json!(404), json!(400)]));
    }
}

#[tokio::test]
async fn a_stranger_leaves_one_record_a_minute_in_no_zones_chain() {
    for stand in stands().await {
        let zone = stand.zone().await;
        for _ in 0..3 {
            let request = http::Request::builder().uri(format!("{zone}/applications")).body(axum::body::Body::empty()).unwrap();
            let answer = stand.send(request).await;
            assert_eq!(answer.no(), (401, "invalid_admin_token"));
            assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"caracal-api\"");
        }
        assert_eq!(stand.get(&format!("{zone}/admin-audit")).await.items().len(), 1, "the zone's own making");
        let all = stand.get("/v1/admin-audit?actor_id=bootstrap").await.items().len();
        let with_strangers = stand.get("/v1/admin-audit").await;
        assert_eq!(with_strangers.items().len(), all + 1);
        assert_eq!(with_strangers.items()[0]["status_code"], 401);
    }
}

#[tokio::test]
async fn a_change_whose_record_cannot_be_written_is_not_made() {
    for stand in stands().await {
        let zone = stand.zone().await;
        let application = stand.application(&zone, "a").await;
        let before = stand.get(&format!("{zone}/applications/{application}")).await.body;
        stand.refuse_records().await;
        let one = format!("{zone}/applications/{application}");
        for answer in [
            stand.post(&format!("{zone}/applications"), json!({"name": "b", "registration_method": "managed"})).await,
            stand.patch(&one, json!({"name": "b"})).await,
            stand.delete(&one).await,
            stand.delete(&zone).await,
        ] {
            assert_eq!(answer.no(), (503, "audit_unavailable"), "{}: {answer:?}", stand.name());
            assert_eq!(answer.headers["retry-after"], "1");
        }
        assert_eq!(stand.get(&one).await.body, before);
        assert_eq!(stand.get(&format!("{zone}/applications")).await.items().len(), 1);
        assert_eq!(stand.patch(&one, json!({})).await.no(), (400, "no_fields"), "a refusal that cannot be recorded is still told");
    }
}

#[tokio::test]
async fn records_and_versions_are_never_changed() {
    for stand in stands().await {
        let zone = stand.zone().await;
        stand.set(&zone).await;
        for table in ["admin_audit", "policy_versions", "policy_set_versions"] {
            for sql in [format!("UPDATE {table} SET zone_id = zone_id"), format!("DELETE FROM {table}")] {
                let told = sql.clone();
                let work = stand.store.door::<_, (), _>(None, Producer::Api, move |door| {
                    Box::pin(async move { Ok(door.execute(sql, vec![]).await?) })
                });
                assert!(work.await.is_err(), "{}: {told}", stand.name());
            }
        }
    }
}

#[tokio::test]
async fn records_are_filtered_paged_and_exported() {
    for stand in stands().await {
        let zone = stand.zone().await;
        let application = stand.application(&zone, "before").await;
        changes(&stand, &zone).await;
        let list = format!("{zone}/admin-audit");
        let count = |query: String| {
            let (stand, list) = (&stand, &list);
            async move { stand.get(&format!("{list}?{query}")).await.items().len() }
        };
        let all = count("limit=1000".into()).await;
        assert_eq!(count(format!("entity_id={application}")).await, 1);
        assert_eq!(count("entity_type=versions".into()).await, 2);
        assert_eq!(count("method=DELETE".into()).await, 1);
        assert_eq!(count("actor_id=bootstrap".into()).await, all);
        assert_eq!(count("actor_id=someone".into()).await, 0);
        assert_eq!(count("since=2999-01-01T00:00:00Z".into()).await, 0);
        assert_eq!(count("until=2999-01-01T00:00:00Z".into()).await, all);
        for list in [list.clone(), "/v1/admin-audit".to_owned()] {
            let whole = stand.get(&list).await.each("id");
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            loop {
                let page = stand.get(&format!("{list}?limit=4{cursor}")).await;
                seen.extend(page.each("id"));
                match page.body["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            assert_eq!(seen, whole, "{}: {list}", stand.name());
        }
        let next = stand.get(&format!("{list}?limit=1")).await.text("next_cursor");
        assert_eq!(stand.get(&format!("{list}?method=POST&cursor={next}")).await.no(), (400, "invalid_cursor"), "another filter");
        let cut = stand.get(&format!("{list}?method=DELETE&fields=action,chain_seq,change_kind,changed_fields")).await;
        let names: Vec<&String> = cut.items()[0].as_object().unwrap().keys().collect();
        assert_eq!(names, ["action", "chain_seq", "change_kind"], "what is not there is left out");
        let csv = stand
            .get(&format!("{list}?entity_type=providers&method=POST&format=csv&fields=method,status_code,changed_fields,signed"))
            .await;
        assert_eq!(csv.text, "method,status_code,changed_fields,signed\r\nPOST,201,config_json.header_name kind name,true\r\n");
        let file = format!("attachment; filename=\"admin-audit-{}.csv\"", zone_id(&zone));
        assert_eq!(csv.headers["content-disposition"], file.as_str());
        let paged = stand.get(&format!("{list}?format=csv&limit=1")).await;
        assert_eq!(paged.text.lines().count(), 2);
        let rest = stand.get(&format!("{list}?cursor={}&limit=1000", paged.headers["x-next-cursor"].to_str().unwrap())).await;
        assert_eq!(rest.items().len(), all - 1);
    }
}
