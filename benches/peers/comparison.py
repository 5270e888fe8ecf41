"""What the comparisons with other programs share: peers in processes of their own that take turns, a check that they compute
the same, and tables and charts of the medians.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import numpy

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEERS = {
    "eager": "PyTorch eager",
    "channels-last": "PyTorch channels-last",
    "compile": "PyTorch compiled",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "transformers": "transformers, padded to 512",
    "ours": "dcformer",
}
TOLERANCE = 1e-3


class Peer:
    """A process that runs once for every line."""

    def __init__(self, task, name, options):
        command = [sys.executable, str(HERE / "peer.py"), task, name]
        for key, value in options.items():
            command += [f"--{key}", str(value)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.line() != "ready":
            sys.exit(f"{name} did not start")

    def line(self):
        return self.process.stdout.readline().strip()

    def run(self):
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        result = json.loads(self.line())
        return result["seconds"], result["peak_mb"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Ours:
    """Our program, started for every turn; the median of its timed runs, after one that warms up."""

    def __init__(self, program, arguments, threads=2, runs=1):
        self.command = [program, "bench", *arguments, "--threads", str(threads), "--runs", str(runs), "--json"]

    def figures(self):
        return json.loads(subprocess.run(self.command, check=True, capture_output=True, text=True).stdout)

    def run(self):
        figures = self.figures()
        return figures["median_s"], figures["peak_rss_mb"]

    def close(self):
        pass


def take_turns(peers, runs):
    """Medians of seconds and megabytes by peer."""
    results = {name: [] for name in peers}
    for _ in range(runs):
        for name, peer in peers.items():
            results[name].append(peer.run())
    for peer in peers.values():
        peer.close()
    return {name: tuple(map(statistics.median, zip(*runs))) for name, runs in results.items()}


def check(name, found, expected):
    difference = abs(found - expected).max() / abs(expected).max()
    print(f"{name}: largest difference {difference:.1e} of the largest value", file=sys.stderr, flush=True)
    if not difference < TOLERANCE:
        sys.exit(f"{name} computes something else")


def random_volume(batch, shape, path):
    volume = numpy.random.default_rng(0).uniform(-1, 1, (batch, 1, *shape)).astype("float32")
    numpy.save(path, volume)
    return volume


def our_features(program, weights, volume, folder, network):
    """Imports weights into a model folder; that and the features which our program finds in a volume with it."""
    from safetensors.numpy import load_file, save_file

    model, scan, features = folder / f"{weights.stem}-model", folder / "input.safetensors", folder / "features.safetensors"
    save_file({"input": volume}, scan)
    subprocess.run([program, "import", weights, "--out", model, *network], check=True, capture_output=True)
    embed = [program, "embed", "--model", model, scan, "--out", features, "--features"]
    subprocess.run(embed, check=True, capture_output=True)
    return model, load_file(features)["features"]


def in_another_process(function, *arguments):
    """Runs `function` so that its libraries and their threads end with it."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def table(results):
    lines = ["| work | peer | seconds | of dcformer's | peak MB |", "|---|---|---|---|---|"]
    for work, peers in results.items():
        ours = peers["ours"][0]
        lines += [table_row(work, name, result, ours) for name, result in peers.items()]
    return lines


def table_row(work, name, result, ours, *more):
    """A row of a peer's or our seconds and megabytes; `ours` are our seconds."""
    seconds, peak = result
    factor, bold = ("", "**") if name == "ours" else (f"{seconds / ours:.1f} x", "")
    cells = [work, f"{bold}{PEERS[name]}{bold}", f"{seconds:.3f}", factor, f"{peak:.0f}", *more]
    return f"| {' | '.join(cells)} |"


def svg_pyplot():
    """matplotlib, so that the same numbers give the same file."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "dcformer"
    from matplotlib import pyplot

    return pyplot


def chart(results, path):
    pyplot = svg_pyplot()
    colours = dict(zip(PEERS, ["#b9bec4", "#9aa1a9", "#7c858f", "#d9a441", "#4d8fac", "#7c858f", "#b3263a"]))
    figure, axes = pyplot.subplots(1, len(results), figsize=(2.1 * len(results), 3.2), constrained_layout=True)
    for axis, (work, peers) in zip(numpy.atleast_1d(axes), results.items()):
        names = list(peers)
        seconds = [peers[name][0] for name in names]
        bars = axis.bar(range(len(names)), seconds, color=[colours[name] for name in names])
        axis.bar_label(bars, [f"{value:.2f}" for value in seconds], fontsize=7)
        axis.set_title(work.replace(", ", "\n"), fontsize=8)
        axis.set_xticks(range(len(names)), [PEERS[name].replace("PyTorch ", "") for name in names], rotation=60, ha="right", fontsize=7)
        axis.tick_params(axis="y", labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    numpy.atleast_1d(axes)[0].set_ylabel("seconds", fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def commit():
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def machine():
    model = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.release()}"
    return f"{model}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, {system}; commit {commit()}; 2 threads."


def parts_of_page(name):
    """BENCHMARKS.md before, in and after what stands between `<!-- name -->` and `<!-- /name -->`."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, rest = (ROOT / "BENCHMARKS.md").read_text().split(start)
    inside, after = rest.split(end)
    return before + start, inside, end + after


def section(name):
    """The lines of a section."""
    return parts_of_page(name)[1].splitlines()


def replace_section(name, lines):
    before, _, after = parts_of_page(name)
    (ROOT / "BENCHMARKS.md").write_text(before + "\n".join(lines) + "\n" + after)
