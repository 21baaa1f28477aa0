//! Memory, processor time and descriptors of a process, from /proc (proc(5)). On a system without it there are none.

use std::fs::{read_dir, read_to_string};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};

/// The state of a process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Process {
    /// User and system time of all threads.
    pub cpu: Duration,
    pub started: SystemTime,
    pub threads: u64,
    /// Resident memory in octets.
    pub resident: u64,
    /// The address space in octets.
    pub size: u64,
    /// Open file descriptors; `None` where they can't be listed.
    pub descriptors: Option<u64>,
    /// The limit on them; `None` for no limit.
    pub most_descriptors: Option<u64>,
}

/// The fields of /proc/PID/stat that are used.
struct Stat {
    /// In clock ticks.
    cpu: u64,
    threads: u64,
    /// In clock ticks since the boot.
    started: u64,
    size: u64,
    /// In pages.
    resident: u64,
}

impl Process {
    /// This process; `None` where /proc doesn't have it.
    #[must_use]
    pub fn own() -> Option<Self> {
        let Stat { cpu, threads, started, size, resident } = Stat::read("self")?;
        // The listing itself has a descriptor open.
        let descriptors = read_dir("/proc/self/fd").ok().map(|open| (open.count() as u64).saturating_sub(1));
        Some(Self {
            cpu: ticks(cpu)?,
            started: booted()?.checked_add(ticks(started)?)?,
            threads,
            resident: resident.checked_mul(rustix::param::page_size() as u64)?,
            size,
            descriptors,
            most_descriptors: getrlimit(Resource::Nofile).current,
        })
    }
}

/// User and system time of all threads of a process; `None` after its end.
#[must_use]
pub fn cpu(pid: u32) -> Option<Duration> {
    ticks(Stat::read(&pid.to_string())?.cpu)
}

impl Stat {
    fn read(pid: &str) -> Option<Self> {
        Self::parse(&read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The second field is a name in parentheses with any characters; the next one is field 3 of proc(5).
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu: field(14)?.checked_add(field(15)?)?,
            threads: field(20)?,
            started: field(22)?,
            size: field(23)?,
            resident: field(24)?,
        })
    }
}

fn ticks(ticks: u64) -> Option<Duration> {
    let nanos = ticks.checked_mul(1_000_000_000)?.checked_div(rustix::param::clock_ticks_per_second())?;
    Some(Duration::from_nanos(nanos))
}

/// When the system was booted.
fn booted() -> Option<SystemTime> {
    let stat = read_to_string("/proc/stat").ok()?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_moves_no_field() {
        let stat = "77 (a) 9 (b) S 1 2 3 4 5 6 7 8 9 10 400 55 13 14 15 16 21 18 9000 123456 789 20 21";
        let Stat { cpu, threads, started, size, resident } = Stat::parse(stat).unwrap();
        assert_eq!((cpu, threads, started, size, resident), (455, 21, 9000, 123_456, 789));
        assert!(Stat::parse("77 (a) S 1 2").is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_values_of_this_process_are_those_that_it_can_see_itself() {
        let before = Process::own().unwrap();
        let files: Vec<_> = (0..7).map(|_| std::fs::File::open("/proc/self/stat").unwrap()).collect();
        let mut number = 0_u64;
        let began = tokio::time::Instant::now();
        let spent = || Process::own().unwrap().cpu.saturating_sub(before.cpu);
        while spent() < Duration::from_millis(20) && began.elapsed() < Duration::from_secs(5) {
            number = number.wrapping_mul(31).wrapping_add(1);
        }
        let held = vec![1_u8; 32 << 20];
        let after = Process::own().unwrap();
        assert!(after.cpu >= before.cpu + Duration::from_millis(20), "{before:?} {after:?} {number}");
        assert!(after.cpu <= before.cpu + began.elapsed() * 64, "{before:?} {after:?}");
        // Other tests of this process may open and close files meanwhile, but hardly all of these.
        assert!(after.descriptors >= Some(files.len() as u64), "{after:?}");
        assert!(after.most_descriptors >= after.descriptors, "{after:?}");
        assert!(after.resident > 1 << 20 && after.size > after.resident + 1, "{after:?} {}", held.len());
        assert!(after.size >= 32 << 20 && after.threads >= 1, "{after:?}");
        assert_eq!(after.started, before.started);
        let age = SystemTime::now().duration_since(after.started).unwrap();
        assert!(age < Duration::from_secs(3600), "{age:?}");
        assert!(cpu(std::process::id()).unwrap() >= after.cpu && cpu(u32::MAX).is_none());
    }
}
