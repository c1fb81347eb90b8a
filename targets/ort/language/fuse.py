"""Rewrites the portable graph with ONNX Runtime's fused operators.

Attention with its rotary embedding, mask and cache becomes GroupQueryAttention, a sum and the norm after it one node,
and matrices that read the same value one product. The graph then takes, instead of masks and positions,

    seqlens_k int32 [batch]               tokens of a row so far, those of this call included, less one
    total_sequence_length int32 []        the most of any row
    logit_rows int64 [rows]               which positions of [batch * sequence] get logits [rows, vocabulary]

and its cache, `past_key_values.I` and `present.I`, can be one buffer that is longer than what is in it. Rows that are
shorter than others end in padding, which later tokens overwrite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelwright.core.onnx.facts import read_attribute
from modelwright.core.records.language import LanguageModel
from modelwright.targets.language.portable import Floats, LinearLayer, PortableModel
from modelwright.targets.ort.language.graph_file import GraphFile
from modelwright.targets.ort.language.matrices import Matrices
from modelwright.targets.readiness import require_import

LENGTHS, LONGEST, ROWS = "seqlens_k", "total_sequence_length", "logit_rows"
POSITIONS = "position_ids"
_ROTATED_MULTIPLE = 16
"""Channels of a head: GroupQueryAttention rotates no others."""
_NORMS = {"RMSNormalization": "SkipSimplifiedLayerNormalization", "LayerNormalization": "SkipLayerNormalization"}
"""Norm -> ONNX Runtime's operator for it with the sum before it."""


