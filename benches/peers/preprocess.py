"""Preprocessing of a chest CT by nibabel and PyTorch, as the authors' data loader does it, against ours.

    pip install -r benches/peers/requirements.txt
    cargo build --release -p dcformer-volume --example preprocess
    python benches/peers/preprocess.py target/release/examples/preprocess

Makes a 512 x 512 x 380 int16 .nii.gz of a scan in golden/ct, checks that both results agree, then runs both in turn,
each in a process of its own, and prints medians and peak memory as a table.
"""

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy

SOURCE = Path(__file__).parents[2] / "golden/ct/thorax_1.5mm.nii.gz"
SIZE = (512, 512, 380)
SPACING_MM = (0.7, 0.7, 1.0)
TARGET_MM = (0.75, 0.75, 1.5)
SHAPE = (512, 512, 256)
# Standard deviation of a sharp chest reconstruction; noise, more than anatomy, decides how well a file compresses.
NOISE_HU = 20


def enlarge(array, length, axis):
    """Linear interpolation of one axis to `length` voxels, half-pixel centres."""
    old = array.shape[axis]
    position = numpy.clip((numpy.arange(length) + 0.5) * old / length - 0.5, 0, old - 1)
    lower = position.astype(int)
    upper = numpy.minimum(lower + 1, old - 1)
    fraction = (position - lower).astype(numpy.float32).reshape([-1 if a == axis else 1 for a in range(array.ndim)])
    return numpy.take(array, lower, axis) * (1 - fraction) + numpy.take(array, upper, axis) * fraction


def make_scan(path, size=SIZE):
    volume = numpy.asarray(nibabel.load(SOURCE).dataobj).astype(numpy.float32)
    for axis, length in enumerate(size):
        volume = enlarge(volume, length, axis)
    random = numpy.random.default_rng(0)
    stored = numpy.empty(size, numpy.int16, order="F")
    for k in range(size[2]):
        noisy = volume[:, :, k] + random.normal(0, NOISE_HU, size[:2])
        stored[:, :, k] = numpy.clip(numpy.round(noisy), -1024, 3071)
    x, y, z = SPACING_MM
    nibabel.save(nibabel.Nifti1Image(stored, numpy.diag([-x, -y, z, 1.0])), path)


def reference(path):
    """The authors' steps (SPEC section 4): float32 array (1, depth, height, width)."""
    import torch

    image = nibabel.load(path)
    hounsfield = numpy.clip(1.0 * image.get_fdata() + 0.0, -1000, 1000)
    volume = torch.tensor(hounsfield.transpose(2, 0, 1), dtype=torch.float32)[None, None]
    spacing = [float(zoom) for zoom in image.header.get_zooms()[:3]]
    factors = [spacing[axis] / TARGET_MM[axis] for axis in (2, 0, 1)]
    size = [int(length * factor) for length, factor in zip(volume.shape[2:], factors)]
    volume = torch.nn.functional.interpolate(volume, size=size, mode="trilinear", align_corners=False)[0, 0]
    volume = (volume.clamp(-1000, 200) + 400) / 600
    for axis, wanted in enumerate((SHAPE[2], SHAPE[0], SHAPE[1])):
        volume = volume.narrow(axis, max(volume.shape[axis] - wanted, 0) // 2, min(wanted, volume.shape[axis]))
    before = [(wanted - length) // 2 for wanted, length in zip((SHAPE[2], SHAPE[0], SHAPE[1]), volume.shape)]
    after = [wanted - length - start for wanted, length, start in zip((SHAPE[2], SHAPE[0], SHAPE[1]), volume.shape, before)]
    padding = [value for axis in (2, 1, 0) for value in (before[axis], after[axis])]
    return torch.nn.functional.pad(volume, padding, value=-1.0)[None].numpy()


def measure(command):
    """Wall-clock seconds and peak resident mebibytes of a command."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    elapsed_s = time.perf_counter() - start
    if status != 0:
        sys.exit(f"{command} ended with status {status}")
    return elapsed_s, usage.ru_maxrss / 1024


def check(scan, ours):
    out = Path(scan).with_name("ours.f32")
    subprocess.run([ours, scan, out], check=True, stdout=subprocess.DEVNULL)
    difference = numpy.abs(numpy.fromfile(out, "<f4") - reference(scan).ravel()).max()
    out.unlink()
    # Both are float32, rounded in another order; the goldens' tolerance.
    assert difference < 2e-5, f"results differ by {difference}"
    print(f"largest difference {difference:.1e}", file=sys.stderr)


def in_another_process(function, *arguments):
    """Keeps the memory of `function` out of ours: a child starts with its parent's peak, and that is what we measure."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode != 0:
        sys.exit(f"{function.__name__} failed")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ours", nargs="?", help="the built example `preprocess`")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--reference", metavar="SCAN", help="only run the reference on this file (what the timed process does)")
    arguments = parser.parse_args()
    if arguments.reference:
        print(reference(arguments.reference).shape)
        return
    if not arguments.ours:
        parser.error("name the built example")
    with tempfile.TemporaryDirectory() as folder:
        scan = str(Path(folder) / "chest.nii.gz")
        in_another_process(make_scan, scan)
        in_another_process(check, scan, arguments.ours)
        commands = {
            "nibabel + PyTorch": [sys.executable, __file__, "--reference", scan],
            "dcformer-volume": [arguments.ours, scan],
        }
        results = {name: [] for name in commands}
        for _ in range(arguments.runs):
            for name, command in commands.items():
                results[name].append(measure(command))
    print(f"| 512x512x380 .nii.gz to (1,256,512,512), median of {arguments.runs} | seconds | peak MiB |")
    print("|---|---|---|")
    for name, runs in results.items():
        seconds, mebibytes = (statistics.median(column) for column in zip(*runs))
        print(f"| {name} | {seconds:.2f} | {mebibytes:.0f} |")


if __name__ == "__main__":
    main()
