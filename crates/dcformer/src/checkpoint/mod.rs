//! Weights and configurations on disk: our model folders, the authors' checkpoints, Hugging Face's text encoders.
//!
//! - [`Model`]: a folder with `config.json`, `model.safetensors` and `vocab.txt`; read and written.
//! - [`import`]: an official `.pth`, CT-CLIP's `.pt`, the follow-up's folder, or an encoder's `.safetensors`, to a [`Model`].
//! - [`export`]: a [`Model`] to `.safetensors` in the official names.
//! - [`load_bert`]: a text encoder from a Hugging Face folder.
//!
//! Nobody else knows foreign names. A load reports every missing, unknown and misshapen tensor at once.

mod apply;
mod checks;
mod ct_clip;
mod folder;
mod huggingface;
mod import;
mod med3dvlm;
mod official;
mod pickle;
mod shards;
mod tensor_file;
mod weights;

pub(crate) use apply::{OwnedTensor, write_safetensors};
pub(crate) use folder::WEIGHTS;
pub use folder::{FORMAT_VERSION, Model, ModelConfig};
pub(crate) use folder::{ModelFolder, json_text, write_file};
pub use huggingface::{OwnHead, load_bert, read_bert_config};
pub use import::{ImportOptions, import};
pub use official::{Duplicates, export};
pub(crate) use weights::{Element, Weights};
