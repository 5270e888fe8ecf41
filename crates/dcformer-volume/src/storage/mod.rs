//! Where files lie: in folders, or as objects in a bucket (with the feature `s3`).
//!
//! An object has an address, `s3://BUCKET/KEY`, which goes through the program as a path: joined, shown, and told from a
//! path by its beginning. A bucket has no folders; what is called so here are the objects whose keys begin alike. An object
//! is there whole or not at all, and nothing of an upload that was interrupted is seen.
//!
//! Who may, and where the bucket is, say the variables that other programs read too: `AWS_ACCESS_KEY_ID`,
//! `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, and `AWS_ENDPOINT_URL` for a server that is not Amazon's.

#[cfg(feature = "s3")]
mod bucket;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Cursor, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use crate::output::{self, Unfinished};

/// How addresses begin; objects of `memory://` live as long as the process, for tests.
const SCHEMES: [&str; 2] = ["s3://", "memory://"];

/// Whether a path is the address of an object.
///
/// ```
/// # use std::path::Path;
/// # use dcformer_volume::storage::is_address;
/// assert!(is_address(Path::new("s3://bucket/cache")));
/// assert!(!is_address(Path::new("s3/cache")));
/// ```
pub fn is_address(path: &Path) -> bool {
    let text = path.to_str().unwrap_or_default();
    SCHEMES.iter().any(|scheme| text.starts_with(scheme))
}

/// A path that is written relative to a folder; an address is relative to nothing.
pub fn resolve(folder: &Path, path: &Path) -> PathBuf {
    if is_address(path) {
        path.to_owned()
    } else {
        folder.join(path)
    }
}

/// An object, or a folder of objects, that may be there.
trait Object: Debug + Send + Sync {
    /// All bytes of the object.
    fn all(&self) -> io::Result<Vec<u8>>;

    /// These bytes of it, or those of them that are there.
    fn bytes(&self, range: Range<u64>) -> io::Result<Vec<u8>>;

    /// The last bytes, as many of them as there are, and how many it has.
    fn end(&self, most: u64) -> io::Result<(Vec<u8>, u64)>;

    /// Bytes that the object has.
    fn length(&self) -> io::Result<u64>;

    /// Makes it, or makes it another.
    fn put(&self, bytes: Vec<u8>) -> io::Result<()>;

    /// Removes it, if it is there.
    fn delete(&self) -> io::Result<()>;

    /// What lies in the folder, at any depth: names with `/` between their parts, and lengths.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// Writes the object, or the one of this name in the folder, to a file, piece by piece.
    fn download(&self, name: Option<&str>, file: &mut File) -> io::Result<()>;
}

/// The object that a path addresses, if it is an address.
fn object(path: &Path) -> io::Result<Option<Box<dyn Object>>> {
    match path.to_str() {
        Some(address) if is_address(path) => open_object(address).map(Some),
        _ => Ok(None),
    }
}

#[cfg(feature = "s3")]
fn open_object(address: &str) -> io::Result<Box<dyn Object>> {
    bucket::open(address)
}

#[cfg(not(feature = "s3"))]
fn open_object(_: &str) -> io::Result<Box<dyn Object>> {
    Err(io::Error::new(
        ErrorKind::Unsupported,
        "this program was built without buckets; build it with `--features s3`, or copy the data to a folder",
    ))
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

/// The first bytes of a file, at most so many.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    if let Some(object) = object(path)? {
        return object.bytes(0..most);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file to be read from its beginning to its end.
pub(crate) fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    Ok(match object(path)? {
        Some(object) => Box::new(Cursor::new(object.all()?)),
        None => Box::new(File::open(path)?),
    })
}

