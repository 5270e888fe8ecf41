//! The program as a user runs it.

// What goes wrong, and what is said.
mod bad_input;
// Caches and scans in a bucket, of a server that speaks S3.
#[cfg(feature = "s3")]
mod bucket;
// How far lists of numbers are apart.
#[path = "../../../dcformer/tests/it/distance.rs"]
mod distance;
// Encoders side by side.
mod compare;
// What networks cost, by parts, and beside the paper.
mod complexity;
// What scripts rely on.
mod contracts;
// Labels to models that answer by them.
mod finetune;
// Help and exit statuses.
mod help;
// Every network, from training to use.
mod networks;
// Downloads.
mod hub;
// Latents and features of the authors' code.
mod latents;
// A data set to a cache, and what is done with it.
mod prepare;
#[path = "../../../dcformer/tests/it/pytorch.rs"]
mod pytorch;
// From a scan to an answer.
mod scans;
// Latents of a data set, and what is found in them.
mod search;
// Text encoders and models as hubs have them.
mod text;
// A model that several of them start from.
mod trained;
// Runs that are killed and resumed.
mod training;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dcformer::tensors::Values;
use safetensors::{Dtype, SafeTensors};

/// Runs the program.
fn dcformer<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dcformer"))
        .args(arguments)
        .output()
        .expect("the program can be started")
}

/// What a run of the program left.
#[derive(Debug)]
struct Ran {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn new(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("it prints text");
        Self {
            status: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The run went well.
    #[track_caller]
    fn succeeded(self) -> Self {
        assert_eq!(self.status, Some(0), "{}", self.stderr);
        self
    }

    /// The run failed with a message of these parts.
    #[track_caller]
    fn failed(self, parts: &[&str]) -> Self {
        assert_eq!(self.status, Some(1), "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} in {}", self.stderr);
        }
        assert!(self.stderr.contains("error: "), "{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// All of standard output, as JSON.
    #[track_caller]
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("no JSON: {}", self.stdout))
    }
}

/// Arguments from words and paths.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { [$(std::ffi::OsString::from($argument)),*] };
}
use arguments;

fn run<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Ran {
    Ran::new(dcformer(arguments))
}

/// Runs the program, which must succeed, and gives what it printed.
fn succeed<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> String {
    let output = dcformer(arguments);
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {messages}", output.status);
    String::from_utf8(output.stdout).expect("it prints text")
}

/// A file of the repository.
fn repository(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name);
    assert!(
        path.exists(),
        "{} is missing; it belongs to the repository",
        path.display()
    );
    path
}

/// Path as an argument.
fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are text")
}

/// Imports the small model in the authors' format.
fn import_official(folder: &Path) -> PathBuf {
    let model = folder.join("model");
    succeed([
        "import",
        text(&repository("golden/official_checkpoint.pth")),
        "--vocab",
        text(&repository("golden/vocab.txt")),
        "--text-config",
        text(&repository("golden/text_config.json")),
        "--out",
        text(&model),
    ]);
    model
}

/// The same for volumes of 64 x 128 x 128, where it takes 512 x 512 x 256.
fn small_model(folder: &Path) -> PathBuf {
    let model = import_official(folder);
    let config = model.join("config.json");
    let json = std::fs::read(&config).expect("a configuration");
    let mut json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    json["preprocess"]["shape"] = serde_json::json!({"depth": 64, "height": 128, "width": 128});
    std::fs::write(&config, json.to_string()).expect("it can be written");
    model
}

/// A float32 tensor of a `.safetensors` file.
fn tensor(path: &Path, name: &str) -> Values {
    let bytes = std::fs::read(path).expect("a file of tensors");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let view = file.tensor(name).expect(name);
    assert_eq!(view.dtype(), Dtype::F32);
    let (values, _) = view.data().as_chunks::<4>();
    Values {
        shape: view.shape().to_vec(),
        values: values
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect(),
    }
}
