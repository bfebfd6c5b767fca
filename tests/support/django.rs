//! A Django project, run by its own `manage.py`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A project in a folder.
pub struct Project {
    python: PathBuf,
    /// Where its `manage.py` is.
    pub folder: PathBuf,
    /// Environment variables for all that is run.
    pub env: Vec<(&'static str, String)>,
}

impl Project {
    /// The project whose `manage.py` is in this folder.
    pub fn inside(folder: &Path) -> Self {
        Self {
            python: python(),
            folder: folder.to_owned(),
            env: Vec::new(),
        }
    }

    /// Runs `manage.py`, which must not fail.
    #[track_caller]
    pub fn manage(&self, arguments: &[&str]) -> String {
        let output = Command::new(&self.python)
            .current_dir(&self.folder)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .arg("manage.py")
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "manage.py {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a Python program in the project.
    #[track_caller]
    pub fn shell(&self, program: &str) -> String {
        self.manage(&["shell", "-c", program])
    }
}

/// A Python that has Django: the one that is named, or `python3`.
fn python() -> PathBuf {
    let cached = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/.cache/venv/bin/python");
    let named = std::env::var_os("ROWCAST_TEST_PYTHON").map(PathBuf::from);
    let candidates = named
        .into_iter()
        .chain([PathBuf::from(cached), PathBuf::from("python3")]);
    for python in candidates {
        let found = Command::new(&python).args(["-c", "import django"]).output();
        if found.is_ok_and(|output| output.status.success()) {
            return python;
        }
    }
    panic!(
        "this test needs Django: python3 -m venv tests/.cache/venv && \
         tests/.cache/venv/bin/pip install 'Django>=4.2,<6'"
    );
}
