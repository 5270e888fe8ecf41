//! Preprocessed volumes, made once and loaded many times.
//!
//! ```text
//! CACHE/zarr.json                    how all of it was prepared
//! CACHE/manifest.csv                 a row a volume: name, split, patient, hash of the scan, report, labels
//! CACHE/quarantine.csv               the volumes that could not be prepared, and why
//! CACHE/volumes/NAME.zarr/           zarr.json and c.0.0.0: (depth, height, width), float16
//! CACHE/quarantine/NAME.zarr.json    one for each row of quarantine.csv
//! ```
//! It is a group of Zarr 3 arrays, which Python's `zarr` opens: `zarr.open_group("CACHE")["volumes/NAME.zarr"][:]`. Values
//! are those that training keeps in memory, bit for bit.
//!
//! A cache lies in a folder, or under an address in a bucket, with the same bytes ([`storage`](crate::storage)).
//!
//! [`prepare`] writes it, on any number of machines at once. A volume is complete before it gets its name, and what is done
//! is seen in the folder, so processes need not know of each other. [`read`] gives its volumes as a data set;
//! [`Preprocess::run_file`] loads one.

mod blosc;
mod plan;
mod prepare;
mod quarantine;
mod source;
mod tables;
mod volume;
mod zarr;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use plan::{Listing, Shard};
pub use prepare::{Job, Progress, Summary, prepare};
pub use quarantine::Quarantined;
pub use source::{Source, sha256_of_file};
pub use tables::read;
pub(crate) use volume::is_volume;
pub use volume::{PreparedVolume, Record};

use crate::dataset::ScanMetadata;
use crate::preprocess::Preprocess;
use crate::scan::ScanOptions;
use crate::{Error, Result};
use zarr::{Group, METADATA, read_json};

/// Version of the format; a cache of another one is prepared anew.
const FORMAT: u32 = 1;

/// Folder of the volumes.
const VOLUMES: &str = "volumes";

/// How all volumes of a cache are made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What is done to a scan.
    pub preprocess: Preprocess,
    /// How it is read.
    pub scan: ScanOptions,
    /// What is known of all scans, where the data set's tables say nothing.
    pub metadata: ScanMetadata,
}

/// What the `zarr.json` of a cache says.
#[derive(Debug, Serialize, Deserialize)]
struct Root {
    dcformer_cache: Description,
}

#[derive(Debug, Serialize, Deserialize)]
struct Description {
    format: u32,
    settings: Settings,
}

/// Whether a folder is a cache.
pub fn is_cache(folder: &Path) -> bool {
    read_json::<Group<Root>>(&folder.join(METADATA)).is_ok()
}

/// How a cache was prepared.
///
/// # Errors
/// If the folder is none, or one of another version.
pub fn settings(folder: &Path) -> Result<Settings> {
    let not_a_cache = |found| Error::NotACache {
        path: folder.into(),
        found,
    };
    let group: Group<Root> = read_json(&folder.join(METADATA)).map_err(|error| match error {
        Error::Read { source, .. } => not_a_cache(format!("it has no {METADATA} ({source})")),
        error => not_a_cache(error.to_string()),
    })?;
    let Description { format, settings } = group.attributes.dcformer_cache;
    if format != FORMAT {
        return Err(not_a_cache(format!(
            "its format is {format}, this program has {FORMAT}"
        )));
    }
    Ok(settings)
}

/// Refuses settings that are not those wanted, naming the first that differs.
fn same_settings<S: Serialize>(path: &Path, found: &S, wanted: &S) -> Result<()> {
    let json = |settings| serde_json::to_value(settings).expect("settings have a JSON form");
    let (found, wanted) = (json(found), json(wanted));
    match difference("", &found, &wanted) {
        None => Ok(()),
        Some((field, found, expected)) => Err(Error::PreparedOtherwise {
            path: path.into(),
            field,
            found: found.to_string(),
            expected: expected.to_string(),
        }),
    }
}

/// The first place where two values differ, as `a.b`, and what is there.
fn difference<'a>(
    place: &str,
    found: &'a serde_json::Value,
    wanted: &'a serde_json::Value,
) -> Option<(String, &'a serde_json::Value, &'a serde_json::Value)> {
    const NOTHING: &serde_json::Value = &serde_json::Value::Null;
    if found == wanted {
        return None;
    }
    let (Some(fields), Some(others)) = (found.as_object(), wanted.as_object()) else {
        return Some((place.to_owned(), found, wanted));
    };
    fields.keys().chain(others.keys()).find_map(|key| {
        let place = if place.is_empty() {
            key.clone()
        } else {
            format!("{place}.{key}")
        };
        let value = |fields: &'a serde_json::Map<_, _>| fields.get(key).unwrap_or(NOTHING);
        difference(&place, value(fields), value(others))
    })
}
