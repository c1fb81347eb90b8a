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


def write_gguf(folder: Path, path: Path, *, architecture: str = "llama", leave_out: str = "") -> Path:
    """Writes a Llama folder as a GGUF file, as llama.cpp's converter does, and returns it.

    Args:
        folder: That `make_language_folder` wrote.
        path: The file.
        architecture: That the file says it is.
        leave_out: Name of a tensor that is not written.
    """
    import gguf

    from modelwright.exporters.language.safetensors_files import open_weights

    config = json.loads((folder / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    tokens = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    pairs = ["ab", "ba"]
    names = [*sorted(tokens, key=tokens.__getitem__), *pairs]
    names += [f"<{index}>" for index in range(len(names), config["vocab_size"])]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(names)
    writer.add_token_types([1] * len(names))
    writer.add_token_merges([" ".join(pair) for pair in pairs])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    for name, tensor in open_weights(folder).items():
        values = tensor.read()
        if "q_proj" in name or "k_proj" in name:  # llama.cpp turns neighbouring channels, transformers halves
            count = heads if "q_proj" in name else kv_heads
            apart = values.reshape(count, 2, values.shape[0] // count // 2, -1)
            values = apart.swapaxes(1, 2).reshape(values.shape)
        written = _name_in_gguf(name)
        if written != leave_out:
            writer.add_tensor(written, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _name_in_gguf(name: str) -> str:
    for theirs, ours in (
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("model.layers", "blk"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ):
        name = name.replace(theirs, ours)
    return name
