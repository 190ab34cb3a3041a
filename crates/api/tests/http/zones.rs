//! Zones (`api.md` 8).

use serde_json::json;

use super::support::{nobody, stands};

#[tokio::test]
async fn a_slug_is_made_of_the_name_and_numbered_when_taken() {
    for stand in stands().await {
        let slug = |name: &'static str| {
            let stand = &stand;
            async move { stand.made("/v1/zones", json!({"name": name})).await.text("slug") }
        };
        assert_eq!((slug("Ä b").await, slug("Ä b").await, slug("日本").await.as_str()), ("b".into(), "b-2".into(), "zone"));
    }
}

#[tokio::test]
async fn names_and_slugs_have_their_bounds() {
    for stand in stands().await {
        for bad in [
            json!({}),
            json!({"name": ""}),
            json!({"name": " \t"}),
            json!({"name": "x".repeat(121)}),
            json!({"name": 1}),
            json!({"name": null}),
            json!({"name": "a", "slug": ""}),
            json!({"name": "a", "slug": "A"}),
            json!({"name": "a", "slug": " a"}),
            json!({"name": "a", "slug": "x".repeat(64)}),
            json!({"name": "a", "slug": null}),
            json!({"name": "a", "dcr_enabled": "yes"}),
            json!({"name": "a", "operator_governed": true}),
        ] {
            let answer = stand.post("/v1/zones", bad.clone()).await;
            assert_eq!(answer.no(), (400, "invalid_zone"), "{bad}");
            assert!(answer.body["details"]["issues"][0]["message"].is_string(), "{bad}: {answer:?}");
        }
        let zone = stand.made("/v1/zones", json!({"name": format!(" {} ", "é".repeat(120)), "slug": "x".repeat(63)})).await;
        assert_eq!(zone.body["name"], "é".repeat(120), "white space goes, and characters are counted");
        assert_eq!(stand.post("/v1/zones", json!({"name": "b", "slug": "x".repeat(63)})).await.no(), (409, "zone_slug_conflict"));
    }
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    for stand in stands().await {
        let zone = stand.zone().await;
        stand.made("/v1/zones", json!({"name": "Other", "slug": "other"})).await;
        let before = stand.get(&zone).await.body;
        let after = stand.patch(&zone, json!({"name": " New ", "dcr_enabled": true})).await;
        assert_eq!((after.status, &after.body["name"], &after.body["dcr_enabled"]), (200, &json!("New"), &json!(true)));
        assert_eq!(
            (&after.body["slug"], &after.body["created_at"]),
            (&before["slug"], &before["created_at"]),
            "a rename keeps the slug"
        );
        assert_eq!(after.body["updated_by"], "admin:bootstrap");
        assert_eq!(stand.get(&zone).await.body, after.body);
        for (body, no) in [
            (json!({"name": ""}), (400, "invalid_zone")),
            (json!({"name": null}), (400, "invalid_zone")),
            (json!({"dcr_shutdown": "maybe"}), (400, "invalid_zone")),
            (json!({"dcr_shutdown": "keep_live"}), (400, "dcr_shutdown_not_applicable")),
            (json!({"dcr_shutdown": "keep_live", "dcr_enabled": true}), (400, "dcr_shutdown_not_applicable")),
            (json!({}), (400, "no_fields")),
            (json!({"slug": "other"}), (409, "zone_slug_conflict")),
        ] {
            assert_eq!(stand.patch(&zone, body.clone()).await.no(), no, "{body}");
        }
        let off = stand.patch(&zone, json!({"dcr_enabled": false, "dcr_shutdown": "revoke_live"})).await;
        assert_eq!((off.status, &off.body["dcr_enabled"]), (200, &json!(false)));
        let status = stand.get(&format!("{zone}/dcr-status")).await;
        assert_eq!(status.body, json!({"id": after.body["id"], "dcr_enabled": false, "live_dcr_applications": 0}));
    }
}

#[tokio::test]
async fn the_deployments_own_names_are_made_by_its_token_and_not_listed() {
    for stand in stands().await {
        let own = stand.made("/v1/zones", json!({"name": "caracal.sys/console", "slug": "caracal-sys-console"})).await.id();
        assert_eq!(stand.get("/v1/zones").await.items().len(), 0);
        assert_eq!(stand.get(&format!("/v1/zones/{own}")).await.status, 200);
    }
}

#[tokio::test]
async fn an_unknown_zone_is_unknown_on_every_route() {
    for stand in stands().await {
        let zone = format!("/v1/zones/{}", nobody::<caracal_core::id::ZoneId>(&stand));
        for path in
            ["", "/dcr-status", "/applications", "/providers", "/resources", "/policies", "/policy-sets", "/audit", "/admin-audit"]
        {
            assert_eq!(stand.get(&format!("{zone}{path}")).await.no(), (404, "zone_not_found"), "{path}");
            assert_eq!(stand.get(&format!("/v1/zones/z-1{path}")).await.no(), (404, "zone_not_found"), "{path}");
        }
        for path in ["/applications", "/providers", "/resources", "/policies", "/policy-sets"] {
            assert_eq!(
                stand.post(&format!("{zone}{path}"), json!({})).await.no(),
                (404, "zone_not_found"),
                "before the body: {path}"
            );
        }
        assert_eq!(stand.patch(&zone, json!({"name": "a"})).await.no(), (404, "zone_not_found"));
        assert_eq!(stand.delete(&zone).await.no(), (404, "zone_not_found"));
    }
}
