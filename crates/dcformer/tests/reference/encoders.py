"""Expected values of the image encoders, from a description of each in plain PyTorch layers.

    python crates/dcformer/tests/reference/encoders.py golden/encoders

Written from the paper's table and the published sources that docs/parity.md names, not from the Rust code: two
descriptions that agree are less likely to share a mistake. Needed only to make the files again (torch, safetensors).

Each file holds, for one tiny network: its weights (`weight.*`, under the names of an export), the features of a random
batch in inference (`inference`) and in training (`training`), and for the loss mean(training * cotangent) the gradients
(`grad.*`; of more than 1024 values every 17th, `grad_sample.*`, and their norm, `grad_norm.*`) and the running statistics
after (`buffer_after.*`). Gradients that are zero by construction, of a bias before a norm for one, are left out. Volume and cotangent are torch.rand * 2 - 1 from the seeds `seed` and `seed` + 1. Features are
(N, D, H, W, C).
"""

import json
import re
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

KEPT_WHOLE = 1024
KEPT_EVERY = 17


def to_hwd(volume):
    """(N, 1, D, H, W) to (N, 1, H, W, D), which all encoders but CT-ViT do first."""
    return volume.permute(0, 1, 3, 4, 2)


def to_features(x):
    """(N, C, H, W, D) to (N, D, H, W, C)."""
    return x.permute(0, 4, 2, 3, 1)


def channels_last(norm, x):
    """A norm over channels of (N, C, ...)."""
    return norm(x.movedim(1, -1)).movedim(-1, 1)


class Mlp(nn.Module):
    def __init__(self, channels, hidden):
        super().__init__()
        self.expand = nn.Linear(channels, hidden)
        self.contract = nn.Linear(hidden, channels)

    def forward(self, x):
        return self.contract(F.gelu(self.expand(x)))


def scale(channels):
    return nn.Parameter(torch.ones(channels))


# --- ConvNeXt and PoolFormer -----------------------------------------------------------------------------------------


class PyramidStem(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.patch = nn.Conv3d(1, channels, 7, stride=4, padding=3)
        self.patch_norm = nn.LayerNorm(channels, eps=1e-6)
        self.halve = nn.Conv3d(channels, channels, 3, stride=2, padding=1)
        self.halve_norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x):
        x = channels_last(self.patch_norm, self.patch(x))
        return channels_last(self.halve_norm, self.halve(x))


