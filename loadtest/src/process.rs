//! What processes on this machine cost, from `/proc`.
//!
//! CPU is the kernel's own count of nanoseconds, of a process with all its
//! threads; its division into user and system comes in ticks of 10 ms. `read`
//! and `write` calls are those of `/proc/<pid>/io`, which does not count
//! `send` and `recv`.

use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// `/proc/<pid>/stat` counts in 1/100 s on every Linux of today.
const TICK: Duration = Duration::from_millis(10);

/// Processes whose costs are one sum.
#[derive(Debug, Clone, Default)]
pub(crate) struct Processes(Vec<u32>);

/// Sums over all of them at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    at: Instant,
    cpu: Duration,
    /// CPU time and context switches of each thread there is, by its id.
    threads: BTreeMap<u32, (Duration, u64)>,
    user: Duration,
    system: Duration,
    /// Anonymous resident memory, bytes.
    pub(crate) memory: u64,
    calls: u64,
    /// A process is gone: nothing here can be relied on.
    pub(crate) is_partial: bool,
}

/// Between two samples.
#[derive(Debug, Clone)]
pub(crate) struct Cost {
    /// User and system time.
    pub(crate) cpu: Duration,
    /// How the ticks of it fall.
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    /// Voluntary and involuntary context switches.
    pub(crate) switches: u64,
    /// `read` and `write` calls.
    pub(crate) calls: u64,
    /// CPU time of each thread that used any, most first.
    pub(crate) threads: Vec<Duration>,
    wall: Duration,
}

impl Processes {
    /// By their ids.
    pub(crate) const fn new(pids: Vec<u32>) -> Self {
        Self(pids)
    }

    /// `newcomer` has taken the place of `before`, or of the first one.
    pub(crate) fn replace(&mut self, before: Option<u32>, newcomer: Option<u32>) {
        let place = before.and_then(|before| self.0.iter().position(|pid| *pid == before)).unwrap_or(0);
        if let (Some(slot), Some(newcomer)) = (self.0.get_mut(place), newcomer) {
            *slot = newcomer;
        }
    }

    /// The figures now.
    pub(crate) fn sample(&self) -> Sample {
        let mut sample = Sample {
            at: Instant::now(),
            cpu: Duration::ZERO,
            threads: BTreeMap::new(),
            user: Duration::ZERO,
            system: Duration::ZERO,
            memory: 0,
            calls: 0,
            is_partial: false,
        };
        for pid in &self.0 {
            if sample.add(*pid).is_none() {
                sample.is_partial = true;
            }
        }
        sample
    }

    /// Proportional resident memory, bytes; walks all pages, so not for every
    /// second.
    pub(crate) fn proportional(&self) -> u64 {
        let of = |pid: &u32| kib(&read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss:");
        self.0.iter().filter_map(of).sum()
    }

    /// Anonymous resident memory, bytes.
    pub(crate) fn memory(&self) -> u64 {
        let of = |pid: &u32| kib(&read_to_string(format!("/proc/{pid}/status")).ok()?, "RssAnon:");
        self.0.iter().filter_map(of).sum()
    }

    /// CPU time so far.
    pub(crate) fn cpu(&self) -> Duration {
        self.0.iter().filter_map(|pid| process_cpu(*pid)).sum()
    }
}

impl Sample {
    fn add(&mut self, pid: u32) -> Option<()> {
        let (user, system) = times(&read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        self.cpu += process_cpu(pid)?;
        self.user += user;
        self.system += system;
        self.memory += kib(&read_to_string(format!("/proc/{pid}/status")).ok()?, "RssAnon:")?;
        let io = read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        self.calls += number(&io, "syscr:").unwrap_or(0) + number(&io, "syscw:").unwrap_or(0);
        for entry in std::fs::read_dir(format!("/proc/{pid}/task")).ok()? {
            let path = entry.ok()?.path();
            let Some(thread) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
                continue;
            };
            // A thread may end meanwhile.
            let read = |name: &str| read_to_string(path.join(name)).unwrap_or_default();
            let cpu = read("schedstat").split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
            let status = read("status");
            let lines = ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"];
            let switches = lines.iter().filter_map(|line| number(&status, line)).sum();
            self.threads.insert(thread, (Duration::from_nanos(cpu), switches));
        }
        Some(())
    }

    /// What was spent since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Cost {
        let (mut threads, mut switches) = (Vec::new(), 0);
        for (thread, (cpu, switched)) in &self.threads {
            // One that is new since then had spent nothing.
            let before = earlier.threads.get(thread).copied().unwrap_or_default();
            let spent = cpu.saturating_sub(before.0);
            threads.extend((!spent.is_zero()).then_some(spent));
            switches += switched.saturating_sub(before.1);
        }
        threads.sort_unstable_by(|a, b| b.cmp(a));
        Cost {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            switches,
            calls: self.calls.saturating_sub(earlier.calls),
            threads,
            wall: self.at - earlier.at,
        }
    }
}

impl Cost {
    /// Cores kept busy.
    pub(crate) fn cores(&self) -> f64 {
        self.cpu.as_secs_f64() / self.wall.as_secs_f64().max(1e-9)
    }
}

/// Descriptors a process has open; `None` = it may not be asked.
pub(crate) fn descriptors(pid: u32) -> Option<usize> {
    Some(std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// Whether a process runs; one that only waits to be buried does not.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// CPU time of the calling thread.
pub(crate) fn own_thread() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

fn process_cpu(pid: u32) -> Option<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed())).ok()?;
    clock_gettime(clock).ok().map(Duration::from)
}

/// utime and stime: the 12th and 13th field behind the process's name, which
/// may itself hold spaces and parentheses.
fn times(stat: &str) -> Option<(Duration, Duration)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let user: u32 = times.next()?.parse().ok()?;
    let system: u32 = times.next()?.parse().ok()?;
    Some((TICK * user, TICK * system))
}

fn kib(text: &str, name: &str) -> Option<u64> {
    Some(number(text, name)? * 1024)
}

fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_as_it_is() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 3 0 1 1 1";
        assert_eq!(times(stat), Some((Duration::from_millis(1500), Duration::from_millis(500))));
        assert_eq!(kib("VmRSS:\t9 kB\nRssAnon:\t    12 kB\n", "RssAnon:"), Some(12 * 1024));
    }

    #[test]
    fn what_a_thread_spends_is_seen() {
        let own = Processes::new(vec![std::process::id()]);
        let (before, begin) = (own.sample(), own_thread());
        while own.sample().since(&before).cpu < Duration::from_millis(20) {
            assert!(own_thread() < begin + Duration::from_secs(10));
        }
        let after = own.sample();
        assert!(after.memory > 0 && !after.is_partial);
        assert!(Processes::new(vec![0]).sample().is_partial);
    }
}
