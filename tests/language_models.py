"""Tiny language models with random weights and a tokenizer of bytes, made on the spot: folders of transformers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"rms_norm_eps": 1e-5, "rope_theta": 5000.0, "tie_word_embeddings": True},
    "mistral": {"sliding_window": 9, "head_dim": 16},
    "qwen2": {"tie_word_embeddings": False, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    "qwen3": {"head_dim": 16, "attention_bias": True},
    "gpt2": {"n_inner": 40},
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 9},
    "gemma3_text": {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 9, "sliding_window_pattern": 2},
}
"""Kind -> what its config says beyond the shape that all share. Windows are shorter than prompts are."""
_SHAPE = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_SPECIAL = ("<s>", "</s>", "<pad>")


def make_language_folder(folder: Path, kind: str = "llama", *, dtype: str = "float32", **config: Any) -> Path:
    """Writes a folder of transformers with a model of random weights, and returns it.

    Args:
        folder: To write; made where it is not there.
        kind: Key of `CONFIGS`.
        dtype: Of the weights in the file, such as `bfloat16`.
        **config: What the config says otherwise.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoConfig, AutoModelForCausalLM

        values = _SHAPE | CONFIGS[kind] | {"bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 258} | config
        values["architectures"] = None
        if kind == "gpt2":
            values["n_positions"] = values.pop("max_position_embeddings")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **values), dtype=torch.float32)
            for weight in model.parameters():
                # Larger than initial weights are: attention that looks at all alike would hide faults.
                random = torch.randn_like(weight)
                weight.data = (
                    weight.data + 0.3 * random if weight.dim() == 1 else random * weight.shape[-1] ** -0.5 * 1.5
                )
            model = model.to(getattr(torch, dtype))
            model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """Writes the files of a tokenizer whose tokens are bytes, and three special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*tokens, *_SPECIAL))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_SPECIAL))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = dict(zip(("bos_token", "eos_token", "pad_token"), _SPECIAL, strict=True))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 128, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
