//! The load: agents that mint and call, one after the other, each on its own Session and Delegation.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caracal_client::{Caracal, ClientError};
use caracal_egress::{Client, Guard, Settings, Trust};
use caracal_host::World;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::apart::ANSWER;
use super::cpu::Cpu;
use super::times::Times;
use crate::failure::Failure;
use crate::own::Own;

const RESOURCE: &str = "resource://ledger";
const SCOPES: &[&str] = &["ledger:read"];

/// An agent that may call.
#[derive(Clone)]
struct Agent {
    caracal: Caracal,
    session: String,
    delegation: String,
}

/// What there is to load: agents of one application in one zone.
pub(super) struct Agents {
    zone: String,
    all: Vec<Agent>,
    world: World,
}

/// What a load measured.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) mint: Times,
    pub(super) call: Times,
    pub(super) both: Times,
    pub(super) took: Duration,
    pub(super) cpu: Option<Cpu>,
}

fn failed(e: &ClientError) -> Failure {
    Failure::start(format!("the bench's stack answered: {e}"))
}

impl Agents {
    /// Provisions a zone whose agents may read from `upstream`.
    pub(super) async fn provision(own: &Own, upstream: &str, count: usize, world: World) -> Result<Self, Failure> {
        Self::made(own, upstream, count, world).await.map_err(|e| failed(&e))
    }

    async fn made(own: &Own, upstream: &str, count: usize, world: World) -> Result<Self, ClientError> {
        let admin = &own.admin;
        let zone = admin.zone("Bench").await?;
        let (application, secret) = admin.application(&zone, "reader").await?;
        let provider = admin.bearer_provider(&zone, "Ledger key", "sk-of-the-bench").await?;
        admin.resource(&zone, RESOURCE, upstream, &["ledger:read", "ledger:post"], &provider).await?;
        let grants = json!({RESOURCE: {"application": "books", "roles": {"clerk": SCOPES}}});
        let document = format!(
            "# caracal:data-document\npackage caracal.authz\nimport rego.v1\napp_ids := {}\ngrants := {grants}\n",
            json!({"books": application})
        );
        admin.govern(&zone, "reading", &document).await?;
        let caracal = Caracal::new(own.places.clone(), &zone, &application, secret);
        let lifecycle = caracal.bootstrap(&[RESOURCE]).await?;
        let owner = caracal.start(&lifecycle, &["clerk"], None, false).await?;
        let mut agents = Vec::with_capacity(count);
        for _ in 0..count {
            let session = caracal.start(&lifecycle, &["clerk"], None, false).await?;
            let edge = caracal.delegate(&lifecycle, &owner.id, &session.id, RESOURCE, SCOPES, 1).await?;
            agents.push(Agent { caracal: caracal.clone(), session: session.id, delegation: edge.id });
        }
        Ok(Self { zone, all: agents, world })
    }

    /// The zone they act in.
    pub(super) fn zone(&self) -> &str {
        &self.zone
    }

    /// Lets the first `count` agents mint and call for `long`.
    pub(super) async fn govern(&self, on: &Handle, count: usize, long: Duration) -> Result<Measured, Failure> {
        let (agents, world) = (self.all[..count].to_vec(), self.world.clone());
        drive(on, &self.world, agents, long, move |agent| {
            let world = world.clone();
            async move {
                let began = world.monotonic();
                let mandate = agent.caracal.mint(RESOURCE, SCOPES, &agent.session, &agent.delegation).await?;
                let minted = world.monotonic();
                let answer = agent.caracal.call(&mandate, RESOURCE, Method::GET, "/balance", Bytes::new()).await?;
                let ended = world.monotonic();
                if answer.status != StatusCode::OK || answer.body != ANSWER {
                    return Err(answer.refusal());
                }
                Ok([minted.saturating_sub(began), ended.saturating_sub(minted)])
            }
        })
        .await
    }
}

/// Sends plain requests through a proxy that governs nothing.
pub(super) async fn ungoverned(on: &Handle, world: &World, proxy: &str, count: usize, long: Duration) -> Result<Measured, Failure> {
    let client: Client<Full<Bytes>> = Client::new(Settings::new(Guard::upstreams(Vec::new(), Vec::new()), Trust::new(None)));
    let url: Arc<str> = format!("{proxy}/balance").into();
    let clock = world.clone();
    drive(on, world, vec![client; count], long, move |client| {
        let (url, clock) = (Arc::clone(&url), clock.clone());
        async move {
            let lost = |e: &dyn std::fmt::Display| ClientError::Transport(e.to_string());
            let began = clock.monotonic();
            let request = Request::get(&*url).body(Full::default()).map_err(|e| lost(&e))?;
            let response = client.send(request).await.map_err(|e| lost(&e))?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|e| lost(&e))?.to_bytes();
            if status != StatusCode::OK || body != ANSWER {
                return Err(lost(&format_args!("the proxy answered {status}")));
            }
            Ok([Duration::ZERO, clock.monotonic().saturating_sub(began)])
        }
    })
    .await
}

/// Runs a step over and over in each of `workers`, on the load's own threads, until `long` has passed.
async fn drive<W, S, F>(on: &Handle, world: &World, workers: Vec<W>, long: Duration, step: S) -> Result<Measured, Failure>
where
    W: Clone + Send + 'static,
    S: Fn(W) -> F + Clone + Send + 'static,
    F: Future<Output = Result<[Duration; 2], ClientError>> + Send,
{
    let before = Cpu::now();
    let began = world.monotonic();
    let mut running = JoinSet::new();
    for worker in workers {
        let (step, world) = (step.clone(), world.clone());
        let work = async move {
            let mut measured = Measured::default();
            while world.monotonic().saturating_sub(began) < long {
                let [mint, call] = step(worker.clone()).await?;
                measured.mint.add(mint);
                measured.call.add(call);
                measured.both.add(mint + call);
            }
            Ok::<_, ClientError>(measured)
        };
        running.spawn_on(work, on);
    }
    let mut all = Measured::default();
    while let Some(one) = running.join_next().await {
        let one = one.map_err(|e| Failure::start(e.to_string()))?.map_err(|e| failed(&e))?;
        all.mint.join(one.mint);
        all.call.join(one.call);
        all.both.join(one.both);
    }
    all.took = world.monotonic().saturating_sub(began);
    all.cpu = Cpu::now().zip(before).map(|(now, before)| now.since(before));
    Ok(all)
}
