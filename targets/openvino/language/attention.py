"""ONNX's attention and rotary embedding, written for OpenVINO as its CPU plugin fuses them.

OpenVINO's own conversions compute the same, but in forms that its plugin runs operator by operator: heads that share
keys by `Tile`, a search for NaN behind every attention, transposes back and forth. Fused with the cache that is part of
it, SmolLM2-135M took half the time a token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_MASKED = np.float32(-65504.0)
"""Added to what is not to be seen. Finite, so that a row of padding sees something instead of nothing, which is NaN."""
_HEADS_FIRST = (0, 2, 1, 3)
"""[batch, tokens, heads, channels] to [batch, heads, tokens, channels], and back."""


class AttentionRules:
    """The conversions of a model, for `openvino.convert_model(extension=...)`.

    Args:
        opset: OpenVINO's operators.
        extension: Its class of a conversion rule.
    """

    def __init__(self, opset: Any, extension: Callable[[str, Callable[[Any], Any]], Any]) -> None:
        self._op = opset
        self._biases: dict[str, Any] = {}
        self.extensions = [
            extension("Attention", self._convert_attention),
            extension("RotaryEmbedding", self._convert_rotary),
        ]

    def _convert_attention(self, node: Any) -> Any:
        op = self._op
        query, key, value = (node.get_input(index) for index in range(3))
        is_flat = _rank(query) == 3
        heads = node.get_attribute("q_num_heads", 0) or _size(query, 1)
        kv_heads = node.get_attribute("kv_num_heads", 0) or _size(key, 1)
        query, key, value = (
            self._split_heads(one, count) for one, count in ((query, heads), (key, kv_heads), (value, kv_heads))
        )
        if node.get_attribute("is_causal", 0) or node.get_input_size() < 6:
            raise ValueError("attention without a mask and a cache is none of a model that generates")
        mask = self._make_bias(node.get_input(3))
        keys, values = (op.concat([node.get_input(at), one], 2) for at, one in ((4, key), (5, value)))
        scale = node.get_attribute("scale", 0.0) or float(_size(query, 3)) ** -0.5
        softcap = node.get_attribute("softcap", 0.0)
        seen, told = (self._share(one, heads // kv_heads) for one in (keys, values))
        if softcap:
            found = self._attend_capped(query, seen, told, mask, scale, softcap)
        else:
            found = op.scaled_dot_product_attention(query, seen, told, mask, np.float32(scale), causal=False)
        return [(self._join_heads(found) if is_flat else found).output(0), keys.output(0), values.output(0)]

    def _convert_rotary(self, node: Any) -> Any:
        op = self._op
        value, cosines, sines = (node.get_input(index) for index in range(3))
        heads = node.get_attribute("num_heads", 0)
        if node.get_attribute("interleaved", 0) or node.get_attribute("rotary_embedding_dim", 0):
            raise ValueError("a rotary embedding of pairs of channels, or of some only")
        is_flat = _rank(value) == 3
        split = self._split_heads(value, heads)
        if node.get_input_size() > 3:
            cosines, sines = (op.gather(table, node.get_input(3), np.int64(0)) for table in (cosines, sines))
        cosine, sine = (op.unsqueeze(one, np.int64(1)) for one in (cosines, sines))
        half = _size(split, 3) // 2
        first, second = op.variadic_split(split, np.int64(3), self._ints(half, half)).outputs()
        turned = op.concat(
            [
                op.subtract(op.multiply(first, cosine), op.multiply(second, sine)),
                op.add(op.multiply(first, sine), op.multiply(second, cosine)),
            ],
            -1,
        )
        return [(self._join_heads(turned) if is_flat else turned).output(0)]

    def _ints(self, *values: int) -> Any:
        return self._op.constant(np.array(values, np.int64))

    def _make_bias(self, mask: Any) -> Any:
        """Returns what is added to scores for a mask of booleans: one for all layers that share it."""
        if mask.get_element_type().get_type_name() != "boolean":
            return mask
        name = f"{mask.get_node().get_friendly_name()}:{mask.get_index()}"
        if name not in self._biases:
            self._biases[name] = self._op.select(mask, np.float32(0), _MASKED)
        return self._biases[name]

    def _split_heads(self, value: Any, heads: int) -> Any:
        """Returns [batch, heads, tokens, channels] of a value that may have heads and channels in one dimension."""
        if _rank(value) == 4:
            return value
        joined = value.get_node()
        if joined.get_type_name() == "Reshape":  # of `_join_heads`: undone, not done once more
            before = joined.input_value(0).get_node()
            if before.get_type_name() == "Transpose" and _size(before.input_value(0), 1) == heads:
                return before.input_value(0)
        parted = self._op.reshape(value, self._ints(0, 0, heads, _size(value, 2) // heads), special_zero=True)
        return self._op.transpose(parted, self._ints(*_HEADS_FIRST)).output(0)

    def _join_heads(self, value: Any) -> Any:
        turned = self._op.transpose(value, self._ints(*_HEADS_FIRST))
        return self._op.reshape(turned, self._ints(0, 0, -1), special_zero=True)

    def _share(self, cache: Any, queries: int) -> Any:
        """Repeats each head of keys or values for the queries that share it, as the plugin knows it."""
        if queries == 1:
            return cache
        heads, channels = (_size(cache.output(0), axis) for axis in (1, 3))
        apart = self._op.unsqueeze(cache, np.int64(2))
        repeated = self._op.broadcast(apart, self._ints(1, 1, queries, 1, 1), broadcast_spec="BIDIRECTIONAL")
        return self._op.reshape(repeated, self._ints(0, heads * queries, -1, channels), special_zero=True)

    def _attend_capped(self, query: Any, keys: Any, values: Any, bias: Any, scale: float, softcap: float) -> Any:
        """Attends with scores that a tanh keeps small, which OpenVINO has no operator for."""
        op = self._op
        scores = op.matmul(op.multiply(query, np.float32(scale / softcap)), keys, False, True)
        capped = op.multiply(op.tanh(scores), np.float32(softcap))
        return op.matmul(op.softmax(op.add(capped, bias), -1), values, False, False)


def _rank(value: Any) -> int:
    return int(value.get_partial_shape().rank.get_length())


def _size(value: Any, axis: int) -> int:
    return int(value.get_partial_shape()[axis].get_length())
