"""dcformer's image encoders, training step and prompts against PyTorch, ONNX Runtime, OpenVINO and transformers.

    pip install -r benches/peers/requirements.txt
    cargo build --release
    python benches/peers/encoders.py target/release/dcformer

Every peer computes with the same weights on the same volume, and its result is compared with ours first; the run stops if
one differs by more than 1e-3 of the largest value. Then all take turns, each in a process of its own that stays warm
(ours starts anew for every turn, and warms up). The table and the chart of BENCHMARKS.md are rewritten in place.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
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
FULL = (256, 512, 512)


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
    """Our program, started for every turn; one timed run after one that warms up."""

    def __init__(self, program, arguments):
        self.command = [program, "bench", *arguments, "--threads", "2", "--runs", "1", "--json"]

    def run(self):
        result = json.loads(subprocess.run(self.command, check=True, capture_output=True, text=True).stdout)
        return result["median_s"], result["peak_rss_mb"]

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


def write_model(variant, folder):
    """The peers' weights as a file in official names, and as ONNX for volumes of the full size."""
    import torch
    from safetensors.torch import save_file

    sys.path.insert(0, str(HERE))
    import dcformer_torch

    model = dcformer_torch.encoder(variant).eval()
    weights = {name: value.contiguous() for name, value in model.state_dict().items() if "num_batches" not in name}
    save_file(weights, folder / f"{variant}.safetensors")
    onnx = folder / f"{variant}.onnx"
    example = torch.zeros(1, 1, *FULL)
    torch.onnx.export(model, (example,), str(onnx), input_names=["volume"], dynamo=False)
    return folder / f"{variant}.safetensors", onnx


def forward(program, variant, names, runs, folder):
    volume = folder / "volume.npy"
    values = random_volume(1, FULL, volume)
    weights, onnx = in_another_process(write_model, variant, folder)
    model, features = folder / f"{variant}-model", folder / "features.safetensors"
    subprocess.run([program, "import", weights, "--out", model, "--variant", variant], check=True, capture_output=True)
    from safetensors.numpy import load_file, save_file

    save_file({"input": values}, folder / "input.safetensors")
    del values
    embed = [program, "embed", "--model", model, folder / "input.safetensors", "--out", features, "--features"]
    subprocess.run(embed, check=True, capture_output=True)
    expected = load_file(features)["features"]
    peers = {}
    for name in names:
        out = folder / f"{name}.npy"
        peers[name] = Peer("forward", name, {"variant": variant, "volume": volume, "onnx": onnx, "out": out})
        check(f"{variant}, {PEERS[name]}", numpy.load(out), expected)
    shape = ",".join(map(str, FULL))
    peers["ours"] = Ours(program, ["encoder", "--model", str(model), "--shape", shape])
    return take_turns(peers, runs)


def train_step(program, variant, batch, shape, names, runs, folder):
    volume = folder / "batch.npy"
    random_volume(batch, shape, volume)
    peers = {name: Peer("train", name, {"variant": variant, "volume": volume}) for name in names}
    sizes = ["--shape", ",".join(map(str, shape)), "--batch", str(batch)]
    peers["ours"] = Ours(program, ["train-step", "--variant", variant, *sizes])
    return take_turns(peers, runs)


def write_text_model(folder):
    """A BERT of the base size with random weights, in a checkpoint as the authors write it."""
    import torch
    from transformers import BertConfig, BertModel

    sys.path.insert(0, str(HERE))
    import dcformer_torch

    torch.manual_seed(0)
    config = BertConfig(vocab_size=30522)
    text = BertModel(config).eval()
    config.save_pretrained(folder)
    torch.save(text.state_dict(), folder / "text.pt")
    encoder = dcformer_torch.encoder("nano").state_dict()
    model = {f"visual_transformer.encoder.{name}": value for name, value in encoder.items()}
    model |= {f"text_transformer.{name}": value for name, value in text.state_dict().items()}
    for name, width in (("visual", 256), ("text", 768)):
        model[f"to_{name}_latent.weight"] = torch.randn(512, width) / width**0.5
    torch.save({"model": model}, folder / "official.pth")
    torch.save(model["to_text_latent.weight"], folder / "projection.pt")
    torch.save(model["to_visual_latent.weight"], folder / "visual.pt")


def write_vocabulary(path):
    """A vocabulary of BERT's size that has every word of the prompts."""
    words = (ROOT / "golden/vocab.txt").read_text().split("\n")[:-1]
    path.write_text("\n".join(words + [f"[unused{index}]" for index in range(30522 - len(words))]) + "\n")


