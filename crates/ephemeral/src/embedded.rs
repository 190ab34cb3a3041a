//! One process: ids are rows of the store, counters live here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caracal_host::World;
use caracal_store::journal::{Consume, Entry, Journal, Outcome, Purpose, Spend};

use crate::{Away, Kind, Presented, Taken};

/// Most windows that are open at once; the oldest close early, which only lets more through.
const WINDOWS: usize = 65_536;

#[derive(Clone)]
pub(crate) struct Embedded {
    journal: Journal,
    world: World,
    windows: Arc<Mutex<HashMap<String, Window>>>,
}

struct Window {
    closes: Duration,
    count: u64,
}

impl Embedded {
    pub(crate) fn new(journal: Journal, world: World) -> Self {
        Self { journal, world, windows: Arc::default() }
    }

    pub(crate) async fn take(&self, presented: Presented<'_>) -> Result<Taken, Away> {
        let purpose = match presented.kind {
            Kind::Mandate => Purpose::Mandate,
            Kind::Nonce => Purpose::Nonce,
            Kind::Control => Purpose::Control,
        };
        let spend = Spend::Id(Consume { purpose, id: presented.id.as_bytes().to_vec(), until: presented.until });
        match self.journal.commit(Entry { spend, ..Entry::default() }).await {
            Ok(Outcome::Durable) => Ok(Taken::First),
            Ok(Outcome::Spent) => Ok(Taken::Seen(None)),
            Ok(other) => Err(Away(format!("the journal answered {other:?}"))),
            Err(error) => Err(Away(error.to_string())),
        }
    }

    pub(crate) fn count(&self, name: &str, window: Duration) -> u64 {
        let now = self.world.monotonic();
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= WINDOWS && !windows.contains_key(name) {
            windows.retain(|_, open| open.closes > now);
            if windows.len() >= WINDOWS {
                windows.clear();
            }
        }
        let open = windows.entry(name.to_owned()).or_insert(Window { closes: now + window, count: 0 });
        if open.closes <= now {
            *open = Window { closes: now + window, count: 0 };
        }
        open.count += 1;
        open.count
    }
}
