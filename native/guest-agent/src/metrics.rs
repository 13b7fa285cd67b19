//! `GET /metrics`: what the sandbox uses, as the kernel counts it.
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::agent::Agent;
use crate::server::body::{Body, HttpError, json};
use crate::sync::{blocking, lock};

const MIB: u64 = 1024 * 1024;

#[derive(Serialize)]
struct Metrics {
    ts: u64,
    cpu_count: usize,
    cpu_used_pct: f64,
    mem_total: u64,
    mem_used: u64,
    mem_cache: u64,
    mem_total_mib: u64,
    mem_used_mib: u64,
    disk_used: u64,
    disk_total: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CpuTime {
    busy: u64,
    total: u64,
}

/// Use of all CPUs between one call and the next; the first time since boot.
#[derive(Default)]
pub(crate) struct CpuMeter {
    last: CpuTime,
    percent: f64,
}

impl CpuMeter {
    fn measure(&mut self, now: CpuTime) -> f64 {
        let total = now.total.saturating_sub(self.last.total);
        // Calls within one tick of the clock repeat the last answer.
        if total > 0 {
            let busy = now.busy.saturating_sub(self.last.busy);
            // Ticks since boot fit a double exactly for longer than any machine lives.
            #[allow(clippy::cast_precision_loss)]
            let percent = busy as f64 * 100.0 / total as f64;
            self.percent = (percent * 100.0).round() / 100.0;
            self.last = now;
        }
        self.percent
    }
}

/// The total over all CPUs, and how many there are.
fn parse_cpu(stat: &str) -> (CpuTime, usize) {
    let mut time = CpuTime::default();
    let first = stat.lines().next().unwrap_or_default();
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    for (index, value) in first.split_whitespace().skip(1).take(8).enumerate() {
        let ticks: u64 = value.parse().unwrap_or_default();
        time.total += ticks;
        if !matches!(index, 3 | 4) {
            time.busy += ticks;
        }
    }
    let count = stat.lines().skip(1).take_while(|line| line.starts_with("cpu")).count();
    (time, count)
}

pub(crate) fn meminfo_bytes(meminfo: &str, name: &str) -> u64 {
    let value = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

fn collect(agent: &Agent) -> io::Result<Metrics> {
    let (cpu, cpu_count) = parse_cpu(&fs::read_to_string("/proc/stat")?);
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let memory = |name| meminfo_bytes(&meminfo, name);
    let cache = memory("Cached") + memory("SReclaimable");
    let total = memory("MemTotal");
    let used = total.saturating_sub(memory("MemFree") + memory("Buffers") + cache);
    let disk = rustix::fs::statvfs("/")?;
    Ok(Metrics {
        ts: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        cpu_count,
        cpu_used_pct: lock(&agent.cpu).measure(cpu),
        mem_total: total,
        mem_used: used,
        mem_cache: cache,
        mem_total_mib: total / MIB,
        mem_used_mib: used / MIB,
        disk_used: (disk.f_blocks.saturating_sub(disk.f_bfree)) * disk.f_frsize,
        disk_total: disk.f_blocks * disk.f_frsize,
    })
}

pub(crate) async fn handle(agent: &Arc<Agent>) -> Result<Response<Body>, HttpError> {
    let agent = agent.clone();
    let metrics = blocking(move || collect(&agent)).await.and_then(|outcome| outcome);
    let metrics = metrics
        .map_err(|error| HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("reading metrics: {error}")))?;
    Ok(json(StatusCode::OK, &metrics))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_use_is_that_since_the_last_call() {
        let stat = "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n";
        let (time, count) = parse_cpu(stat);
        assert_eq!((time, count), (CpuTime { busy: 200, total: 1000 }, 2));
        let mut meter = CpuMeter::default();
        let near = |a: f64, b: f64| (a - b).abs() < 0.001;
        assert!(near(meter.measure(time), 20.0));
        assert!(near(meter.measure(CpuTime { busy: 290, total: 1100 }), 90.0));
        assert!(near(meter.measure(CpuTime { busy: 290, total: 1100 }), 90.0));
    }

    #[test]
    fn memory_is_read_by_name() {
        let meminfo = "MemTotal:  2048 kB\nMemFree: 1 kB\nCached:     7 kB\nSwapCached: 3 kB\n";
        assert_eq!(meminfo_bytes(meminfo, "Cached"), 7 * 1024);
        assert_eq!(meminfo_bytes(meminfo, "Absent"), 0);
    }
}