class PyramidTransition(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm = nn.LayerNorm(inputs, eps=1e-6)
        self.conv = nn.Conv3d(inputs, outputs, 2, stride=2)

    def forward(self, x):
        x = channels_last(self.norm, x)
        odd = [size % 2 for size in x.shape[2:]]
        return self.conv(F.pad(x, [0, odd[2], 0, odd[1], 0, odd[0]]))


class PyramidStage(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class Pyramid(nn.Module):
    def __init__(self, channels, blocks, block):
        super().__init__()
        self.stem = PyramidStem(channels[0])
        self.stages = nn.ModuleList(
            PyramidStage([block(width) for _ in range(count)]) for width, count in zip(channels, blocks)
        )
        self.transitions = nn.ModuleList(PyramidTransition(*pair) for pair in zip(channels, channels[1:]))
        self.norm = nn.LayerNorm(channels[-1], eps=1e-6)

    def forward(self, x):
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            for block in stage.blocks:
                x = block(x)
            if index < len(self.transitions):
                x = self.transitions[index](x)
        return channels_last(self.norm, x)


class PyramidEncoder(nn.Module):
    def __init__(self, channels, blocks, block):
        super().__init__()
        self.pyramid = Pyramid(channels, blocks, block)

    def forward(self, volume):
        return to_features(self.pyramid(to_hwd(volume)))


class ConvNextBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.mixer = nn.Conv3d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = Mlp(channels, 4 * channels)
        self.scale = scale(channels)

    def forward(self, x):
        tokens = self.norm(self.mixer(x).movedim(1, -1))
        return x + (self.scale * self.mlp(tokens)).movedim(-1, 1)


class PoolFormerBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.pool_norm = nn.LayerNorm(channels, eps=1e-6)
        self.pool_scale = scale(channels)
        self.mlp_norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = Mlp(channels, 4 * channels)
        self.mlp_scale = scale(channels)

    @staticmethod
    def pool(x):
        """AvgPool3d(3, stride=1, padding=1, count_include_pad=False), which refuses grids smaller than its window."""
        around = torch.ones(x.shape[1], 1, 3, 3, 3, dtype=x.dtype)
        add = lambda values: F.conv3d(values, around, padding=1, groups=len(around))
        return add(x) / add(torch.ones_like(x))

    def forward(self, x):
        y = channels_last(self.pool_norm, x)
        x = x + self.pool_scale.view(-1, 1, 1, 1) * (self.pool(y) - y)
        tokens = self.mlp_norm(x.movedim(1, -1))
        return x + (self.mlp_scale * self.mlp(tokens)).movedim(-1, 1)


# --- DCFormer's parts ------------------------------------------------------------------------------------------------


class Branch(nn.Module):
    """A convolution along one axis, and its norm."""

    def __init__(self, inputs, outputs, taps, axis, stride=1, groups=1, norm=True):
        super().__init__()
        kernel, self.padding = [1, 1, 1], [0, 0, 0]
        kernel[axis], self.padding[axis] = taps, taps // 2
        self.stride, self.groups = stride, groups
        conv = nn.Conv3d(inputs, outputs, kernel, groups=groups)
        self.weight, self.bias = conv.weight, conv.bias
        if norm:
            self.norm = nn.BatchNorm3d(outputs)

    def forward(self, x):
        x = F.conv3d(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups)
        return self.norm(x) if hasattr(self, "norm") else x


class Decomposed(nn.Module):
    def __init__(self, inputs, outputs, taps, stride=1, groups=1, norm=True):
        super().__init__()
        branches = [Branch(inputs, outputs, taps, axis, stride, groups, norm) for axis in range(3)]
        self.height, self.width, self.depth = branches

    def forward(self, x):
        return self.height(x) + self.width(x) + self.depth(x)


class DcformerStem(nn.Module):
    def __init__(self, channels):
        super().__init__()
        refinements = [Decomposed(channels, channels, 3) for _ in range(3)]
        self.convs = nn.ModuleList([Decomposed(1, channels, 7, stride=4), *refinements])

    def forward(self, x):
        for conv in self.convs:
            x = conv(x)
        return x


class DcformerStage(nn.Module):
    def __init__(self, inputs, outputs, blocks, name="blocks"):
        super().__init__()
        self.projection = nn.Parameter(nn.Conv3d(inputs, outputs, 1).weight.detach())
        self.pool = nn.MaxPool3d(3, stride=2, padding=1)
        setattr(self, name, nn.ModuleList(blocks))
        self.name = name

    def forward(self, x):
        x = F.conv3d(self.pool(x), self.projection)
        for block in getattr(self, self.name):
            x = block(x)
        return x


class DcformerBlock(nn.Module):
    def __init__(self, channels, taps):
        super().__init__()
        self.mixer = Decomposed(channels, channels, taps, groups=channels)
        self.expand = nn.Linear(channels, 4 * channels)
        self.contract = nn.Linear(4 * channels, channels)
        self.gamma = scale(channels)

    def forward(self, x):
        tokens = self.mixer(x).movedim(1, -1)
        return x + (self.gamma * self.contract(F.gelu(self.expand(tokens)))).movedim(-1, 1)


class Attention(nn.Module):
    def __init__(self, width, heads, head_dim, bias, multiplied=False):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.output = nn.Linear(heads * head_dim, width, bias=bias)
        self.heads, self.factor = heads, head_dim ** (0.5 if multiplied else -0.5)

    def forward(self, x):
        split = lambda part: part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q, k, v = map(split, self.qkv(x).chunk(3, dim=-1))
        weights = (q @ k.transpose(-1, -2) * self.factor).softmax(-1)
        return self.output((weights @ v).transpose(1, 2).flatten(2))


class DcformerAttentionBlock(nn.Module):
    def __init__(self, channels, multiplied):
        super().__init__()
        self.position_1 = Decomposed(channels, channels, 3, groups=channels, norm=False)
        self.norm_1 = nn.LayerNorm(channels)
        self.attention = Attention(channels, 8, channels // 8, bias=False, multiplied=multiplied)
        self.position_2 = Decomposed(channels, channels, 3, groups=channels, norm=False)
        self.norm_2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, 4 * channels)

    def forward(self, x):
        shape = x.shape[2:]
        x = x + self.position_1(x)
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(self.norm_1(tokens))
        x = tokens.transpose(1, 2).unflatten(2, shape)
        x = x + self.position_2(x)
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.mlp(self.norm_2(tokens))
        return tokens.transpose(1, 2).unflatten(2, shape)


class DcformerAttention(nn.Module):
    """DCFormer with attention in its last two stages, `small-paper` at a few channels."""

    def __init__(self, channels, blocks, kernels, multiplied):
        super().__init__()
        self.stem = DcformerStem(channels[0])
        stages = []
        for stage, (inputs, outputs) in enumerate(zip(channels, channels[1:])):
            if stage < 2:
                made = [DcformerBlock(outputs, kernels[stage]) for _ in range(blocks[stage])]
                stages.append(DcformerStage(inputs, outputs, made))
            else:
                made = [DcformerAttentionBlock(outputs, multiplied) for _ in range(blocks[stage])]
                stages.append(DcformerStage(inputs, outputs, made, "attention_blocks"))
        self.stages = nn.ModuleList(stages)

    def forward(self, volume):
        x = self.stem(to_hwd(volume))
        for stage in self.stages:
            x = stage(x)
        return to_features(x)


def official_dcformer(name):
    """The names of the authors' code."""
    axes = {"height": "c1", "width": "c2", "depth": "c3"}
    name = re.sub(r"^stem\.convs\.(\d)", r"s0.0.\1", name)
    name = re.sub(r"^stages\.(\d)\.projection", lambda m: f"s{int(m[1]) + 1}.0.proj.weight", name)
    name = re.sub(r"^stages\.(\d)\.(attention_)?blocks\.(\d)", lambda m: f"s{int(m[1]) + 1}.{m[3]}", name)
    name = re.sub(r"\.(height|width|depth)\.norm\.", lambda m: f".{axes[m[1]]}.1.", name)
    name = re.sub(r"\.(height|width|depth)\.(weight|bias)", lambda m: f".{axes[m[1]]}" + ("" if ".position_" in name else ".0") + f".{m[2]}", name)
    for ours, theirs in [
        ("mixer.", "dwconv."),
        ("position_", "cpe"),
        ("norm_", "norm"),
        ("attention.qkv", "attn.qkv"),
        ("attention.output", "attn.proj"),
        ("mlp.expand", "mlp.mlp.0"),
        ("mlp.contract", "mlp.mlp.3"),
        (".expand", ".mlp.mlp.0"),
        (".contract", ".mlp.mlp.3"),
    ]:
        name = name.replace(ours, theirs)
    return name


# --- InceptionNeXt ---------------------------------------------------------------------------------------------------


class InceptionMixer(nn.Module):
    def __init__(self, branch):
        super().__init__()
        self.branch = branch
        self.cube = nn.Conv3d(branch, branch, 3, padding=1, groups=branch)
        self.height = nn.Conv3d(branch, branch, (11, 1, 1), padding=(5, 0, 0), groups=branch)
        self.width = nn.Conv3d(branch, branch, (1, 11, 1), padding=(0, 5, 0), groups=branch)
        self.depth = nn.Conv3d(branch, branch, (1, 1, 11), padding=(0, 0, 5), groups=branch)

    def forward(self, x):
        g = self.branch
        kept, cube, height, width, depth = x.split([x.shape[1] - 4 * g, g, g, g, g], dim=1)
        parts = [kept, self.cube(cube), self.height(height), self.width(width), self.depth(depth)]
        return torch.cat(parts, dim=1)


class InceptionBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.mixer = InceptionMixer(channels // 8)
        self.norm = nn.BatchNorm3d(channels)
        self.mlp = Mlp(channels, 4 * channels)
        self.scale = scale(channels)

    def forward(self, x):
        tokens = self.norm(self.mixer(x)).movedim(1, -1)
        return x + (self.scale * self.mlp(tokens)).movedim(-1, 1)


class InceptionNext(nn.Module):
    def __init__(self, channels, blocks):
        super().__init__()
        self.stem = DcformerStem(channels[0])
        self.stages = nn.ModuleList(
            DcformerStage(inputs, outputs, [InceptionBlock(outputs) for _ in range(count)])
            for inputs, outputs, count in zip(channels, channels[1:], blocks)
        )

    def forward(self, volume):
        x = self.stem(to_hwd(volume))
        for stage in self.stages:
            x = stage(x)
        return to_features(x)


# --- ViT and TransUNet -----------------------------------------------------------------------------------------------


class Tokens(nn.Module):
    """Class token and positions; positions learnt on the grid (h, w, d)."""

    def __init__(self, width, grid):
        super().__init__()
        self.grid = grid
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 1 + grid[0] * grid[1] * grid[2], width))

    def forward(self, x, grid):
        """(N, h * w * d, width) with a class token in front."""
        table = self.positions[:, 1:].transpose(1, 2).unflatten(2, self.grid)
        table = F.interpolate(table, grid, mode="trilinear", align_corners=False)
        positions = torch.cat([self.positions[:, :1], table.flatten(2).transpose(1, 2)], dim=1)
        return torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1) + positions


