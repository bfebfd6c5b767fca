//! What a server's processes use, as Linux tells it: the processes named and all they have started.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, bail};

/// Clock ticks a second in which Linux counts processor time for user space (USER_HZ), on every
/// architecture that this runs on.
const TICKS: f64 = 100.0;

/// How far what Linux says in ticks may be from what it says in nanoseconds.
const ROUNDED: f64 = 2.0 / TICKS;

/// The processes of one server.
#[derive(Debug, Clone)]
pub struct Tree(Vec<u32>);

/// One process of /proc.
struct Stat {
    parent: u32,
    /// Processor time of it, in ticks.
    own: u64,
    /// That of its children that have ended.
    ended: u64,
}

impl Tree {
    /// The server with these processes; none where nothing is to be measured.
    ///
    /// # Errors
    /// A process is not there, or its memory may not be looked at.
    pub fn new(pids: &[u32]) -> anyhow::Result<Option<Self>> {
        for pid in pids {
            if stat(*pid).is_none() {
                bail!("--server-pid {pid}: there is no such process");
            }
            rss_of(*pid).with_context(|| {
                format!("--server-pid {pid}: its memory cannot be read; run this as its user")
            })?;
        }
        Ok((!pids.is_empty()).then(|| Self(pids.to_vec())))
    }

    /// Seconds of processor time, user and system, since the processes began.
    pub fn cpu_s(&self) -> f64 {
        let pids = self.all().into_iter();
        pids.filter_map(|pid| Some(cpu_s(pid, &stat(pid)?))).sum()
    }

    /// Bytes of memory that are resident. What processes share is counted with each.
    pub fn rss(&self) -> u64 {
        self.all()
            .into_iter()
            .filter_map(|pid| rss_of(pid).ok())
            .sum()
    }

    fn all(&self) -> BTreeSet<u32> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let stats: Vec<(u32, u32)> = pids
            .filter_map(|pid: u32| Some((pid, stat(pid)?.parent)))
            .collect();
        let mut found: BTreeSet<u32> = self.0.iter().copied().collect();
        loop {
            let before = found.len();
            let children = stats.iter().filter(|(_, parent)| found.contains(parent));
            let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
            found.extend(children);
            if found.len() == before {
                return found;
            }
        }
    }
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, also blanks and brackets.
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |times: &[&str]| {
        times
            .iter()
            .filter_map(|time| time.parse::<u64>().ok())
            .sum()
    };
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: ticks(fields.get(11..13)?),
        ended: ticks(fields.get(13..15)?),
    })
}

/// Seconds of processor time of one process and of its children that have ended: by the nanoseconds of its
/// threads where none of them has ended, for a step of 10 ms is much where a tenth of a second is measured.
fn cpu_s(pid: u32, stat: &Stat) -> f64 {
    let own = stat.own as f64 / TICKS;
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let times = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    let exact = times.sum::<u64>() as f64 / 1e9;
    // Ticks are cut off, never rounded up: less than they say is what a thread has taken along.
    let own = match (0.0..=ROUNDED).contains(&(exact - own)) {
        true => exact,
        false => own,
    };
    own + stat.ended as f64 / TICKS
}

fn rss_of(pid: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    Ok(kib.context("no Rss in smaps_rollup")? * 1024)
}

/// How many files this process may have open: the soft limit.
pub fn max_files() -> u64 {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    soft.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_and_what_it_has_started_are_one_server() {
        let own = std::process::id();
        let mut child = std::process::Command::new("sleep")
            .arg("30")
            .spawn()
            .unwrap();
        let tree = Tree::new(&[own]).unwrap().unwrap();
        assert!(tree.all().contains(&child.id()));
        assert!(tree.rss() > 100_000);
        let before = tree.cpu_s();
        while tree.cpu_s() - before < 0.05 {}
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(max_files() > 3);
    }
}
