"""dcformer's image encoders, training step and prompts against PyTorch, ONNX Runtime, OpenVINO and transformers; and alone,
an encoder by the size of the volume, and a detection from the scan's file.

    pip install -r benches/peers/requirements.txt
    cargo build --release
    python benches/peers/encoders.py target/release/dcformer

Every peer computes with the same weights on the same volume, and its result is compared with ours first; the run stops if
one differs by more than 1e-3 of the largest value. Then all take turns, each in a process of its own that stays warm
(ours starts anew for every turn, and warms up). The tables and charts of BENCHMARKS.md are rewritten in place; `--only` and
`--skip` choose among their sections.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy

from comparison import (
    HERE,
    PEERS,
    ROOT,
    Ours,
    Peer,
    chart,
    check,
    in_another_process,
    machine,
    our_features,
    random_volume,
    replace_section,
    svg_pyplot,
    table,
    take_turns,
)

FULL = (256, 512, 512)
# Depth, height, width; every size a multiple of what the encoder shrinks it by, 64.
SIZES = [
    (64, 64, 64),
    (64, 128, 128),
    (128, 128, 128),
    (128, 256, 256),
    (256, 256, 256),
    (192, 384, 384),
    FULL,
]
# Columns, rows, slices of a chest CT as scanners write it.
SCAN = (512, 512, 300)
SECTIONS = ("forward", "train", "text", "sizes", "detect")
COMPARED = {"forward", "train", "text"}


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
    model, expected = our_features(program, weights, values, folder, ["--variant", variant])
    del values
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


def text_model(program, folder):
    """The folder of a model of nano and a BERT of the base size, made at the first call."""
    vocabulary, model = folder / "vocab.txt", folder / "text-model"
    if not model.exists():
        write_vocabulary(vocabulary)
        in_another_process(write_text_model, folder)
        command = [program, "import", folder / "official.pth", "--vocab", vocabulary, "--text-config", folder / "config.json"]
        subprocess.run([*command, "--out", model, "--variant", "nano"], check=True, capture_output=True)
    return model


def text(program, runs, folder):
    model = text_model(program, folder)
    config = json.loads((model / "config.json").read_text())
    prompts = config["prompts"]
    templates = [(t["present"], t["absent"]) if isinstance(t, dict) else t for t in prompts["templates"]][0]
    sentences = [template.replace("{}", name) for template in templates for name in prompts["abnormalities"]]
    (folder / "prompts.json").write_text(json.dumps(sentences))
    out = folder / "cls.npy"
    peer = Peer("text", "transformers", {"text": folder, "vocab": folder / "vocab.txt", "out": out})
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


def sizes(program, runs):
    """Seconds of nano by volume and number of threads."""
    results = {}
    for shape in SIZES:
        arguments = ["encoder", "--variant", "nano", "--shape", ",".join(map(str, shape))]
        # A small volume takes milliseconds, which one run would not tell.
        turns = take_turns({threads: Ours(program, arguments, threads, runs=5) for threads in (1, 2)}, runs)
        results[shape] = {threads: seconds for threads, (seconds, _) in turns.items()}
        print(shape, results[shape], file=sys.stderr, flush=True)
    return results


def sizes_table(results):
    head = ["volume", "Mvoxel", "1 thread, s", "Mvoxel/s", "2 threads, s", "Mvoxel/s", "1 thread / 2 threads"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for (depth, height, width), seconds in results.items():
        voxels = depth * height * width / 1e6
        cells = [f"{width}x{height}x{depth}", f"{voxels:.2f}"]
        for threads in (1, 2):
            cells += [f"{seconds[threads]:.4f}", f"{voxels / seconds[threads]:.0f}"]
        lines.append(f"| {' | '.join(cells)} | {seconds[1] / seconds[2]:.2f} |")
    return lines


def sizes_chart(results, path):
    pyplot = svg_pyplot()
    figure, axis = pyplot.subplots(figsize=(6.3, 3.8), constrained_layout=True)
    voxels = numpy.array([numpy.prod(shape) for shape in results], dtype=float)
    slowest = numpy.array([seconds[1] for seconds in results.values()])
    proportional = slowest[-1] * voxels / voxels[-1]
    axis.plot(voxels, proportional, "--", color="#9aa1a9", linewidth=1, label="proportional to voxels")
    for threads, colour in ((1, "#4d8fac"), (2, "#b3263a")):
        label = f"{threads} thread{'s' if threads > 1 else ''}"
        seconds = [seconds[threads] for seconds in results.values()]
        axis.plot(voxels, seconds, "o-", color=colour, linewidth=1.5, markersize=4, label=label)
    axis.set(xscale="log", yscale="log")
    axis.set_yticks(ticks := [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3], [f"{tick:g}" for tick in ticks])
    axis.set_ylim(proportional[0] / 1.5, slowest[-1] * 1.5)
    axis.minorticks_off()
    axis.set_xticks(voxels, [f"{w}x{h}x{d}" for d, h, w in results], rotation=35, ha="right", fontsize=8)
    axis.set_xlabel("voxels", fontsize=8)
    axis.set_ylabel("seconds, forward pass of nano", fontsize=8)
    axis.tick_params(axis="y", labelsize=8)
    axis.grid(True, color="#e6e8ea", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def detect(program, runs, folder):
    """Medians of the figures of a detection, by where the prompts come from."""
    sys.path.insert(0, str(HERE))
    import preprocess

    model, scan = text_model(program, folder), folder / "chest.nii.gz"
    in_another_process(preprocess.make_scan, str(scan), SCAN)
    # From here on the model's folder has them.
    subprocess.run([program, "detect", "--model", model, scan], check=True, capture_output=True)
    arguments = ["detect", "--model", str(model), str(scan)]
    peers = {
        "encoded every time": Ours(program, [*arguments, "--encode-prompts"]),
        "kept in the model's folder": Ours(program, arguments),
    }
    results = {name: [] for name in peers}
    for _ in range(runs):
        for name, peer in peers.items():
            figures = peer.figures()
            results[name].append(figures | figures["phases"])
    keys = ["median_s", "load_s", "read_and_preprocess_s", "encode_s", "compare_s", "peak_rss_mb"]
    megabytes = scan.stat().st_size / 1e6
    return megabytes, {name: {key: statistics.median(run[key] for run in found) for key in keys} for name, found in results.items()}


def detect_table(results):
    head = ["prompts", "seconds", "load the model", "read and preprocess", "encode", "compare", "peak MB"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, figures in results.items():
        *seconds, peak = figures.values()
        lines.append(f"| {name} | {' | '.join(f'{value:.3f}' for value in seconds)} | {peak:.0f} |")
    return lines


def compare(program, chosen, arguments, folder):
    """Medians by work and peer."""
    runs, quick = arguments.runs, arguments.quick
    all_peers = ["eager", "openvino"] if quick else ["eager", "channels-last", "compile", "onnxruntime", "openvino"]
    results = {}
    for variant in arguments.variants.split(",") if "forward" in chosen else []:
        # Compiled, the larger networks are no faster than channels-last and take minutes to compile.
        names = [name for name in all_peers if name != "compile" or variant == "nano"]
        results[f"{variant}, forward, 512x512x256"] = forward(program, variant, names, runs, folder)
        print("\n".join(table(results)[-len(names) - 1 :]), file=sys.stderr, flush=True)
    if "train" in chosen:
        names = ["eager", "channels-last", "compile"]
        work = train_step(program, "nano", 2, (128, 256, 256), names, runs, folder)
        results["nano, training step, 2 x 256x256x128"] = work
        names = ["channels-last"] if quick else ["eager", "channels-last"]
        work = train_step(program, "nano", 1, FULL, names, runs, folder)
        results["nano, training step, 512x512x256"] = work
    if "text" in chosen:
        results["BERT base, 36 prompts"] = text(program, runs, folder)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the built program")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--variants", default="nano,naive,tiny,small")
    parser.add_argument("--quick", action="store_true", help="OpenVINO and PyTorch eager only, and nothing is written")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--skip", default="", help="of the same")
    arguments = parser.parse_args()
    program = str(Path(arguments.program).resolve())
    only, skip = (set(names.split(",")) - {""} for names in (arguments.only, arguments.skip))
    if unknown := (only | skip) - set(SECTIONS):
        parser.error(f"there is no section {', '.join(sorted(unknown))}, expected {', '.join(SECTIONS)}")
    chosen = only - skip
    options = " ".join(sys.argv[2:])
    note = f"Medians of {arguments.runs} alternating runs{f' of `{options}`' if options else ''}. {machine()}"

    def publish(section, lines, picture=None, draw=None):
        """Prints a section, and writes it and its picture where they are read."""
        print("\n".join(lines))
        if arguments.quick:
            return
        lines = [*lines, "", note]
        if picture:
            draw(ROOT / picture)
            lines += ["", f"![The same as a chart]({picture})"]
        replace_section(section, lines)

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if chosen & COMPARED:
            results = compare(program, chosen, arguments, folder)
            publish("encoders", table(results), "docs/benchmarks.svg", lambda path: chart(results, path))
        if "sizes" in chosen:
            by_size = sizes(program, arguments.runs)
            publish("sizes", sizes_table(by_size), "docs/scaling.svg", lambda path: sizes_chart(by_size, path))
        if "detect" in chosen:
            megabytes, detections = detect(program, arguments.runs, folder)
            publish("detect", [f"The file has {megabytes:.0f} MB.", "", *detect_table(detections)])


if __name__ == "__main__":
    main()
