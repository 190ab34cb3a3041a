//! A client that hangs up at each await of a write: the write is whole or absent.

use caracal_testkit::{MOST_WRITES, hung_up};
use http::Response;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::support::{GRANTS, Stand, stands};

impl Stand {
    /// Makes objects at `path` and hangs up; each lands in `table`.
    async fn made_or_hung_up(&self, path: &str, table: &str, body: impl Fn(usize) -> Value) {
        self.posted_or_hung_up(table, 201, |n| (path.to_owned(), body(n))).await;
    }

    async fn posted_or_hung_up(&self, table: &str, status: u16, call: impl Fn(usize) -> (String, Value)) {
        let answer: Response<_> = hung_up(self.database(), table, |n| {
            let (path, body) = call(n);
            let request = Self::request("POST", &path, Some(body));
            let router = self.router();
            async move { router.oneshot(request).await.unwrap() }
        })
        .await;
        assert_eq!(answer.status().as_u16(), status, "{}: {table}", self.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_making_an_object() {
    for stand in stands().await {
        stand.made_or_hung_up("/v1/zones", "zones", |n| json!({"name": format!("Zone {n}")})).await;
        let zone = stand.zone().await;
        let application = |n| json!({"name": format!("a{n}"), "registration_method": "managed"});
        stand.made_or_hung_up(&format!("{zone}/applications"), "applications", application).await;
        let provider = |n| json!({"name": format!("p{n}"), "kind": "bearer_token", "config_json": {"bearer_token": "t"}});
        stand.made_or_hung_up(&format!("{zone}/providers"), "providers", provider).await;
        let policy = |n| json!({"name": format!("d{n}"), "content": GRANTS});
        stand.made_or_hung_up(&format!("{zone}/policies"), "policies", policy).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_activation() {
    for stand in stands().await {
        // A zone for each: the first activation in a zone leaves one binding more.
        let mut sets = Vec::new();
        for _ in 0..=MOST_WRITES {
            sets.push(stand.set(&stand.zone().await).await);
        }
        let activate = |n: usize| (format!("{}/activate", sets[n].0), json!({"version_id": sets[n].1}));
        stand.posted_or_hung_up("policy_bindings", 202, activate).await;
    }
}
