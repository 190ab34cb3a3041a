//! Policies, policy sets and activation (`policy.md` 2, 10).

use serde_json::{Value, json};

use super::support::{GRANTS, nobody, stands};

#[tokio::test]
async fn a_policy_has_immutable_versions_whose_text_is_kept_to_the_byte() {
    for stand in stands().await {
        let zone = stand.zone().await;
        let path = format!("{zone}/policies");
        let made = stand.made(&path, json!({"name": "p", "content": GRANTS, "extra": 1})).await;
        assert_eq!((&made.body["version"]["version"], &made.body["description"]), (&json!(1), &Value::Null));
        assert_eq!(made.body["version_id"], made.body["version"]["id"]);
        let one = format!("{path}/{}", made.id());
        let text = format!("{GRANTS}\r\n# more \u{e9}\n");
        let second = stand.made(&format!("{one}/versions"), json!({"content": text})).await;
        assert_eq!((&second.body["version"], &second.body["version_id"]), (&json!(2), &second.body["id"]));
        let read = stand.get(&one).await;
        let versions = read.body["versions"].as_array().unwrap();
        assert_eq!((&versions[0]["content"], &versions[1]["content"]), (&json!(text), &json!(GRANTS)), "newest first");
        assert_eq!(versions[0]["content_sha256"], caracal_core::digest::sha256_hex(text.as_bytes()));
        assert_eq!(stand.post(&path, json!({"name": "p", "content": GRANTS})).await.no(), (409, "policy_name_conflict"));
        assert_eq!(stand.delete(&one).await.status, 204);
        assert_eq!(stand.get(&one).await.no(), (404, "policy_not_found"));
        stand.made(&path, json!({"name": "p", "content": GRANTS})).await;
    }
}

#[tokio::test]
async fn policies_and_sets_have_bounds_and_a_description_that_changes() {
    for stand in stands().await {
        let zone = stand.zone().await;
        let policies = format!("{zone}/policies");
        let sets = format!("{zone}/policy-sets");
        for bad in [
            json!({"content": GRANTS}),
            json!({"name": " ", "content": GRANTS}),
            json!({"name": "x".repeat(201), "content": GRANTS}),
            json!({"name": "p", "content": ""}),
            json!({"name": "p", "content": GRANTS, "description": "x".repeat(2001)}),
        ] {
            let answer = stand.post(&policies, bad.clone()).await;
            assert_eq!(answer.no(), (400, "invalid_body"), "{bad}");
            assert!(answer.body["details"]["issues"][0]["path"].is_array(), "{answer:?}");
        }
        for bad in [json!({}), json!({"name": ""}), json!({"name": "x".repeat(201)}), json!({"name": "s", "description": 1})] {
            assert_eq!(stand.post(&sets, bad.clone()).await.no(), (400, "invalid_body"), "{bad}");
        }
        let policy = stand.made(&policies, json!({"name": "p", "content": GRANTS, "description": "one"})).await.id();
        let set = stand.made(&sets, json!({"name": "s"})).await;
        assert!(set.body.get("active_version_id").is_none(), "{set:?}");
        assert_eq!(stand.post(&sets, json!({"name": "s"})).await.no(), (409, "policy_set_name_conflict"));
        for one in [format!("{policies}/{policy}"), format!("{sets}/{}", set.id())] {
            let two = stand.patch(&one, json!({"description": "two"})).await;
            assert_eq!(
                (two.status, &two.body["description"], &two.body["updated_by"]),
                (200, &json!("two"), &json!("admin:bootstrap"))
            );
            assert_eq!(stand.patch(&one, json!({"description": null})).await.body["description"], Value::Null);
            assert_eq!(stand.patch(&one, json!({})).await.no(), (400, "no_fields"));
            assert_eq!(stand.patch(&one, json!({"name": "x"})).await.no(), (400, "invalid_body"));
            assert_eq!(stand.patch(&one, json!({"description": "x".repeat(2001)})).await.no(), (400, "invalid_body"));
        }
        assert_eq!(stand.patch(&format!("{policies}/p-1"), json!({"description": "x"})).await.no(), (404, "policy_not_found"));
        assert_eq!(stand.patch(&format!("{sets}/s-1"), json!({"description": "x"})).await.no(), (404, "policy_set_not_found"));
    }
}

