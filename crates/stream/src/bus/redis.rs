//! The bus in Redis Streams: adding, groups, following, and how far each stream may grow (`streams.md` 11).

use std::sync::Arc;
use std::time::Duration;

use caracal_core::message::Stream;
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::streams::{StreamAutoClaimReply, StreamId, StreamReadReply};
use redis::{AsyncConnectionConfig, Client, Value};

use super::{BusError, Delivered, EntryId, Membership, Progress};
use crate::message::Published;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long an answer may take; a read that blocks has its wait on top.
const ANSWER: Duration = Duration::from_secs(3);
/// Oldest version; older ones claim entries that were trimmed.
const VERSION: u32 = 7;
/// Longest time a read blocks.
const BLOCK: Duration = Duration::from_secs(5);
/// How often idle messages of others are looked for, at most.
const CLAIM: Duration = Duration::from_secs(1);

/// Tells which memory a stream is in: the run of the server, and a mark that goes when the stream does. It is a group of the stream that
/// nobody reads, because nothing else of a stream is lost exactly when the stream is. A server that was restarted, promoted or emptied, or
/// that deleted or evicted the stream, finds another run's mark or none, and leaves its own.
const MEMORY: &str = "
local function memory(stream, fresh)
  local run = 'memory:' .. string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  local groups = redis.call('EXISTS', stream) == 1 and redis.call('XINFO', 'GROUPS', stream) or {}
  for _, group in ipairs(groups) do
    local name = group[2]
    if string.sub(name, 1, #run) == run then return name end
    if string.sub(name, 1, 7) == 'memory:' then redis.call('XGROUP', 'DESTROY', stream, name) end
  end
  local mark = run .. ':' .. fresh
  redis.call('XGROUP', 'CREATE', stream, mark, '$', 'MKSTREAM')
  return mark
end
";
/// Memory, last place given to the group, its first pending place or nothing, messages it is behind, length: of one moment.
const PROGRESS: &str = "
local held = memory(KEYS[1], ARGV[2])
local length = redis.call('XLEN', KEYS[1])
local given, first, behind = '0-0', '', length
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local of = {}
  for i = 1, #group, 2 do of[group[i]] = group[i + 1] end
  if of['name'] == ARGV[1] then
    given = of['last-delivered-id']
    behind = of['pending'] + (tonumber(of['lag']) or 0)
    if of['pending'] > 0 then first = redis.call('XPENDING', KEYS[1], ARGV[1])[2] end
  end
end
return {held, given, first, tostring(behind), tostring(length)}";
/// Whether the past was said again to this memory.
const FORGOT: &str = "return redis.call('GET', KEYS[1]) ~= memory(KEYS[2], ARGV[1]) and 1 or 0";
/// Notes that it was.
const TOLD: &str = "redis.call('SET', KEYS[1], memory(KEYS[2], ARGV[1])) return 1";

impl From<redis::RedisError> for BusError {
    fn from(error: redis::RedisError) -> Self {
        // A server that answers with an error of its own is there; loading, read-only and memory trouble pass.
        let passing = ["LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "OOM", "TRYAGAIN", "BUSY"];
        let code = error.code().unwrap_or_default().to_owned();
        let away = error.is_io_error() || error.is_connection_dropped() || error.is_timeout() || error.is_connection_refusal();
        if away || code.is_empty() || passing.contains(&code.as_str()) {
            Self::Away(words(&error))
        } else {
            Self::Refused(format!("{code} {}", error.detail().unwrap_or_default()))
        }
    }
}

/// An error in words, without its connection string.
fn words(error: &redis::RedisError) -> String {
    if error.is_connection_refusal() {
        return "the connection was refused".to_owned();
    }
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    if matches!(error.kind(), redis::ErrorKind::Parse) {
        return "what answers there is no Redis".to_owned();
    }
    error.code().map_or_else(|| format!("{:?}", error.kind()), str::to_owned)
}

/// Streams in Redis. Cheap to clone; reconnects by itself.
#[derive(Clone)]
pub(super) struct Redis {
    client: Client,
    connection: ConnectionManager,
}

/// Which memory of a stream was told the past: a key that lives where the stream's does, in a cluster too.
fn told(stream: Stream) -> String {
    format!("{{{}}}:told", stream.name())
}

fn fresh() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

impl Redis {
    pub(super) async fn connect(url: &str) -> Result<Self, BusError> {
        let client = Client::open(url).map_err(|_| BusError::Refused("this is no Redis URL".to_owned()))?;
        // One connection without the manager first: the manager tries again for seconds before it says what is wrong.
        let first = async {
            let mut one = own_connection(&client).await?;
            let info: redis::InfoDict = redis::cmd("INFO").arg("server").query_async(&mut one).await?;
            let version: String = info.get("redis_version").unwrap_or_default();
            let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
            if major < VERSION {
                return Err(BusError::Refused(format!("it is version {version}")));
            }
            Ok(())
        };
        tokio::time::timeout(CONNECT, first).await.map_err(|_| BusError::Away("no answer in time".to_owned()))??;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER))
            .set_number_of_retries(1)
            .set_max_delay(CLAIM);
        let connection = client.get_connection_manager_with_config(config).await?;
        Ok(Self { client, connection })
    }

    pub(super) async fn ping(&self) -> Result<(), BusError> {
        redis::cmd("PING").query_async::<()>(&mut self.connection.clone()).await.map_err(BusError::from)
    }

    /// Whether the server evicts is not always ours to know.
    pub(super) async fn evicts(&self) -> Option<String> {
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg("maxmemory-policy");
        let (_, policy) = ask.query_async::<(String, String)>(&mut self.connection.clone()).await.ok()?;
        (policy != "noeviction").then_some(policy)
    }

    /// In one round trip.
    pub(super) async fn publish(&self, messages: &[Published]) -> Result<Vec<EntryId>, BusError> {
        let mut pipe = redis::pipe();
        for message in messages {
            let cmd = pipe.cmd("XADD").arg(message.stream.name());
            if let Some(most) = cap(message.stream) {
                cmd.arg("MAXLEN").arg("~").arg(most);
            }
            cmd.arg("*");
            for (name, value) in &message.fields {
                cmd.arg(name).arg(value);
            }
        }
        let ids: Vec<String> = pipe.query_async(&mut self.connection.clone()).await?;
        ids.iter().map(|id| id.parse()).collect()
    }

    pub(super) async fn join(&self, membership: &Membership) -> Result<Member, BusError> {
        let connection = own_connection(&self.client).await?;
        let mut member = Member {
            client: self.client.clone(),
            connection,
            membership: membership.clone(),
            own: Some(EntryId::default()),
            claim: "0-0".to_owned(),
            claimed: None,
        };
        member.create_group().await?;
        Ok(member)
    }

    pub(super) async fn follow(&self, streams: &'static [Stream]) -> Result<Follower, BusError> {
        let mut follower = Follower { redis: self.clone(), connection: None, streams, places: Vec::new(), memory: Arc::from("") };
        follower.memory = follower.memory_now().await?;
        for stream in streams {
            let mut last = redis::cmd("XREVRANGE");
            last.arg(stream.name()).arg("+").arg("-").arg("COUNT").arg(1);
            let last: Vec<(String, Value)> = last.query_async(&mut follower.redis.connection).await?;
            follower.places.push(last.first().map_or(Ok(EntryId::default()), |(id, _)| id.parse())?);
        }
        Ok(follower)
    }

    async fn script<T: redis::FromRedisValue>(&self, body: &str, keys: &[String], args: &[&str]) -> Result<T, BusError> {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(format!("{MEMORY}{body}")).arg(keys.len()).arg(keys).arg(args);
        Ok(cmd.query_async(&mut self.connection.clone()).await?)
    }

    pub(super) async fn progress(&self, stream: Stream, group: &str) -> Result<Progress, BusError> {
        let keys = [stream.name().to_owned()];
        let (memory, given, first, behind, length): (String, String, String, String, String) =
            self.script(PROGRESS, &keys, &[group, &fresh()]).await?;
        let number = |text: &str| text.parse().map_err(|_| BusError::Away(format!("{text:?} is no number")));
        let through = if first.is_empty() { given.parse()? } else { first.parse::<EntryId>()?.before() };
        Ok(Progress { memory: memory.into(), through, behind: number(&behind)?, length: number(&length)? })
    }

    pub(super) async fn forgot(&self, stream: Stream) -> Result<bool, BusError> {
        self.script(FORGOT, &[told(stream), stream.name().to_owned()], &[&fresh()]).await
    }

    pub(super) async fn told(&self, stream: Stream) -> Result<(), BusError> {
        self.script::<i64>(TOLD, &[told(stream), stream.name().to_owned()], &[&fresh()]).await.map(drop)
    }

    pub(super) async fn trim(&self, stream: Stream, before: EntryId) -> Result<(), BusError> {
        let mut cmd = redis::cmd("XTRIM");
        cmd.arg(stream.name()).arg("MINID").arg("~").arg(before.to_string());
        cmd.query_async::<i64>(&mut self.connection.clone()).await.map(drop).map_err(BusError::from)
    }
}

