//! A consumer group on Redis: each message is handled by one of its members, again when that one dies, and set aside after five failures.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use caracal_core::message::Stream;
use caracal_crypto::mac::{MacKey, origin_signature, origin_verified};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamAutoClaimReply, StreamId, StreamReadReply};

use crate::message::Published;
use crate::redis::BusError;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handled {
    /// Its effect is there: it is acknowledged.
    Done,
    /// Not now: it comes again when it has been idle.
    Retry(String),
    /// Never: it is set aside.
    Dead(String),
}

/// Who reads what.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The stream.
    pub stream: Stream,
    /// The group.
    pub group: String,
    /// This member, unlike every other of the group.
    pub name: String,
    /// Keys a message may be signed with, the one that signs first; none: nothing is checked.
    pub keys: Vec<MacKey>,
    /// Whether a new group begins with what is already in the stream.
    pub from_start: bool,
    /// How long a message waits for its member before another takes it.
    pub idle: Duration,
}

/// What one pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Acknowledged with their effect.
    pub done: usize,
    /// Left to come again.
    pub retried: usize,
    /// Set aside.
    pub dead: usize,
    /// Dropped for a missing or wrong signature.
    pub unsigned: usize,
}

/// Idle time of a message after which it is claimed.
pub const CLAIM_IDLE: Duration = Duration::from_secs(30);
const FAILURES_MAX: u32 = 5;
const FAILURES_SECS: u32 = 24 * 3600;
const DEAD_MAX: u32 = 10_000;
const BATCH: usize = 64;

/// A member of a group, on a connection of its own: a read that blocks holds up nobody else.
pub struct Consumer {
    connection: MultiplexedConnection,
    member: Membership,
    cursor: String,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("member", &self.member).finish_non_exhaustive()
    }
}

impl Consumer {
    /// Joins, and creates the group where there is none.
    pub async fn join(url: &str, member: Membership) -> Result<Self, BusError> {
        let client = redis::Client::open(url)?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut consumer = Self { connection, member, cursor: "0-0".to_owned() };
        consumer.create_group().await?;
        Ok(consumer)
    }

