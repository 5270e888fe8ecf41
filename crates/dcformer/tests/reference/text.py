"""Expected values of text encoders, and of the follow-up project's model, as folders of Hugging Face.

    python crates/dcformer/tests/reference/text.py golden/text

Needed only to make the files again (torch, safetensors, transformers). All weights are random.

- `distilbert/`: a masked language model as transformers saves it, with its tokenizer; cased, as ClinicalBERT is.
- `cxr_bert/`: names and files of microsoft/BiomedVLP-CXR-BERT-specialized: BERT with a projection head, a
  `pytorch_model.bin`, a `vocab.txt`. The trunk is transformers' BERT; the head is described here.
- `dcformer_siglip/`: names and files of MagicXin/DCFormer_SigLIP (Med3DVLM): DCFormer as encoders.py describes it,
  transformers' DistilBERT, projections with bias, scale and bias of SigLIP.
- `expected.json`: the texts and their token ids by transformers' tokenizers.
- `expected.safetensors`: `distilbert.{padded,alone}`, `cxr_bert.{cls,projected}`, features of the texts' first tokens, in one
  padded batch or each text alone; `siglip.{image_latents,text_latents,logits,probabilities}` of the volumes
  torch.rand(2, 1, 64, 128, 192) * 2 - 1 from seed 52.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertModel,
)

from encoders import DcformerBlock, DcformerStage, DcformerStem, official_dcformer, randomize, to_hwd

TEXTS = [
    "Lung nodule is present.",
    "Pleural effusion is not present.",
    "No Emphysema, but a 4-mm Lung nodule; hiatal hernia (small).",
]
ABNORMALITIES = """Medical material, Arterial wall calcification, Cardiomegaly, Pericardial effusion, Coronary artery wall
calcification, Hiatal hernia, Lymphadenopathy, Emphysema, Atelectasis, Lung nodule, Lung opacity, Pulmonary fibrotic sequela,
Pleural effusion, Mosaic attenuation pattern, Peribronchial thickening, Consolidation, Bronchiectasis, Interlobular septal
thickening"""
VOLUME_SEED = 52
VOLUME = (2, 1, 64, 128, 192)
CHANNELS, BLOCKS, KERNELS = [4, 6, 8, 10, 12], [1, 2, 1, 2], [13, 11, 9, 7]
LATENT = 20


def vocabulary(lower_case):
    """Special tokens, words of the texts, and letters for the others."""
    words = ["Lung", "lung", "nodule", "present", "not", "is", "Pleural", "effusion", "mm", "small", "No", "opacity"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    upper = "" if lower_case else "ACEHILMNP"
    pieces = [*letters, *(f"##{letter}" for letter in letters), *upper, *".,;()-"]
    words = sorted({word.lower() for word in words}) if lower_case else words
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *pieces]


@torch.no_grad()
def spread(network):
    """Weights of the size that keeps the variance, shifts and scales away from 0 and 1: where mistakes show."""
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, 1 if "embeddings" in name else parameter.shape[1] ** -0.5)
    randomize(network)


def padded(tokenizer, texts):
    return tokenizer(texts, padding=True, return_tensors="pt")


@torch.no_grad()
def first_tokens(network, tokenizer, texts):
    """Features of `[CLS]`: of one padded batch, and of each text alone, in double precision."""
    network = network.double().eval()

    def features(texts):
        tokens = padded(tokenizer, texts)
        hidden = network(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return hidden.last_hidden_state[:, 0]

    return features(texts), torch.cat([features([text]) for text in texts])


def write_tokens(folder, lower_case):
    path = folder / "vocab.txt"
    path.write_text("".join(f"{token}\n" for token in vocabulary(lower_case)))
    return BertTokenizer(vocab=str(path), do_lower_case=lower_case)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def distilbert(folder):
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(41)
    tokenizer = write_tokens(folder, lower_case=False)
    config = DistilBertConfig(
        vocab_size=len(vocabulary(False)),
        max_position_embeddings=40,
        n_layers=2,
        n_heads=3,
        dim=24,
        hidden_dim=40,
    )
    network = DistilBertForMaskedLM(config)
    spread(network)
    network.save_pretrained(folder)
    # What a hub has: `tokenizer.json` and `tokenizer_config.json`.
    tokenizer.save_pretrained(folder)
    (folder / "vocab.txt").unlink()
    return tokenizer, *first_tokens(network.distilbert, tokenizer, TEXTS)


class ProjectionHead(nn.Module):
    """Linear, GELU, LayerNorm, Linear: the head of CXR-BERT (arXiv 2204.09817, its published configuration)."""

    def __init__(self, width, outputs):
        super().__init__()
        self.dense_to_hidden = nn.Linear(width, outputs)
        self.LayerNorm = nn.LayerNorm(outputs, eps=1e-12)
        self.dense_to_output = nn.Linear(outputs, outputs)

    def forward(self, x):
        return self.dense_to_output(self.LayerNorm(F.gelu(self.dense_to_hidden(x))))


def cxr_bert(folder):
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(42)
    tokenizer = write_tokens(folder, lower_case=True)
    config = BertConfig(
        vocab_size=len(vocabulary(True)),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=40,
        layer_norm_eps=1e-12,
    )
    network = BertForMaskedLM(config)
    network.cls_projection_head = ProjectionHead(24, 14)
    spread(network)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    stated = {key: value for key, value in config.to_dict().items() if value is not None}
    stated.update(model_type="cxr-bert", architectures=["CXRBertModel"], projection_size=14, torch_dtype="float32")
    write_json(folder / "config.json", stated)
    write_json(folder / "tokenizer_config.json", {"do_lower_case": True, "tokenizer_class": "CXRBertTokenizer"})
    _, alone = first_tokens(network.bert, tokenizer, TEXTS)
    with torch.no_grad():
        projected = network.cls_projection_head.double()(alone)
    return tokenizer, alone, projected


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = DcformerStem(CHANNELS[0])
        self.stages = nn.ModuleList(
            DcformerStage(before, width, [DcformerBlock(width, taps) for _ in range(blocks)])
            for before, width, blocks, taps in zip(CHANNELS, CHANNELS[1:], BLOCKS, KERNELS)
        )

    def forward(self, volume):
        x = self.stem(to_hwd(volume))
        for stage in self.stages:
            x = stage(x)
        return x


class DcformerSiglip(nn.Module):
    def __init__(self, language):
        super().__init__()
        self.vision_encoder = Encoder()
        self.language_encoder = DistilBertModel(language)
        self.mm_vision_proj = nn.Linear(CHANNELS[-1], LATENT)
        self.mm_language_proj = nn.Linear(language.dim, LATENT)
        self.t_prime = nn.Parameter(torch.tensor(2.3))
        self.bias = nn.Parameter(torch.tensor(-1.7))

    def image(self, volume):
        features = self.vision_encoder(volume).flatten(2).mean(2)
        return F.normalize(self.mm_vision_proj(features), dim=-1)

    def text(self, tokens):
        hidden = self.language_encoder(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return F.normalize(self.mm_language_proj(hidden.last_hidden_state[:, 0]), dim=-1)

    def logits(self, image, text):
        return image @ text.T * self.t_prime.exp() + self.bias


def official_name(name):
    inner = name.removeprefix("vision_encoder.")
    if inner == name:
        return name
    name = official_dcformer(inner)
    return "vision_encoder.encoder." + (name.removesuffix("gamma") + "scale" if name.endswith(".gamma") else name)


@torch.no_grad()
def dcformer_siglip(folder):
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(43)
    tokenizer = write_tokens(folder, lower_case=False)
    language = DistilBertConfig(
        vocab_size=len(vocabulary(False)), max_position_embeddings=40, n_layers=1, n_heads=1, dim=64, hidden_dim=40
    )
    network = DcformerSiglip(language)
    spread(network.language_encoder)
    randomize(network.vision_encoder)
    state = {official_name(name): value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    depth, height, width = VOLUME[2:]
    stated = {
        "architectures": ["DEC_CLIP"],
        "model_type": "dec_clip",
        "vision_encoder": "dcformer",
        "language_model_name_or_path": "medicalai/ClinicalBERT",
        "input_size": [height, width, depth],
        "hidden_size": LATENT,
        "loss_type": "sigmoid",
        "t_prime": 2.6592600369327783,
        "bias": 0.0,
    }
    write_json(folder / "config.json", stated)
    write_json(folder / "tokenizer_config.json", {"do_lower_case": False, "tokenizer_class": "DistilBertTokenizer"})
    torch.manual_seed(VOLUME_SEED)
    volume = torch.rand(VOLUME) * 2 - 1
    network, volume = network.double().eval(), volume.double()
    image = network.image(volume)
    text = network.text(padded(tokenizer, TEXTS))
    names = [name.strip() for name in ABNORMALITIES.replace("\n", " ").split(",")]
    present, absent = (
        network.logits(image, network.text(padded(tokenizer, [f"{name} {verb} present." for name in names])))
        for verb in ("is", "is not")
    )
    return {
        "image_latents": image,
        "text_latents": text,
        "logits": network.logits(image, text),
        "probabilities": torch.stack([present, absent], -1).softmax(-1)[..., 0],
    }


def main():
    folder = Path(sys.argv[1])
    cased, alone_padded, alone = distilbert(folder / "distilbert")
    lower, cls, projected = cxr_bert(folder / "cxr_bert")
    tensors = {
        "distilbert.padded": alone_padded,
        "distilbert.alone": alone,
        "cxr_bert.cls": cls,
        "cxr_bert.projected": projected,
    }
    tensors |= {f"siglip.{name}": value for name, value in dcformer_siglip(folder / "dcformer_siglip").items()}
    save_file({name: value.float().contiguous() for name, value in tensors.items()}, folder / "expected.safetensors")
    ids = {name: [tokenizer(text)["input_ids"] for text in TEXTS] for name, tokenizer in [("cased", cased), ("lower", lower)]}
    write_json(folder / "expected.json", {"texts": TEXTS, "ids": ids})


if __name__ == "__main__":
    main()