class PatchEmbedding(nn.Module):
    def __init__(self, values, width):
        super().__init__()
        self.values_norm = nn.LayerNorm(values)
        self.linear = nn.Linear(values, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        return self.norm(self.linear(self.values_norm(x)))


class VitLayer(nn.Module):
    def __init__(self, width, heads, head_dim, hidden):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, head_dim, bias=True)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Vit(nn.Module):
    def __init__(self, width, layers, heads, head_dim, hidden, patch, positions):
        super().__init__()
        self.patch = patch
        self.patch_embedding = PatchEmbedding(patch[0] * patch[1] * patch[2], width)
        self.tokens = Tokens(width, positions)
        self.layers = nn.ModuleList(VitLayer(width, heads, head_dim, hidden) for _ in range(layers))

    def forward(self, volume):
        x = to_hwd(volume)
        p1, p2, p3 = self.patch
        grid = [size // patch for size, patch in zip(x.shape[2:], self.patch)]
        h, w, d = grid
        # b c (h p1) (w p2) (d p3) -> b (h w d) (p1 p2 p3 c)
        x = x.reshape(len(x), 1, h, p1, w, p2, d, p3).permute(0, 2, 4, 6, 3, 5, 7, 1)
        x = self.tokens(self.patch_embedding(x.reshape(len(x), h * w * d, -1)), grid)
        for layer in self.layers:
            x = layer(x)
        return to_features(x[:, 1:].transpose(1, 2).unflatten(2, grid))


class ConvNorm(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride):
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm3d(outputs)

    def forward(self, x):
        return self.norm(self.conv(x))


class Bottleneck(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.first = ConvNorm(inputs, outputs, 1, 1)
        self.halve = ConvNorm(outputs, outputs, 3, 2)
        self.last = ConvNorm(outputs, outputs, 1, 1)
        self.shortcut = ConvNorm(inputs, outputs, 1, 2)

    def forward(self, x):
        main = self.last(F.relu(self.halve(F.relu(self.first(x)))))
        return F.relu(main + self.shortcut(x))


class TransUNetLayer(nn.Module):
    def __init__(self, width, heads, hidden, multiplied):
        super().__init__()
        self.attention = Attention(width, heads, width // heads, bias=False, multiplied=multiplied)
        self.attention_norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden)
        self.mlp_norm = nn.LayerNorm(width)

    def forward(self, x):
        x = self.attention_norm(x + self.attention(x))
        return self.mlp_norm(x + self.mlp(x))


class TransUNet(nn.Module):
    """Without its dropout: what that drops is not PyTorch's to say."""

    def __init__(self, channels, layers, heads, hidden, positions, multiplied):
        super().__init__()
        self.patch = ConvNorm(1, channels, 7, 4)
        widths = [channels * 2**index for index in range(4)]
        self.bottlenecks = nn.ModuleList(Bottleneck(*pair) for pair in zip(widths, widths[1:]))
        self.projection = nn.Linear(widths[-1], widths[-1])
        self.tokens = Tokens(widths[-1], positions)
        self.layers = nn.ModuleList(TransUNetLayer(widths[-1], heads, hidden, multiplied) for _ in range(layers))

    def forward(self, volume):
        x = F.relu(self.patch(to_hwd(volume)))
        for bottleneck in self.bottlenecks:
            x = bottleneck(x)
        grid = list(x.shape[2:])
        x = self.tokens(self.projection(x.flatten(2).transpose(1, 2)), grid)
        for layer in self.layers:
            x = layer(x)
        return to_features(x[:, 1:].transpose(1, 2).unflatten(2, grid))


# --- CT-ViT ----------------------------------------------------------------------------------------------------------


class GainNorm(nn.Module):
    """LayerNorm whose shift is a buffer of zeros."""

    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))
        self.register_buffer("beta", torch.zeros(width))

    def forward(self, x):
        return F.layer_norm(x, x.shape[-1:], self.gamma, self.beta)


