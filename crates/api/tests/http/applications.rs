//! Applications and their secrets (`api.md` 9).

use serde_json::json;

use super::support::{nobody, stands};

const SECRET: &str = "a-secret-that-somebody-chose-0123456789";

#[tokio::test]
async fn names_have_bounds_and_are_unique_among_the_living_whatever_their_case() {
    for stand in stands().await {
        let zone = stand.zone().await;
        let path = format!("{zone}/applications");
        let body = |name: &str| json!({"name": name, "registration_method": "managed"});
        for bad in [
            json!({"name": "a"}),
            json!({"name": "a", "registration_method": "dcr"}),
            json!({"name": "a", "registration_method": "managed", "expires_in": 5}),
            json!({"name": "a", "registration_method": "managed", "traits": "x"}),
            body(" "),
            body(&"x".repeat(201)),
        ] {
            assert_eq!(stand.post(&path, bad.clone()).await.no(), (400, "invalid_application"), "{bad}");
        }
        let first = stand.made(&path, body(" Größe ")).await;
        assert_eq!(first.body["name"], "Größe");
        assert_eq!(stand.post(&path, body("GRÖSSE")).await.status, 201, "ß has no one capital");
        assert_eq!(stand.post(&path, body("größe")).await.no(), (409, "application_name_taken"));
        let other = stand.application(&zone, "other").await;
        let rename = stand.patch(&format!("{path}/{other}"), json!({"name": "GRÖßE"})).await;
        assert_eq!(rename.no(), (409, "application_name_taken"));
        assert_eq!(stand.delete(&format!("{path}/{}", first.id())).await.status, 204);
        assert_eq!(stand.post(&path, body("größe")).await.status, 201, "an archived name is free again");
    }
}

#[tokio::test]
async fn one_name_is_made_once_however_many_try() {
    for stand in stands().await {
        let (zone, stand) = (stand.zone().await, std::sync::Arc::new(stand));
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (stand, path) = (stand.clone(), format!("{zone}/applications"));
            all.spawn(async move { stand.post(&path, json!({"name": "one", "registration_method": "managed"})).await.status });
        }
        let mut statuses = all.join_all().await;
        statuses.sort_unstable();
        assert_eq!((statuses[0], &statuses[1..]), (201, &[409; 19][..]), "{}", stand.name());
    }
}

#[tokio::test]
async fn a_secret_is_shown_when_it_is_made_and_kept_for_those_who_may_see_it() {
    for stand in stands().await {
        let zone = stand.zone().await;
        let made = stand.made(&format!("{zone}/applications"), json!({"name": "a", "registration_method": "managed"})).await;
        let path = format!("{zone}/applications/{}", made.id());
        let secret = made.text("client_secret");
        assert!(secret.starts_with("cs_") && secret.len() == 52, "{secret}");
        for quiet in [stand.get(&path).await, stand.get(&format!("{zone}/applications")).await] {
            assert!(!quiet.text.contains(&secret) && !quiet.text.contains("client_secret"), "{quiet:?}");
        }
        assert_eq!(stand.get(&format!("{path}/client-secret")).await.body, json!({"client_secret": secret}));
        let rotated = stand.ask("POST", &format!("{path}/rotate-secret"), None).await;
        assert_eq!(rotated.status, 200, "a body is not needed: {rotated:?}");
        let second = rotated.text("client_secret");
        assert_ne!(second, secret);
        assert_eq!(stand.get(&format!("{path}/client-secret")).await.text("client_secret"), second);
        let supplied = stand.patch(&path, json!({"client_secret": SECRET})).await;
        assert_eq!((supplied.status, supplied.text.contains(SECRET)), (200, false));
        assert_eq!(stand.get(&format!("{path}/client-secret")).await.text("client_secret"), SECRET);
        for bad in ["x".repeat(31), "x".repeat(1025)] {
            assert_eq!(stand.patch(&path, json!({"client_secret": bad})).await.no(), (400, "invalid_application"));
        }
        let head = stand.ask("HEAD", &format!("{path}/client-secret"), None).await;
        assert_eq!((head.status, &head.headers["allow"]), (405, &"GET".parse().unwrap()), "a look does not show, nor is it told");
    }
}

#[tokio::test]
async fn traits_are_a_list_in_their_form_replaced_as_a_whole() {
    for stand in stands().await {
        let zone = stand.zone().await;
        let id = stand.application(&zone, "a").await;
        let path = format!("{zone}/applications/{id}");
        let set = |traits: serde_json::Value| stand.patch(&path, json!({"traits": traits}));
        assert_eq!(set(json!(["team:a", "control:invoke"])).await.body["traits"], json!(["team:a", "control:invoke"]));
        assert_eq!(set(json!([])).await.body["traits"], json!([]));
        let many: Vec<String> = (0..65).map(|n| format!("t{n}")).collect();
        assert_eq!(set(json!(many)).await.no(), (400, "trait_count_exceeded"));
        assert_eq!(set(json!(["a", "a"])).await.no(), (400, "trait_duplicate"));
        for bad in [json!(["x".repeat(129)]), json!(["control:max-ttl:59"]), json!(["control:expires:soon"]), json!([""])] {
            assert_eq!(set(bad.clone()).await.no(), (400, "trait_invalid"), "{bad}");
        }
        assert_eq!(set(json!([1])).await.no(), (400, "invalid_application"));
        let new = json!({"name": "b", "registration_method": "managed", "traits": ["control"]});
        assert_eq!(stand.post(&format!("{zone}/applications"), new).await.no(), (400, "trait_invalid"));
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_nothing_is_no_change() {
    for stand in stands().await {
        let zone = stand.zone().await;
        let id = stand.application(&zone, "a").await;
        for missing in [nobody::<caracal_core::id::ApplicationId>(&stand).to_string(), "app-1".to_owned()] {
            let path = format!("{zone}/applications/{missing}");
            for answer in [
                stand.get(&path).await,
                stand.patch(&path, json!({"name": "b"})).await,
                stand.delete(&path).await,
                stand.ask("POST", &format!("{path}/rotate-secret"), None).await,
                stand.get(&format!("{path}/client-secret")).await,
            ] {
                assert_eq!(answer.no(), (404, "application_not_found"), "{answer:?}");
            }
        }
        assert_eq!(stand.patch(&format!("{zone}/applications/{id}"), json!({})).await.no(), (400, "no_fields"));
    }
}
