//! Files and folders that are there whole or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Ending of what is not complete.
pub(crate) const UNFINISHED: &str = ".tmp";

/// Lets `write` fill a file beside `path`, and gives it that name when it is complete; a failure leaves nothing. What is no
/// file, such as a device or a pipe, is written to and not replaced.
///
/// # Errors
/// If `write` fails, or the file cannot be made or renamed.
pub fn write_replacing(path: &Path, write: impl FnOnce(File) -> io::Result<()>) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        return write(File::options().write(true).open(path)?);
    }
    let unfinished = Unfinished::beside(path);
    write(File::create(&unfinished.0)?)?;
    fs::rename(&unfinished.0, path)
}

/// Lets `fill` fill a folder beside `path`, and gives it that name when it is complete, in place of a folder that had it;
/// a failure leaves nothing of it.
///
/// # Errors
/// If `fill` fails, or the folder cannot be made or renamed.
pub fn create_folder(path: &Path, fill: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let unfinished = Unfinished::beside(path);
    fs::create_dir(&unfinished.0)?;
    fill(&unfinished.0)?;
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(&unfinished.0, path)
}

/// A file or folder under a temporary name, removed unless it was renamed.
#[derive(Debug)]
pub(crate) struct Unfinished(PathBuf);

impl Unfinished {
    /// A folder among the system's temporary ones (`TMPDIR` says where), for what will have this name.
    pub(crate) fn for_a_while(named: &Path) -> io::Result<Self> {
        let name = named.file_name().unwrap_or_default();
        let folder = Self::beside(&std::env::temp_dir().join(name));
        fs::create_dir(&folder.0)?;
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The process alone does not tell writers apart: in containers, many have number 1.
    fn beside(path: &Path) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos();
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}-{now:x}{UNFINISHED}", std::process::id()));
        Self(path.with_file_name(name))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Nothing to remove is the usual case; anything else cannot be helped here.
        let _ = match fs::symlink_metadata(&self.0) {
            Ok(there) if there.is_dir() => fs::remove_dir_all(&self.0),
            _ => fs::remove_file(&self.0),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_appears_whole_and_replaces_what_was_there() {
        let base = tempfile::tempdir().expect("a folder");
        let place = base.path().join("place");
        let failed = create_folder(&place, |folder| {
            fs::write(folder.join("half"), "")?;
            Err(io::Error::other("the disk is full"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(base.path()).expect("a folder").count(), 0);
        for name in ["first", "second"] {
            create_folder(&place, |folder| fs::write(folder.join(name), "")).expect("a folder");
            let there = fs::read_dir(&place).expect("a folder");
            let there: Vec<_> = there
                .map(|entry| entry.expect("an entry").file_name())
                .collect();
            assert_eq!(there, [name]);
        }
        assert_eq!(fs::read_dir(base.path()).expect("a folder").count(), 1);
    }
}
