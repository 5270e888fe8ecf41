#!/usr/bin/env bash
# The kernels for 64-bit ARM on another machine: lints, and the tests with emulated NEON. Needs
#
#     rustup target add aarch64-unknown-linux-gnu
#     apt-get install gcc-aarch64-linux-gnu qemu-user      # a linker with its C library, and the emulator
#
#     scripts/neon.sh [WORD]      # all tests, or those whose name has the word
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"

# One crate: everything that depends on the processor is in it.
cargo clippy --release --target $target -p dcformer-kernels --all-targets -- -D warnings
cargo test --release --target $target -p dcformer-kernels --lib -- "${@:-}"
