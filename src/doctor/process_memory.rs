//! The memory of this process, as the kernel counts it.

use std::fs;

/// Returns the peak memory of this process in bytes, or 0 if the system does not report it.
pub fn peak_rss_bytes() -> u64 {
    bytes_of("VmHWM:")
}

/// Returns the memory of this process in bytes, or 0 if the system does not report it.
pub fn rss_bytes() -> u64 {
    bytes_of("VmRSS:")
}

/// Lets the peak begin at the memory that the process has now. Returns whether the system does so.
pub(crate) fn restart_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Returns the size in a line of the process's status.
fn bytes_of(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes =
        line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_a_peak() {
        // Other tests of this process may allocate meanwhile, so the two are not compared closely.
        assert!(rss_bytes() > 1 << 20 && peak_rss_bytes() > 1 << 20);
    }
}