class Peg(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.dsconv = nn.Conv3d(width, width, 3, groups=width)

    def forward(self, x, grid):
        # The quirk: whatever the sequences are, their memory is read as (n, t, h, w).
        y = x.reshape(*grid, -1).movedim(-1, 1)
        y = self.dsconv(F.pad(y, (1, 1, 1, 1, 2, 0)))
        return y.movedim(1, -1).reshape(x.shape)


class CtAttention(nn.Module):
    def __init__(self, width, heads, head_dim):
        super().__init__()
        self.heads = heads
        self.norm, self.context_norm = GainNorm(width), GainNorm(width)
        self.to_q = nn.Linear(width, heads * head_dim, bias=False)
        self.to_kv = nn.Linear(width, 2 * heads * head_dim, bias=False)
        self.to_out = nn.Linear(heads * head_dim, width, bias=False)
        self.q_scale, self.k_scale = scale(head_dim), scale(head_dim)

    def forward(self, x, bias):
        split = lambda part: part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        # The quirk: keys and values come from x as it is, only queries from its norm.
        k, v = map(split, self.to_kv(x).chunk(2, dim=-1))
        q = split(self.to_q(self.norm(x)))
        q, k = F.normalize(q, dim=-1) * self.q_scale, F.normalize(k, dim=-1) * self.k_scale
        logits = q @ k.transpose(-1, -2) * 8
        if bias is not None:
            logits = logits + bias
        return self.to_out((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))


class GeGlu(nn.Module):
    def forward(self, x):
        x, gate = x.chunk(2, dim=-1)
        return F.gelu(gate) * x


def ct_feed_forward(width):
    inner = int(4 * 2 / 3 * width)
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, 2 * inner, bias=False),
        GeGlu(),
        nn.Identity(),
        nn.Linear(inner, width, bias=False),
    )


