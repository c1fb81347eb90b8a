"""A folder of transformers in PyTorch's eager mode, its layers quantized in place by a peer as they are loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from generation.greedy import Answer, Logits, Prompt, decode
from transformers import AutoModelForCausalLM, DynamicCache


def quantize_by_torchao(model: Any) -> None:
    """INT8 weights by torchao, in its documented way; the table, which the head shares in FP32, stays as it is."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(model, Int8WeightOnlyConfig())


def quantize_by_quanto(model: Any) -> None:
    """INT8 weights by optimum-quanto, in its documented way; likewise without the table."""
    from optimum.quanto import freeze, qint8, quantize

    quantize(model, weights=qint8)
    freeze(model)


QUANTIZERS: Mapping[str, Callable[[Any], None]] = {
    "optimum-quanto": quantize_by_quanto,
    "torchao": quantize_by_torchao,
}


class _Loaded:
    def __init__(self, model: Any) -> None:
        self._model = model
        self._cache: Any = None

    def generate(self, prompt: Prompt, count: int) -> Answer:
        return decode(self._read, lambda token: self._run([token]), prompt, count)

    def score(self, tokens: Prompt) -> Logits:
        with torch.inference_mode():
            logits = self._model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0]
        return _as_array(logits)

    def _read(self, prompt: Prompt) -> Logits:
        self._cache = DynamicCache(config=self._model.config)
        return self._run(prompt)

    def _run(self, tokens: Prompt) -> Logits:
        with torch.inference_mode():
            found = self._model(
                input_ids=torch.tensor([list(tokens)]), past_key_values=self._cache, use_cache=True, logits_to_keep=1
            )
        return _as_array(found.logits[0, -1])


def _as_array(logits: Any) -> Logits:
    array: Logits = logits.float().numpy().astype(np.float32, copy=False)
    return array


def load(spec: Mapping[str, Any]) -> _Loaded:
    """Loads the folder and quantizes."""
    torch.set_num_threads(spec["threads"])
    model = AutoModelForCausalLM.from_pretrained(spec["file"], dtype=torch.float32).eval()
    QUANTIZERS[spec["settings"]["quantizer"]](model)
    return _Loaded(model)