    async fn create_group(&mut self) -> Result<(), BusError> {
        let from = if self.member.from_start { "0" } else { "$" };
        let mut cmd = redis::cmd("XGROUP");
        cmd.arg("CREATE").arg(self.member.stream.name()).arg(&self.member.group).arg(from).arg("MKSTREAM");
        match cmd.query_async::<()>(&mut self.connection).await {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Handles what others left idle, then what is new, waiting for it up to `wait` (whole milliseconds, at least one).
    pub async fn pass<F, Fut>(&mut self, wait: Duration, mut handle: F) -> Result<Pass, BusError>
    where
        F: FnMut(Published) -> Fut,
        Fut: Future<Output = Handled>,
    {
        let mut pass = Pass::default();
        let result = self.pass_once(wait, &mut handle, &mut pass).await;
        if matches!(&result, Err(BusError::Refused(why)) if why.starts_with("NOGROUP")) {
            // Redis lost its memory: the group begins again.
            self.create_group().await?;
            return Ok(pass);
        }
        result.map(|()| pass)
    }

    async fn pass_once<F, Fut>(&mut self, wait: Duration, handle: &mut F, pass: &mut Pass) -> Result<(), BusError>
    where
        F: FnMut(Published) -> Fut,
        Fut: Future<Output = Handled>,
    {
        let (stream, group, name) = (self.member.stream.name(), self.member.group.clone(), self.member.name.clone());
        let mut claim = redis::cmd("XAUTOCLAIM");
        claim.arg(stream).arg(&group).arg(&name).arg(millis(self.member.idle)).arg(&self.cursor).arg("COUNT").arg(BATCH);
        let claimed: StreamAutoClaimReply = claim.query_async(&mut self.connection).await?;
        self.cursor = claimed.next_stream_id;
        for entry in claimed.claimed {
            self.settle(entry, handle, pass).await?;
        }
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(&group).arg(&name).arg("COUNT").arg(BATCH).arg("BLOCK").arg(millis(wait).clamp(1, 5_000));
        read.arg("STREAMS").arg(stream).arg(">");
        let new: Option<StreamReadReply> = read.query_async(&mut self.connection).await?;
        for entry in new.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids) {
            self.settle(entry, handle, pass).await?;
        }
        Ok(())
    }

    async fn settle<F, Fut>(&mut self, entry: StreamId, handle: &mut F, pass: &mut Pass) -> Result<(), BusError>
    where
        F: FnMut(Published) -> Fut,
        Fut: Future<Output = Handled>,
    {
        let stream = self.member.stream;
        let mut fields = Vec::with_capacity(entry.map.len());
        let mut text = true;
        for (name, value) in entry.map {
            match redis::from_redis_value::<String>(value) {
                Ok(value) => fields.push((name, value)),
                Err(_) => text = false,
            }
        }
        let trusted = self.member.keys.is_empty() || text && origin_verified(&self.member.keys, stream.name(), &fields);
        if !trusted {
            tracing::warn!(stream = stream.name(), id = entry.id, "a message without a right signature was dropped");
            pass.unsigned += 1;
            return self.acknowledge(&entry.id).await;
        }
        let message = Published { stream, fields };
        let why = match handle(message.clone()).await {
            Handled::Done => {
                pass.done += 1;
                return self.acknowledge(&entry.id).await;
            }
            Handled::Retry(why) => {
                if self.failures(&entry.id).await? < FAILURES_MAX {
                    pass.retried += 1;
                    return Ok(());
                }
                why
            }
            Handled::Dead(why) => why,
        };
        self.bury(&entry.id, &message, &why).await?;
        pass.dead += 1;
        self.acknowledge(&entry.id).await
    }

    /// Acknowledges, and forgets failures.
    async fn acknowledge(&mut self, id: &str) -> Result<(), BusError> {
        let mut pipe = redis::pipe();
        pipe.cmd("XACK").arg(self.member.stream.name()).arg(&self.member.group).arg(id).ignore();
        pipe.cmd("DEL").arg(self.failure_key(id)).ignore();
        pipe.query_async::<()>(&mut self.connection).await.map_err(BusError::from)
    }

    async fn failures(&mut self, id: &str) -> Result<u32, BusError> {
        let key = self.failure_key(id);
        let mut pipe = redis::pipe();
        pipe.cmd("INCR").arg(&key).cmd("EXPIRE").arg(&key).arg(FAILURES_SECS).ignore();
        let (count,): (u32,) = pipe.query_async(&mut self.connection).await?;
        Ok(count)
    }

    fn failure_key(&self, id: &str) -> String {
        format!("stream-failure:{}:{}:{id}", self.member.stream.name(), self.member.group)
    }

    /// Copies a message to the dead letters. If that fails it stays pending.
    async fn bury(&mut self, id: &str, message: &Published, why: &str) -> Result<(), BusError> {
        let stream = format!("{}.dead", message.stream.name());
        let values: HashMap<&str, &str> = message.fields.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let values = serde_json::to_string(&values).unwrap_or_default();
        let mut fields = vec![
            ("original_id".to_owned(), id.to_owned()),
            ("error".to_owned(), why.replace(['\n', '\r'], " ")),
            ("values".to_owned(), values),
        ];
        if let Some(key) = self.member.keys.first() {
            let signature = origin_signature(key, &stream, &fields);
            fields.push(("_sig".to_owned(), signature));
        }
        tracing::error!(stream = message.stream.name(), id, "a message was set aside");
        let mut cmd = redis::cmd("XADD");
        cmd.arg(&stream).arg("MAXLEN").arg("~").arg(DEAD_MAX).arg("*");
        for (name, value) in &fields {
            cmd.arg(name).arg(value);
        }
        cmd.query_async::<()>(&mut self.connection).await.map_err(BusError::from)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
