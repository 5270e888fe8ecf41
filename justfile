# The commands of daily work. `just ci` is what a merge must pass.

# Format, lints, documentation
check:
    cargo fmt --check
    cargo clippy --release --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps --quiet

# All tests
test:
    cargo test --release

# All of it, as a merge must pass it
ci:
    .ci/run

# Documentation of all four crates, in the browser
doc:
    cargo doc --release --workspace --no-deps --open

# Licences and sources of the dependencies (needs cargo-deny)
deny:
    cargo deny check licenses sources

# Phantoms, training, report
demo:
    cargo run --release -- demo

# A run of seconds on phantoms
smoke:
    cargo run --release -- phantom phantoms --train 24 --valid 12
    cargo run --release -- train configs/smoke.toml --out run
    cargo run --release -- evaluate --model run/model --data phantoms

# Preprocessing against nibabel and PyTorch (needs benches/peers/requirements.txt)
bench-preprocess:
    cargo build --release -p dcformer-volume --example preprocess
    python benches/peers/preprocess.py target/release/examples/preprocess

# Preparing and loading a volume on one core, against nibabel and PyTorch; checks that Python reads a cache
bench-prepare:
    cargo build --release -p dcformer-volume --examples
    python benches/peers/prepare.py target/release/examples

# The kernels' tests under Valgrind (needs Debian's `valgrind`); a word chooses tests
valgrind word='':
    scripts/valgrind.sh {{word}}

# The kernels' tests with emulated NEON (scripts/neon.sh says what it needs); a word chooses tests
neon word='':
    scripts/neon.sh {{word}}