#[tokio::test]
async fn what_is_no_data_document_is_refused_with_its_reason() {
    for stand in stands().await {
        let zone = stand.zone().await;
        let bad = "package caracal.authz\ngrants := {}";
        let validated = stand.post("/v1/policies/validate", json!({"content": bad})).await;
        assert_eq!((validated.no(), &validated.body["valid"]), ((422, "invalid_rego"), &json!(false)));
        assert_eq!(validated.body["error_description"], "must_be_data_document");
        let made = stand.post(&format!("{zone}/policies"), json!({"name": "p", "content": bad})).await;
        assert_eq!((made.no(), &made.body["error_description"]), ((422, "invalid_rego"), &json!("must_be_data_document")));
        let fine = stand.post("/v1/policies/validate", json!({"content": GRANTS})).await;
        assert_eq!((fine.status, &fine.body["valid"], &fine.body["warnings"]), (200, &json!(true), &json!([])));
        let odd = "# caracal:data-document\npackage caracal.authz\nrisk := 5\n";
        let warned = stand.post("/v1/policies/validate", json!({"content": odd})).await;
        assert_eq!(
            (&warned.body["warnings"][0]["code"], &warned.body["warnings"][0]["document"]),
            (&json!("malformed_risk"), &json!("risk"))
        );
    }
}

#[tokio::test]
async fn a_manifest_names_versions_of_its_zone_once() {
    for stand in stands().await {
        let (zone, other) = (stand.zone().await, stand.zone().await);
        let (set, _) = stand.set(&zone).await;
        let (other_set, foreign) = stand.set(&other).await;
        let foreign_policy = stand.get(&format!("{other_set}/versions/{foreign}")).await.body["policies"][0].clone();
        let versions = format!("{set}/versions");
        let missing = nobody::<caracal_core::id::PolicyVersionId>(&stand).to_string();
        let entry = |id: &Value| json!({"policy_version_id": id});
        let many: Vec<Value> = (0..257).map(|n| json!({"policy_version_id": format!("v{n}")})).collect();
        for (manifest, words) in [
            (json!([]), "must reference at least one policy version"),
            (json!([entry(&json!(""))]), "must reference at least one policy version"),
            (json!(many), "exceeds maximum of 256 entries"),
            (json!([entry(&json!(missing)), entry(&json!(missing))]), "contains duplicate policy_version_id entries"),
            (json!([entry(&json!(missing))]), "references missing policy versions"),
            (json!([entry(&json!("pv-1"))]), "references missing policy versions"),
            (json!([entry(&foreign_policy)]), "belongs to a different zone"),
        ] {
            let answer = stand.post(&versions, json!({"manifest": manifest})).await;
            assert_eq!(answer.no(), (422, "invalid_policy_contract"), "{words}");
            assert!(answer.text("error_description").contains(words), "{answer:?}");
        }
        let clash = "# caracal:data-document\npackage caracal.authz\ngrants := {\"a\": 1}\n";
        let first = stand.get(&format!("{set}/versions")).await.items()[0]["id"].clone();
        let first = stand.get(&format!("{set}/versions/{}", first.as_str().unwrap())).await.body["policies"][0].clone();
        let second =
            stand.made(&format!("{zone}/policies"), json!({"name": "clash", "content": clash})).await.body["version_id"].clone();
        let answer = stand.post(&versions, json!({"manifest": [entry(&first), entry(&second)]})).await;
        assert_eq!(answer.no(), (422, "invalid_policy_bundle"), "{answer:?}");
        assert_eq!(stand.post(&versions, json!({"manifest": "x"})).await.no(), (400, "invalid_body"));
        assert_eq!(stand.get(&format!("{set}/versions/psv-1")).await.no(), (404, "policy_set_version_not_found"));
        assert_eq!(stand.get(&format!("{zone}/policy-sets/ps-1/versions")).await.no(), (404, "policy_set_not_found"));
    }
}

