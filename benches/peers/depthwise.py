"""ConvNeXt's depthwise convolution, 7 x 7 x 7, against PyTorch's, on the grids of its stages.

    pip install -r benches/peers/requirements.txt
    cargo bench --workspace --bench operations --no-run      # prints where the program is
    python benches/peers/depthwise.py target/release/deps/operations-...

PyTorch runs `Conv3d` in the layout that tensors have by default and channels-last; it and criterion's program take turns,
half a second each, on two threads. That both compute the same is checked by the golden tests of ConvNeXt, whose values come
from PyTorch's layer. The section of BENCHMARKS.md is rewritten in place.
"""

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

import torch

from comparison import machine, replace_section

THREADS = 2
SECONDS = 0.5
# Depth, height, width and channels of ConvNeXt nano's stages, by the volume's width, height and depth.
STAGES = {
    "512x512x256": [(32, 64, 64, 40), (16, 32, 32, 80), (8, 16, 16, 160), (4, 8, 8, 320)],
    "256x256x128": [(16, 32, 32, 40), (8, 16, 16, 80), (4, 8, 8, 160), (2, 4, 4, 320)],
}
LAYOUTS = {"default": torch.contiguous_format, "channels-last": torch.channels_last_3d}
HEAD = ["volume", "grid and channels", "PyTorch, ms", "channels-last, ms", "dcformer, ms", "times faster", "than channels-last"]


def pytorch(stage, layout):
    """Seconds of one convolution."""
    *grid, channels = stage
    x = torch.randn(1, channels, *grid).to(memory_format=layout)
    convolution = torch.nn.Conv3d(channels, channels, 7, padding=3, groups=channels).to(memory_format=layout)
    with torch.no_grad():
        convolution(x)
        times, started = 0, time.perf_counter()
        while time.perf_counter() - started < SECONDS:
            convolution(x)
            times += 1
        return (time.perf_counter() - started) / times


def ours(program, stage, folder):
    """Criterion's median of the same."""
    *grid, channels = stage
    name = f"{'x'.join(map(str, grid))}, {channels} channels, 7x7x7"
    arguments = ["--bench", "--measurement-time", str(SECONDS), "--warm-up-time", "0.1", f"^depthwise_conv/{name}$"]
    environment = {**os.environ, "RAYON_NUM_THREADS": str(THREADS), "CARGO_TARGET_DIR": str(folder)}
    subprocess.run([program, *arguments], check=True, capture_output=True, env=environment)
    estimates = folder / "criterion" / "depthwise_conv" / name / "new" / "estimates.json"
    return json.loads(estimates.read_text())["median"]["point_estimate"] / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the built benchmark of operations")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    program = Path(arguments.program).resolve()
    # target/release/deps/PROGRAM
    folder = program.parents[2]
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for volume, stages in STAGES.items():
        for stage in stages:
            turns = {name: [] for name in [*LAYOUTS, "ours"]}
            for _ in range(arguments.runs):
                for name, layout in LAYOUTS.items():
                    turns[name].append(pytorch(stage, layout))
                turns["ours"].append(ours(program, stage, folder))
            default, channels_last, mine = (statistics.median(times) * 1e3 for times in turns.values())
            *grid, channels = stage
            cells = [volume, f"{'x'.join(map(str, grid))}, {channels}", f"{default:.2f}", f"{channels_last:.2f}", f"{mine:.2f}"]
            lines.append(f"| {' | '.join(cells)} | {default / mine:.1f} | {channels_last / mine:.1f} |")
            print(lines[-1], flush=True)
    replace_section("depthwise", [*lines, "", f"Medians of {arguments.runs} alternating runs. {machine()}"])


if __name__ == "__main__":
    main()
