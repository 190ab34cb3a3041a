//! Pages and cursors (`api.md` 5.3).

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use serde_json::{Value, json};

use super::support::stands;

#[tokio::test]
async fn a_list_is_drained_in_order_each_row_once() {
    for stand in stands().await {
        let zone = stand.zone().await;
        let mut made = Vec::new();
        for n in 0..17 {
            made.push(stand.application(&zone, &format!("a{n}")).await);
        }
        made.reverse();
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = stand.get(&format!("{zone}/applications?limit=5{cursor}")).await;
            seen.extend(page.each("id").iter().map(|id| id.as_str().unwrap().to_owned()));
            match &page.body["next_cursor"] {
                Value::String(next) => cursor = format!("&cursor={next}"),
                Value::Null => break,
                other => panic!("{other}"),
            }
        }
        assert_eq!(seen, made, "{}: newest first", stand.name());
        let whole = stand.get(&format!("{zone}/applications?limit=17")).await;
        assert_eq!((whole.items().len(), &whole.body["next_cursor"]), (17, &Value::Null), "a full last page is the last");
        assert_eq!(
            stand.get(&format!("{zone}/applications?surprise=1")).await.items().len(),
            17,
            "unknown parameters mean nothing"
        );
        let unique: BTreeSet<_> = seen.iter().collect();
        assert_eq!(unique.len(), 17);
    }
}

#[tokio::test]
async fn limits_and_cursors_that_do_not_fit_are_refused() {
    for stand in stands().await {
        let (zone, other) = (stand.zone().await, stand.zone().await);
        for n in 0..3 {
            stand.application(&zone, &format!("a{n}")).await;
            stand.application(&other, &format!("a{n}")).await;
        }
        let list = format!("{zone}/applications");
        for bad in ["limit=0", "limit=501", "limit=x", "limit=+5", "limit=", "limit=1&limit=1", "cursor=", "status=x"] {
            assert_eq!(stand.get(&format!("{list}?{bad}")).await.no(), (400, "invalid_query"), "{bad}");
        }
        let long = format!("{list}?cursor={}", "a".repeat(513));
        assert_eq!(stand.get(&long).await.no(), (400, "invalid_query"));
        let of = |value: Value| B64.encode(value.to_string());
        let id = stand.get(&list).await.items()[0]["id"].clone();
        for bad in [
            "garbage".to_owned(),
            "!".to_owned(),
            of(json!({})),
            of(json!({"ts": "2026-01-01T00:00:00.000Z", "id": "app-1"})),
            of(json!({"ts": "yesterday", "id": id})),
        ] {
            assert_eq!(stand.get(&format!("{list}?cursor={bad}")).await.no(), (400, "invalid_cursor"), "{bad}");
        }
        let next = stand.get(&format!("{list}?limit=1")).await.text("next_cursor");
        for foreign in [format!("{other}/applications"), format!("{zone}/providers"), format!("{list}?status=archived")] {
            let mark = if foreign.contains('?') { '&' } else { '?' };
            assert_eq!(stand.get(&format!("{foreign}{mark}cursor={next}")).await.no(), (400, "invalid_cursor"), "{foreign}");
        }
        assert_eq!(stand.get(&format!("{list}?cursor={next}&limit=2")).await.items().len(), 2, "another limit is the same list");
        let ancient = of(json!({"ts": "2999-01-01T00:00:00.000Z", "id": id}));
        assert_eq!(stand.get(&format!("{list}?cursor={ancient}")).await.items().len(), 3, "a cursor of the older form is read");
        let zones = stand.get("/v1/zones?limit=1").await;
        assert_eq!(stand.get(&format!("/v1/zones?cursor={}", zones.text("next_cursor"))).await.items().len(), 1);
    }
}

#[tokio::test]
async fn ledger_queries_have_their_rules() {
    for stand in stands().await {
        let zone = stand.zone().await;
        for list in [format!("{zone}/audit"), format!("{zone}/admin-audit"), "/v1/admin-audit".to_owned()] {
            for bad in [
                "limit=0",
                "limit=1001",
                "since=x",
                "until=2026",
                "format=xml",
                "cursor=",
                "since=2026-01-01T00:00:00Z&since=x",
                "actor_id=a%00b",
                "request_id=%00",
            ] {
                assert_eq!(stand.get(&format!("{list}?{bad}")).await.no(), (400, "invalid_query"), "{list} {bad}");
            }
            for bad in ["fields=", "fields=x", "fields=id,,action", "fields=id,payload_json"] {
                assert_eq!(stand.get(&format!("{list}?{bad}")).await.no(), (400, "invalid_fields"), "{list} {bad}");
            }
            assert_eq!(stand.get(&format!("{list}?cursor=garbage")).await.no(), (400, "invalid_cursor"), "{list}");
            assert_eq!(stand.get(&format!("{list}?since=2026-01-01T00:00:00%2B02:00&limit=1000")).await.status, 200, "{list}");
            let csv = stand.get(&format!("{list}?format=csv")).await;
            assert_eq!(csv.headers["content-type"], "text/csv; charset=utf-8");
            assert!(csv.headers["content-disposition"].to_str().unwrap().starts_with("attachment; filename=\""));
            assert!(csv.text.starts_with("id,occurred_at,") && csv.text.ends_with("\r\n"), "{}", csv.text);
        }
        let audit = format!("{zone}/audit");
        let types = |n: usize| vec!["t"; n].join(",");
        for bad in [
            "decision=maybe",
            "event_type=,%20,",
            &format!("event_type={}", types(17)),
            "application_id=",
            "by=time",
            "by=seq&cursor=x",
        ] {
            assert_eq!(stand.get(&format!("{audit}?{bad}")).await.no(), (400, "invalid_query"), "{bad}");
        }
        for fine in ["decision=pending", "event_type=a,,b", &format!("event_type={}", types(16)), "by=seq&after=0"] {
            assert_eq!(stand.get(&format!("{audit}?{fine}")).await.status, 200, "{fine}");
        }
        assert_eq!(stand.get(&format!("{audit}/by-request/req-1")).await.no(), (404, "request_not_found"));
        assert_eq!(stand.get(&format!("{audit}/by-request/req-1/explain")).await.no(), (404, "request_not_found"));
        assert_eq!(stand.get(&format!("{audit}/by-request/a%20b")).await.no(), (400, "invalid_params"));
        for ledger in ["_platform", "unknown"] {
            assert_eq!(stand.get(&format!("/v1/zones/{ledger}/audit")).await.status, 200, "{ledger}");
        }
        assert_eq!(stand.get(&format!("{zone}/admin-audit?method=GET")).await.no(), (400, "invalid_query"));
    }
}
