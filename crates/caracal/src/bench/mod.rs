//! `caracal bench`: what a governed call costs on this machine, beside what the machine itself charges.
//!
//! Its own stack ([`crate::own`]) on the threads of this runtime, real sockets, and two sorts of threads apart, known by name so that
//! their CPU time can be told from the stack's ([`cpu`]): the upstream ([`apart`]) and the load generator ([`load`]). The floor
//! ([`mod@floor`]) is measured in the same run, so that a slow machine is not taken for a slow Caracal. Nothing here is asserted.

mod apart;
mod cpu;
mod floor;
mod load;
mod report;
mod times;

use std::time::Duration;

use caracal_host::World;

use self::cpu::{Cpu, memory};
use self::load::{Agents, Measured, ungoverned};
use self::report::{CpuPerCall, Evidence, Floor, Governed, Memory, Proxied, Report};
use crate::cli::Bench;
use crate::failure::Failure;
use crate::output::{Mark, Style};
use crate::own::{Own, own_stack};

/// Name of the load generator's threads; Linux keeps 15 bytes.
const LOAD: &str = "bench-load";
/// Name of the upstream's thread.
const UPSTREAM: &str = "bench-upstream";

/// Measures, and prints.
pub(crate) async fn run(args: &Bench) -> Result<(), Failure> {
    let style = Style::stderr();
    let step = |text: &str| eprintln!("{} {text}", style.mark(Mark::Step));
    let world = World::system();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let long = Duration::from_secs(args.seconds);
    let count = usize::from(args.concurrency);
    let (loading, serving) = (apart::runtime(LOAD, cores)?, apart::runtime(UPSTREAM, 1)?);
    let upstream = apart::upstream(serving.handle()).await?;

    let measured = async {
        let own = own_stack().await?;
        let outcome = async {
            step("the floor: signatures, a synced commit, a plain proxied request");
            let floor = floor(&world, &own, &upstream, loading.handle(), count, long).await?;
            step(&format!("a zone, an application, {count} agents"));
            let agents = Agents::provision(&own, &upstream, count, world.clone()).await?;
            // What a process does once (first pages, first statements, first connections) belongs to no call.
            agents.govern(loading.handle(), count, long / 10).await?;
            drained(&own).await?;
            let before = memory();
            step("governed calls, one agent at a time");
            let alone = governed(agents.govern(loading.handle(), 1, long / 4).await?, None);
            drained(&own).await?;
            step(&format!("governed calls, {count} agents at a time, {} s", args.seconds));
            let cpu = Cpu::now();
            let loaded = agents.govern(loading.handle(), count, long).await?;
            let ended = world.monotonic();
            let behind = own.stack.store.spool_depth().await.map_err(|e| Failure::start(e.to_string()))?;
            drained(&own).await?;
            let drained_ms = u64::try_from(world.monotonic().saturating_sub(ended).as_millis()).unwrap_or(u64::MAX);
            // A call is paid for when its evidence is in the ledger, so the CPU time of catching up counts.
            let cpu = Cpu::now().zip(cpu).map(|(now, before)| now.since(before));
            let loaded = governed(loaded, cpu);
            let memory =
                before.zip(memory()).map(|((before_mib, _), (after_mib, peak_mib))| Memory { before_mib, after_mib, peak_mib });
            step("the evidence of it all, counted and checked");
            let entries = checked(&own, agents.zone()).await?;
            let ledger = own.dir.path().join("data/ledger.db");
            let bytes = std::fs::metadata(&ledger).map_err(|e| Failure::io("look at", &ledger, &e))?.len();
            let evidence = Evidence { entries, behind, drained_ms, bytes_per_entry: bytes / entries.max(1) };
            let ratio =
                loaded.cpu.as_ref().zip(floor.proxied.cpu_us).map(|(cpu, proxied)| cpu.stack_us / (proxied + floor.sign_us));
            Ok::<_, Failure>(Report {
                version: crate::version::VERSION,
                optimised: !cfg!(debug_assertions),
                cores,
                seconds: args.seconds,
                concurrency: count,
                floor,
                alone,
                loaded,
                evidence,
                memory,
                ratio,
            })
        }
        .await;
        own.stack.stop().await;
        outcome
    }
    .await;
    loading.shutdown_background();
    serving.shutdown_background();
    let report: Report = measured?;
    if args.json {
        println!("{}", serde_json::to_string(&report).map_err(|e| Failure::start(e.to_string()))?);
    } else {
        print!("{}", report.page(Style::stdout()));
    }
    Ok(())
}

async fn floor(
    world: &World,
    own: &Own,
    upstream: &str,
    on: &tokio::runtime::Handle,
    count: usize,
    long: Duration,
) -> Result<Floor, Failure> {
    let short = long / 20;
    let (sign_us, verify_us) = tokio::task::block_in_place(|| floor::es256(world, short))?;
    let commit = tokio::task::block_in_place(|| floor::synced_commits(world, own.dir.path(), short))?.quantiles();
    let proxy = apart::proxy(upstream).await?;
    ungoverned(on, world, &proxy, count, short).await?;
    let measured = ungoverned(on, world, &proxy, count, long / 4).await?;
    let calls = measured.both.len();
    let proxied = Proxied {
        per_second: rate(calls, measured.took),
        cpu_us: measured.cpu.map(|cpu| each(cpu.tested(), calls)),
        time: measured.both.quantiles(),
    };
    Ok(Floor { sign_us, verify_us, commit, proxied })
}

/// `cpu`: the time used until the evidence was in the ledger, where that was waited for.
fn governed(measured: Measured, cpu: Option<Cpu>) -> Governed {
    let calls = measured.both.len();
    let cpu = cpu.or(measured.cpu).map(|cpu| CpuPerCall {
        stack_us: each(cpu.tested(), calls),
        load_us: each(cpu.load, calls),
        upstream_us: each(cpu.upstream, calls),
    });
    Governed {
        calls,
        per_second: rate(calls, measured.took),
        per_core: cpu.as_ref().map(|cpu| 1e6 / cpu.stack_us),
        mint: measured.mint.quantiles(),
        call: measured.call.quantiles(),
        both: measured.both.quantiles(),
        cpu,
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rate is read to three digits")]
fn rate(calls: usize, took: Duration) -> f64 {
    calls as f64 / took.as_secs_f64()
}

#[allow(clippy::cast_precision_loss, reason = "a mean is read to three digits")]
fn each(spent: Duration, calls: usize) -> f64 {
    spent.as_secs_f64() * 1e6 / calls.max(1) as f64
}

/// Recounts a zone's ledger from what is stored; a bench whose evidence does not hold has measured nothing.
async fn checked(own: &Own, zone: &str) -> Result<u64, Failure> {
    let checked = caracal_audit::recheck(&own.stack.store, zone, &own.stack.audit_keys).await;
    let checked = checked.map_err(|e| Failure::start(e.to_string()))?.ok_or_else(|| Failure::start("the zone has no ledger"))?;
    if checked.findings.is_empty() { Ok(checked.entries) } else { Err(Failure::start("the evidence of the bench does not hold")) }
}

/// Waits until everything that was spooled is in the ledger.
async fn drained(own: &Own) -> Result<(), Failure> {
    own.stack.settle().await.map_err(Failure::start)
}
