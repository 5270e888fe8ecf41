//! What a run of the program costs: wall time and memory.

use std::time::Duration;

use crate::progress::{duration, note};

/// Says at the end of a verb how long it took and what memory it needed.
pub(crate) fn say(elapsed: Duration) {
    let memory = peak_rss_mb().map_or(String::new(), |mb| {
        format!(", {mb:.0} MB of memory at most")
    });
    note(&format!("took {}{memory}", duration(elapsed.as_secs_f64())));
}

/// Most memory that this process has held, where the system says so (Linux).
pub(crate) fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes / 1024.0)
}
