//! A model that was trained for a moment, and what it has learnt from.

use std::path::PathBuf;

use super::training::write_config;
use super::{succeed, text};

/// Phantoms and a model that was trained on their reports.
pub(super) struct Trained {
    pub(super) folder: tempfile::TempDir,
    pub(super) phantoms: PathBuf,
    pub(super) model: PathBuf,
}

impl Trained {
    /// With so many patients to learn from, and 12 to be asked about.
    pub(super) fn new(patients: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let [phantoms, config, out] =
            ["phantoms", "run.toml", "run"].map(|name| folder.path().join(name));
        let patients = patients.to_string();
        succeed([
            "phantom",
            text(&phantoms),
            "--train",
            &patients,
            "--valid",
            "12",
        ]);
        write_config(&config, &phantoms);
        succeed(["train", text(&config), "--out", text(&out)]);
        Self {
            folder,
            phantoms,
            model: out.join("model"),
        }
    }

    /// Where something else has room.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
