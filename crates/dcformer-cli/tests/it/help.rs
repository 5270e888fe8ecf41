//! Every verb explains itself, and the exit status says how it went.

use super::{dcformer, succeed};

const VERBS: [&str; 17] = [
    "demo",
    "detect",
    "train",
    "finetune",
    "evaluate",
    "compare",
    "embed",
    "search",
    "prepare",
    "preprocess",
    "phantom",
    "import",
    "export",
    "metrics",
    "complexity",
    "bench",
    "completions",
];

#[test]
fn every_verb_has_help_with_an_example() {
    let all = succeed(["--help"]);
    for verb in VERBS {
        assert!(all.contains(verb), "{verb} is not listed");
        let help = succeed([verb, "--help"]);
        assert!(
            help.contains("Example") && help.contains(&format!("dcformer {verb}")),
            "{verb}: {help}"
        );
    }
}

#[test]
fn the_exit_status_tells_wrong_use_from_failure() {
    assert_eq!(dcformer(["--version"]).status.code(), Some(0));
    assert_eq!(dcformer(["detect"]).status.code(), Some(2));
    assert_eq!(dcformer(["unknown"]).status.code(), Some(2));
    assert_eq!(
        dcformer(["bench", "encoder", "--shape", "1,2"])
            .status
            .code(),
        Some(2)
    );
    assert_eq!(
        dcformer(["metrics", "no/such/file.safetensors"])
            .status
            .code(),
        Some(1)
    );
}

#[test]
fn failures_print_nothing_to_standard_output() {
    let output = dcformer([
        "detect",
        "--model",
        "no/such/model",
        "no/such/scan.nii.gz",
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("no/such/model"), "{message}");
}

#[test]
fn completions_name_the_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            succeed(["completions", shell]).contains("preprocess"),
            "{shell}"
        );
    }
}
