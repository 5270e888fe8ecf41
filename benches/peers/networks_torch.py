"""The encoders that dcformer is compared with, in PyTorch at the sizes of the paper's table.

The layers are those of the golden tests' description, `crates/dcformer/tests/reference/encoders.py`, whose parameters have
dcformer's names; where PyTorch has an operation of its own for what is spelt out there, that is used. Volumes are (N, 1, D, H, W), features (N, D', H', W', C).
"""

import importlib.util
from pathlib import Path

import torch
from torch.nn import functional as F

DESCRIPTION = Path(__file__).parents[2] / "crates/dcformer/tests/reference/encoders.py"


def description():
    spec = importlib.util.spec_from_file_location("encoder_descriptions", DESCRIPTION)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.Attention.forward = attention
    module.CtAttention.forward = cosine_attention
    module.PoolFormerBlock.pool = staticmethod(average_pool(module.PoolFormerBlock.pool))
    return module


def average_pool(spelt_out):
    """PyTorch's own, and what is spelt out for grids smaller than the window, which it refuses."""

    def pool(x):
        if min(x.shape[2:]) < 3:
            return spelt_out(x)
        return F.avg_pool3d(x, 3, 1, 1, count_include_pad=False)

    return pool


def heads_of(layer, *parts):
    return (part.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for part in parts)


def attention(layer, x):
    q, k, v = heads_of(layer, *layer.qkv(x).chunk(3, dim=-1))
    values = F.scaled_dot_product_attention(q, k, v, scale=layer.factor)
    return layer.output(values.transpose(1, 2).flatten(2))


def cosine_attention(layer, x, bias):
    q, k, v = heads_of(layer, layer.to_q(layer.norm(x)), *layer.to_kv(x).chunk(2, dim=-1))
    q, k = F.normalize(q, dim=-1) * layer.q_scale, F.normalize(k, dim=-1) * layer.k_scale
    mask = None if bias is None else bias.expand(len(x), -1, -1, -1)
    values = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=8)
    return layer.to_out(values.transpose(1, 2).flatten(2))


def builders(layers):
    """Networks by name and variant. Patches and grids of positions of ViT and TransUNet are height, width, depth."""

    def pyramid(channels, blocks, block):
        return lambda: layers.PyramidEncoder(channels, blocks, block)

    def vit(width, depth):
        return lambda: layers.Vit(width, depth, 8, 64, 4, (32, 32, 32), (16, 16, 8))

    def transunet(channels, depth):
        return lambda: layers.TransUNet(channels, depth, 4, 512, (16, 16, 8), multiplied=False)

    def inceptionnext(channels, blocks):
        return lambda: layers.InceptionNext(channels, blocks)

    convnext, poolformer = layers.ConvNextBlock, layers.PoolFormerBlock
    return {
        ("convnext", "nano"): pyramid([40, 80, 160, 320], [2, 2, 2, 2], convnext),
        ("convnext", "naive"): pyramid([80, 160, 320, 640], [2, 2, 6, 2], convnext),
        ("convnext", "tiny"): pyramid([96, 192, 384, 768], [3, 3, 9, 3], convnext),
        ("poolformer", "nano"): pyramid([40, 80, 160, 320], [2, 2, 2, 2], poolformer),
        ("poolformer", "naive"): pyramid([64, 128, 320, 512], [2, 2, 6, 2], poolformer),
        ("poolformer", "tiny"): pyramid([96, 192, 384, 768], [2, 2, 6, 2], poolformer),
        ("inceptionnext", "nano"): inceptionnext([32, 32, 64, 128, 256], [1, 1, 1, 1]),
        ("inceptionnext", "naive"): inceptionnext([32, 64, 128, 256, 512], [2, 2, 2, 2]),
        ("inceptionnext", "tiny"): inceptionnext([64, 96, 192, 384, 768], [2, 3, 3, 2]),
        ("vit", "naive"): vit(256, 4),
        ("vit", "tiny"): vit(512, 8),
        ("transunet", "naive"): transunet(48, 6),
        ("transunet", "tiny"): transunet(64, 8),
        ("ctvit", "paper"): lambda: layers.CtVit(512, (16, 32, 32), 4, 4, 8, 64),
    }


def encoder(network, variant, seed=0):
    """Random weights whose every part shows in the output: scales, shifts and statistics away from 1 and 0."""
    layers = description()
    torch.manual_seed(seed)
    model = builders(layers)[network, variant]()
    layers.randomize(model)
    return model


def write_weights(network, variant, path):
    """The weights of `encoder` as a file that dcformer imports."""
    from safetensors.torch import save_file

    weights = encoder(network, variant).state_dict()
    save_file({name: value.contiguous() for name, value in weights.items() if "num_batches" not in name}, path)
