//! What machine this is, for reports of what was measured on it.

use std::fs;

use nereid_core::models::Machine;

/// Describes the machine, as far as it tells.
pub(super) fn machine() -> Machine {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = about.lines().find(|line| line.starts_with("model name"));
    let cpu = named.and_then(|line| line.split_once(':'));
    Machine {
        cpu: cpu
            .map_or(std::env::consts::ARCH, |(_, cpu)| cpu.trim())
            .to_owned(),
        threads: u32::try_from(threads).unwrap_or(u32::MAX),
    }
}