/// A connection of somebody's own: a read that blocks holds up nobody else.
async fn own_connection(client: &Client) -> Result<MultiplexedConnection, BusError> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(BLOCK + ANSWER));
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

/// About how many entries a stream keeps; `None`: whoever publishes never cuts it.
const fn cap(stream: Stream) -> Option<u32> {
    match stream {
        // Evidence is cut by Audit alone, by position.
        Stream::AuditEvents | Stream::AuditDeadLetters => None,
        // Trimmed by age; this cap only keeps Redis alive.
        Stream::SessionsRevoke | Stream::DelegationsInvalidate => Some(1_000_000),
        Stream::PolicyInvalidate | Stream::KeysInvalidate | Stream::ZonesInvalidate => Some(10_000),
        Stream::AgentsLifecycle => Some(100_000),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// An entry as a message. A value that is no text reads as none, which no signature covers.
fn message(stream: Stream, entry: StreamId) -> Result<Delivered, BusError> {
    let id = entry.id.parse()?;
    let fields = entry.map.into_iter().filter_map(|(name, value)| Some((name, redis::from_redis_value::<String>(value).ok()?)));
    Ok(Delivered { id, message: Arc::new(Published { stream, fields: fields.collect() }) })
}

pub(super) struct Member {
    client: Client,
    connection: MultiplexedConnection,
    membership: Membership,
    /// Where to go on with what is this member's and unacknowledged.
    own: Option<EntryId>,
    /// Where to go on with what others left idle.
    claim: String,
    claimed: Option<tokio::time::Instant>,
}

impl Member {
    async fn create_group(&mut self) -> Result<(), BusError> {
        let mut cmd = redis::cmd("XGROUP");
        cmd.arg("CREATE").arg(self.membership.stream.name()).arg(self.membership.group).arg("0").arg("MKSTREAM");
        match cmd.query_async::<()>(&mut self.connection).await {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(error.into()),
            _ => Ok(()),
        }
    }

    pub(super) async fn read(&mut self, most: usize, wait: Duration) -> Result<Vec<Delivered>, BusError> {
        match self.read_once(most, wait).await {
            // Redis lost its memory: the group begins again.
            Err(BusError::Refused(why)) if why.starts_with("NOGROUP") => {
                self.create_group().await?;
                Ok(Vec::new())
            }
            Err(error) => {
                if let Ok(connection) = own_connection(&self.client).await {
                    self.connection = connection;
                    self.again();
                }
                Err(error)
            }
            good => good,
        }
    }

    async fn read_once(&mut self, most: usize, wait: Duration) -> Result<Vec<Delivered>, BusError> {
        if let Some(after) = self.own {
            let own = self.group_read(most, &after.to_string(), None).await?;
            self.own = own.last().map(|last| last.id);
            if !own.is_empty() {
                return Ok(own);
            }
        }
        let left = self.claim(most).await?;
        if !left.is_empty() {
            return Ok(left);
        }
        self.group_read(most, ">", Some(wait)).await
    }

    async fn group_read(&mut self, most: usize, after: &str, wait: Option<Duration>) -> Result<Vec<Delivered>, BusError> {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(self.membership.group).arg(&self.membership.name).arg("COUNT").arg(most);
        if let Some(wait) = wait {
            // Zero would block for ever.
            read.arg("BLOCK").arg(millis(wait.min(BLOCK)).max(1));
        }
        read.arg("STREAMS").arg(self.membership.stream.name()).arg(after);
        let reply: Option<StreamReadReply> = read.query_async(&mut self.connection).await?;
        let entries = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids);
        entries.map(|entry| message(self.membership.stream, entry)).collect()
    }

    async fn claim(&mut self, most: usize) -> Result<Vec<Delivered>, BusError> {
        let often = CLAIM.min(self.membership.idle);
        if self.claim == "0-0" && self.claimed.is_some_and(|at| at.elapsed() < often) {
            return Ok(Vec::new());
        }
        self.claimed = Some(tokio::time::Instant::now());
        let mut claim = redis::cmd("XAUTOCLAIM");
        claim.arg(self.membership.stream.name()).arg(self.membership.group).arg(&self.membership.name);
        claim.arg(millis(self.membership.idle)).arg(&self.claim).arg("COUNT").arg(most);
        let claimed: StreamAutoClaimReply = claim.query_async(&mut self.connection).await?;
        self.claim = claimed.next_stream_id;
        claimed.claimed.into_iter().map(|entry| message(self.membership.stream, entry)).collect()
    }

    pub(super) async fn acknowledge(&mut self, ids: &[EntryId]) -> Result<(), BusError> {
        let mut cmd = redis::cmd("XACK");
        cmd.arg(self.membership.stream.name()).arg(self.membership.group);
        for id in ids {
            cmd.arg(id.to_string());
        }
        cmd.query_async::<i64>(&mut self.connection).await.map(drop).map_err(BusError::from)
    }

    pub(super) fn again(&mut self) {
        self.own = Some(EntryId::default());
    }
}

pub(super) struct Follower {
    redis: Redis,
    /// `None` after an error: the next call begins with a new one.
    connection: Option<MultiplexedConnection>,
    streams: &'static [Stream],
    places: Vec<EntryId>,
    memory: Arc<str>,
}

impl Follower {
    async fn memory_now(&self) -> Result<Arc<str>, BusError> {
        let Some(first) = self.streams.first() else { return Ok(Arc::from("")) };
        Ok(self.redis.progress(*first, "").await?.memory)
    }

    pub(super) async fn next(&mut self, wait: Duration) -> Result<Vec<Arc<Published>>, BusError> {
        if self.connection.is_none() {
            let connection = own_connection(&self.redis.client).await?;
            let memory = self.memory_now().await?;
            if memory != self.memory {
                // What it is told again may stand before our places.
                self.places.fill(EntryId::default());
                self.memory = memory;
            }
            self.connection = Some(connection);
        }
        let found = self.read(wait).await;
        if found.is_err() {
            self.connection = None;
        }
        found
    }

    async fn read(&mut self, wait: Duration) -> Result<Vec<Arc<Published>>, BusError> {
        let Some(connection) = &mut self.connection else { return Ok(Vec::new()) };
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(256).arg("BLOCK").arg(millis(wait.min(BLOCK)).max(1)).arg("STREAMS");
        for stream in self.streams {
            read.arg(stream.name());
        }
        for place in &self.places {
            read.arg(place.to_string());
        }
        let reply: Option<StreamReadReply> = read.query_async(connection).await?;
        let mut found = Vec::new();
        for key in reply.into_iter().flat_map(|reply| reply.keys) {
            let Some(at) = self.streams.iter().position(|stream| stream.name() == key.key) else { continue };
            for entry in key.ids {
                let delivered = message(self.streams[at], entry)?;
                self.places[at] = delivered.id;
                found.push(delivered.message);
            }
        }
        Ok(found)
    }
}
