"""llama.cpp: the weights as a GGUF file in FP32, then `llama_model_quantize` with the defaults of a type.

Its converter is in no package, so that the file is written here, by the `gguf` package and its table of names. The
vocabulary is left out: tokens go in and logits come out.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from generation.runtimes.llama_cpp import open_library
from recipes.language_job import LanguageJob, read_job
from safetensors import safe_open

TYPES = {"q8_0": 7, "q4_0": 2, "q4_k_m": 15}
"""Way -> its number in the enum `llama_ftype`."""


class _QuantizeParameters(ctypes.Structure):
    """The first fields of `llama_model_quantize_params`."""

    _fields_ = (("n_threads", ctypes.c_int32), ("file_type", ctypes.c_int32))


def write_gguf(model: Path, path: Path) -> None:
    """Writes a folder of transformers as GGUF, as llama.cpp's own converter would.

    Args:
        model: A Llama or a Qwen2.
        path: The file.
    """
    config = json.loads((model / "config.json").read_text())
    kind = config["model_type"]
    writer = gguf.GGUFWriter(path, kind)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(_read_rope_base(config))
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, "np") as weights:
            for name in weights.keys():  # noqa: SIM118 - it is no mapping
                if name == "lm_head.weight" and config.get("tie_word_embeddings"):
                    continue
                values = weights.get_tensor(name)
                if kind == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
                    values = _interleave(values, heads if "q_proj" in name else kv_heads)
                writer.add_tensor(names.get_name(name, (".weight", ".bias")), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _read_rope_base(config: Mapping[str, Any]) -> float:
    parameters = config.get("rope_parameters") or config
    return float(parameters["rope_theta"])


def _interleave(values: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """Returns rows as llama.cpp turns them, neighbours together; transformers turns one half with the other."""
    halves = values.reshape(heads, 2, len(values) // heads // 2, -1)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))


def build(job: LanguageJob) -> None:
    """Writes `model.gguf`."""
    whole = job.out.parent / "fp32.gguf"
    write_gguf(job.model, whole)
    llama = open_library()
    parameters = llama.llama_model_quantize_default_params()
    first = _QuantizeParameters.from_buffer(parameters)
    first.n_threads, first.file_type = job.threads, TYPES[job.recipe]
    code = llama.llama_model_quantize(
        str(whole).encode(), str(job.out / "model.gguf").encode(), ctypes.byref(parameters)
    )
    whole.unlink()
    if code != 0:
        raise SystemExit(f"llama_model_quantize returns {code}")


if __name__ == "__main__":
    build(read_job())
