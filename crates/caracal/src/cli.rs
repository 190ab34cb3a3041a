//! The command line: what can be typed, and help that teaches.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const AFTER: &str = "\
Start here:
  caracal demo          watch one agent make a governed call, be refused, delegate and be stopped
  caracal up            run all five services on this machine
  caracal status        see whether they answer

Exit codes: 0 it worked; 1 it did not, and one line on stderr says why.";

/// Caracal decides what an agent may do before every action, proves what it did, and shuts it down at once.
#[derive(Debug, Parser)]
#[command(name = "caracal", disable_version_flag = true, after_help = AFTER, max_term_width = 110)]
pub(crate) struct Cli {
    /// Print the version and stop.
    #[arg(short = 'v', long, global = false)]
    pub(crate) version: bool,
    /// With --version: one line of JSON.
    #[arg(long, requires = "version", hide = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run all five services in one process.
    #[command(after_help = "\
Without configuration everything is kept in one directory (CARACAL_HOME, else ~/.local/share/caracal): data, keys and tokens, made
at the first start and never changed afterwards. With DATABASE_URL and REDIS_URL the same process stands on PostgreSQL and Redis.
Every listener is on loopback.

Examples:
  caracal up
  caracal up --data-dir ./stack --port-offset 100
  caracal up --detach && caracal status --ready
  caracal up --database-url postgres://caracal@localhost/caracal --redis-url redis://localhost")]
    Up(Up),
    /// Run one service on PostgreSQL and Redis; any number of each.
    #[command(after_help = "\
Everything is configured: by flags, the environment, CARACAL_ENV_FILE, or a TOML file whose keys are variable names in lower case.
Secrets may be given as files (NAME_FILE). Nothing is generated: outside CARACAL_MODE=dev a missing or weak key stops the start, in one
line. Database migrations are applied at the start, by one process at a time. Evidence waits in AUDIT_REPLAY_DIR until Audit has it.

  every service   DATABASE_URL, REDIS_URL, AUDIT_HMAC_KEY, METRICS_BEARER (else /metrics is closed)
  all but audit   STREAMS_HMAC_KEY (and REVOCATION_STREAMS_HMAC_KEY, which resource servers hold)
  api             SECRET_STORE_KEK, GATEWAY_STS_HMAC_KEY, CARACAL_ADMIN_TOKEN
  sts             SECRET_STORE_KEK, GATEWAY_STS_HMAC_KEY, ISSUER_URL
  coordinator     IDEMPOTENCY_HMAC_KEY, STS_URL, ISSUER_URL, CARACAL_COORDINATOR_TOKEN
  gateway         GATEWAY_STS_HMAC_KEY, STS_URL, ISSUER_URL (to check iss and aud)
  audit           AUDIT_ADMIN_TOKEN (else its operator routes do not exist)

Examples:
  caracal serve sts --config /etc/caracal/sts.toml
  CARACAL_ENV_FILE=prod.env caracal serve gateway --host 0.0.0.0 --port 8081")]
    Serve(Serve),
    /// Stop a stack that runs detached; its data stays.
    Down(Down),
    /// Probe the five services; exit 0 only if all answer.
    Status(Status),
    /// See it work: a governed call, four refusals, a delegation, a revocation, and the evidence of it all.
    #[command(
        after_help = "Runs its own stack and upstream in a temporary directory, on free ports. Takes a few seconds and leaves nothing behind."
    )]
    Demo,
    /// Measure what a governed call costs on this machine, beside what the machine itself charges.
    #[command(after_help = "\
Runs its own stack and upstream in a temporary directory, on free ports, and loads them over real sockets. Size a machine by the column
\"a core\": governed calls a second that one core of the stack does, evidence and records included. The load generator and the upstream
run on the same machine and are counted apart.

Examples:
  caracal bench
  caracal bench --seconds 30 --concurrency 64
  caracal bench --json > bench.json")]
    Bench(Bench),
    /// Print the version block.
    Version {
        /// One line of JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Directory of this stack: DIR/data, DIR/secrets, DIR/control, DIR/caracal.env.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Add N to each of the ports 3000, 4000, 8080, 8081, 9090.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=50_000))]
    pub(crate) port_offset: u16,
    /// PostgreSQL instead of SQLite (DATABASE_URL).
    #[arg(long, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// Redis instead of in-process events (REDIS_URL).
    #[arg(long, value_name = "URL")]
    pub(crate) redis_url: Option<String>,
    /// TOML file; keys are variable names in lower case.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Answer when ready and leave it running; `caracal down` stops it.
    #[arg(long)]
    pub(crate) detach: bool,
    /// With --detach: seconds to wait until it is ready.
    #[arg(long, value_name = "S", default_value_t = 120)]
    pub(crate) timeout: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Which one.
    #[arg(value_enum)]
    pub(crate) service: ServiceName,
    /// TOML file; keys are variable names in lower case.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address to listen on (HOST).
    #[arg(long, value_name = "ADDR")]
    pub(crate) host: Option<String>,
    /// Port to listen on (PORT).
    #[arg(long, value_name = "N")]
    pub(crate) port: Option<u16>,
}

#[derive(Debug, Args)]
pub(crate) struct Down {
    /// Directory of the stack.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Also remove DIR/data: every zone, key and entry of evidence. Never the secrets.
    #[arg(short = 'v', long)]
    pub(crate) volumes: bool,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Ask /ready (can it serve?) instead of /health (is it there?).
    #[arg(long)]
    pub(crate) ready: bool,
    /// One JSON value on stdout and nothing else.
    #[arg(long)]
    pub(crate) json: bool,
    /// The offset the stack was started with.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=50_000))]
    pub(crate) port_offset: u16,
    /// Where a service is, e.g. sts=http://10.0.0.5:8080. Repeatable; also CARACAL_API_URL and so on.
    #[arg(long, value_name = "NAME=URL")]
    pub(crate) url: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Seconds of load; the floor and one agent alone take as long again.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// Agents that call at a time.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) concurrency: u16,
    /// One JSON value on stdout and nothing else.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The five services, as their users know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum ServiceName {
    /// Product state: zones, applications, providers, resources, policies.
    Api,
    /// Token exchange, mandates, JWKS.
    Sts,
    /// The protected reverse proxy.
    Gateway,
    /// Evidence.
    Audit,
    /// Sessions and Delegations.
    Coordinator,
}

impl ServiceName {
    /// In the order that `status` prints them.
    pub(crate) const ALL: [Self; 5] = [Self::Api, Self::Sts, Self::Gateway, Self::Audit, Self::Coordinator];

    /// The name on the wire and in messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Sts => "sts",
            Self::Gateway => "gateway",
            Self::Audit => "audit",
            Self::Coordinator => "coordinator",
        }
    }

    /// The port users know it by.
    pub(crate) const fn port(self) -> u16 {
        match self {
            Self::Api => 3000,
            Self::Sts => 8080,
            Self::Gateway => 8081,
            Self::Audit => 9090,
            Self::Coordinator => 4000,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_names_every_command() {
        let help = Cli::command().render_long_help().to_string();
        for command in Cli::command().get_subcommands() {
            assert!(help.contains(command.get_name()), "{}", command.get_name());
        }
    }
}
