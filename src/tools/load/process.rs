//! Memory and processor time of a process, from /proc (proc(5)).

use std::fs::read_to_string;
use std::time::Duration;

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

/// User and system time of all threads.
pub(super) fn cpu(pid: u32) -> Option<Duration> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses with any characters.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()?.checked_add(fields.next()?.parse().ok()?)?;
    let nanos = ticks.checked_mul(1_000_000_000)?.checked_div(rustix::param::clock_ticks_per_second())?;
    Some(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_has_values_and_one_that_has_ended_none() {
        let own = std::process::id();
        let memory_of_own = memory(own).unwrap();
        assert!(memory_of_own.now > 1 << 20 && memory_of_own.peak >= memory_of_own.now);
        let began = std::time::SystemTime::now();
        let mut number = 0_u64;
        while cpu(own).unwrap() < Duration::from_millis(20)
            && began.elapsed().unwrap() < Duration::from_secs(5)
        {
            number = number.wrapping_mul(31).wrapping_add(1);
        }
        assert!(cpu(own).unwrap() >= Duration::from_millis(20), "{number}");
        assert_eq!((memory(u32::MAX), cpu(u32::MAX)), (None, None));
    }
}
