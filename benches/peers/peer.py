"""One peer, in a process of its own: makes its model ready, then runs once for every line that it reads.

Started by `encoders.py` and `other_encoders.py`. Prints one JSON line for each run: {"seconds", "peak_mb"}; the first line that it prints, before
any run, says that it is ready. With `--out`, the output of the first run is kept for comparison.
"""

import argparse
import json
import resource
import sys
import time

import numpy

THREADS = 2


def torch_model(arguments, train=False):
    import torch

    import dcformer_torch
    import networks_torch

    torch.set_num_threads(THREADS)
    if arguments.network == "dcformer":
        model = dcformer_torch.encoder(arguments.variant)
    else:
        model = networks_torch.encoder(arguments.network, arguments.variant)
    return model.train() if train else model.eval()


def torch_forward(arguments, volume):
    import torch

    model, x = torch_model(arguments), torch.from_numpy(volume)
    if arguments.peer != "eager":
        model, x = (value.to(memory_format=torch.channels_last_3d) for value in (model, x))
    if arguments.peer == "compile":
        model = torch.compile(model)

    def run():
        with torch.no_grad():
            return model(x).numpy()

    return run


def torch_train_step(arguments, volume):
    import torch

    model, x = torch_model(arguments, train=True), torch.from_numpy(volume)
    if arguments.peer != "eager":
        model, x = (value.to(memory_format=torch.channels_last_3d) for value in (model, x))
    forward = torch.compile(model) if arguments.peer == "compile" else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.05)

    def run():
        optimizer.zero_grad()
        forward(x).pow(2).mean().backward()
        optimizer.step()

    return run


def onnxruntime_forward(arguments, volume):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(arguments.onnx, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"volume": volume})[0]


def openvino_forward(arguments, volume):
    import openvino

    settings = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(arguments.onnx, "CPU", settings)
    request = compiled.create_infer_request()
    return lambda: request.infer([volume], share_inputs=True)[0]


def transformers_text(arguments, volume):
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    torch.set_num_threads(THREADS)
    tokenizer = BertTokenizer(arguments.vocab)
    model = BertModel(BertConfig.from_pretrained(arguments.text)).eval()
    model.load_state_dict(torch.load(f"{arguments.text}/text.pt"), strict=False)
    prompts = json.loads(open(f"{arguments.text}/prompts.json").read())

    def run():
        tokens = tokenizer(prompts, padding="max_length", truncation=True, max_length=512, return_tensors="pt")
        with torch.no_grad():
            return model(**tokens).last_hidden_state[:, 0].numpy()

    return run


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["forward", "train", "text"])
    parser.add_argument("peer", choices=["eager", "channels-last", "compile", "onnxruntime", "openvino", "transformers"])
    parser.add_argument("--network", default="dcformer")
    parser.add_argument("--variant", default="nano")
    parser.add_argument("--volume", help=".npy")
    parser.add_argument("--onnx")
    parser.add_argument("--text", help="folder of the text encoder")
    parser.add_argument("--vocab")
    parser.add_argument("--out", help=".npy")
    arguments = parser.parse_args()
    volume = numpy.load(arguments.volume) if arguments.volume else None
    make = {
        "onnxruntime": onnxruntime_forward,
        "openvino": openvino_forward,
        "transformers": transformers_text,
    }.get(arguments.peer, torch_train_step if arguments.task == "train" else torch_forward)
    run = make(arguments, volume)
    output = run()
    if arguments.out:
        numpy.save(arguments.out, output)
    del output
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        run()
        seconds = time.perf_counter() - started
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak_mb": peak_mb}), flush=True)


if __name__ == "__main__":
    main()
