//! CPU time and memory of this process, thread by thread, as Linux tells them. Elsewhere there is nothing to tell.

use std::fs;
use std::time::Duration;

/// How long a clock tick of `/proc` is; 100 a second on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// CPU time used so far: by everything, and by the threads that are not under test.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cpu {
    all: Duration,
    pub(super) load: Duration,
    pub(super) upstream: Duration,
}

impl Cpu {
    /// Reads it; `None` where the system does not tell.
    pub(super) fn now() -> Option<Self> {
        let mut cpu = Self { all: process()?, ..Self::default() };
        for task in fs::read_dir("/proc/self/task").ok()?.flatten() {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            let part = match name.trim() {
                super::LOAD => &mut cpu.load,
                super::UPSTREAM => &mut cpu.upstream,
                _ => continue,
            };
            // A thread may end between its listing and its reading; these two sorts live as long as the command.
            let spent = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let nanos = spent.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
            *part += Duration::from_nanos(nanos);
        }
        Some(cpu)
    }

    /// What was used since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            all: self.all.saturating_sub(before.all),
            load: self.load.saturating_sub(before.load),
            upstream: self.upstream.saturating_sub(before.upstream),
        }
    }

    /// What is neither load generator nor upstream: the stack, or the proxy it is compared with.
    pub(super) fn tested(self) -> Duration {
        self.all.saturating_sub(self.load + self.upstream)
    }
}

fn process() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name, in parentheses, and may hold anything; user and system time are the 14th and 15th.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u32 = fields.next()?.parse::<u32>().ok()? + fields.next()?.parse::<u32>().ok()?;
    Some(TICK * ticks)
}

/// Resident memory in MiB, now and at most so far.
pub(super) fn memory() -> Option<(u64, u64)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let of = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
    };
    Some((of("VmRSS:")?, of("VmHWM:")?))
}
