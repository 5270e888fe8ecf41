//! What there is to prepare: every volume with its place in the cache, and which process does it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::source::{self, sha256};
use super::volume::EXTENSION;
use super::{PreparedVolume, Quarantined, Record, Settings, VOLUMES};
use crate::ct_rate::{self, Split};
use crate::dataset::{DataSet, Sample, ScanMetadata};
use crate::{Error, Result, manifest, storage};

/// One list of volumes of a data set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// Its part of the data set, if that has parts.
    pub split: Option<Split>,
    /// The volumes.
    pub data: DataSet,
}

impl Listing {
    /// The listings of a cache: those of its splits that have volumes, or of all volumes if it has no splits.
    ///
    /// # Errors
    /// As [`read`](super::read).
    pub fn of_cache(cache: &Path) -> Result<Vec<Self>> {
        let splits = Split::ALL.map(Some).into_iter().chain([None]);
        let listings = splits.map(|split| {
            let data = super::read(cache, &[split])?;
            Ok(Self { split, data })
        });
        let listings = listings.collect::<Result<Vec<_>>>()?;
        let has_volumes = |listing: &Self| !listing.data.samples.is_empty();
        Ok(listings.into_iter().filter(has_volumes).collect())
    }

    /// The listings of a data set: the splits of CT-RATE's folder that are there, or the rows of a CSV.
    ///
    /// # Errors
    /// As [`ct_rate::read`] and [`manifest::read`].
    pub fn all(data: &Path, options: &ct_rate::Options) -> Result<Vec<Self>> {
        let is_table = data.extension().is_some_and(|kind| kind == "csv");
        if storage::is_address(data) && !is_table {
            return Self::in_bucket(data, options);
        }
        if !data.is_dir() {
            let data = manifest::read(data)?;
            return Ok(vec![Self { split: None, data }]);
        }
        let (mut listings, mut missing) = (Vec::new(), None);
        for split in Split::ALL {
            match ct_rate::read(data, split, options) {
                Ok(data) => listings.push(Self {
                    split: Some(split),
                    data,
                }),
                Err(error @ Error::NoVolumes { .. }) => missing = Some(error),
                Err(error) => return Err(error),
            }
        }
        match missing {
            Some(error) if listings.is_empty() => Err(error),
            _ => Ok(listings),
        }
    }

    /// Those of CT-RATE's folder at an address, with the addresses of its scans.
    fn in_bucket(address: &Path, options: &ct_rate::Options) -> Result<Vec<Self>> {
        let outline = storage::outline(address).map_err(|source| Error::Read {
            path: address.into(),
            source,
        })?;
        let mut listings = Self::all(outline.path(), options).map_err(|error| match error {
            Error::NoVolumes { expected, .. } => Error::NoVolumes {
                path: address.into(),
                expected,
            },
            error => error,
        })?;
        for sample in listings
            .iter_mut()
            .flat_map(|listing| &mut listing.data.samples)
        {
            if let Ok(place) = sample.path.strip_prefix(outline.path()) {
                sample.path = address.join(place);
            }
        }
        Ok(listings)
    }
}

/// Which of the volumes a process prepares: every `of`-th from number `index` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub index: usize,
    /// Number of shards.
    pub of: std::num::NonZero<usize>,
}

impl Shard {
    /// All volumes.
    pub const WHOLE: Self = Self {
        index: 0,
        of: std::num::NonZero::<usize>::MIN,
    };

    pub(super) fn contains(self, number: usize) -> bool {
        number % self.of == self.index
    }
}

/// All volumes in the order of their listings, and the names of all labels.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) items: Vec<Item<'a>>,
    /// In the order in which they come first.
    pub(super) labels: Vec<&'a str>,
}

/// A volume to prepare.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) split: Option<Split>,
    pub(super) sample: &'a Sample,
    /// Names of the sample's labels.
    pub(super) labels: &'a [String],
    /// Name of its folder.
    pub(super) key: String,
}

/// How far a volume is.
#[derive(Debug)]
pub(super) enum State {
    Ready(Box<Record>, crate::geometry::Shape3),
    Quarantined(Quarantined),
    Open,
}

