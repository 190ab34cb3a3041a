//! What an agent does: exchange, Sessions, Delegations, governed calls.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use crate::http::{Answer, ClientError, Http};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// Where the services are, without trailing slashes.
#[derive(Clone, Debug)]
pub struct Places {
    /// The STS.
    pub sts: String,
    /// The Coordinator.
    pub coordinator: String,
    /// The Gateway.
    pub gateway: String,
}

/// A mandate: a bearer, and how long it lives.
#[derive(Clone, Debug)]
pub struct Mandate {
    token: SecretString,
    /// Seconds from its issue.
    pub expires_in: i64,
    /// What it was granted for.
    pub targets: Vec<String>,
}

impl Mandate {
    /// The bearer itself.
    pub fn expose(&self) -> &str {
        self.token.expose_secret()
    }
}

/// A Session that was started.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// The Delegation it inherited from its parent.
    pub delegation: Option<String>,
}

/// A Delegation that was created.
#[derive(Clone, Debug)]
pub struct Delegation {
    /// Its id.
    pub id: String,
    /// What it may.
    pub scopes: Vec<String>,
}

/// An application's identity, and where it acts. Cheap to clone.
#[derive(Clone)]
pub struct Caracal {
    inner: Arc<Inner>,
}

struct Inner {
    places: Places,
    zone: String,
    application: String,
    secret: SecretString,
    http: Http,
}

fn text(value: &Value, key: &'static str) -> Result<String, ClientError> {
    value[key].as_str().map(str::to_owned).ok_or(ClientError::Answer(key))
}

impl Caracal {
    /// An application by its secret.
    pub fn new(places: Places, zone: impl Into<String>, application: impl Into<String>, secret: impl Into<SecretString>) -> Self {
        let inner = Inner { places, zone: zone.into(), application: application.into(), secret: secret.into(), http: Http::new() };
        Self { inner: Arc::new(inner) }
    }

    /// The application's id.
    pub fn application(&self) -> &str {
        &self.inner.application
    }

    /// A lifecycle mandate for these resources.
    pub async fn bootstrap(&self, resources: &[&str]) -> Result<Mandate, ClientError> {
        self.exchange("agent:lifecycle", resources, &[]).await
    }

    /// A mandate for one governed call within a Delegation.
    pub async fn mint(&self, resource: &str, scopes: &[&str], session: &str, delegation: &str) -> Result<Mandate, ClientError> {
        let mut sorted = scopes.to_vec();
        sorted.sort_unstable();
        self.exchange(&sorted.join(" "), &[resource], &[("agent_session_id", session), ("delegation_edge_id", delegation)]).await
    }

    async fn exchange(&self, scope: &str, resources: &[&str], more: &[(&str, &str)]) -> Result<Mandate, ClientError> {
        let inner = &self.inner;
        // In a block of its own: the serializer must not live across the await, or the future could not move between threads.
        let form = {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", GRANT)
                .append_pair("zone_id", &inner.zone)
                .append_pair("application_id", &inner.application)
                .append_pair("client_secret", inner.secret.expose_secret())
                .append_pair("scope", scope);
            for resource in resources {
                form.append_pair("resource", resource);
            }
            form.extend_pairs(more);
            form.finish()
        };
        let request = Request::post(format!("{}/oauth/2/token", inner.places.sts))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(form))
            .map_err(|e| ClientError::Transport(e.to_string()))?;
        let answer = inner.http.send(request).await?.good()?;
        let targets =
            answer["target_resources"].as_array().into_iter().flatten().filter_map(|t| t.as_str().map(str::to_owned)).collect();
        let expires_in = answer["expires_in"].as_i64().ok_or(ClientError::Answer("expires_in"))?;
        Ok(Mandate { token: text(&answer, "access_token")?.into(), expires_in, targets })
    }

    fn coordinator(&self, path: &str) -> String {
        format!("{}/zones/{}/{path}", self.inner.places.coordinator, self.inner.zone)
    }

    /// Starts a Session; under a parent it inherits the parent's narrowing.
    pub async fn start(
        &self,
        lifecycle: &Mandate,
        labels: &[&str],
        parent: Option<&str>,
        inherit: bool,
    ) -> Result<Session, ClientError> {
        let authority = if inherit { "inherit" } else { "none" };
        let body = json!({"application_id": self.inner.application, "labels": labels, "parent_id": parent, "parent_authority": authority,
            "ttl_seconds": 900});
        let answer = self.inner.http.json(Method::POST, &self.coordinator("agents"), lifecycle.expose(), Some(&body)).await?;
        Ok(Session { id: text(&answer, "agent_session_id")?, delegation: answer["delegation_edge_id"].as_str().map(str::to_owned) })
    }

    /// Ends a Session and everything below it.
    pub async fn end(&self, lifecycle: &Mandate, session: &str) -> Result<(), ClientError> {
        let url = self.coordinator(&format!("agents/{session}"));
        self.inner.http.json(Method::DELETE, &url, lifecycle.expose(), None).await.map(|_| ())
    }

    /// Hands authority from one Session to another, within the same application.
    pub async fn delegate(
        &self,
        lifecycle: &Mandate,
        source: &str,
        target: &str,
        resource: &str,
        scopes: &[&str],
        hops: u32,
    ) -> Result<Delegation, ClientError> {
        let application = &self.inner.application;
        let body = json!({"issuer_application_id": application, "receiver_application_id": application, "source_session_id": source,
            "target_session_id": target, "scopes": scopes, "constraints": {"resources": [resource], "max_hops": hops}, "ttl_seconds": 600});
        let answer = self.inner.http.json(Method::POST, &self.coordinator("delegations"), lifecycle.expose(), Some(&body)).await?;
        let carried = answer["scopes"].as_array().into_iter().flatten().filter_map(|s| s.as_str().map(str::to_owned)).collect();
        Ok(Delegation { id: text(&answer, "delegation_edge_id")?, scopes: carried })
    }

    /// Takes a Delegation back, and everything below it.
    pub async fn revoke(&self, lifecycle: &Mandate, delegation: &str) -> Result<Value, ClientError> {
        let url = self.coordinator(&format!("delegations/{delegation}/revoke"));
        self.inner.http.json(Method::PATCH, &url, lifecycle.expose(), None).await
    }

    /// Spends a mandate on one call through the Gateway. The answer is the upstream's, or the Gateway's refusal.
    pub async fn call(
        &self,
        mandate: &Mandate,
        resource: &str,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.inner.places.gateway))
            .header(header::AUTHORIZATION, format!("Bearer {}", mandate.expose()))
            .header("x-caracal-resource", resource)
            .body(Full::new(body))
            .map_err(|e| ClientError::Transport(e.to_string()))?;
        self.inner.http.send(request).await
    }
}
