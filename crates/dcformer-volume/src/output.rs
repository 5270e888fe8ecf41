//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Lets `write` fill a file beside `path`, and gives it that name when it is complete; a failure leaves nothing. What is no
/// file, such as a device or a pipe, is written to and not replaced.
///
/// # Errors
/// If `write` fails, or the file cannot be made or renamed.
pub fn write_replacing(path: &Path, write: impl FnOnce(File) -> io::Result<()>) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        return write(File::options().write(true).open(path)?);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let unfinished = Unfinished(path.with_file_name(name));
    write(File::create(&unfinished.0)?)?;
    fs::rename(&unfinished.0, path)
}

/// A file under a temporary name, removed unless it was renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Nothing to remove is the usual case; anything else cannot be helped here.
        let _ = fs::remove_file(&self.0);
    }
}
