//! Caracal decides what an agent may do before every action, proves what it did, and shuts it down at once.
//!
//! This is the binary: the command line ([`cli`]), and the one place where concrete clocks, stores and services meet ([`stack`]).
//! [`up`] runs the whole stack in one process, [`serve`] one service of it, [`down`] stops one that runs detached, [`status`] probes it; [`demo`] shows it at work,
//! [`mod@bench`] what it costs.
//!
//! What must never happen here: a rule of the domain.

mod adapt;
mod bench;
mod cli;
mod demo;
mod down;
mod env;
mod failure;
mod home;
mod output;
mod own;
mod serve;
mod signals;
mod stack;
mod status;
mod up;
mod version;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::output::{Mark, Style};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut words: Vec<_> = std::env::args_os().collect();
    // One leading `--` is dropped, so that launchers may always write it.
    if words.get(1).is_some_and(|w| w == "--") {
        words.remove(1);
    }
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    if cli.version {
        version::run(cli.json);
        return ExitCode::SUCCESS;
    }
    match run(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{} caracal: {failure}", Style::stderr().mark(Mark::Failed));
            ExitCode::from(failure.code())
        }
    }
}

fn run(command: Option<Command>) -> Result<ExitCode, Failure> {
    let Some(command) = command else {
        let _ = Cli::command().print_long_help();
        return Ok(ExitCode::SUCCESS);
    };
    let of = |good: bool| if good { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    match command {
        Command::Version { json } => {
            version::run(json);
            Ok(ExitCode::SUCCESS)
        }
        Command::Up(args) if args.detach => up::detach(&args).map(|()| ExitCode::SUCCESS),
        Command::Up(args) => runtime()?.block_on(up::run(&args)).map(|()| ExitCode::SUCCESS),
        Command::Serve(args) => runtime()?.block_on(serve::run(&args)).map(|()| ExitCode::SUCCESS),
        Command::Down(args) => down::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Status(args) => runtime()?.block_on(status::run(&args)).map(of),
        Command::Bench(args) => runtime()?.block_on(bench::run(&args)).map(|()| ExitCode::SUCCESS),
        Command::Demo => runtime()?.block_on(demo::run()).map(|()| ExitCode::SUCCESS),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let made = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    made.map_err(|e| Failure::start(format!("cannot start the runtime: {e}")))
}
