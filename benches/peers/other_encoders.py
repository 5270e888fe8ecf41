"""dcformer's other encoders against PyTorch: ConvNeXt, PoolFormer, InceptionNeXt, ViT, TransUNet and CT-ViT, at the sizes of
the paper's table, on a volume of 256 x 256 x 128: a forward pass, or a training step.

    pip install -r benches/peers/requirements.txt
    cargo build --release
    python benches/peers/other_encoders.py target/release/dcformer
    python benches/peers/other_encoders.py target/release/dcformer --train

The same weights on the same volume; a peer whose features differ from ours by more than 1e-3 of the largest value stops the
run; that a training step's gradients are equal, the golden tests hold. Then all take turns, as in `encoders.py`. The table
in BENCHMARKS.md is rewritten in place; `--only` chooses networks, as `convnext` or `convnext:nano`, and the rows of the
others stay as they were, with the commit that they were measured at.
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
ENCODERS = [
    *(("convnext", size) for size in ("nano", "naive", "tiny")),
    *(("poolformer", size) for size in ("nano", "naive", "tiny")),
    *(("inceptionnext", size) for size in ("nano", "naive", "tiny")),
    *(("vit", size) for size in ("naive", "tiny")),
    *(("transunet", size) for size in ("naive", "tiny")),
    ("ctvit", "paper"),
]
SECTIONS = {"forward": "other-encoders", "train": "other-encoders-training"}
HEAD = ["| encoder | peer | seconds | of dcformer's | peak MB | commit |", "|---|---|---|---|---|---|"]


def write_weights(network, variant, path):
    import networks_torch

    networks_torch.write_weights(network, variant, path)


def compare_forward(program, network, variant, names, runs, folder):
    """Medians of seconds and megabytes by peer, of a forward pass."""
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


def compare_training(program, network, variant, names, runs, folder):
    """As `compare_forward`, of a training step on one volume: forward, backward, AdamW."""
    volume, shape = folder / "volume.npy", ",".join(map(str, SHAPE))
    random_volume(1, SHAPE, volume)
    options = {"network": network, "variant": variant, "volume": volume}
    peers = {name: Peer("train", name, options) for name in names}
    arguments = ["train-step", "--model-name", network, "--variant", variant, "--shape", shape]
    peers["ours"] = Ours(program, arguments, runs=3)
    return take_turns(peers, runs)


def rows(encoder, peers):
    ours = peers["ours"][0]
    for name, result in peers.items():
        yield table_row(" ".join(encoder), name, result, ours, commit())


def merged(name, found):
    """The rows of all encoders, those that were not measured as they stand in the page's section."""
    for encoder in ENCODERS:
        start = f"| {' '.join(encoder)} |"
        yield from found.get(encoder) or [line for line in section(name) if line.startswith(start)]


def chosen(only):
    """The encoders that `--only` names; an error for a name that is none."""
    encoders = []
    for name in only.split(","):
        named = [encoder for encoder in ENCODERS if name in (encoder[0], ":".join(encoder))]
        if not named:
            raise argparse.ArgumentTypeError(f"there is no {name}, expected {', '.join(map(':'.join, ENCODERS))}")
        encoders += named
    return encoders


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the built program")
    parser.add_argument("--train", action="store_true", help="a training step instead of a forward pass")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="PyTorch eager and channels-last only, and nothing is written")
    parser.add_argument("--only", type=chosen, default=ENCODERS, help="networks, as convnext,vit:naive")
    arguments = parser.parse_args()
    names = ["eager", "channels-last"] if arguments.quick else ["eager", "channels-last", "compile"]
    compare, name = (compare_training, SECTIONS["train"]) if arguments.train else (compare_forward, SECTIONS["forward"])
    program, found = str(Path(arguments.program).resolve()), {}
    note = f"Medians of {arguments.runs} alternating runs. {machine()}"
    for encoder in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            peers = compare(program, *encoder, names, arguments.runs, Path(folder))
        found[encoder] = list(rows(encoder, peers))
        print("\n".join(found[encoder]), file=sys.stderr, flush=True)
        if not arguments.quick:
            replace_section(name, [*HEAD, *merged(name, found), "", note])


if __name__ == "__main__":
    main()
