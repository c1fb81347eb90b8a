"""Generating tokens with a stateful OpenVINO model on the CPU, and reading back what ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from modelwright.core.records.language import LanguageModel
from modelwright.targets.language.contract import Generator, Logits, Tokens
from modelwright.targets.openvino.language.convert import BEAMS, COUNT
from modelwright.targets.openvino.profile import find_matmuls, read_compute_precisions
from modelwright.targets.readiness import package_versions

_CACHE_BYTES: Mapping[str, float] = {"f32": 4, "bf16": 2, "f16": 2, "u8": 1, "i8": 1}
_SCALE_BYTES = 8
"""A scale and a zero point, both float32, for each head of a token that is kept in 8 bits."""
_INTEGERS = frozenset({"i8", "u8"})
_WORDS = {"f32": "fp32", "f16": "fp16"}
_FUSED_ATTENTION = "ScaledDotProductAttention"


class OpenvinoGenerator(Generator):
    """A compiled stateful model with its inference request.

    Args:
        compiled: The model.
        operators: Name -> type of the operators that it was compiled from.
        record: Of the exported model.
    """

    def __init__(self, compiled: Any, operators: Mapping[str, str], record: LanguageModel) -> None:
        self._compiled, self._operators, self._record = compiled, operators, record
        self._request = compiled.create_infer_request()
        self._has_mask = "attention_mask" in {name for port in compiled.inputs for name in port.get_names()}
        self._mask = np.ones((0, 0), np.int64)
        self._positions = np.zeros((0, 1), np.int64)
        self._beams = np.zeros(0, np.int32)

    def prefill(self, tokens: Tokens, mask: Tokens | None = None) -> Logits:
        self._request.reset_state()
        self._mask = np.ones(tokens.shape, np.int64) if mask is None else np.array(mask, np.int64)
        # Padding takes no position: the first token of every row has position 0.
        positions = np.maximum(self._mask.cumsum(1) - 1, 0)
        self._positions = positions[:, -1:]
        self._beams = np.arange(len(tokens), dtype=np.int32)
        return self._run(tokens, positions, 1)[:, 0]

    def step(self, tokens: Tokens) -> Logits:
        self._mask = np.pad(self._mask, ((0, 0), (0, 1)), constant_values=1)
        self._positions = self._positions + 1
        return self._run(tokens[:, None], self._positions, 1)[:, 0]

    def score(self, tokens: Tokens) -> Logits:
        self._request.reset_state()
        batch, length = tokens.shape
        self._mask = np.ones((batch, length), np.int64)
        self._beams = np.arange(batch, dtype=np.int32)
        logits = self._run(tokens, np.tile(np.arange(length, dtype=np.int64), (batch, 1)), length)
        self._request.reset_state()
        self._mask = np.ones((0, 0), np.int64)
        return logits

    def cache_bytes(self) -> int | None:
        """Returns what the tokens in the cache take in the precisions that the plugin keeps them in."""
        record, tokens = self._record, self._mask.size
        total = 0.0
        for name in ("KEY_CACHE_PRECISION", "VALUE_CACHE_PRECISION"):
            precision = self._read_type(name)
            if precision not in _CACHE_BYTES:
                return None
            each = record.head_dim * _CACHE_BYTES[precision] + (_SCALE_BYTES if precision in _INTEGERS else 0)
            total += tokens * record.layers * record.kv_heads * each
        return int(total)

    def describe_execution(self) -> dict[str, Any]:
        """Returns the execution graph's precisions and types of nodes, and the properties in force."""
        matmuls = find_matmuls(self._operators)
        precisions: Counter[str] = Counter()
        types: Counter[str] = Counter()
        for layer in self._compiled.get_runtime_model().get_ops():
            types[layer.get_rt_info()["layerType"].get()] += 1
            precisions.update(
                "int8" if one in _INTEGERS else _WORDS.get(one, one) for one in read_compute_precisions(layer, matmuls)
            )
        return {
            "precision": precisions.most_common(1)[0][0] if precisions else None,
            "compute_nodes": dict(precisions),
            "operators": {name: count for name, count in types.items() if name not in {"Const", "Input", "Output"}},
            "fused_attention": f"{types[_FUSED_ATTENTION]} of {self._record.layers}",
            "inference_precision_hint": self._read_type("INFERENCE_PRECISION_HINT"),
            "key_cache_precision": self._read_type("KEY_CACHE_PRECISION"),
            "value_cache_precision": self._read_type("VALUE_CACHE_PRECISION"),
            "dynamic_quantization_group_size": self._compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE"),
            "threads": self._compiled.get_property("INFERENCE_NUM_THREADS"),
            "source": f"execution graph of OpenVINO {package_versions('openvino')['openvino']}",
        }

    def _read_type(self, name: str) -> str:
        return str(self._compiled.get_property(name).get_type_name())

    def _run(self, tokens: Tokens, positions: Tokens, count: int) -> Logits:
        feeds = {
            "input_ids": np.ascontiguousarray(tokens),
            "position_ids": positions,
            COUNT: np.array([count], np.int64),
            BEAMS: self._beams,
        }
        if self._has_mask:
            feeds["attention_mask"] = self._mask
        self._request.infer(feeds, share_inputs=True, share_outputs=True)
        logits: Logits = self._request.get_output_tensor(0).data
        return logits
