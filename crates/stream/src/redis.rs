//! Redis Streams: adding messages, and how far each stream may grow (`streams.md` 11).

use caracal_core::message::Stream;
use redis::aio::ConnectionManager;

use crate::message::Published;

/// Why a batch was not added.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Redis does not answer: nothing counts against a message.
    #[error("Redis does not answer: {0}")]
    Away(String),
    /// Redis refuses this message.
    #[error("Redis refuses: {0}")]
    Refused(String),
}

impl From<redis::RedisError> for BusError {
    fn from(error: redis::RedisError) -> Self {
        // A server that answers with an error of its own is there; loading, read-only and memory trouble pass.
        let passing = ["LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "OOM", "TRYAGAIN", "BUSY"];
        let code = error.code().unwrap_or_default().to_owned();
        let away = error.is_io_error() || error.is_connection_dropped() || error.is_timeout() || error.is_connection_refusal();
        if away || code.is_empty() || passing.contains(&code.as_str()) {
            Self::Away(code_or_kind(&error))
        } else {
            Self::Refused(format!("{code} {}", error.detail().unwrap_or_default()))
        }
    }
}

/// An error in words, without its connection string.
fn code_or_kind(error: &redis::RedisError) -> String {
    error.code().map_or_else(|| format!("{:?}", error.kind()), str::to_owned)
}

/// Streams in Redis. Cheap to clone; reconnects by itself.
#[derive(Clone)]
pub struct RedisBus {
    connection: ConnectionManager,
}

impl std::fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedisBus")
    }
}

impl RedisBus {
    /// Connects once, so that a wrong address is told at the start.
    pub async fn connect(url: &str) -> Result<Self, BusError> {
        let client = redis::Client::open(url).map_err(|e| BusError::Refused(code_or_kind(&e)))?;
        Ok(Self { connection: client.get_connection_manager().await? })
    }

    /// Whether Redis answers.
    pub async fn ping(&self) -> Result<(), BusError> {
        redis::cmd("PING").query_async::<()>(&mut self.connection.clone()).await.map_err(BusError::from)
    }

    /// Which run of which server this is: another one may have lost what the last one took.
    pub async fn run_id(&self) -> Result<String, BusError> {
        let info: redis::InfoDict = redis::cmd("INFO").arg("server").query_async(&mut self.connection.clone()).await?;
        info.get("run_id").ok_or_else(|| BusError::Away("it does not say its run id".to_owned()))
    }

    /// Adds messages in one round trip, in order.
    pub async fn add_all(&self, messages: &[Published]) -> Result<(), BusError> {
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
            cmd.ignore();
        }
        pipe.query_async::<()>(&mut self.connection.clone()).await.map_err(BusError::from)
    }

    /// Removes what resource servers no longer need: entries of the two public streams older than a day.
    pub async fn trim_public(&self, now_millis: i64) -> Result<(), BusError> {
        const DAY_MILLIS: i64 = 24 * 3600 * 1000;
        for stream in Stream::ALL.into_iter().filter(|stream| stream.is_public()) {
            let mut cmd = redis::cmd("XTRIM");
            cmd.arg(stream.name()).arg("MINID").arg("~").arg(now_millis.saturating_sub(DAY_MILLIS));
            cmd.query_async::<i64>(&mut self.connection.clone()).await?;
        }
        Ok(())
    }
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
