//! What a volume was made from: its bytes and their hash.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Result, dicom, nifti, storage};

/// Bytes read at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// The files of a scan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Of a file, what `sha256sum` prints. Of a folder or a pair, the SHA-256 of what `sha256sum` prints of its files, in
    /// the order of their names and with these relative to the folder.
    pub sha256: String,
    /// Length of the files together.
    pub bytes: u64,
}

impl Source {
    /// Reads all of the scan's files.
    ///
    /// # Errors
    /// If one cannot be read.
    pub(super) fn read(scan: &Path) -> Result<Self> {
        let mut bytes = 0;
        let mut hash = |path: &Path| -> Result<String> {
            let (sha256, length) = hash_file(path).map_err(|source| Error::Read {
                path: path.into(),
                source,
            })?;
            bytes += length;
            Ok(sha256)
        };
        let files = files_of(scan)?;
        let sha256 = match &files[..] {
            [file] if file == scan => hash(file)?,
            files => {
                let folder = if scan.is_dir() {
                    Some(scan)
                } else {
                    scan.parent()
                };
                let mut list = Sha256::new();
                for file in files {
                    let name = folder.and_then(|folder| file.strip_prefix(folder).ok());
                    let name = name.unwrap_or(file).to_string_lossy();
                    list.update(format!("{}  {name}\n", hash(file)?));
                }
                hexadecimal(list)
            }
        };
        Ok(Self { sha256, bytes })
    }
}

/// Length of a scan's files together, as [`Source::bytes`]; quick, since nothing is read.
pub(super) fn bytes_of(scan: &Path) -> Result<u64> {
    if storage::is_address(scan) {
        return storage::length_of_objects(scan).map_err(|source| Error::Read {
            path: scan.into(),
            source,
        });
    }
    files_of(scan)?.iter().try_fold(0, |sum, file| {
        let metadata = fs::metadata(file).map_err(|source| Error::Read {
            path: file.into(),
            source,
        })?;
        Ok(sum + metadata.len())
    })
}

/// A file, both files of a pair, or all files under a folder, sorted.
fn files_of(scan: &Path) -> Result<Vec<PathBuf>> {
    if scan.is_dir() {
        return dicom::files_under(scan);
    }
    let mut files = vec![scan.to_owned()];
    files.extend(nifti::other_of_pair(scan));
    files.sort();
    Ok(files)
}

fn hash_file(path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut length = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((hexadecimal(hash), length)),
            Ok(count) => {
                hash.update(&buffer[..count]);
                length += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// SHA-256 of a file, as `sha256sum` prints it.
///
/// # Errors
/// If the file cannot be read.
pub fn sha256_of_file(path: &Path) -> Result<String> {
    let hash = hash_file(path).map_err(|source| Error::Read {
        path: path.into(),
        source,
    })?;
    Ok(hash.0)
}

/// The hash of a text.
pub(super) fn sha256(text: &str) -> String {
    hexadecimal(Sha256::new().chain_update(text))
}

fn hexadecimal(hash: Sha256) -> String {
    let digits = hash.finalize();
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_hash_that_sha256sum_prints() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("scan.nii");
        fs::write(&file, "abc").expect("it can be written");
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let source = Source::read(&file).expect("a source");
        assert_eq!((source.sha256.as_str(), source.bytes), (abc, 3));
        assert_eq!(bytes_of(&file).expect("a length"), 3);
    }

    #[test]
    fn folders_and_pairs_are_lists_of_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = ["a.img", "b/1.dcm", "a.hdr"];
        fs::create_dir(folder.path().join("b")).expect("a folder");
        for name in names {
            fs::write(folder.path().join(name), name).expect("it can be written");
        }
        let line = |name: &str| format!("{}  {name}\n", sha256(name));
        let pair = sha256(&(line("a.hdr") + &line("a.img")));
        for name in ["a.hdr", "a.img"] {
            let source = Source::read(&folder.path().join(name)).expect("a source");
            assert_eq!((&source.sha256, source.bytes), (&pair, 10), "{name}");
        }
        let all = sha256(&(line("a.hdr") + &line("a.img") + &line("b/1.dcm")));
        let source = Source::read(folder.path()).expect("a source");
        assert_eq!((source.sha256, source.bytes), (all, 17));
        assert_eq!(bytes_of(folder.path()).expect("a length"), 17);
    }
}
