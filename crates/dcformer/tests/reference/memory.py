"""What PyTorch keeps for the backward pass of each image encoder, from the descriptions in encoders.py.

    python crates/dcformer/tests/reference/memory.py golden/activation_memory.json

For each network: bytes of all tensors that autograd saves in a forward pass in training, each storage once, weights left
out, of one volume in single precision. Taken off is what PyTorch saves beyond what the derivatives need, or in another
form: the mean and variance of each norm, the inputs of pooling, and half of max pooling's indices, which it has in 64 bits.
CT-ViT is not here: its description pads and reorders into copies, which autograd saves as well. Needed only to make the
file again (torch).
"""

import json
import sys

import encoders
import torch
from torch import nn

SHAPE = (192, 256, 256)
NUMBER_BYTES = 4


class PoolFormerBlock(encoders.PoolFormerBlock):
    """With a pooling of its own; the description's divides, and division saves its operands."""

    def __init__(self, channels):
        super().__init__(channels)
        self.average = nn.AvgPool3d(3, stride=1, padding=1, count_include_pad=False)

    def pool(self, x):
        return self.average(x)


class Dcformer(nn.Module):
    def __init__(self, channels, blocks, kernels):
        super().__init__()
        self.stem = encoders.DcformerStem(channels[0])
        self.stages = nn.ModuleList(
            encoders.DcformerStage(inputs, outputs, [encoders.DcformerBlock(outputs, taps) for _ in range(count)])
            for inputs, outputs, count, taps in zip(channels, channels[1:], blocks, kernels)
        )

    def forward(self, volume):
        x = self.stem(encoders.to_hwd(volume))
        for stage in self.stages:
            x = stage(x)
        return encoders.to_features(x)


TINY = [64, 96, 192, 384, 768]
NETWORKS = {
    ("dcformer", "nano"): lambda: Dcformer([32, 32, 64, 128, 256], [1] * 4, [13, 11, 9, 7]),
    ("dcformer", "tiny"): lambda: Dcformer(TINY, [2, 3, 3, 2], [13, 11, 9, 7]),
    ("dcformer", "small-paper"): lambda: encoders.DcformerAttention(TINY, [2, 3, 6, 2], [7] * 4, False),
    ("vit", "naive"): lambda: encoders.Vit(256, 4, 8, 64, 4, (32, 32, 32), (16, 16, 8)),
    ("convnext", "nano"): lambda: encoders.PyramidEncoder([40, 80, 160, 320], [2] * 4, encoders.ConvNextBlock),
    ("poolformer", "nano"): lambda: encoders.PyramidEncoder([40, 80, 160, 320], [2] * 4, PoolFormerBlock),
    ("transunet", "naive"): lambda: encoders.TransUNet(48, 6, 4, 512, (16, 16, 8), False),
    ("inceptionnext", "nano"): lambda: encoders.InceptionNext([32, 32, 64, 128, 256], [1] * 4),
}


def beyond_need(module, inputs, output):
    """Bytes that PyTorch saves for a module though no derivative needs them."""
    x = inputs[0]
    if isinstance(module, nn.LayerNorm):
        return NUMBER_BYTES * 2 * x.numel() // x.shape[-1]
    if isinstance(module, nn.BatchNorm3d):
        return NUMBER_BYTES * 2 * x.shape[1]
    if isinstance(module, nn.MaxPool3d):
        return NUMBER_BYTES * (x.numel() + output.numel())
    if isinstance(module, nn.AvgPool3d):
        return NUMBER_BYTES * x.numel()
    return 0


def kept_bytes(network):
    network.train()
    weights = {tensor.untyped_storage().data_ptr() for tensor in [*network.parameters(), *network.buffers()]}
    # Holding the tensors keeps their addresses from being used again.
    saved, beyond = {}, []
    for module in network.modules():
        module.register_forward_hook(lambda *call: beyond.append(beyond_need(*call)))

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(torch.rand(1, 1, *SHAPE))
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values()) - sum(beyond)


def main():
    rows = [
        {"model": model, "variant": variant, "shape": SHAPE, "training_bytes": kept_bytes(build())}
        for (model, variant), build in NETWORKS.items()
    ]
    with open(sys.argv[1], "w") as file:
        json.dump(rows, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
