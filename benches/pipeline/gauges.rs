//! What processes used, as the kernel counts it, and the table that is printed.

use std::{fs, time::Duration};

/// Linux counts processor time in hundredths of a second for every reader.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor seconds of a process so far, in its own code and in the kernel for it; 0 where it is
/// gone.
pub fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything.
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return 0.0;
    };
    let ticks = rest.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|text| text.parse::<f64>().ok())
        .sum::<f64>()
        / TICKS_PER_SECOND
}

/// The most memory that a process ever had, in MiB.
pub fn peak_mib(pid: u32) -> f64 {
    memory_mib(pid, "VmHWM:")
}

/// The memory that a process has now, in MiB.
pub fn resident_mib(pid: u32) -> f64 {
    memory_mib(pid, "VmRSS:")
}

fn memory_mib(pid: u32, what: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.unwrap().trim().parse::<f64>().unwrap() / 1024.0
}

/// Processor seconds of the whole machine so far.
fn machine() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let fields = stat.lines().next().unwrap().split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.map(|text| text.parse().unwrap()).collect();
    // All but idle (3), waiting for the disk (4), and guests, which are counted in user time.
    let busy = ticks
        .iter()
        .enumerate()
        .filter(|(n, _)| ![3, 4, 8, 9].contains(n));
    busy.map(|(_, ticks)| ticks).sum::<f64>() / TICKS_PER_SECOND
}

/// Processor time of some processes, and of everybody else, over a stretch of time.
pub struct Meter {
    began: std::time::Instant,
    machine: f64,
    pids: Vec<(u32, f64)>,
}

/// What a [`Meter`] has read.
pub struct Used {
    /// How long it took.
    pub elapsed: Duration,
    /// Processor seconds, in the order of the processes.
    pub cpu: Vec<f64>,
    /// Processor seconds of all other processes of the machine.
    pub others: f64,
}

impl Meter {
    /// Starts to measure.
    pub fn start(pids: &[u32]) -> Self {
        Self {
            began: std::time::Instant::now(),
            machine: machine(),
            pids: pids.iter().map(|pid| (*pid, cpu(*pid))).collect(),
        }
    }

    /// Counts a process that has begun meanwhile, from its begin.
    pub fn and(&mut self, pid: u32) {
        self.pids.push((pid, 0.0));
    }

    /// Reads.
    pub fn read(&self) -> Used {
        let cpus = self.pids.iter().map(|(pid, before)| cpu(*pid) - before);
        let cpu: Vec<f64> = cpus.collect();
        Used {
            elapsed: self.began.elapsed(),
            others: (machine() - self.machine - cpu.iter().sum::<f64>()).max(0.0),
            cpu,
        }
    }
}

/// The lines of the table.
#[derive(Default)]
pub struct Report {
    lines: Vec<[String; 4]>,
}

impl Report {
    /// One figure; `wanted` is empty where nothing was promised.
    pub fn add(&mut self, part: &str, what: &str, figure: String, wanted: &str) {
        eprintln!("{part}: {what}: {figure}  {wanted}");
        let line = [part, what, &figure, wanted].map(str::to_owned);
        self.lines.push(line);
    }

    /// What else went on: a figure is worth little on a machine that works for others.
    pub fn noise(&mut self, part: &str, used: &Used) {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load: Vec<&str> = load.split(' ').take(1).collect();
        let share = 100.0 * used.others / used.elapsed.as_secs_f64();
        let text = format!("{share:.0} % of one core, load {}", load.join(" "));
        self.add(part, "everything else on the machine", text, "");
    }

    /// As a Markdown table on standard output.
    pub fn print(&self) {
        println!("| part | figure | measured | wanted |\n|---|---|---:|---:|");
        for line in &self.lines {
            println!("| {} |", line.join(" | "));
        }
    }
}

/// `12 345`
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}
