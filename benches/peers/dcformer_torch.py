"""DCFormer's image encoder in plain PyTorch, with the authors' parameter names; written from its description.

Volumes are (N, 1, D, H, W). The network turns them to (N, 1, H, W, D) first, so the branches `c1`, `c2`, `c3` run along
height, width and depth. `forward` returns channels-last features in dcformer's order, (N, D', H', W', C).
"""

import torch
from torch import nn

VARIANTS = {
    "nano": ((32, 32, 64, 128, 256), (1, 1, 1, 1)),
    "naive": ((32, 64, 128, 256, 512), (2, 2, 2, 2)),
    "tiny": ((64, 96, 192, 384, 768), (2, 3, 3, 2)),
    "small": ((64, 96, 192, 384, 768), (2, 3, 6, 2)),
}
TAPS = (13, 11, 9, 7)


class DecomposedConv(nn.Module):
    """Three 1-D convolutions, each with its batch norm, added."""

    def __init__(self, inputs, outputs, taps, stride=1, groups=1):
        super().__init__()
        for axis, name in enumerate(("c1", "c2", "c3")):
            kernel = [1, 1, 1]
            kernel[axis] = taps
            padding = [length // 2 for length in kernel]
            conv = nn.Conv3d(inputs, outputs, kernel, stride, padding, groups=groups)
            setattr(self, name, nn.Sequential(conv, nn.BatchNorm3d(outputs)))

    def forward(self, x):
        return self.c1(x) + self.c2(x) + self.c3(x)


class Mlp(nn.Module):
    """Two linear layers over channels; the numbers in the names are the authors'."""

    def __init__(self, channels):
        super().__init__()
        self.mlp = nn.ModuleDict({"0": nn.Linear(channels, 4 * channels), "3": nn.Linear(4 * channels, channels)})

    def forward(self, x):
        return self.mlp["3"](nn.functional.gelu(self.mlp["0"](x)))


class Block(nn.Module):
    """One block; the first of a stage pools and widens before."""

    def __init__(self, channels, taps, inputs=None):
        super().__init__()
        self.proj = None if inputs is None else nn.Conv3d(inputs, channels, 1, bias=False)
        self.dwconv = DecomposedConv(channels, channels, taps, groups=channels)
        self.mlp = Mlp(channels)
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x):
        if self.proj is not None:
            x = self.proj(nn.functional.max_pool3d(x, 3, 2, 1))
        mixed = self.dwconv(x).permute(0, 2, 3, 4, 1)
        return x + (self.gamma * self.mlp(mixed)).permute(0, 4, 1, 2, 3)


class Encoder(nn.Module):
    def __init__(self, variant):
        super().__init__()
        channels, blocks = VARIANTS[variant]
        width = channels[0]
        stem = [DecomposedConv(1, width, 7, 4)] + [DecomposedConv(width, width, 3) for _ in range(3)]
        self.s0 = nn.Sequential(nn.Sequential(*stem))
        for stage in range(4):
            inputs, outputs = channels[stage : stage + 2]
            layers = [Block(outputs, TAPS[stage], inputs if block == 0 else None) for block in range(blocks[stage])]
            setattr(self, f"s{stage + 1}", nn.Sequential(*layers))

    def forward(self, volume):
        x = volume.permute(0, 1, 3, 4, 2)
        for stage in (self.s0, self.s1, self.s2, self.s3, self.s4):
            x = stage(x)
        return x.permute(0, 4, 2, 3, 1)


def encoder(variant, seed=0):
    """Random weights whose every part shows in the output: norms with statistics, residual branches at full scale."""
    torch.manual_seed(seed)
    model = Encoder(variant)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model
