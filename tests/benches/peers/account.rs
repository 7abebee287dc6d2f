//! This process's time on processors and its resident memory, as the kernel
//! counts them.

use anyhow::{Context, bail};
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::time::Duration;

/// The seconds that all threads together have spent on processors.
pub fn processor_seconds() -> anyhow::Result<f64> {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Ok(Duration::new(time.tv_sec.try_into()?, time.tv_nsec.try_into()?).as_secs_f64())
}

/// Starts the peak again at what is resident now.
pub fn reset_peak() -> anyhow::Result<()> {
    fs::write("/proc/self/clear_refs", "5").context("cannot reset the peak of resident memory")
}

/// Bytes that are resident now.
pub fn resident() -> anyhow::Result<u64> {
    status("VmRSS:")
}

/// The most bytes that were resident at once since the peak was reset.
pub fn peak() -> anyhow::Result<u64> {
    status("VmHWM:")
}

fn status(field: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let Some(kibibytes) = line.and_then(|line| line.trim().strip_suffix(" kB")) else {
        bail!("/proc/self/status: expected a line {field} in kB, found none");
    };
    Ok(kibibytes.parse::<u64>()? * 1024)
}
