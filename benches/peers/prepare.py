"""A scan to a cached volume by nibabel and PyTorch, as a script in a lab does it, against ours, on one core.

    pip install -r benches/peers/requirements.txt
    cargo build --release -p dcformer-volume --examples
    python benches/peers/prepare.py target/release/examples

Makes a 512 x 512 x 380 int16 .nii.gz of a scan in golden/ct, or takes the one that is named; checks that zarr-python reads
from the cache exactly what our preprocessing gives, in half precision, and that the peer's values are the same to its
rounding; then runs all in turn, each on one core in a process of its own, and prints medians as a table. None counts the
start of its program. The peer runs twice: once it writes what we write, by zarr-python with the same codecs, and hashes
the scan; once it keeps float16 as numpy writes it, without compression and hash, the fastest it can do.
"""

import argparse
import hashlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import preprocess

CORE = 0


def write_zarr(out, volume, scan):
    import zarr
    from zarr.codecs import BloscCodec

    blosc = BloscCodec(cname="zstd", clevel=2, shuffle="shuffle", typesize=2)
    array = zarr.create_array(
        out, shape=volume.shape, shards=volume.shape, chunks=(8, *volume.shape[1:]), dtype="float16", compressors=blosc
    )
    array[:] = volume
    with open(scan, "rb") as file:
        array.attrs["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()


def load_zarr(out):
    import zarr

    return zarr.open_array(out, mode="r")[:]


def peer(scan, out):
    """Prints seconds to prepare a scan, the median to load the result, and its bytes."""
    import torch
    import zarr

    torch.set_num_threads(1)
    zarr.config.set({"threading.max_workers": 1})
    as_zarr = out.endswith(".zarr")
    start = time.perf_counter()
    volume = preprocess.reference(scan)[0].astype(numpy.float16)
    if as_zarr:
        write_zarr(out, volume, scan)
    else:
        numpy.save(out, volume)
    prepared_s = time.perf_counter() - start
    loads_s = []
    for _ in range(5):
        start = time.perf_counter()
        load_zarr(out) if as_zarr else numpy.load(out)
        loads_s.append(time.perf_counter() - start)
    files = [Path(out)] if Path(out).is_file() else [path for path in Path(out).rglob("*") if path.is_file()]
    print(prepared_s, statistics.median(loads_s), sum(path.stat().st_size for path in files))


def check(scan, examples, folder):
    import zarr

    cache, values = folder / "checked", folder / "ours.f32"
    subprocess.run([examples / "cache", cache, scan], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([examples / "preprocess", scan, values], check=True, stdout=subprocess.DEVNULL)
    stored = zarr.open_group(cache, mode="r")["volumes/scan_0.zarr"]
    read = stored[:]
    assert read.dtype == numpy.float16, read.dtype
    assert numpy.array_equal(read, numpy.fromfile(values, "<f4").astype(numpy.float16).reshape(read.shape))
    difference = numpy.abs(read.astype(numpy.float32) - preprocess.reference(scan)[0]).max()
    # Half the distance of two half floats below 1, and the goldens' tolerance of float32.
    assert difference < 2**-12 + 2e-5, f"results differ by {difference}"
    print(f"zarr-python reads what was prepared; the peer's values are within {difference:.1e}", file=sys.stderr)


def on_one_core(command):
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    pin = lambda: os.sched_setaffinity(0, {CORE})
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment, preexec_fn=pin).stdout


def run_peer(scan, out):
    shutil.rmtree(out, ignore_errors=True)
    output = on_one_core([sys.executable, __file__, "--peer", scan, out])
    prepared_s, load_s, size = output.split()
    return float(prepared_s), float(load_s), int(size)


def run_ours(scan, examples, folder):
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    output = on_one_core([examples / "cache", cache, scan])
    prepared_s = re.search(r"prepared 1 in ([\d.]+) s", output)
    size, load_s = re.search(r"(\d+) bytes, loaded in ([\d.]+) s", output).groups()
    return float(prepared_s[1]), float(load_s), int(size)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("examples", nargs="?", type=Path, help="folder of the built examples")
    parser.add_argument("--scan", help="a scan of your own, .nii.gz, instead of the one that is made")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peer", nargs=2, metavar=("SCAN", "OUT"), help="only the peer (what the timed process does)")
    arguments = parser.parse_args()
    if arguments.peer:
        peer(*arguments.peer)
        return
    if not arguments.examples:
        parser.error("name the folder of the built examples")
    examples = arguments.examples.resolve()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        scan = arguments.scan or str(folder / "chest.nii.gz")
        if not arguments.scan:
            preprocess.in_another_process(preprocess.make_scan, scan)
        preprocess.in_another_process(check, scan, examples, folder)
        programs = {
            "nibabel + PyTorch + zarr-python": lambda: run_peer(scan, folder / "peer.zarr"),
            "nibabel + PyTorch, `.npy`": lambda: run_peer(scan, folder / "peer.npy"),
            "dcformer prepare": lambda: run_ours(scan, examples, folder),
        }
        results = {name: [] for name in programs}
        for _ in range(arguments.runs):
            for name, run in programs.items():
                results[name].append(run())
    print(f"| a scan to a cached (256,512,512), one core, median of {arguments.runs} | prepare, s | load, s | MB |")
    print("|---|---|---|---|")
    for name, runs in results.items():
        prepared_s, load_s, size = (statistics.median(column) for column in zip(*runs))
        print(f"| {name} | {prepared_s:.2f} | {load_s:.3f} | {size / 1e6:.1f} |")


if __name__ == "__main__":
    main()
