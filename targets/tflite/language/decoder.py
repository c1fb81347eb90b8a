"""Writes the portable graph with the operators of TFLite, twice over the same weights.

`decode` reads one more token of each row of a batch, beside a cache that the host keeps:

    tokens, positions int32 [batch]
    mask float32 [batch, 1, 1, capacity]: what is added for a place, 0 where it is seen
    own_place float32 [batch, 1, 1, capacity]: 1 at the place of the token, which is zero in the cache, 0 elsewhere
    key.I, value.I float32 [batch, kv_heads, capacity, head_dim]

`prefill` reads one text from its beginning:

    tokens, positions int32 [length]
    mask float32 [1, 1, length, length]
    rows int32 [logits]: which tokens get logits

Both give `logits` [rows, vocabulary], and `new_key.I` and `new_value.I` of the tokens that they read, which the host
puts into the cache: no graph copies it. Layers that look back over a window have a mask of their own, `mask_window_W`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modelwright.core.errors import BuildFailedError
from modelwright.core.onnx.facts import read_attribute
from modelwright.core.records.language import LanguageModel
from modelwright.targets.language.portable import PortableModel
from modelwright.targets.tflite.language.matrices import Matrices
from modelwright.targets.tflite.language.model_file import Constant, GraphWriter, Value
from modelwright.targets.tflite.language.operators import Operators

PREFILL, DECODE = "prefill", "decode"
TOKENS, POSITIONS, ROWS, OWN_PLACE, LOGITS = "tokens", "positions", "rows", "own_place", "logits"
_MASK, _MASK_OF_WINDOW = "mask", "mask_window_"
HIDDEN = -1e9
"""What a mask adds for a place that is not seen."""


def name_mask(window: int | None) -> str:
    """Returns what the mask of layers is called that look back over so many tokens; None for all."""
    return _MASK if window is None else f"{_MASK_OF_WINDOW}{window}"


def read_window(name: str) -> tuple[int | None, ...]:
    """Returns the window of an input that is a mask, as the only one of a tuple; an empty one for another input."""
    if name == _MASK:
        return (None,)
    return (int(name.removeprefix(_MASK_OF_WINDOW)),) if name.startswith(_MASK_OF_WINDOW) else ()


def name_parts(layer: int) -> tuple[str, str]:
    """Returns what the cache of a layer is called: keys and values."""
    return f"key.{layer}", f"value.{layer}"


class DecoderWriter:
    """Writes one of the two graphs.

    Values are [tokens, channels]: `decode` has a token of each row there, `prefill` all of one text.

    Args:
        model: The portable graph.
        record: Of the model.
        matrices: How its products are.
        graph: That is written.
        has_cache: Whether it reads a cache, one token of each row: `decode`.
    """

    def __init__(
        self, model: PortableModel, record: LanguageModel, matrices: Matrices, graph: GraphWriter, *, has_cache: bool
    ) -> None:
        self._model, self._index, self._record = model, model.index, record
        self._matrices, self._graph, self._has_cache = matrices, graph, has_cache
        self._values: dict[str, Value] = {}
        self._masks: dict[int | None, Value] = {}
        self._rotations: dict[tuple[str, str], tuple[Value, Value]] = {}
        self._layer = 0
        self._do = Operators(graph)
        self._writers: Mapping[str, Callable[[Any], None]] = {
            "Gather": self._write_gather,
            "MatMul": self._write_product,
            "Add": self._write_sum,
            **dict.fromkeys(("Sub", "Mul", "Div"), self._write_pair),
            **dict.fromkeys(("Sigmoid", "Tanh", "Relu", "Gelu"), self._write_single),
            "Reshape": self._write_reshape,
            "Split": self._write_split,
            "Slice": self._write_choice,
            "RMSNormalization": self._write_rms_norm,
            "LayerNormalization": self._write_layer_norm,
            "RotaryEmbedding": self._write_rotation,
            "Attention": self._write_attention,
        }

    def write(self) -> None:
        """Writes the graph.

        Raises:
            BuildFailedError: The portable graph has an operator that no layer of a decoder has.
        """
        for name in (TOKENS, POSITIONS):
            self._values[name] = self._graph.add_input(name, [-1], "INT32")
        for node in self._list_nodes():
            write = self._writers.get(node.op_type)
            if write is None:
                raise _refuse(f"{node.name} is a {node.op_type}")
            write(node)
        self._graph.add_output(LOGITS, self._values[LOGITS])

    def _list_nodes(self) -> list[Any]:
        """Returns what logits are made of, in order; not what makes masks and chooses positions: the host does."""
        wanted, nodes = {LOGITS}, []
        for node in reversed(self._model.proto.graph.node):
            if wanted.isdisjoint(node.output) or self._is_turned_table(node):
                continue
            nodes.append(node)
            followed = {"Attention": 3, "Slice": 1, "RotaryEmbedding": 1}.get(node.op_type, len(node.input))
            wanted.update(node.input[:followed])
        return nodes[::-1]

    def _is_turned_table(self, node: Any) -> bool:
        return node.op_type == "Transpose" and node.input[0] in self._index.constants

    # Lookups and products

    def _write_gather(self, node: Any) -> None:
        ids = self._values[TOKENS if node.input[1] == "input_ids" else POSITIONS]
        self._values[node.output[0]] = self._matrices.write_lookup(self._graph, node.input[0], ids, node.name)

    def _write_product(self, node: Any) -> None:
        layer = self._model.linear_layers[node.name]
        reader, gives, bias = self._index.sole_consumer(layer.gives), layer.gives, None
        if reader is not None and reader.op_type == "Add":
            name = next((name for name in reader.input if name in self._index.constants), None)
            if name is not None:
                bias, gives = self._read(name), reader.output[0]
        self._values[gives] = self._matrices.write_product(self._graph, layer, bias, self._values[layer.reads])

    # Arithmetic

    def _write_sum(self, node: Any) -> None:
        if node.output[0] not in self._values:  # a bias is part of its product
            self._write_pair(node)

    def _write_pair(self, node: Any) -> None:
        inputs = [self._read(name) for name in node.input]
        shape = max((value.shape for value in inputs), key=len)
        self._values[node.output[0]] = self._do.combine(node.op_type, inputs[0], inputs[1], shape, node.name)

    def _write_single(self, node: Any) -> None:
        value = self._values[node.input[0]]
        operator, options, fields = {
            "Sigmoid": ("LOGISTIC", None, {}),
            "Tanh": ("TANH", None, {}),
            "Relu": ("RELU", None, {}),
            "Gelu": ("GELU", "GeluOptions", {"approximate": read_attribute(node, "approximate", b"") == "tanh"}),
        }[node.op_type]
        self._values[node.output[0]] = self._graph.add(operator, [value], value.shape, node.name, options, **fields)

    def _write_reshape(self, node: Any) -> None:
        sizes = [int(size) for size in self._index.array(node.input[1])][2:]  # behind batch and sequence
        self._values[node.output[0]] = self._do.reshape(self._values[node.input[0]], [-1, *sizes], node.name)

    def _write_split(self, node: Any) -> None:
        value, widths = self._values[node.input[0]], {int(width) for width in self._index.array(node.input[1])}
        if len(widths) > 1:
            raise _refuse(f"{node.name} cuts channels into parts of different widths ({sorted(widths)})")
        self._values.update(zip(node.output, self._do.split(value, len(node.output), node.name), strict=True))

    def _write_rms_norm(self, node: Any) -> None:
        value = self._values[node.input[0]]
        squares = self._do.combine("Mul", value, value, value.shape, f"{node.name}.squares")
        self._write_normed(node, value, squares)

    def _write_layer_norm(self, node: Any) -> None:
        value = self._values[node.input[0]]
        mean = self._do.reduce("MEAN", value, f"{node.name}.mean")
        apart = self._do.combine("Sub", value, mean, value.shape, f"{node.name}.apart")
        squares = self._do.combine("Mul", apart, apart, value.shape, f"{node.name}.squares")
        self._write_normed(node, apart, squares)

    def _write_normed(self, node: Any, value: Value, squares: Value) -> None:
        """Writes the value over the root of the mean of its squares, times the gain, and a bias where there is one."""
        mean = self._do.reduce("MEAN", squares, f"{node.name}.variance")
        least = self._do.number(read_attribute(node, "epsilon", 1e-5))
        safe = self._do.combine("Add", mean, least, mean.shape, f"{node.name}.safe")
        inverse = self._graph.add("RSQRT", [safe], mean.shape, f"{node.name}.inverse")
        scaled = self._do.combine("Mul", value, inverse, value.shape, f"{node.name}.scaled")
        result = self._do.combine("Mul", scaled, self._read(node.input[1]), value.shape, f"{node.name}.gained")
        if len(node.input) > 2:
            result = self._do.combine("Add", result, self._read(node.input[2]), value.shape, node.name)
        self._values[node.output[0]] = result

    def _write_choice(self, node: Any) -> None:
        """Writes which positions get logits; of `decode`, which reads one of each row, it is all."""
        value = self._values[node.input[0]]
        if not self._has_cache:
            rows = self._graph.add_input(ROWS, [-1], "INT32")
            value = self._do.gather(value, rows, node.name)
        self._values[node.output[0]] = value

    # Attention

    def _write_rotation(self, node: Any) -> None:
        heads = read_attribute(node, "num_heads", 0)
        width = self._record.head_dim
        cosine, sine = self._rotate_by(node.input[1], node.input[2])
        half = cosine.shape[-1]
        if 2 * half != width:
            raise _refuse(f"{node.name} rotates {2 * half} of a head's {width} channels")
        apart = self._do.reshape(self._values[node.input[0]], [-1, heads, width], f"{node.name}.heads")
        shape = (-1, heads, half)
        first, second = self._do.split(apart, 2, f"{node.name}.halves")
        parts = [
            self._do.combine("Mul", half_value, by, shape, f"{node.name}.{place}")
            for half_value, by, place in (
                (first, cosine, "first_cos"),
                (second, sine, "second_sin"),
                (second, cosine, "second_cos"),
                (first, sine, "first_sin"),
            )
        ]
        turned = [
            self._do.combine("Sub", parts[0], parts[1], shape, f"{node.name}.first"),
            self._do.combine("Add", parts[2], parts[3], shape, f"{node.name}.second"),
        ]
        self._values[node.output[0]] = self._do.join(turned, [-1, heads, width], node.name)

    def _rotate_by(self, *tables: str) -> tuple[Value, Value]:
        """Returns the cosines and sines of the tokens' positions, [tokens, 1, channels / 2]."""
        key = (tables[0], tables[1])
        if key not in self._rotations:
            found = []
            for name in tables:
                table = self._read(name)
                rows = self._do.gather(table, self._values[POSITIONS], f"{name}.rows")
                found.append(self._do.reshape(rows, [-1, 1, table.shape[1]], f"{name}.each_head"))
            self._rotations[key] = (found[0], found[1])
        return self._rotations[key]

    def _write_attention(self, node: Any) -> None:
        place, width = node.name, self._record.head_dim
        kv_heads = read_attribute(node, "kv_num_heads", 0)
        group = read_attribute(node, "q_num_heads", 0) // kv_heads
        scale = self._do.number(read_attribute(node, "scale", width**-0.5))
        query, key, value = (self._values[name] for name in node.input[:3])
        query = self._do.reshape(query, [-1, kv_heads, group, width], f"{place}.query")
        query = self._do.combine("Mul", query, scale, query.shape, f"{place}.scaled_query")
        mask, softcap = self._find_mask(node.input[3]), read_attribute(node, "softcap", 0.0)
        write = self._attend_to_cache if self._has_cache else self._attend_to_text
        attended = write(place, query, key, value, lambda scores: self._weigh(place, scores, mask, softcap))
        self._values[node.output[0]] = self._do.reshape(attended, [-1, kv_heads * group * width], f"{place}.joined")
        self._layer += 1

    def _attend_to_text(
        self, place: str, query: Value, key: Value, value: Value, weigh: Callable[[Value], Value]
    ) -> Value:
        """Writes attention of all tokens of one text to each other; heads come first meanwhile."""
        _, kv_heads, group, width = query.shape
        query = self._do.transpose(query, (1, 2, 0, 3), f"{place}.query_heads")
        kept = []
        for values, part, name in zip((key, value), ("key", "value"), name_parts(self._layer), strict=True):
            apart = self._do.reshape(values, [-1, kv_heads, width], f"{place}.{part}")
            heads = self._do.transpose(apart, (1, 0, 2), f"{place}.{part}_heads")
            self._graph.add_output(f"new_{name}", heads)
            kept.append(self._do.reshape(heads, [kv_heads, 1, -1, width], f"{place}.{part}_group"))
        scores = self._do.multiply(query, kept[0], [kv_heads, group, -1, -1], f"{place}.scores", turned=True)
        attended = self._do.multiply(weigh(scores), kept[1], [kv_heads, group, -1, width], f"{place}.attended")
        return self._do.transpose(attended, (2, 0, 1, 3), f"{place}.tokens")

    def _attend_to_cache(
        self, place: str, query: Value, key: Value, value: Value, weigh: Callable[[Value], Value]
    ) -> Value:
        """Writes attention of one token of each row to the cache and to itself.

        Its own place in the cache is empty: what it sees there is added by a vector that is 1 at that place.
        """
        _, kv_heads, group, width = query.shape
        own_place = self._own_place()
        own, past = [], []
        for values, part, name in zip((key, value), ("key", "value"), name_parts(self._layer), strict=True):
            own.append(self._do.reshape(values, [-1, kv_heads, 1, width], f"{place}.{part}"))
            self._graph.add_output(f"new_{name}", own[-1])
            past.append(self._graph.add_input(name, [-1, kv_heads, -1, width]))
        shape = [-1, kv_heads, group, -1]
        products = self._do.combine("Mul", query, own[0], query.shape, f"{place}.own_products")
        score = self._do.reduce("SUM", products, f"{place}.own_score")
        placed = self._do.combine("Mul", own_place, score, shape, f"{place}.own_placed")
        scores = self._do.multiply(query, past[0], shape, f"{place}.past_scores", turned=True)
        weights = weigh(self._do.combine("Add", scores, placed, shape, f"{place}.scores"))
        weight = self._do.combine("Mul", weights, own_place, shape, f"{place}.own_weights")
        weight = self._do.reduce("SUM", weight, f"{place}.own_weight")
        attended = self._do.multiply(weights, past[1], query.shape, f"{place}.past_attended")
        added = self._do.combine("Mul", own[1], weight, query.shape, f"{place}.own_attended")
        return self._do.combine("Add", attended, added, query.shape, f"{place}.attended")

    def _weigh(self, place: str, scores: Value, mask: Value, softcap: float) -> Value:
        """Writes the weights that scores stand for."""
        if softcap:
            inverse, limit = self._do.number(1 / softcap), self._do.number(softcap)
            scores = self._do.combine("Mul", scores, inverse, scores.shape, f"{place}.capped_by")
            scores = self._graph.add("TANH", [scores], scores.shape, f"{place}.limited")
            scores = self._do.combine("Mul", scores, limit, scores.shape, f"{place}.capped")
        seen = self._do.combine("Add", scores, mask, scores.shape, f"{place}.seen")
        return self._do.soften(seen, f"{place}.weights")

    def _find_mask(self, mask: str) -> Value:
        """Returns the input that is the mask of an attention: by the window that the portable graph limits it to."""
        window = self._model.find_window(mask)
        if window not in self._masks:
            shape = [-1, 1, 1, -1] if self._has_cache else [1, 1, -1, -1]
            self._masks[window] = self._graph.add_input(name_mask(window), shape)
        return self._masks[window]

    def _own_place(self) -> Value:
        if OWN_PLACE not in self._values:
            self._values[OWN_PLACE] = self._graph.add_input(OWN_PLACE, [-1, 1, 1, -1])
        return self._values[OWN_PLACE]

    # Values

    def _read(self, name: str) -> Value:
        """Returns a value, or adds a constant of the portable graph."""
        if name in self._index.constants and name not in self._values:
            shape = tuple(self._index.constants[name].dims)
            return self._graph.add_constant(name, lambda: Constant.of(self._model.read(name).reshape(shape)))
        return self._values[name]


def _refuse(fact: str) -> BuildFailedError:
    return BuildFailedError(f"{fact}, which the tflite-* targets do not write", hint="leave the tflite-* targets out")
