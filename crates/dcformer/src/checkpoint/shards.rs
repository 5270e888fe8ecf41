//! Weights in several files, and the index that says which tensor is in which: `model.safetensors.index.json` or
//! `pytorch_model.bin.index.json`, as Hugging Face's hub has them for large models.
//!
//! An index is untrusted input: it names files of its own folder only, and every tensor is looked for.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::folder::read_file;
use super::weights::{StoredTensor, Weights};
use crate::error::{Error, Result};

/// What an index is called, behind the name that the weights would have in one file.
const SUFFIX: &str = ".index.json";

/// What an index says.
#[derive(Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// From tensors to the names of the files that they are in.
struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names of files by names of tensors")
            }

            /// A plain map would keep the last of two entries, and say nothing.
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<WeightMap, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((tensor, file)) = access.next_entry::<String, String>()? {
                    match map.entry(tensor) {
                        Entry::Vacant(place) => place.insert(file),
                        Entry::Occupied(place) => {
                            let twice = format!("the tensor `{}` is there twice", place.key());
                            return Err(A::Error::custom(twice));
                        }
                    };
                }
                Ok(WeightMap(map))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// Whether a file is the index of several.
pub(super) fn is_index(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.to_ascii_lowercase().ends_with(SUFFIX))
}

/// The tensors of all files that an index names.
///
/// # Errors
/// [`Error::Shards`] if a file is not one of the index's folder or missing, or the files do not hold what the index says;
/// and as for one file.
pub(super) fn read(index: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    let Index {
        weight_map: WeightMap(map),
    } = serde_json::from_slice(&read_file(index)?).map_err(|source| Error::Json {
        path: index.to_owned(),
        source,
    })?;
    let wrong = |found: String| Error::Shards {
        path: index.to_owned(),
        found,
    };
    let mut tensors = BTreeMap::new();
    for file in map.values().collect::<BTreeSet<_>>() {
        let path = beside(index, file)
            .ok_or_else(|| wrong(format!("`{file}` is no name of a file in the same folder")))?;
        if !path.exists() {
            return Err(wrong(format!("`{file}`, one of its files, is missing")));
        }
        for (name, tensor) in Weights::open_file(&path)?.tensors {
            match tensors.entry(name) {
                Entry::Vacant(place) => place.insert(tensor),
                Entry::Occupied(place) => {
                    let (name, first) = (place.key(), place.get().file.display());
                    return Err(wrong(format!("`{name}` is in {first} and in `{file}`")));
                }
            };
        }
    }
    for (name, file) in &map {
        let found = tensors.get(name);
        if found.is_none_or(|tensor| Some(&*tensor.file) != beside(index, file).as_deref()) {
            return Err(wrong(format!("`{name}` is not in `{file}`")));
        }
    }
    Ok(tensors)
}

/// The file of this name in the folder of `index`; `None` for a name that leads elsewhere.
fn beside(index: &Path, name: &str) -> Option<PathBuf> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(part)), None) if part == name => Some(index.with_file_name(name)),
        _ => None,
    }
}
