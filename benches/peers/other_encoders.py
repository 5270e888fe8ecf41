"""dcformer's other encoders against PyTorch: ConvNeXt, PoolFormer, InceptionNeXt, ViT, TransUNet and CT-ViT, at the smallest
sizes of the paper's table, on a volume of 256 x 256 x 128.

    pip install -r benches/peers/requirements.txt
    cargo build --release
    python benches/peers/other_encoders.py target/release/dcformer

The same weights on the same volume; a peer whose features differ from ours by more than 1e-3 of the largest value stops the
run. Then all take turns, as in `encoders.py`. The table in BENCHMARKS.md is rewritten in place; `--only` chooses networks,
and the rows of the others stay as they were, with the commit that they were measured at.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy

from comparison import (
    PEERS,
    Ours,
    Peer,
    check,
    commit,
    in_another_process,
    machine,
    our_features,
    random_volume,
    replace_section,
    section,
    table_row,
    take_turns,
)

# Depth, height, width.
SHAPE = (128, 256, 256)
VARIANTS = {
    "convnext": "nano",
    "poolformer": "nano",
    "inceptionnext": "nano",
    "vit": "naive",
    "transunet": "naive",
    "ctvit": "paper",
}
SECTION = "other-encoders"
HEAD = ["| encoder | peer | seconds | of dcformer's | peak MB | commit |", "|---|---|---|---|---|---|"]


def write_weights(network, variant, path):
    import networks_torch

    networks_torch.write_weights(network, variant, path)


def compare(program, network, names, runs, folder):
    """Medians of seconds and megabytes by peer."""
    variant = VARIANTS[network]
    volume, weights = folder / "volume.npy", folder / f"{network}.safetensors"
    values = random_volume(1, SHAPE, volume)
    in_another_process(write_weights, network, variant, weights)
    model, expected = our_features(program, weights, values, folder, ["--model-name", network, "--variant", variant])
    peers = {}
    for name in names:
        out = folder / f"{name}.npy"
        peers[name] = Peer("forward", name, {"network": network, "variant": variant, "volume": volume, "out": out})
        check(f"{network} {variant}, {PEERS[name]}", numpy.load(out), expected)
    shape = ",".join(map(str, SHAPE))
    # As warm as the peers: the median of three passes after one that warms up.
    peers["ours"] = Ours(program, ["encoder", "--model", str(model), "--shape", shape], runs=3)
    return take_turns(peers, runs)


def rows(network, peers):
    ours = peers["ours"][0]
    for name, result in peers.items():
        yield table_row(f"{network} {VARIANTS[network]}", name, result, ours, commit())


def merged(found):
    """The rows of all networks, those that were not measured as they stand in the page."""
    before = {network: [line for line in section(SECTION) if line.startswith(f"| {network} ")] for network in VARIANTS}
    return [row for network, old in before.items() for row in found.get(network, old)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the built program")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="PyTorch eager and channels-last only, and nothing is written")
    parser.add_argument("--only", default=",".join(VARIANTS), help=f"of {', '.join(VARIANTS)}")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    if unknown := set(chosen) - set(VARIANTS):
        parser.error(f"there is no network {', '.join(sorted(unknown))}, expected {', '.join(VARIANTS)}")
    names = ["eager", "channels-last"] if arguments.quick else ["eager", "channels-last", "compile"]
    program, found = str(Path(arguments.program).resolve()), {}
    for network in chosen:
        with tempfile.TemporaryDirectory() as folder:
            found[network] = list(rows(network, compare(program, network, names, arguments.runs, Path(folder))))
        print("\n".join(found[network]), file=sys.stderr, flush=True)
    note = f"Medians of {arguments.runs} alternating runs. {machine()}"
    if not arguments.quick:
        replace_section(SECTION, [*HEAD, *merged(found), "", note])


if __name__ == "__main__":
    main()
