//! What the bench tells: one value, as JSON or as a page to read.

use std::fmt::Write as _;

use serde::Serialize;

use super::times::Quantiles;
use crate::output::{Style, table};

/// All of it. Times in microseconds; rates a second.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) optimised: bool,
    pub(super) cores: usize,
    pub(super) seconds: u64,
    pub(super) concurrency: usize,
    pub(super) floor: Floor,
    pub(super) alone: Governed,
    pub(super) loaded: Governed,
    pub(super) evidence: Evidence,
    pub(super) memory: Option<Memory>,
    pub(super) ratio: Option<f64>,
}

/// What the machine charges.
#[derive(Debug, Serialize)]
pub(super) struct Floor {
    pub(super) sign_us: f64,
    pub(super) verify_us: f64,
    pub(super) commit: Quantiles,
    pub(super) proxied: Proxied,
}

/// Requests through a proxy that governs nothing.
#[derive(Debug, Serialize)]
pub(super) struct Proxied {
    pub(super) per_second: f64,
    pub(super) time: Quantiles,
    pub(super) cpu_us: Option<f64>,
}

/// Governed calls: a mint and the call with it.
#[derive(Debug, Serialize)]
pub(super) struct Governed {
    pub(super) calls: usize,
    pub(super) per_second: f64,
    /// What one core of the stack would do.
    pub(super) per_core: Option<f64>,
    pub(super) mint: Quantiles,
    pub(super) call: Quantiles,
    pub(super) both: Quantiles,
    pub(super) cpu: Option<CpuPerCall>,
}

/// CPU time of a governed call by who used it.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "a unit is the last part of a name")]
pub(super) struct CpuPerCall {
    pub(super) stack_us: f64,
    pub(super) load_us: f64,
    pub(super) upstream_us: f64,
}

/// What became of the evidence.
#[derive(Debug, Serialize)]
pub(super) struct Evidence {
    pub(super) entries: u64,
    pub(super) behind: u64,
    pub(super) drained_ms: u64,
    pub(super) bytes_per_entry: u64,
}

/// Resident memory of the whole process.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "a unit is the last part of a name")]
pub(super) struct Memory {
    pub(super) before_mib: u64,
    pub(super) after_mib: u64,
    pub(super) peak_mib: u64,
}

impl Report {
    /// As a page.
    pub(super) fn page(&self, style: Style) -> String {
        let mut page = String::new();
        let _ = writeln!(page, "{}", style.bold("The floor: what this machine charges"));
        let floor = &self.floor;
        let rows = [
            ("ES256 signature", us(floor.sign_us), "µs of CPU".to_owned()),
            ("ES256 verification", us(floor.verify_us), "µs of CPU".to_owned()),
            ("synced commit, 16 KiB", floor.commit.p50_us.to_string(), format!("µs; p99 {}", floor.commit.p99_us)),
            (
                "plain proxied request",
                floor.proxied.cpu_us.map_or_else(|| "-".to_owned(), us),
                format!(
                    "µs of CPU in the proxy; {:.0} a second, p50 {}, p99 {}",
                    floor.proxied.per_second, floor.proxied.time.p50_us, floor.proxied.time.p99_us
                ),
            ),
        ];
        let rows: Vec<Vec<String>> = rows.into_iter().map(|(a, b, c)| vec![a.to_owned(), b, c]).collect();
        page += &table(&["what", "cost", "unit"], &rows);
        let _ = writeln!(page, "\n{}", style.bold("Governed calls: a mint and the call with it, evidence and records included"));
        let rows = [("1 agent".to_owned(), &self.alone), (format!("{} agents", self.concurrency), &self.loaded)];
        let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, governed)| governed.row(name)).collect();
        page += &table(
            &[
                "load",
                "a second",
                "a core",
                "CPU µs",
                "mint p50",
                "p99",
                "call p50",
                "p99",
                "both p50",
                "p99",
                "load CPU",
                "upstream CPU",
            ],
            &rows,
        );
        let evidence = &self.evidence;
        let _ = writeln!(
            page,
            "\nevidence  {} entries of {} bytes; {} behind at the end of the load, all in the ledger {} ms later",
            evidence.entries, evidence.bytes_per_entry, evidence.behind, evidence.drained_ms
        );
        if let Some(memory) = &self.memory {
            let _ = writeln!(
                page,
                "memory    {} MiB before the load, {} after, {} at most; load generator and upstream included",
                memory.before_mib, memory.after_mib, memory.peak_mib
            );
        }
        if let Some(ratio) = self.ratio {
            let _ = writeln!(page, "ratio     a governed call costs {ratio:.2} times a plain proxied request and a signature");
        }
        let _ = writeln!(page, "machine   {} cores; the load generator and the upstream run on them too", self.cores);
        if !self.optimised {
            let _ = writeln!(page, "\nThis is a debug build: build with --release for figures that mean something.");
        }
        page
    }
}

impl Governed {
    fn row(&self, name: String) -> Vec<String> {
        let cpu = |of: fn(&CpuPerCall) -> f64| self.cpu.as_ref().map_or_else(|| "-".to_owned(), |cpu| format!("{:.0}", of(cpu)));
        let mut row = vec![
            name,
            format!("{:.0}", self.per_second),
            self.per_core.map_or_else(|| "-".to_owned(), |n| format!("{n:.0}")),
            cpu(|c| c.stack_us),
        ];
        row.extend([self.mint, self.call, self.both].iter().flat_map(|q| [q.p50_us.to_string(), q.p99_us.to_string()]));
        row.extend([cpu(|c| c.load_us), cpu(|c| c.upstream_us)]);
        row
    }
}

fn us(value: f64) -> String {
    format!("{value:.1}")
}