def text(program, runs, folder):
    vocabulary, model = folder / "vocab.txt", folder / "text-model"
    write_vocabulary(vocabulary)
    in_another_process(write_text_model, folder)
    command = [program, "import", folder / "official.pth", "--vocab", vocabulary, "--text-config", folder / "config.json"]
    subprocess.run([*command, "--out", model, "--variant", "nano"], check=True, capture_output=True)
    config = json.loads((model / "config.json").read_text())
    prompts = config["prompts"]
    templates = [(t["present"], t["absent"]) if isinstance(t, dict) else t for t in prompts["templates"]][0]
    sentences = [template.replace("{}", name) for template in templates for name in prompts["abnormalities"]]
    (folder / "prompts.json").write_text(json.dumps(sentences))
    out = folder / "cls.npy"
    peer = Peer("text", "transformers", {"text": folder, "vocab": vocabulary, "out": out})
    in_another_process(check_text, program, folder, model, out)
    return take_turns({"transformers": peer, "ours": Ours(program, ["prompts", "--model", str(model)])}, runs)


def check_text(program, folder, model, cls):
    """Probabilities of a volume from both towers: what a difference in the text would change."""
    import torch
    from safetensors.numpy import load_file, save_file

    volume = numpy.random.default_rng(1).uniform(-1, 1, (1, 1, 64, 128, 128)).astype("float32")
    save_file({"input": volume}, folder / "small.safetensors")
    small, out = folder / "small.safetensors", folder / "latents.safetensors"
    subprocess.run([program, "embed", "--model", model, small, "--out", out], check=True, capture_output=True)
    image = torch.from_numpy(load_file(out)["image_latents"])
    texts = torch.from_numpy(numpy.load(cls)) @ torch.load(folder / "projection.pt").T
    logits = numpy.e * (torch.nn.functional.normalize(texts, dim=-1) @ image[0]).reshape(2, -1)
    expected = torch.softmax(logits, 0)[0].numpy()
    found = subprocess.run([program, "detect", "--model", model, small, "--json"], check=True, capture_output=True, text=True)
    findings = {f["name"]: f["probability"] for f in json.loads(found.stdout)[0]["findings"]}
    names = json.loads((model / "config.json").read_text())["prompts"]["abnormalities"]
    check("prompts, transformers", numpy.array([findings[name] for name in names]), expected)


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
        for name, (seconds, peak) in peers.items():
            factor = "" if name == "ours" else f"{seconds / ours:.1f} x"
            bold = "**" if name == "ours" else ""
            lines.append(f"| {work} | {bold}{PEERS[name]}{bold} | {seconds:.3f} | {factor} | {peak:.0f} |")
    return lines


def chart(results, path):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "dcformer"
    from matplotlib import pyplot

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


def machine():
    model = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()} {platform.release()}; commit {commit}; 2 threads."


def replace_section(name, lines):
    """Rewrites what stands between `<!-- name -->` and `<!-- /name -->` in BENCHMARKS.md."""
    path = ROOT / "BENCHMARKS.md"
    page = path.read_text()
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, rest = page.split(start)
    _, after = rest.split(end)
    path.write_text(before + start + "\n".join(lines) + "\n" + end + after)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the built program")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--variants", default="nano,naive,tiny,small")
    parser.add_argument("--quick", action="store_true", help="OpenVINO and PyTorch eager only, and nothing is written")
    parser.add_argument("--skip", default="", help="of forward, train, text")
    arguments = parser.parse_args()
    program = str(Path(arguments.program).resolve())
    skipped = arguments.skip.split(",")
    all_peers = ["eager", "openvino"] if arguments.quick else ["eager", "channels-last", "compile", "onnxruntime", "openvino"]
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for variant in arguments.variants.split(",") if "forward" not in skipped else []:
            # Compiled, the larger networks are no faster than channels-last and take minutes to compile.
            names = [name for name in all_peers if name != "compile" or variant == "nano"]
            results[f"{variant}, forward, 512x512x256"] = forward(program, variant, names, arguments.runs, folder)
            print("\n".join(table(results)[-len(names) - 1 :]), file=sys.stderr, flush=True)
        if "train" not in skipped:
            names = ["eager", "channels-last", "compile"]
            work = train_step(program, "nano", 2, (128, 256, 256), names, arguments.runs, folder)
            results["nano, training step, 2 x 256x256x128"] = work
            names = ["channels-last"] if arguments.quick else ["eager", "channels-last"]
            work = train_step(program, "nano", 1, FULL, names, arguments.runs, folder)
            results["nano, training step, 512x512x256"] = work
        if "text" not in skipped:
            results["BERT base, 36 prompts"] = text(program, arguments.runs, folder)
    lines = table(results)
    print("\n".join(lines))
    if not arguments.quick:
        picture = "docs/benchmarks.svg"
        chart(results, ROOT / picture)
        chosen = " ".join(sys.argv[2:])
        note = f"Medians of {arguments.runs} alternating runs{f' of `{chosen}`' if chosen else ''}. {machine()}"
        replace_section("encoders", [*lines, "", note, "", f"![The same as a chart]({picture})"])


if __name__ == "__main__":
    main()
