//! Memory of a process, now and at most, from /proc (proc(5)).

use std::fs::read_to_string;

/// In octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ResidentMemory {
    pub(super) now: u64,
    pub(super) peak: u64,
}

/// `None` after the end of the process.
pub(super) fn memory(pid: u32) -> Option<ResidentMemory> {
    let status = read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(ResidentMemory { now: field("VmRSS:")?, peak: field("VmHWM:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_has_values_and_one_that_has_ended_none() {
        let own = std::process::id();
        let memory_of_own = memory(own).unwrap();
        assert!(memory_of_own.now > 1 << 20 && memory_of_own.peak >= memory_of_own.now);
        assert_eq!(memory(u32::MAX), None);
    }
}