impl<'a> Plan<'a> {
    pub(super) fn new(listings: &'a [Listing]) -> Result<Self> {
        let (mut items, mut labels) = (Vec::new(), Vec::new());
        let (mut keys, mut known) = (HashMap::new(), HashSet::new());
        for Listing { split, data } in listings {
            labels.extend(
                data.label_names
                    .iter()
                    .map(String::as_str)
                    .filter(|label| known.insert(*label)),
            );
            for sample in &data.samples {
                let key = key(&sample.name);
                if keys.insert(key.clone(), &sample.name).is_some() {
                    return Err(Error::RepeatedName {
                        name: sample.name.clone(),
                    });
                }
                items.push(Item {
                    split: *split,
                    sample,
                    labels: &data.label_names,
                    key,
                });
            }
        }
        Ok(Self { items, labels })
    }
}

impl Item<'_> {
    /// Its folder.
    pub(super) fn place(&self, cache: &Path) -> PathBuf {
        cache.join(VOLUMES).join(&self.key)
    }

    /// What is known about the scan: by its table first.
    pub(super) fn metadata(&self, settings: &Settings) -> ScanMetadata {
        self.sample.metadata.or(settings.metadata)
    }

    /// How far it is, by what is in the cache. A volume counts as prepared as long as the settings, the table's facts and
    /// the length of the scan are those that it was made from; hashes of all scans would be as slow as preparing them.
    pub(super) fn state(&self, cache: &Path, settings: &Settings) -> State {
        let place = self.place(cache);
        if let Ok(volume) = PreparedVolume::open(&place)
            && self.is_current(volume.record(), settings)
            && volume.is_complete()
        {
            return State::Ready(Box::new(volume.record().clone()), volume.shape());
        }
        match Quarantined::read(cache, &self.key) {
            Some(quarantined) => State::Quarantined(quarantined),
            None => State::Open,
        }
    }

    fn is_current(&self, record: &Record, settings: &Settings) -> bool {
        record.name == self.sample.name
            && record.preprocess == settings.preprocess
            && record.scan == settings.scan
            && record.metadata == self.metadata(settings)
            && source::bytes_of(&self.sample.path).is_ok_and(|bytes| bytes == record.source.bytes)
    }
}

/// A folder's name for a volume: its own where every file system can take it; else what can be kept of it and a hash.
fn key(name: &str) -> String {
    const LONGEST: usize = 100;
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.len() <= LONGEST && !name.starts_with('.') && name.bytes().all(is_safe) {
        return format!("{name}.{EXTENSION}");
    }
    let readable: String = name
        .trim_start_matches(['.', '/'])
        .chars()
        .map(|character| match u8::try_from(character) {
            Ok(byte) if is_safe(byte) => character,
            _ => '_',
        })
        .take(LONGEST)
        .collect();
    format!("{readable}-{}.{EXTENSION}", &sha256(name)[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_folder_of_its_own() {
        assert_eq!(key("train_1_a_1.nii.gz"), "train_1_a_1.nii.gz.zarr");
        let names = [
            "scans/1.nii.gz",
            "scans_1.nii.gz",
            "../scans/1.nii.gz",
            "/scans/1.nii.gz",
            "scans\\1.nii.gz",
            "sc\u{e4}ns/1.nii.gz",
            ".hidden",
            &"long".repeat(100),
            &"long".repeat(101),
        ];
        let keys: HashSet<String> = names.map(key).into();
        assert_eq!(keys.len(), names.len());
        for key in keys {
            assert!(key.len() < 130 && !key.starts_with('.'), "{key}");
            assert!(
                key.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)),
                "{key}"
            );
        }
        assert!(key("../scans/1.nii.gz").starts_with("scans_1.nii.gz-"));
    }

    #[test]
    fn shards_share_all_volumes_and_none_twice() {
        let of = std::num::NonZero::new(3).expect("not 0");
        for number in 0..10 {
            let holders = (0..3).filter(|&index| Shard { index, of }.contains(number));
            assert_eq!(holders.count(), 1);
            assert!(Shard::WHOLE.contains(number));
        }
    }
}
