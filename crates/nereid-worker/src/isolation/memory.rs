//! What the kernel says of a process's memory; on systems without `/proc` nothing is known.

use std::fs;

/// Memory that the process holds now, in bytes.
pub(super) fn resident(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    kibibytes(&status, "VmRSS:")
}

fn kibibytes(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    let number: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1 << 10)
}

/// How many processes the kernel has killed for want of memory since the machine started.
pub(super) fn kernel_kills() -> Option<u64> {
    let counters = fs::read_to_string("/proc/vmstat").ok()?;
    let kills = counters.lines().find_map(|l| l.strip_prefix("oom_kill "));
    kills?.trim().parse().ok()
}

/// Makes the kernel choose this process if memory runs out, rather than the worker.
pub(super) fn volunteer() {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "1000") {
        tracing::debug!(%error, "the kernel may kill others first if memory runs out");
    }
}

/// A size for people.
pub(super) fn readable(bytes: u64) -> String {
    let mebibytes = bytes >> 20;
    if mebibytes < 1024 {
        return format!("{mebibytes} MiB");
    }
    let tenths = mebibytes * 10 / 1024;
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_read_in_bytes() {
        let status = "Name:\tnereid\nVmHWM:\t    9000 kB\nVmRSS:\t    1234 kB\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(1234 << 10));
        assert_eq!(kibibytes("", "VmRSS:"), None);
        if cfg!(target_os = "linux") {
            let own = resident(std::process::id()).unwrap();
            assert!((1 << 20..1 << 40).contains(&own), "{own}");
        }
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(readable(5 << 20), "5 MiB");
        assert_eq!(readable((8 << 30) + (103 << 20)), "8.1 GiB");
    }
}
