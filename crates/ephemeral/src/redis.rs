//! Replicas: Redis's primary, and since when it has been the same server.

use std::time::Duration;

use caracal_core::time::Time;
use caracal_host::World;
use caracal_store::retention::CLOCKS;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncConnectionConfig, Cmd, Pipeline};

use crate::{Away, Kind, Presented, Taken};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the server's identity, and since when it is this one, is kept.
const SERVER: &str = "caracal:ephemeral:server";

/// Answers since when (UTC microseconds) this server has been the one. A server that was restarted, promoted or emptied finds
/// another's mark or none, and begins anew: it may have forgotten what came before. The later of both clocks counts.
const SINCE: &str = "
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local held = redis.call('GET', KEYS[1])
if held then
  local name, since = string.match(held, '^(%x+) (%d+)$')
  if name and name == run then return since end
end
local time = redis.call('TIME')
local now = time[1] .. string.format('%06d', time[2])
if tonumber(ARGV[1]) > tonumber(now) then now = ARGV[1] end
redis.call('SET', KEYS[1], run .. ' ' .. now)
return now";

#[derive(Clone)]
pub(crate) struct Redis {
    connection: ConnectionManager,
    world: World,
}

impl From<redis::RedisError> for Away {
    fn from(error: redis::RedisError) -> Self {
        // Never the error's whole text: it may name the address with its password.
        Self(error.code().map_or_else(|| format!("{:?}", error.kind()), str::to_owned))
    }
}

async fn patient<T>(work: impl Future<Output = Result<T, redis::RedisError>>) -> Result<T, Away> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Away("it took too long".to_owned())),
    }
}

impl Redis {
    pub(crate) async fn connect(url: &str, world: World) -> Result<Self, Away> {
        let client = redis::Client::open(url)?;
        // One connection without the manager first: the manager tries again for seconds before it says what is wrong.
        let first = AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
        patient(client.get_multiplexed_async_connection_with_config(&first)).await?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_number_of_retries(1);
        let memory = Self { connection: patient(client.get_connection_manager_with_config(config)).await?, world };
        // The first mark is made now, not by the first mandate, which would be too old for it.
        let mut first = Pipeline::new();
        first.add_command(memory.since());
        let (since,): (String,) = patient(first.query_async(&mut memory.connection.clone())).await?;
        // Ids are as old as the whole second they were made in: until the mark's is over, none is younger than it.
        let since = since.parse().map(Time::from_micros).map_err(|_| Away("its age is not a time".to_owned()))?;
        let over = u64::try_from((since.as_secs() + 1) * 1_000_000 - memory.world.now().as_micros()).unwrap_or(0);
        tokio::time::sleep(Duration::from_micros(over.min(1_000_000))).await;
        Ok(memory)
    }

    fn since(&self) -> Cmd {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(SINCE).arg(1).arg(SERVER).arg(self.world.now().as_micros().to_string());
        cmd
    }

    pub(crate) async fn take(&self, presented: Presented<'_>) -> Result<Taken, Away> {
        let prefix = match presented.kind {
            Kind::Mandate => "seen:jti:",
            Kind::Nonce => "caracal:sts:gw-nonce:",
            Kind::Control => "caracal:control:jti:",
        };
        let mut taking = Pipeline::new();
        taking.add_command(self.since());
        // How long, not until when: Redis's clock is another. Rounded up: never forgotten a moment too early.
        let left = (presented.until + CLOCKS).as_micros() - self.world.now().as_micros();
        let left = (left.saturating_add(999) / 1000).max(1);
        taking.cmd("SET").arg(format!("{prefix}{}", presented.id)).arg(presented.by).arg("NX").arg("GET").arg("PX").arg(left);
        // One connection is one server: who tells its age is who takes the id. A demoted one refuses to write.
        let (since, before): (String, Option<String>) = patient(taking.query_async(&mut self.connection.clone())).await?;
        let since = since.parse().map(Time::from_micros).map_err(|_| Away("its age is not a time".to_owned()))?;
        Ok(match before {
            Some(by) => Taken::Seen(Some(by)),
            None if presented.issued <= since => Taken::Unsure,
            None => Taken::First,
        })
    }

    pub(crate) async fn count(&self, name: &str, window: Duration) -> Result<u64, Away> {
        let millis = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        let mut counting = Pipeline::new();
        counting.atomic();
        counting.cmd("INCR").arg(name);
        counting.cmd("PEXPIRE").arg(name).arg(millis).arg("NX").ignore();
        let (count,): (u64,) = patient(counting.query_async(&mut self.connection.clone())).await?;
        Ok(count)
    }

    pub(crate) async fn ping(&self) -> Result<(), Away> {
        patient(redis::cmd("PING").query_async::<()>(&mut self.connection.clone())).await
    }
}