class DecoderFuser:
    """Writes the nodes of a portable graph with fused operators.

    Args:
        model: The portable graph.
        graph: That is written.
        matrices: How its products are.
        record: Of the model.
    """

    def __init__(self, model: PortableModel, graph: GraphFile, matrices: Matrices, record: LanguageModel) -> None:
        self._model, self._index = model, model.index
        self._head_dim, self._hidden_size = record.head_dim, record.hidden_size
        self._graph, self._matrices = graph, matrices
        self._turned = {layer.weight for layer in model.linear_layers.values() if layer.is_turned}
        self._joined: dict[tuple[str, ...], str] = {}
        self._written: set[str] = set()

    def write(self) -> None:
        """Writes all nodes, and the graph."""
        for node in self._model.proto.graph.node:
            if node.name not in self._written:
                self._write_node(node)
        self._graph.finish(self._describe_inputs(), self._describe_outputs())

    def _write_node(self, node: Any) -> None:
        if node.name in self._model.linear_layers:
            self._write_products(self._model.linear_layers[node.name])
        elif node.op_type == "Attention":
            self._write_attention(node)
        elif node.op_type == "Add" and (norm := self._find_norm(node)) is not None:
            self._write_sum_and_norm(node, norm)
        elif node.op_type == "RMSNormalization":
            self._write_norm(node)
        elif node.op_type == "Gather" and node.input[0] in self._model.tables:
            self._matrices.write_lookup(self._graph, node)
        elif node.op_type == "Transpose" and node.input[0] in self._turned:
            return  # the head's product reads the table itself; a copy would lie in the file for nobody
        elif node.op_type == "Slice" and self._is_choice_of_positions(node):
            self._write_choice(node)
        else:
            self._copy(node)

    def _copy(self, node: Any) -> None:
        self._keep(*node.input)
        self._graph.nodes.append(node)

    def _keep(self, *names: str) -> None:
        """Stores the constants among what a node reads as they are."""
        for name in names:
            if name in self._index.constants:
                tensor = self._index.constants[name]
                values = self._model.read(name) if self._index.is_float_constant(name) else self._index.array(name)
                self._graph.add_constant(name, values.reshape(tuple(tensor.dims)))

    # Products

    def _write_products(self, layer: LinearLayer) -> None:
        """Writes a layer, and with it those that read the same value where they can be one product."""
        together = [other for other in self._model.linear_layers.values() if other.reads == layer.reads]
        if not self._matrices.can_join(together):
            together = [layer]
        added = [self._find_bias(each) for each in together]
        results = [each.gives if sum_ is None else sum_.output[0] for each, sum_ in zip(together, added, strict=True)]
        gives = results[0]
        if len(together) > 1:
            gives = self._joined[tuple(results)] = f"{layer.name}.joined"
        self._matrices.write_product(self._graph, together, self._join_biases(together, added), layer.reads, gives)
        if len(together) > 1:
            widths = self._graph.add_integers(*(each.columns for each in together))
            self._graph.add_node("Split", [gives, widths], results, f"{layer.name}.split", axis=-1)
        self._written.update(each.name for each in together)
        self._written.update(sum_.name for sum_ in added if sum_ is not None)

    def _find_bias(self, layer: LinearLayer) -> Any | None:
        """Returns the node that adds a layer's bias; None where it has none."""
        reader = self._index.sole_consumer(layer.gives)
        if reader is None or reader.op_type != "Add":
            return None
        return reader if any(name in self._index.constants for name in reader.input) else None

    def _join_biases(self, layers: Sequence[LinearLayer], added: Sequence[Any | None]) -> Floats | None:
        if not any(added):
            return None
        parts = [np.zeros(layer.columns, np.float32) for layer in layers]
        for part, sum_ in zip(parts, added, strict=True):
            if sum_ is not None:
                part += self._model.read(next(name for name in sum_.input if name in self._index.constants))
        return np.concatenate(parts)

    # Attention

    def _write_attention(self, node: Any) -> None:
        values, mask, past = list(node.input[:3]), node.input[3], list(node.input[4:6])
        tables = self._find_rotation(values)
        if tables:
            values[:2] = [self._index.producers[name].input[0] for name in values[:2]]
            self._keep(*tables)
        window = self._model.find_window(mask)
        softcap = read_attribute(node, "softcap", 0.0)
        self._graph.add_fused(
            "GroupQueryAttention",
            [*self._find_joined(values), *past, LENGTHS, LONGEST, *tables],
            list(node.output[:3]),
            node.name,
            num_heads=read_attribute(node, "q_num_heads", 0),
            kv_num_heads=read_attribute(node, "kv_num_heads", 0),
            scale=read_attribute(node, "scale", self._head_dim**-0.5),
            do_rotary=int(bool(tables)),
            **({} if window is None else {"local_window_size": window}),
            **({"softcap": softcap} if softcap else {}),
        )

    def _find_rotation(self, values: Sequence[str]) -> list[str]:
        """Returns the tables of cosines and sines that query and key are rotated by; empty where they stay apart."""
        nodes = [self._index.producers.get(name) for name in values[:2]]
        if any(node is None or node.op_type != "RotaryEmbedding" for node in nodes):
            return []
        tables = [list(node.input[1:]) for node in nodes if node is not None]
        if tables[0] != tables[1] or tables[0][2:] != [POSITIONS] or self._head_dim % _ROTATED_MULTIPLE:
            return []
        return tables[0][:2]

    def _find_joined(self, values: Sequence[str]) -> list[str]:
        """Returns query, key and value, or the one value in which they lie beside each other."""
        joined = self._joined.get(tuple(values))
        if joined is None:
            maker = self._index.producers.get(values[0])
            if maker is None or maker.op_type != "Split" or list(maker.output) != list(values):
                return list(values)
            joined = maker.input[0]
        return [joined, "", ""]

    # Norms

    def _find_norm(self, node: Any) -> Any | None:
        """Returns the norm of a sum of two values, which is computed with it; None where there is none."""
        if any(name in self._index.constants for name in node.input):
            return None
        readers = self._index.consumers.get(node.output[0], [])
        return next((reader for reader in readers if reader.op_type in _NORMS), None)

    def _write_sum_and_norm(self, node: Any, norm: Any) -> None:
        self._keep(*norm.input[1:])
        self._graph.add_fused(
            _NORMS[norm.op_type],
            [*node.input, *norm.input[1:]],
            [norm.output[0], "", "", node.output[0]],
            norm.name,
            epsilon=read_attribute(norm, "epsilon", 1e-5),
        )
        self._written.add(norm.name)

    def _write_norm(self, node: Any) -> None:
        self._keep(*node.input[1:])
        self._graph.add_node(
            "SimplifiedLayerNormalization",
            list(node.input),
            list(node.output),
            node.name,
            axis=-1,
            epsilon=read_attribute(node, "epsilon", 1e-5),
            stash_type=1,
        )

    # Logits

    def _is_choice_of_positions(self, node: Any) -> bool:
        maker = self._index.producers.get(node.input[1])
        return maker is not None and "num_logits" in maker.input

    def _write_choice(self, node: Any) -> None:
        """Writes which positions get logits: any of all rows', since rows of a batch may end at different ones."""
        flat = self._graph.add_integers(-1, self._hidden_size)
        apart = self._graph.add_node("Reshape", [node.input[0], flat], [f"{node.name}.flat"], f"{node.name}.reshape")
        self._graph.add_node("Gather", [apart, ROWS], list(node.output), node.name, axis=0)

    def _describe_inputs(self) -> list[Any]:
        onnx = require_import("onnx", "onnx")
        whole, short = onnx.TensorProto.INT64, onnx.TensorProto.INT32
        new = [(LENGTHS, short, ["batch"]), (LONGEST, short, []), (ROWS, whole, ["logits"])]
        kept = [value for value in self._model.proto.graph.input if value.name not in ("attention_mask", "num_logits")]
        return [*kept, *(onnx.helper.make_tensor_value_info(*facts) for facts in new)]

    def _describe_outputs(self) -> list[Any]:
        onnx = require_import("onnx", "onnx")
        logits, *present = self._model.proto.graph.output
        vocabulary = logits.type.tensor_type.shape.dim[2].dim_value
        flat = onnx.helper.make_tensor_value_info(logits.name, onnx.TensorProto.FLOAT, ["logits", vocabulary])
        return [flat, *present]
