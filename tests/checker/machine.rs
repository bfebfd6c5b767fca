//! How busy the machine was during a run: on a crowded one it proves nothing that a reply was late.

use std::{
    fs,
    sync::{Arc, Mutex},
    thread::available_parallelism,
    time::Duration,
};

use tokio::task::JoinHandle;

/// Threads that want to run, for each core and on average, with which a debug build may be late for
/// any number of replies. Four do in this check alone, seven beside other tests, and 4 % are late; with
/// nine to twelve it was up to a quarter, and once more than half.
const CROWD: f64 = 9.0;

/// How often it is looked.
const LOOKS: Duration = Duration::from_millis(100);

/// Looks at the machine for as long as it lives.
pub struct Machine {
    looks: Arc<Mutex<Vec<f64>>>,
    task: JoinHandle<()>,
}

impl Machine {
    /// Looks from now on.
    pub fn watch() -> Self {
        let looks = Arc::<Mutex<Vec<f64>>>::default();
        let seen = looks.clone();
        let task = tokio::spawn(async move {
            let mut clock = tokio::time::interval(LOOKS);
            loop {
                clock.tick().await;
                seen.lock().unwrap().extend(running());
            }
        });
        Self { looks, task }
    }

    /// Threads that wanted to run, for each core, on average.
    pub fn running(&self) -> f64 {
        let looks = self.looks.lock().unwrap();
        looks.iter().sum::<f64>() / looks.len().max(1) as f64
    }

    /// Whether too many did for this process to be in time.
    pub fn was_crowded(&self) -> bool {
        self.running() > CROWD
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Threads that want to run now, for each core; none where the kernel does not say.
fn running() -> Option<f64> {
    let told = fs::read_to_string("/proc/loadavg").ok()?;
    let (now, _) = told.split(' ').nth(3)?.split_once('/')?;
    let cores = available_parallelism().ok()?.get();
    Some(now.parse::<f64>().ok()? / cores as f64)
}
