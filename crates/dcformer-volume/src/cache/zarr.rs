//! The part of Zarr 3 that a cache is written in: one array of half floats in one shard, and groups around it.
//!
//! (Zarr core specification 3.0; codecs `sharding_indexed`, `bytes`, `blosc`, `crc32c`.) Reading asks for exactly what
//! is written here: a cache is ours, and other arrays are no input of a network.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::blosc;
use crate::geometry::Shape3;
use crate::{Error, Result, storage};

/// Name of the file that describes an array or a group.
pub(super) const METADATA: &str = "zarr.json";

/// Name of the file that holds an array: its only chunk, which is a shard.
pub(super) const SHARD: &str = "c.0.0.0";

/// Ours are of a few kilobytes; another program's are not read into memory.
const MOST_METADATA_BYTES: u64 = 1 << 20;

/// Values of a chunk within the shard: eight slices of 512 x 512, so that every thread gets some.
const CHUNK_VALUES: usize = 1 << 21;

/// A group and what is known about it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Group<A> {
    zarr_format: u32,
    node_type: String,
    pub(super) attributes: A,
}

impl<A> Group<A> {
    pub(super) fn new(attributes: A) -> Self {
        Self {
            zarr_format: 3,
            node_type: "group".into(),
            attributes,
        }
    }
}

/// An array of half floats and what is known about it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Array<A> {
    #[serde(flatten)]
    layout: Layout,
    pub(super) attributes: A,
}

impl<A> Array<A> {
    /// An array of this shape, filled with this value where nothing is stored.
    pub(super) fn new(shape: Shape3, fill_value: f32, attributes: A) -> Self {
        Self {
            layout: Layout::new(shape, fill_value),
            attributes,
        }
    }

    pub(super) fn shape(&self) -> Shape3 {
        let [depth, height, width] = self.layout.shape;
        Shape3 {
            depth,
            height,
            width,
        }
    }

    /// What is laid out otherwise than here, if anything is.
    pub(super) fn deviation(&self) -> Option<String> {
        let expected = Layout::new(self.shape(), self.layout.fill_value);
        let text = |layout: &Layout| serde_json::to_string(layout).unwrap_or_default();
        (self.layout != expected).then(|| {
            let (found, expected) = (text(&self.layout), text(&expected));
            format!("its array is {found}, expected {expected}")
        })
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Layout {
    zarr_format: u32,
    node_type: String,
    shape: [usize; 3],
    data_type: String,
    chunk_grid: Named<ChunkShape>,
    chunk_key_encoding: Named<Separator>,
    fill_value: f32,
    codecs: [Codec; 1],
    dimension_names: [String; 3],
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Named<C> {
    name: String,
    configuration: C,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct ChunkShape {
    chunk_shape: [usize; 3],
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Separator {
    separator: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", content = "configuration", rename_all = "snake_case")]
enum Codec {
    ShardingIndexed {
        chunk_shape: [usize; 3],
        codecs: Vec<Self>,
        index_codecs: Vec<Self>,
        index_location: String,
    },
    Bytes {
        endian: String,
    },
    Blosc {
        cname: String,
        clevel: i32,
        shuffle: String,
        typesize: usize,
        blocksize: usize,
    },
    Crc32c,
}

impl Layout {
    fn new(shape: Shape3, fill_value: f32) -> Self {
        let Shape3 {
            depth,
            height,
            width,
        } = shape;
        let little = || Codec::Bytes {
            endian: "little".into(),
        };
        let blosc = Codec::Blosc {
            cname: "zstd".into(),
            clevel: blosc::LEVEL,
            shuffle: "shuffle".into(),
            typesize: 2,
            // As the encoder thinks best.
            blocksize: 0,
        };
        Self {
            zarr_format: 3,
            node_type: "array".into(),
            shape: [depth, height, width],
            data_type: "float16".into(),
            chunk_grid: Named {
                name: "regular".into(),
                configuration: ChunkShape {
                    chunk_shape: [depth, height, width],
                },
            },
            chunk_key_encoding: Named {
                name: "default".into(),
                configuration: Separator {
                    separator: ".".into(),
                },
            },
            fill_value,
            codecs: [Codec::ShardingIndexed {
                chunk_shape: [chunk_slices(shape), height, width],
                codecs: vec![little(), blosc, Codec::Crc32c],
                index_codecs: vec![little(), Codec::Crc32c],
                index_location: "end".into(),
            }],
            dimension_names: ["depth", "height", "width"].map(String::from),
        }
    }
}

/// Slices of a chunk: as many as [`CHUNK_VALUES`] has room for, and a divisor of all, since chunks fill the shard evenly.
pub(super) fn chunk_slices(shape: Shape3) -> usize {
    let room = (CHUNK_VALUES / (shape.height * shape.width).max(1)).clamp(1, shape.depth.max(1));
    (1..=room)
        .rev()
        .find(|slices| shape.depth.is_multiple_of(*slices))
        .unwrap_or(1)
}

/// Writes metadata, legible.
pub(super) fn to_json(metadata: &impl Serialize) -> Vec<u8> {
    let mut json = serde_json::to_vec_pretty(metadata).expect("metadata has a JSON form");
    json.push(b'\n');
    json
}

/// Reads metadata.
///
/// # Errors
/// If there is none, or something else.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = storage::read(path, MOST_METADATA_BYTES).map_err(|source| Error::Read {
        path: path.into(),
        source,
    })?;
    serde_json::from_slice(&bytes).map_err(|error| Error::CacheDamaged {
        path: path.into(),
        found: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_fill_the_shard_evenly() {
        let slices = |depth, height, width| {
            chunk_slices(Shape3 {
                depth,
                height,
                width,
            })
        };
        assert_eq!(slices(256, 512, 512), 8);
        assert_eq!(slices(240, 480, 480), 8);
        assert_eq!(slices(32, 40, 48), 32);
        assert_eq!(slices(251, 512, 512), 1);
        assert_eq!(slices(1, 1, 1), 1);
        assert_eq!(slices(3, 4096, 4096), 1);
    }
}
