//! What an administrator does first: a zone and what is in it.

use http::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use crate::http::{ClientError, Http};

/// An administrator of a deployment.
#[derive(Clone)]
pub struct Admin {
    base: String,
    token: SecretString,
    http: Http,
}

impl Admin {
    /// By the API's address, without trailing slash, and a token.
    pub fn new(api: impl Into<String>, token: impl Into<SecretString>) -> Self {
        Self { base: api.into(), token: token.into(), http: Http::new() }
    }

    /// Any call of the Admin API; the path begins with `/v1`.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        self.http.json(method, &format!("{}{path}", self.base), self.token.expose_secret(), body).await
    }

    async fn create(&self, path: &str, body: Value) -> Result<Value, ClientError> {
        self.call(Method::POST, path, Some(&body)).await
    }

    /// A zone by name; gives its id.
    pub async fn zone(&self, name: &str) -> Result<String, ClientError> {
        id(&self.create("/v1/zones", json!({"name": name})).await?)
    }

    /// An application; gives its id and its secret.
    pub async fn application(&self, zone: &str, name: &str) -> Result<(String, SecretString), ClientError> {
        let made =
            self.create(&format!("/v1/zones/{zone}/applications"), json!({"name": name, "registration_method": "managed"})).await?;
        let secret = made["client_secret"].as_str().ok_or(ClientError::Answer("client_secret"))?;
        Ok((id(&made)?, secret.to_owned().into()))
    }

    /// A provider that injects a static bearer token; gives its id.
    pub async fn bearer_provider(&self, zone: &str, name: &str, token: &str) -> Result<String, ClientError> {
        let body = json!({"name": name, "kind": "bearer_token", "config_json": {"bearer_token": token}});
        id(&self.create(&format!("/v1/zones/{zone}/providers"), body).await?)
    }

    /// A resource behind the Gateway; gives its id.
    pub async fn resource(
        &self,
        zone: &str,
        identifier: &str,
        upstream: &str,
        scopes: &[&str],
        provider: &str,
    ) -> Result<String, ClientError> {
        let body = json!({"identifier": identifier, "upstream_url": upstream, "scopes": scopes, "credential_provider_id": provider,
            "operation_enforcement": "transport_uniform"});
        id(&self.create(&format!("/v1/zones/{zone}/resources"), body).await?)
    }

    /// A policy of one document, active at once; gives the version that governs.
    pub async fn govern(&self, zone: &str, name: &str, document: &str) -> Result<String, ClientError> {
        let policy = self.create(&format!("/v1/zones/{zone}/policies"), json!({"name": name, "content": document})).await?;
        let set = id(&self.create(&format!("/v1/zones/{zone}/policy-sets"), json!({"name": name})).await?)?;
        let manifest = json!({"manifest": [{"policy_version_id": policy["version_id"]}]});
        let version = self.create(&format!("/v1/zones/{zone}/policy-sets/{set}/versions"), manifest).await?;
        let version = version["version_id"].as_str().ok_or(ClientError::Answer("version_id"))?.to_owned();
        self.create(&format!("/v1/zones/{zone}/policy-sets/{set}/activate"), json!({"version_id": version})).await?;
        Ok(version)
    }

    /// Evidence of a zone, newest first.
    pub async fn evidence(&self, zone: &str) -> Result<Vec<Value>, ClientError> {
        let page = self.call(Method::GET, &format!("/v1/zones/{zone}/audit?limit=500"), None).await?;
        page["items"].as_array().cloned().ok_or(ClientError::Answer("items"))
    }
}

fn id(made: &Value) -> Result<String, ClientError> {
    made["id"].as_str().map(str::to_owned).ok_or(ClientError::Answer("id"))
}
