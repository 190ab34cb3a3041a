//! `caracal up`: all five services in one process (`cli.md` 2.1).

use std::fs;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use caracal_host::config::{Mode, Run, Sources};
use caracal_host::{SystemEntropy, World};

use crate::cli::{ServiceName, Up};
use crate::failure::Failure;
use crate::home::{Home, provision, write_private};
use crate::output::{Mark, Style};
use crate::stack::{Doors, Plan, Stack};
use crate::status;

/// What every value of this command line can come from, but for what is generated.
fn outside(args: &Up, home: &Home) -> caracal_host::config::Builder {
    let mode = if crate::version::STAMPED_MODE == "dev" { Mode::Dev } else { Mode::Stable };
    let mut builder = Sources::builder(Run::Up).default_mode(mode).port_offset(args.port_offset).environment(crate::env::all());
    if let Some(url) = &args.database_url {
        builder = builder.flag("DATABASE_URL", "--database-url", url);
    }
    if let Some(url) = &args.redis_url {
        builder = builder.flag("REDIS_URL", "--redis-url", url);
    }
    if let Some(file) = crate::env::non_empty("CARACAL_ENV_FILE") {
        builder = builder.env_file(file.as_ref());
    }
    builder = builder.env_file(&home.env_file());
    if let Some(file) = &args.config {
        builder = builder.toml_file(file, crate::env::known);
    }
    builder
}

/// Runs in the foreground until it is told to stop.
pub(crate) async fn run(args: &Up) -> Result<(), Failure> {
    let style = Style::stdout();
    let home = Home::resolve(args.data_dir.as_deref())?;
    let given = outside(args, &home).build()?;
    let url = |name: &'static str| {
        let key = caracal_host::config::Key::new(name, "").secret();
        given.value(&key).map(|v| v.map(|v| v.text.to_string())).map_err(|e| Failure::start(e.to_string()))
    };
    let (database_url, redis_url) = (url("DATABASE_URL")?, url("REDIS_URL")?);

    // Whatever could stop the start is tried before anything is created.
    crate::stack::ground::given_keks(&given)?;
    let doors = Doors::bind(Some(args.port_offset))?;
    home.probe()?;
    if let Some(database) = &database_url {
        caracal_store::reachable(database).await.map_err(|e| Failure::start(e.to_string()))?;
    }
    if let Some(redis) = &redis_url {
        crate::stack::ground::bus(redis, given.mode()).await?;
    }
    let first = !home.secrets().exists();
    let _lock = home.take()?;
    home.mark_version()?;
    let made = provision(&home.secrets(), |name| given.given(name), &SystemEntropy)?;
    if !home.env_file().exists() {
        write_private(&home.env_file(), TEMPLATE.as_bytes())?;
    }
    let mut builder = outside(args, &home).managed("ISSUER_URL", format!("http://localhost:{}", doors.port(ServiceName::Sts)));
    for (name, value) in made.values {
        builder = builder.managed(name, value);
    }
    builder = builder.managed("AUDIT_REPLAY_DIR", home.data().join("audit-replay").display().to_string());
    if home.extra_ca().exists() {
        builder = builder.managed("CARACAL_TLS_EXTRA_CA_FILE", home.extra_ca().display().to_string());
    }
    let sources = builder.build()?;

    let world = World::system();
    let _log = crate::output::log(&sources, &world);
    let backend = match (&database_url, &redis_url) {
        (None, _) => format!("SQLite in {}", home.data().display()),
        (Some(_), None) => "PostgreSQL, events in process".to_owned(),
        (Some(_), Some(_)) => "PostgreSQL and Redis".to_owned(),
    };
    let plan = Plan { sources, data: home.data(), doors };
    let stack = Box::pin(Stack::start(plan, world)).await?;

    if first {
        println!(
            "{} first start: {} keys and tokens made in {} (0600)",
            style.mark(Mark::Info),
            made.created,
            home.secrets().display()
        );
    }
    println!("{} ready on {backend}", style.mark(Mark::Done));
    for service in ServiceName::ALL {
        println!("  {:<12} http://localhost:{}", service.name(), service.port() + args.port_offset);
    }
    println!("  admin token  {}", home.secrets().join("caracalAdminToken").display());
    println!("{} next: `caracal status --ready`, or `caracal demo` to see a governed call; Ctrl-C stops", style.mark(Mark::Step));

    crate::signals::stopped(&stack.supervisor.stop()).await;
    println!("{} stopping: running requests finish first", style.mark(Mark::Step));
    stack.stop().await;
    Ok(())
}

/// Leaves a stack running and answers when it is ready.
pub(crate) fn detach(args: &Up) -> Result<(), Failure> {
    let home = Home::resolve(args.data_dir.as_deref())?;
    home.probe()?;
    if let Some(pid) = home.holder()? {
        return Err(Failure::start(format!("{} is in use by process {pid}; `caracal down` stops it", home.root().display())));
    }
    crate::home::private_dir(home.root())?;
    let log = fs::File::create(home.log()).map_err(|e| Failure::io("create", &home.log(), &e))?;
    let errors = log.try_clone().map_err(|e| Failure::io("open", &home.log(), &e))?;
    let binary = std::env::current_exe().map_err(|e| Failure::start(format!("cannot find this binary: {e}")))?;
    let mut child = Process::new(binary);
    child.arg("up").arg("--data-dir").arg(home.root()).arg("--port-offset").arg(args.port_offset.to_string());
    if let Some(url) = &args.database_url {
        // In the environment rather than on a command line that every user of the machine can read.
        child.env("DATABASE_URL", url);
    }
    if let Some(url) = &args.redis_url {
        child.env("REDIS_URL", url);
    }
    if let Some(file) = &args.config {
        child.arg("--config").arg(file);
    }
    std::os::unix::process::CommandExt::process_group(&mut child, 0);
    let mut child = child
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|e| Failure::start(format!("cannot start the stack: {e}")))?;
    let deadline = deadline(Duration::from_secs(args.timeout));
    let bases: Vec<_> = ServiceName::ALL.into_iter().map(|s| (s, status::local(s.port() + args.port_offset))).collect();
    let runtime = crate::runtime()?;
    loop {
        if let Ok(Some(ended)) = child.try_wait() {
            let text = fs::read_to_string(home.log()).unwrap_or_default();
            let last = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("no output").to_owned();
            return Err(Failure::start(format!("the stack ended at once ({ended}): {last}")));
        }
        if runtime.block_on(status::probe_all(&bases, true)).iter().all(|s| s.ok) {
            let style = Style::stdout();
            println!(
                "{} ready, process {}; log in {}; `caracal down` stops it",
                style.mark(Mark::Done),
                child.id(),
                home.log().display()
            );
            return Ok(());
        }
        if passed(deadline) {
            let _ = child.kill();
            return Err(Failure::start(format!("not ready within {} s; see {}", args.timeout, home.log().display())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn deadline(within: Duration) -> Instant {
    #[allow(clippy::disallowed_methods, reason = "a command's own patience, not a decision")]
    let now = Instant::now();
    now + within
}

fn passed(deadline: Instant) -> bool {
    #[allow(clippy::disallowed_methods, reason = "a command's own patience, not a decision")]
    let now = Instant::now();
    now >= deadline
}

const TEMPLATE: &str = "\
# Caracal reads this file before its defaults; the process environment wins over it. Lines are NAME=VALUE.
#DATABASE_URL=postgres://caracal@localhost/caracal
#REDIS_URL=redis://localhost
#LOG_LEVEL=info
#ISSUER_URL=http://localhost:8080
#UPSTREAM_HOST_ALLOWLIST=
";