#[tokio::test]
async fn one_version_governs_a_zone_and_its_announcement_can_be_followed() {
    for stand in stands().await {
        let zone = stand.zone().await;
        let (set, version) = stand.set(&zone).await;
        assert_eq!(stand.get(&format!("{set}/activation-status")).await.no(), (404, "active_policy_set_version_not_found"));
        let done = stand.post(&format!("{set}/activate"), json!({"version_id": version})).await;
        assert_eq!((done.status, &done.body["activated"]), (202, &json!(true)), "{done:?}");
        assert_eq!(stand.get(&set).await.body["active_version_id"], json!(version));
        let status = stand.get(&done.text("status_url")).await;
        assert_eq!((&status.body["active"], &status.body["outbox"]["id"]), (&json!(true), &done.body["outbox_id"]));
        assert_eq!(
            (&status.body["outbox"]["state"], &status.body["propagation_status"]),
            (&json!("pending"), &json!("waiting_for_outbox"))
        );
        assert_eq!((&status.body["sts"]["loaded"], &status.body["sts"]["policy_set_version_id"]), (&json!(true), &json!(version)));
        let found = stand.get(&format!("{set}/activation-status")).await;
        assert_eq!(found.body["outbox"]["id"], done.body["outbox_id"], "the newest of this version");
        // Another set takes over.
        let policy = stand.made(&format!("{zone}/policies"), json!({"name": "second", "content": GRANTS})).await;
        let second = stand.made(&format!("{zone}/policy-sets"), json!({"name": "second"})).await.id();
        let second = format!("{zone}/policy-sets/{second}");
        let manifest = json!({"manifest": [{"policy_version_id": policy.body["version_id"]}]});
        let newer = stand.made(&format!("{second}/versions"), manifest).await.text("version_id");
        let other = stand.post(&format!("{second}/activate"), json!({"version_id": newer})).await;
        assert_eq!(other.status, 202);
        assert_eq!(stand.get(&set).await.body["active_version_id"], Value::Null);
        let waiting = stand.get(&format!("{set}/activation-status?version_id={version}")).await;
        assert_eq!(waiting.body["propagation_status"], "waiting_for_activation");
        let mixed = format!("{second}/activation-status?version_id={newer}&outbox_id={}", done.text("outbox_id"));
        let mixed = stand.get(&mixed).await;
        assert_eq!((&mixed.body["outbox"]["state"], &mixed.body["propagation_status"]), (&json!("mismatch"), &json!("failed")));
        let none = stand.get(&format!("{second}/activation-status?version_id={newer}&outbox_id=x")).await;
        assert_eq!(none.body["outbox"]["state"], "missing");
        // Back again, and then nothing: the zone denies everything.
        assert_eq!(stand.post(&format!("{set}/activate"), json!({"version_id": version})).await.status, 202);
        assert_eq!(stand.delete(&set).await.status, 204);
        assert_eq!(stand.get(&set).await.no(), (404, "policy_set_not_found"));
        assert_eq!(stand.get(&format!("{set}/activation-status")).await.no(), (404, "policy_set_binding_not_found"));
        assert_eq!(
            stand.post(&format!("{set}/activate"), json!({"version_id": version})).await.no(),
            (404, "policy_set_binding_not_found")
        );
        for wrong in ["psv-1".to_owned(), version] {
            assert_eq!(
                stand.post(&format!("{second}/activate"), json!({"version_id": wrong})).await.no(),
                (404, "version_not_found")
            );
        }
    }
}
