"""Tiny models of transformers that read texts, with random weights and a tokenizer of bytes, made on the spot."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from language_models import write_tokenizer

KINDS: dict[str, dict[str, Any]] = {
    "bert": {"type_vocab_size": 2},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "roberta": {"type_vocab_size": 1, "max_position_embeddings": 64 + 259},
    "fnet": {"type_vocab_size": 4},
}
"""Kind -> what its config says beyond the shape that all share."""
_SHAPE = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 258,
}
_MODULES = ("Transformer", "Pooling", "Normalize")
_POOLING = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}


def make_text_folder(
    folder: Path, head: str = "AutoModelForSequenceClassification", kind: str = "bert", **config: Any
) -> Path:
    """Writes a folder of transformers with a model of random weights, and returns it.

    Args:
        folder: To write; made where it is not there.
        head: Class of transformers that makes the model.
        kind: Key of `KINDS`.
        **config: What the config says otherwise.
    """
    import torch
    import transformers

    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        values = _SHAPE | KINDS[kind] | config
        model = getattr(transformers, head).from_config(transformers.AutoConfig.for_model(kind, **values))
        for weight in model.parameters():
            # Larger than initial weights are: attention that looks at all alike would hide faults.
            random = torch.randn_like(weight)
            weight.data = weight.data + 0.3 * random if weight.dim() == 1 else random * weight.shape[-1] ** -0.5 * 1.5
        model.save_pretrained(folder)
    write_tokenizer(folder)
    _add_ends(folder)
    return folder


def add_pooling(folder: Path, *, modules: tuple[str, ...] = _MODULES, **how: Any) -> None:
    """Makes a folder one of sentence-transformers."""
    places = {"Transformer": "", "Pooling": "1_Pooling"}
    listed = [
        {"idx": number, "name": str(number), "path": places.get(name, f"{number}_{name}"), "type": f"s.models.{name}"}
        for number, name in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(how or _POOLING))


def add_dense(folder: Path, weights: dict[str, Any], **how: Any) -> None:
    """Writes the layer `2_Dense` of a folder of sentence-transformers.

    Args:
        folder: That `add_pooling` made one, with a `Dense` at the third place.
        weights: `weight` and what else it has of `bias` and `residual`.
        **how: What its config says otherwise.
    """
    from safetensors.torch import save_file

    place = folder / "2_Dense"
    place.mkdir(exist_ok=True)
    out, width = weights["weight"].shape
    config = {"in_features": width, "out_features": out, "bias": "bias" in weights} | how
    (place / "config.json").write_text(json.dumps(config))
    names = {"weight": "linear.weight", "bias": "linear.bias", "residual": "residual.weight"}
    save_file({names[name]: value for name, value in weights.items()}, place / "model.safetensors")


def change_config(folder: Path, **values: Any) -> None:
    """Changes keys of config.json; None takes one away."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def _add_ends(folder: Path) -> None:
    """Lets the tokenizer put a token at the start and the end of each text, and tell the second of a pair."""
    from tokenizers import Tokenizer, processors

    path = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 256), ("</s>", 257)]
    )
    tokenizer.save(path)


def add_prefix_space(folder: Path) -> None:
    """Lets the tokenizer put a space before each text and word, as it is done where words are given."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["pre_tokenizer"]["add_prefix_space"] = True
    path.write_text(json.dumps(tokenizer))
