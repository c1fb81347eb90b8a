"""Generating tokens with transformers' own implementation, eagerly, with its dynamic cache."""

from __future__ import annotations

import inspect
from collections import Counter
from typing import Any

import numpy as np

from modelwright.targets.language.contract import Generator, Logits, Tokens
from modelwright.targets.readiness import package_versions

_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


class TorchGenerator(Generator):
    """A model of transformers.

    Args:
        torch: The package.
        transformers: The package.
        model: Whose weights have the precision that it runs in.
    """

    def __init__(self, torch: Any, transformers: Any, model: Any) -> None:
        self._torch, self._transformers, self._model = torch, transformers, model
        # transformers renames it; the old name warns at every call, before the new one is everywhere.
        names = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"
        self._cache: Any = None
        self._mask: Any = None

    def prefill(self, tokens: Tokens, mask: Tokens | None = None) -> Logits:
        torch = self._torch
        self._cache = self._transformers.DynamicCache(config=self._model.config)
        padded = mask is not None and not mask.all()
        self._mask = torch.from_numpy(np.ascontiguousarray(mask)) if padded else None
        return self._run(torch.from_numpy(np.ascontiguousarray(tokens)))

    def step(self, tokens: Tokens) -> Logits:
        torch = self._torch
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        return self._run(torch.from_numpy(np.ascontiguousarray(tokens))[:, None])

    def score(self, tokens: Tokens) -> Logits:
        self._cache = self._mask = None
        found = self._model(input_ids=self._torch.from_numpy(np.ascontiguousarray(tokens)), use_cache=False)
        return self._as_array(found.logits)

    def cache_bytes(self) -> int | None:
        if self._cache is None:
            return 0
        held = (tensor for layer in self._cache.layers for tensor in (layer.keys, layer.values))
        return sum(int(tensor.nbytes) for tensor in held if tensor is not None)

    def describe_execution(self) -> dict[str, Any]:
        """Returns what the layers are, whose precision PyTorch's eager mode runs them in."""
        torch = self._torch
        kinds: Counter[str] = Counter()
        for module in self._model.modules():
            precision = _read_precision(torch, module)
            if precision is not None:
                kinds[precision] += 1
        return {
            "precision": kinds.most_common(1)[0][0] if kinds else None,
            "compute_layers": dict(kinds),
            "attention": self._model.config._attn_implementation,  # noqa: SLF001 - transformers tells it nowhere else
            "threads": torch.get_num_threads(),
            "quantized_engine": str(torch.backends.quantized.engine) if kinds["int8"] else None,
            "source": f"layers of the model in PyTorch {package_versions('torch')['torch']}",
        }

    def _run(self, tokens: Any) -> Logits:
        positions = None
        if self._mask is not None:
            # Padding takes no position: the first token of every row has position 0.
            positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        found = self._model(
            input_ids=tokens,
            attention_mask=self._mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_name: self._cache},
        )
        return self._as_array(found.logits[:, -1])

    def _as_array(self, logits: Any) -> Logits:
        array: Logits = logits.float().numpy()
        return array


def _read_precision(torch: Any, module: Any) -> str | None:
    """Returns what a layer multiplies in; None for one that does not."""
    if isinstance(module, torch.ao.nn.quantized.dynamic.Linear):
        return "int8"
    if isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D":
        dtype = str(module.weight.dtype).removeprefix("torch.")
        return _PRECISIONS.get(dtype, dtype)
    return None