class CtTransformer(nn.Module):
    def __init__(self, width, layers, heads, head_dim):
        super().__init__()
        layer = lambda: [Peg(width), CtAttention(width, heads, head_dim), nn.Identity(), ct_feed_forward(width)]
        self.layers = nn.ModuleList(nn.ModuleList(layer()) for _ in range(layers))
        self.norm_out = GainNorm(width)

    def forward(self, x, grid, bias=None):
        for peg, attention, _, feed_forward in self.layers:
            x = x + peg(x, grid)
            x = x + attention(x, bias)
            x = x + feed_forward(x)
        return self.norm_out(x)


class PositionBias(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        linear = lambda inputs: nn.Sequential(nn.Linear(inputs, width), nn.LeakyReLU(0.1))
        self.net = nn.ModuleList([linear(2), linear(width), nn.Linear(width, heads)])

    def forward(self, h, w):
        grid = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"), dim=-1).flatten(0, 1)
        x = (grid[:, None] - grid[None, :]).to(self.net[2].weight.dtype)
        x = x.sign() * (x.abs() + 1).log()
        for layer in self.net:
            x = layer(x)
        return x.permute(2, 0, 1)


class CtVit(nn.Module):
    def __init__(self, width, patch, spatial_layers, temporal_layers, heads, head_dim):
        super().__init__()
        self.patch = patch
        values = patch[0] * patch[1] * patch[2]
        self.to_patch_emb = nn.Sequential(
            nn.Identity(), nn.LayerNorm(values), nn.Linear(values, width), nn.LayerNorm(width)
        )
        self.spatial_rel_pos_bias = PositionBias(width, heads)
        self.enc_spatial_transformer = CtTransformer(width, spatial_layers, heads, head_dim)
        self.enc_temporal_transformer = CtTransformer(width, temporal_layers, heads, head_dim)

    def forward(self, volume):
        n = len(volume)
        pt, p1, p2 = self.patch
        t, h, w = [size // patch for size, patch in zip(volume.shape[2:], self.patch)]
        # b c (t pt) (h p1) (w p2) -> b t h w (c pt p1 p2)
        x = volume.reshape(n, 1, t, pt, h, p1, w, p2).permute(0, 2, 4, 6, 1, 3, 5, 7)
        x = self.to_patch_emb(x.reshape(n, t, h, w, -1))
        grid = (n, t, h, w)
        x = self.enc_spatial_transformer(x.reshape(n * t, h * w, -1), grid, self.spatial_rel_pos_bias(h, w))
        x = x.reshape(n, t, h * w, -1).transpose(1, 2).reshape(n * h * w, t, -1)
        x = self.enc_temporal_transformer(x, grid)
        return x.reshape(n, h, w, t, -1).permute(0, 3, 1, 2, 4)


# --- what is kept ----------------------------------------------------------------------------------------------------


def shape3(depth, height, width):
    return {"depth": depth, "height": height, "width": width}


# Network, its options in a configuration, its description, volumes (N, 1, D, H, W), names in a file.
CASES = {
    "convnext": (
        "convnext",
        {"channels": [4, 6, 8, 10], "blocks": [1, 2, 1, 1]},
        lambda: PyramidEncoder([4, 6, 8, 10], [1, 2, 1, 1], ConvNextBlock),
        (2, 1, 32, 64, 128),
        None,
    ),
    "poolformer": (
        "poolformer",
        {"channels": [4, 6, 8, 10], "blocks": [1, 2, 1, 1]},
        lambda: PyramidEncoder([4, 6, 8, 10], [1, 2, 1, 1], PoolFormerBlock),
        (2, 1, 32, 64, 128),
        None,
    ),
    "dcformer_attention": (
        "dcformer",
        {
            "channels": [4, 4, 6, 8, 16],
            "blocks": [1, 1, 2, 1],
            "kernels": [7, 7, 7, 7],
            "mixers": ["convolution", "convolution", "attention", "attention"],
            "attention_scale": "multiplied",
        },
        lambda: DcformerAttention([4, 4, 6, 8, 16], [1, 1, 2, 1], [7, 7, 7, 7], multiplied=True),
        (2, 1, 32, 128, 64),
        official_dcformer,
    ),
    "inceptionnext": (
        "inceptionnext",
        {"channels": [4, 8, 10, 16, 24], "blocks": [1, 2, 1, 1]},
        lambda: InceptionNext([4, 8, 10, 16, 24], [1, 2, 1, 1]),
        (2, 1, 32, 128, 128),
        None,
    ),
    "vit": (
        "vit",
        {
            "width": 12,
            "layers": 2,
            "heads": 2,
            "head_dim": 5,
            "hidden": 4,
            "patch": shape3(2, 8, 4),
            "positions": shape3(2, 3, 2),
        },
        lambda: Vit(12, 2, 2, 5, 4, (8, 4, 2), (3, 2, 2)),
        (2, 1, 6, 16, 16),
        None,
    ),
    "transunet": (
        "transunet",
        {
            "channels": 2,
            "layers": 2,
            "heads": 4,
            "hidden": 12,
            "dropout": 0.0,
            "positions": shape3(2, 3, 2),
            "attention_scale": "multiplied",
        },
        lambda: TransUNet(2, 2, 4, 12, (3, 2, 2), multiplied=True),
        (2, 1, 32, 64, 96),
        None,
    ),
    "ctvit": (
        "ctvit",
        {
            "width": 12,
            "patch": shape3(2, 4, 4),
            "spatial_layers": 1,
            "temporal_layers": 2,
            "heads": 2,
            "head_dim": 5,
        },
        lambda: CtVit(12, (2, 4, 4), 1, 2, 2, 5),
        (2, 1, 6, 16, 8),
        None,
    ),
}


@torch.no_grad()
def randomize(network):
    """Scales, shifts and running statistics away from 1 and 0, where mistakes would not show."""
    for name, parameter in network.named_parameters():
        if parameter.dim() == 1:
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
            else:
                parameter.uniform_(0.5, 1.5)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)


def expected(case, seed):
    network_name, options, build, shape, rename = CASES[case]
    rename = rename or (lambda name: name)
    torch.manual_seed(seed + 2)
    network = build()
    randomize(network)
    tensors = {
        f"weight.{rename(name)}": value.clone()
        for name, value in network.state_dict().items()
        if "num_batches" not in name
    }
    torch.manual_seed(seed)
    volume = torch.rand(shape) * 2 - 1
    tensors["input_start"] = volume.flatten()[:16].clone()

    # In double precision, so that what differs is what is compared.
    network, volume = network.double(), volume.double().requires_grad_()
    with torch.no_grad():
        tensors["inference"] = network.eval()(volume)
    output = network.train()(volume)
    torch.manual_seed(seed + 1)
    cotangent = torch.rand(output.shape) * 2 - 1
    (output * cotangent).mean().backward()
    tensors["training"] = output.detach()
    gradients = {rename(name): parameter.grad for name, parameter in network.named_parameters()}
    gradients["input"] = volume.grad
    for name, gradient in gradients.items():
        # None: an unused parameter. Next to nothing: one that a norm or a softmax takes away again.
        if gradient is None or gradient.abs().max() < 1e-14:
            continue
        if gradient.numel() <= KEPT_WHOLE:
            tensors[f"grad.{name}"] = gradient
        else:
            tensors[f"grad_sample.{name}"] = gradient.flatten()[::KEPT_EVERY]
            tensors[f"grad_norm.{name}"] = gradient.norm()[None]
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            tensors[f"buffer_after.{rename(name)}"] = buffer
    metadata = {
        "network": network_name,
        "options": json.dumps(options),
        "shape": json.dumps(shape),
        "seed": str(seed),
    }
    return {name: value.float().contiguous() for name, value in tensors.items()}, metadata


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for seed, case in enumerate(CASES):
        tensors, metadata = expected(case, 100 + 10 * seed)
        path = folder / f"{case}.safetensors"
        save_file(tensors, path, metadata)
        print(f"{path}: {path.stat().st_size} bytes, features {list(tensors['inference'].shape)}")


if __name__ == "__main__":
    main()