/// Whether there is a file.
pub(crate) fn is_file(path: &Path) -> io::Result<bool> {
    let Some(object) = object(path)? else {
        return Ok(path.is_file());
    };
    match object.length() {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Length of an object, or of all in a folder of them.
pub(crate) fn length_of_objects(address: &Path) -> io::Result<u64> {
    let Some(object) = object(address)? else {
        return Ok(fs::metadata(address)?.len());
    };
    match object.length() {
        Err(error) if is_missing(&error) => match object.list()? {
            inside if inside.is_empty() => Err(error),
            inside => Ok(inside.iter().map(|(_, length)| length).sum()),
        },
        result => result,
    }
}

/// Whether there is a file or a folder.
pub(crate) fn exists(path: &Path) -> io::Result<bool> {
    if !is_address(path) {
        return Ok(path.exists());
    }
    match length_of_objects(path) {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Names of what is in a folder.
pub(crate) fn names_in(folder: &Path) -> io::Result<BTreeSet<String>> {
    let Some(object) = object(folder)? else {
        let name =
            |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        return fs::read_dir(folder)?.map(name).collect();
    };
    let first = |(name, _): (String, u64)| match name.split_once('/') {
        Some((folder, _)) => folder.to_owned(),
        None => name,
    };
    Ok(object.list()?.into_iter().map(first).collect())
}

/// Makes a folder and those that it lies in; in a bucket there is nothing to make.
pub(crate) fn create_folders(path: &Path) -> io::Result<()> {
    match object(path)? {
        Some(_) => Ok(()),
        None => fs::create_dir_all(path),
    }
}

/// Writes a file, whole or not at all, in the place of one that is there.
///
/// # Errors
/// If it cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match object(path)? {
        Some(object) => object.put(bytes.into()),
        None => output::write_replacing(path, |mut file| file.write_all(bytes)),
    }
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    if let Some(object) = object(path)? {
        return object.delete();
    }
    match fs::remove_file(path) {
        Err(error) if !is_missing(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Lets `fill` fill a folder, which gets its name when it is complete, in the place of one that had it. In a bucket it is
/// complete when it has its file `last`.
pub(crate) fn create_folder(
    path: &Path,
    last: &str,
    fill: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let Some(describing) = object(&path.join(last))? else {
        return output::create_folder(path, fill);
    };
    let folder = Unfinished::for_a_while(path)?;
    fill(folder.path())?;
    describing.delete()?;
    for name in names_in(folder.path())? {
        if name != last {
            write(&path.join(&name), &fs::read(folder.path().join(&name))?)?;
        }
    }
    describing.put(fs::read(folder.path().join(last))?)
}

/// A file of which parts are read.
#[derive(Debug)]
pub(crate) struct Reader(Content);

#[derive(Debug)]
enum Content {
    File(File),
    Object(Box<dyn Object>),
}

impl Reader {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(match object(path)? {
            Some(object) => Content::Object(object),
            None => Content::File(File::open(path)?),
        }))
    }

    /// The last bytes, as many of them as there are, and the length of the whole.
    pub(crate) fn end(&mut self, most: u64) -> io::Result<(Vec<u8>, u64)> {
        match &mut self.0 {
            Content::Object(object) => object.end(most),
            Content::File(file) => {
                let length = file.metadata()?.len();
                let mut bytes = Vec::new();
                file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
                Read::by_ref(file).take(most).read_to_end(&mut bytes)?;
                Ok((bytes, length))
            }
        }
    }

    /// Reads these bytes, or those of them that are there.
    pub(crate) fn read(&mut self, range: Range<u64>, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.clear();
        match &mut self.0 {
            Content::Object(object) => *bytes = object.bytes(range)?,
            Content::File(file) => {
                file.seek(SeekFrom::Start(range.start))?;
                let most = range.end - range.start;
                Read::by_ref(file).take(most).read_to_end(bytes)?;
            }
        }
        Ok(())
    }
}

/// A file or folder on disk: the one at a path, or a copy of what is at an address, for as long as this lives.
#[derive(Debug)]
pub struct Local {
    path: PathBuf,
    original: PathBuf,
    _copy: Option<Unfinished>,
}

impl Local {
    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A message with the address in the place of the copy's path.
    pub(crate) fn name_original(&self, message: &str) -> String {
        let [path, original] = [&self.path, &self.original].map(|path| path.to_string_lossy());
        message.replace(&*path, &original)
    }
}

/// A file or folder on disk, copied from its address if it has one.
///
/// # Errors
/// If there is nothing at the address, or it cannot be read, or there is no room for a copy.
pub fn fetch(path: &Path) -> io::Result<Local> {
    let Some(object) = object(path)? else {
        return Ok(Local {
            path: path.into(),
            original: path.into(),
            _copy: None,
        });
    };
    let copy = Unfinished::for_a_while(path)?;
    let place = copy.path().join(path.file_name().unwrap_or_default());
    match download(&*object, None, &place) {
        Err(error) if is_missing(&error) => {
            fs::remove_file(&place)?;
            let inside = object.list()?;
            if inside.is_empty() {
                return Err(error);
            }
            for (name, _) in inside {
                download(&*object, Some(&name), &place.join(inner(&name)?))?;
            }
        }
        result => result?,
    }
    Ok(Local {
        path: place,
        original: path.into(),
        _copy: Some(copy),
    })
}

/// A folder on disk like the one at an address: its tables, and of all other files nothing but their names.
pub(crate) fn outline(address: &Path) -> io::Result<Local> {
    let Some(object) = object(address)? else {
        return fetch(address);
    };
    let copy = Unfinished::for_a_while(address)?;
    for (name, _) in object.list()? {
        let place = copy.path().join(inner(&name)?);
        if name.ends_with(".csv") {
            download(&*object, Some(&name), &place)?;
        } else {
            create_file(&place)?;
        }
    }
    Ok(Local {
        path: copy.path().into(),
        original: address.into(),
        _copy: Some(copy),
    })
}

fn download(object: &dyn Object, name: Option<&str>, place: &Path) -> io::Result<()> {
    object.download(name, &mut create_file(place)?)
}

fn create_file(place: &Path) -> io::Result<File> {
    fs::create_dir_all(place.parent().unwrap_or(Path::new("")))?;
    File::create(place)
}

/// The name of an object as a path that leads nowhere but into the folder.
fn inner(name: &str) -> io::Result<&Path> {
    let path = Path::new(name);
    let is_name = |part: Component<'_>| matches!(part, Component::Normal(_));
    if path.components().all(is_name) {
        Ok(path)
    } else {
        let message = format!("the object {name:?} has no name that a file can have");
        Err(io::Error::new(ErrorKind::InvalidData, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_joined_like_paths_and_relative_to_nothing() {
        let address = Path::new("s3://bucket/cache");
        let volume = address.join("volumes").join("1.zarr");
        assert_eq!(volume.to_str(), Some("s3://bucket/cache/volumes/1.zarr"));
        assert_eq!(resolve(Path::new("configs"), address), address);
        let relative = resolve(Path::new("configs"), Path::new("cache"));
        assert_eq!(relative, Path::new("configs/cache"));
    }

    #[test]
    fn names_lead_into_the_folder_only() {
        assert!(inner("series/1.dcm").is_ok());
        for name in ["../1.dcm", "/etc/passwd", "a/../../b"] {
            assert!(inner(name).is_err(), "{name}");
        }
    }

    #[cfg(not(feature = "s3"))]
    #[test]
    fn a_program_without_buckets_says_so() {
        let error = fetch(Path::new("s3://bucket/scan.nii")).expect_err("no buckets");
        assert!(error.to_string().contains("`--features s3`"), "{error}");
    }
}
