//! `caracal serve <service>`: one service on PostgreSQL and Redis, any number of replicas (`cli.md` 1, 10.9).

use std::io::IsTerminal as _;

use caracal_host::World;
use caracal_host::config::{Mode, Run, Sources};

use crate::cli::Serve;
use crate::failure::Failure;
use crate::home::Home;
use crate::output::{Mark, Style};
use crate::stack::Stack;

/// Every value, from wherever it may come. Unlike `up` nothing is generated: what is missing or weak stops the start.
fn sources(args: &Serve) -> Result<Sources, Failure> {
    let mut builder = Sources::builder(Run::Serve).default_mode(Mode::Stable).environment(crate::env::all());
    if let Some(host) = &args.host {
        builder = builder.flag("HOST", "--host", host);
    }
    if let Some(port) = args.port {
        builder = builder.flag("PORT", "--port", port.to_string());
    }
    if let Some(file) = crate::env::non_empty("CARACAL_ENV_FILE") {
        builder = builder.env_file(file.as_ref());
    }
    if let Ok(home) = Home::resolve(None) {
        builder = builder.env_file(&home.env_file());
    }
    if let Some(file) = &args.config {
        builder = builder.toml_file(file, crate::env::known);
    }
    Ok(builder.build()?)
}

/// Runs in the foreground until it is told to stop.
pub(crate) async fn run(args: &Serve) -> Result<(), Failure> {
    let sources = sources(args)?;
    let world = World::system();
    let _log = crate::output::log(&sources, &world);
    let stack = Box::pin(Stack::serve(args.service, &sources, world)).await?;
    tracing::info!(service = args.service.name(), mode = sources.mode().name(), "ready");
    if std::io::stdout().is_terminal() {
        let style = Style::stdout();
        println!("{} the {} is ready on PostgreSQL and Redis; Ctrl-C stops", style.mark(Mark::Done), args.service.name());
    }
    crate::signals::stopped(&stack.supervisor.stop()).await;
    tracing::info!(service = args.service.name(), "stopping: running requests finish first");
    stack.stop().await;
    Ok(())
}
