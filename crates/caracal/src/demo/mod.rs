//! `caracal demo`: what a newcomer should see, acted through the public client against a real stack.
//!
//! Each step says what happens and checks that it did; a step that did not hold ends the demo with its own exit code.

mod upstream;

use bytes::Bytes;
use caracal_client::{Caracal, ClientError};
use http::Method;
use serde_json::json;

use self::upstream::Upstream;
use crate::failure::Failure;
use crate::output::{Mark, Style};
use crate::own::{Own, own_stack};

const LEDGER: &str = "resource://ledger";
const KEY: &str = "sk-the-upstreams-real-key";

/// Says what happens, and stops where it does not.
struct Tale {
    style: Style,
    step: u32,
}

impl Tale {
    fn chapter(&mut self, text: &str) {
        self.step += 1;
        println!("\n{}", self.style.bold(&format!("{}. {text}", self.step)));
    }

    fn say(&self, text: &str) {
        println!("   {}", self.style.dim(text));
    }

    fn holds(&self, good: bool, text: &str) -> Result<(), Failure> {
        let mark = if good { Mark::Done } else { Mark::Failed };
        println!("   {} {text}", self.style.mark(mark));
        if good { Ok(()) } else { Err(Failure::start(format!("step {}: this did not hold: {text}", self.step))) }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the form map_err wants")]
fn failed(e: ClientError) -> Failure {
    Failure::start(format!("the demo's stack answered: {e}"))
}

/// Whether a refusal is of this reason.
fn refused<T>(outcome: Result<T, ClientError>, reason: &str) -> Result<bool, Failure> {
    match outcome {
        Ok(_) => Ok(false),
        Err(e) if e.reason() == Some(reason) => Ok(true),
        Err(e @ ClientError::Refused { .. }) => Err(Failure::start(format!("refused, but not as {reason}: {e}"))),
        Err(e) => Err(failed(e)),
    }
}

/// Shows it at work.
pub(crate) async fn run() -> Result<(), Failure> {
    let mut tale = Tale { style: Style::stdout(), step: 0 };
    println!(
        "{}",
        tale.style.bold("Caracal decides what an agent may do before every action, proves what it did, and shuts it down at once.")
    );
    let own = own_stack().await?;
    let told = Box::pin(story(&mut tale, &own)).await;
    own.stack.stop().await;
    told?;
    println!("\n{} That was one process, one file of state, one file of evidence. Try next:", tale.style.mark(Mark::Done));
    println!("   caracal up                 keep a stack running on this machine");
    println!("   caracal up --help          where its keys and data are, PostgreSQL and Redis");
    println!("   pip install caracalai-sdk  and point it at http://localhost:8081");
    Ok(())
}

#[allow(clippy::too_many_lines, reason = "a story is read from its beginning to its end")]
async fn story(tale: &mut Tale, own: &Own) -> Result<(), Failure> {
    let upstream = Upstream::start().await?;
    let admin = &own.admin;

    tale.chapter("An operator says who may do what");
    let zone = admin.zone("Demo").await.map_err(failed)?;
    let (application, secret) = admin.application(&zone, "bookkeeper").await.map_err(failed)?;
    let provider = admin.bearer_provider(&zone, "Ledger key", KEY).await.map_err(failed)?;
    admin.resource(&zone, LEDGER, &upstream.url, &["ledger:read", "ledger:post"], &provider).await.map_err(failed)?;
    let grants =
        json!({LEDGER: {"application": "books", "roles": {"clerk": ["ledger:read"], "closer": ["ledger:read", "ledger:post"]}}});
    let document = format!(
        "# caracal:data-document\npackage caracal.authz\nimport rego.v1\napp_ids := {}\ngrants := {grants}\n",
        json!({"books": application})
    );
    admin.govern(&zone, "bookkeeping", &document).await.map_err(failed)?;
    tale.say("zone Demo, application bookkeeper, the ledger's real key sealed, a policy: clerks read, closers also post");
    tale.holds(true, "the policy was compiled before it became active, and binds the very next request")?;

    tale.chapter("An agent makes a governed call");
    let agent = Caracal::new(own.places.clone(), &zone, &application, secret);
    let lifecycle = agent.bootstrap(&[LEDGER]).await.map_err(failed)?;
    let owner = agent.start(&lifecycle, &["closer"], None, false).await.map_err(failed)?;
    let clerk = agent.start(&lifecycle, &["clerk"], None, false).await.map_err(failed)?;
    let edge = agent.delegate(&lifecycle, &owner.id, &clerk.id, LEDGER, &["ledger:read"], 3).await.map_err(failed)?;
    let mandate = agent.mint(LEDGER, &["ledger:read"], &clerk.id, &edge.id).await.map_err(failed)?;
    tale.say(&format!(
        "a Session labelled clerk holds a Delegation for ledger:read; its mandate lives {} s and opens one call",
        mandate.expires_in
    ));
    let answer = agent.call(&mandate, LEDGER, Method::GET, "/balance", Bytes::new()).await.map_err(failed)?;
    tale.holds(
        answer.status.as_u16() == 200 && answer.body.as_ref() == br#"{"balance":4711}"#,
        "the call went through and the answer came back",
    )?;
    let seen = upstream.seen();
    let one =
        seen.last().filter(|_| seen.len() == 1).ok_or_else(|| Failure::start("the upstream saw no call, or more than one"))?;
    let authorization = one.headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
    tale.holds(
        authorization == format!("Bearer {KEY}") && one.path == "/balance",
        "the upstream received its real key, which the agent never held",
    )?;
    let leaked = one.headers.values().any(|v| v.to_str().is_ok_and(|v| v.contains(mandate.expose())));
    tale.holds(!leaked, "and never the mandate")?;

    tale.chapter("The same mandate again");
    let again = agent.call(&mandate, LEDGER, Method::GET, "/balance", Bytes::new()).await.map_err(failed)?;
    tale.holds(
        again.status.as_u16() == 401 && upstream.seen().len() == 1,
        "refused: a mandate opens one call, and the upstream saw nothing",
    )?;

    tale.chapter("More than its role");
    let wide = agent.delegate(&lifecycle, &owner.id, &clerk.id, LEDGER, &["ledger:post"], 1).await.map_err(failed)?;
    let post = agent.mint(LEDGER, &["ledger:post"], &clerk.id, &wide.id).await;
    if let Err(ClientError::Refused { refusal, .. }) = &post {
        tale.say(&format!("the refusal says what would have been enough: {}", refusal["enough"]));
    }
    tale.holds(refused(post, "role_scope_mismatch")?, "refused: a clerk does not post, whatever was delegated to it")?;
    agent.revoke(&lifecycle, &wide.id).await.map_err(failed)?;

    tale.chapter("A child can do less, never more");
    let lifecycle = agent.bootstrap(&[LEDGER]).await.map_err(failed)?;
    let owner = agent.start(&lifecycle, &["closer"], None, false).await.map_err(failed)?;
    let parent = agent.start(&lifecycle, &["closer"], None, false).await.map_err(failed)?;
    let both =
        agent.delegate(&lifecycle, &owner.id, &parent.id, LEDGER, &["ledger:read", "ledger:post"], 3).await.map_err(failed)?;
    let child = agent.start(&lifecycle, &["clerk"], Some(&parent.id), false).await.map_err(failed)?;
    let narrow = agent.delegate(&lifecycle, &parent.id, &child.id, LEDGER, &["ledger:read"], 2).await.map_err(failed)?;
    let grandchild = agent.start(&lifecycle, &["clerk"], Some(&child.id), false).await.map_err(failed)?;
    let wider = agent.delegate(&lifecycle, &child.id, &grandchild.id, LEDGER, &["ledger:read", "ledger:post"], 1).await;
    tale.holds(
        wider.as_ref().is_err_and(|e| e.code() == Some("delegation_exceeds_parent_authority")),
        "a child that tries to hand on more than it has is refused",
    )?;
    let reads = agent.mint(LEDGER, &["ledger:read"], &child.id, &narrow.id).await.map_err(failed)?;
    let answer = agent.call(&reads, LEDGER, Method::GET, "/entries", Bytes::new()).await.map_err(failed)?;
    tale.holds(answer.status.as_u16() == 200, "what it was given, it may")?;

    tale.chapter("Shut down at once");
    let held = agent.mint(LEDGER, &["ledger:read"], &child.id, &narrow.id).await.map_err(failed)?;
    let calls = upstream.seen().len();
    let ended = agent.revoke(&lifecycle, &both.id).await.map_err(failed)?;
    tale.say(&format!(
        "one revocation: {} Delegations and {} Sessions ended",
        ended["revoked_edges"], ended["terminated_sessions"]
    ));
    let stopped = agent.call(&held, LEDGER, Method::GET, "/entries", Bytes::new()).await.map_err(failed)?;
    tale.holds(
        stopped.status.is_client_error() && upstream.seen().len() == calls,
        "a mandate minted before it opens nothing any more",
    )?;
    let next = agent.mint(LEDGER, &["ledger:read"], &child.id, &narrow.id).await;
    tale.holds(refused(next, "delegation_not_usable")?, "and the next mint below it is refused")?;

    tale.chapter("The evidence of it all");
    own.stack.settle().await.map_err(Failure::start)?;
    let entries = admin.evidence(&zone).await.map_err(failed)?;
    let count =
        |kind: &str, decision: &str| entries.iter().filter(|e| e["event_type"] == kind && e["decision"] == decision).count();
    tale.say(&format!(
        "{} entries: {} exchanges allowed, {} denied, {} calls, {} replay, {} Delegations revoked",
        entries.len(),
        count("token_exchange", "allow"),
        count("token_exchange", "deny"),
        count("gateway_resource_request", "allow"),
        count("replay_detected", "deny"),
        count("delegation_revoked", "allow"),
    ));
    tale.holds(
        count("gateway_resource_request", "allow") == 2 && upstream.seen().len() == 2,
        "every call that reached the upstream is in the ledger, and no other",
    )?;
    tale.holds(count("replay_detected", "deny") == 1, "so is the replay that did not")?;
    let checked = caracal_audit::recheck(&own.stack.store, &zone, &own.stack.audit_keys).await;
    let checked = checked.map_err(|e| Failure::start(e.to_string()))?.ok_or_else(|| Failure::start("the zone has no ledger"))?;
    tale.holds(
        checked.findings.is_empty(),
        &format!("chain, leaves and tree recomputed from {} stored entries: all agree", checked.entries),
    )?;
    tale.say(&format!("root {}", caracal_core::digest::hex(&checked.root)));
    Ok(())
}
