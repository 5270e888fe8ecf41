//! The program as a user runs it.

// What goes wrong, and what is said.
mod bad_input;
// What scripts rely on.
mod contracts;
// Help and exit statuses.
mod help;
// Runs that are killed and resumed.
mod training;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs the program.
fn dcformer<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dcformer"))
        .args(arguments)
        .output()
        .expect("the program can be started")
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
