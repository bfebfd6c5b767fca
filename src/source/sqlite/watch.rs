//! When to look for commits of other processes: as soon as the file system says that the WAL was
//! written, and now and then in any case. A hint only tells when to look; what is new is told by
//! `PRAGMA data_version` alone, so a hint that is lost, early or wrong costs nothing but time.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::SyncSender,
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

/// Somebody in this process has committed, or the WAL was written.
pub struct Wake;

/// The first look after a hint. A WAL is written before the commit is visible, by as long as the
/// writer's fsync takes.
const FIRST_LOOK: Duration = Duration::from_micros(500);

/// How long to wait before each look: briefly after a hint, then twice as long every time, up to
/// the pace of a quiet database.
pub struct Rhythm {
    quiet: Duration,
    next: Duration,
}

/// Watches a database's WAL until dropped.
pub struct Watch {
    _watcher: RecommendedWatcher,
}

impl Rhythm {
    /// The rhythm of a quiet database.
    pub fn new(quiet: Duration) -> Self {
        Self { quiet, next: quiet }
    }

    /// Something happened: more may.
    pub fn quicken(&mut self) {
        self.next = FIRST_LOOK.min(self.quiet);
    }

    /// The pause before the next look.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.quiet);
        pause
    }
}

impl Watch {
    /// Watches the WAL of the database at `path`, which must be open and in WAL mode. `None`
    /// where the file system announces nothing.
    pub fn on(path: &Path, wake: &SyncSender<Wake>) -> Option<Self> {
        let wake = wake.clone();
        let told = move |event: notify::Result<notify::Event>| {
            // Opening and closing is not writing. An error may stand for events that were lost.
            if event.is_err() || event.is_ok_and(|event| event.kind.is_modify()) {
                // Full means that a wake is pending already.
                let _ = wake.try_send(Wake);
            }
        };
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        let watched = notify::recommended_watcher(told).and_then(|mut watcher| {
            watcher.watch(&PathBuf::from(wal), RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match watched {
            Ok(watcher) => Some(Self { _watcher: watcher }),
            Err(err) => {
                tracing::info!(error = %err, "the file system announces no writes: polling alone");
                None
            }
        }
    }
}
