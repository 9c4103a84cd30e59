//! How much memory this process has.

/// Resident memory of this process in bytes; 0 where the kernel does not say.
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| resident_pages(&text));
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// The most that was ever resident of this process, in bytes; 0 where the kernel does not say.
pub fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status");
    status.ok().and_then(|text| peak_kib(&text)).unwrap_or(0) * 1024
}

/// The line `VmHWM:   1234 kB`.
fn peak_kib(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The second number is the resident set.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_some_memory() {
        assert!(resident_bytes() > 100_000);
        assert_eq!(resident_pages("8370 1024 600 1 0 300 0"), Some(1_024));
        assert_eq!(resident_pages(""), None);
        assert!(peak_bytes() > 100_000);
        assert_eq!(peak_kib("Name:\tx\nVmHWM:\t    1234 kB\n"), Some(1_234));
        assert_eq!(peak_kib("VmRSS: 1 kB"), None);
    }
}
