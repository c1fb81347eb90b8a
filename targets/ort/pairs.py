"""Narrow convolutions take two pixels of a row at a time: ONNX Runtime's integer kernel computes many outputs at once.

It multiplies 16 output channels by four input channels in one instruction (VNNI), and needs two such blocks of outputs
to keep the processor busy; before each tap of its kernel it looks up where that lies. With 16 channels it is waiting
for both. Two neighbours of a row taken for one pixel of twice the channels are the same bytes where channels come last,
as this kernel has them: half the places, twice the outputs, fewer taps. The numbers stay the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.onnx.facts import ONNX_DOMAINS, find_opset, read_attribute
from modelwright.targets.graphs.files import is_large
from modelwright.targets.graphs.index import GraphIndex, index_graph
from modelwright.targets.graphs.rewrite import PER_AXIS_OPSET, drop_unread, rebuild_model
from modelwright.targets.readiness import require_import

Array = npt.NDArray[Any]
_BLOCK = 16
"""Outputs of an instruction. A convolution that does not fill one goes another way, which takes two to three times as
long; one that fills it takes 1.0 to 1.2 times as long (onnxruntime 1.31, AMD Zen 4)."""
_LEAST_PIXELS, _MANY_PIXELS = 128, 1024
"""Of what it makes, for both: below that two reshapes and a pad cost what is gained."""


def pair_pixels(model: Any) -> Any:
    """Returns the model with narrow integer convolutions over pairs of pixels; the model itself where there are none.

    Only those whose image has a known and even width, which they keep.

    Args:
        model: From `quantize_static`. Not changed.
    """
    if find_opset(model) < PER_AXIS_OPSET or is_large(model):
        return model
    index = index_graph(model)
    narrow = list(_find_narrow(model, index))
    sizes = _find_sizes(model) if narrow else {}
    paired = {each.node.output[0]: each for each in narrow if each.gains(*sizes.get(each.node.output[0], (0, 0)))}
    if not paired:
        return model
    writer = _Writer(index)
    for node in model.graph.node:
        writer.write(node, paired.get(node.output[0]) if node.output else None)
    nodes = drop_unread(writer.nodes, [value.name for value in model.graph.output])
    return rebuild_model(model, nodes, writer.constants)


@dataclass(frozen=True, kw_only=True)
class _Convolution:
    """A convolution between pairs of Q/DQ, with its pairs.

    Attributes:
        node: The Conv.
        source: The DequantizeLinear of what it reads,
        weight: of its weights,
        bias: and of its bias; None without one.
        weights: int8 [outputs, inputs, height, width].
    """

    node: Any
    source: Any
    weight: Any
    bias: Any | None
    weights: Array

    @property
    def reach(self) -> int:
        """Pixels that the kernel looks to each side."""
        return int(self.weights.shape[3]) // 2

    @property
    def shift(self) -> int:
        """Pixels that pairs begin before the row does, so that no tap looks at half of one in vain."""
        return self.reach % 2

    def gains(self, height: int, width: int) -> bool:
        """Whether it pays for an image of this size; 0 where it is not known."""
        outputs, inputs, *_ = self.weights.shape
        least = _LEAST_PIXELS if outputs < _BLOCK else _MANY_PIXELS
        return width % 2 == 0 and height * width >= least and (outputs < _BLOCK or inputs <= _BLOCK)

    def pair_weights(self) -> Array:
        """Returns int8 [2 outputs, 2 inputs, height, reach + 1]: both pixels of a pair, from the pairs around."""
        outputs, inputs, height, width = self.weights.shape
        paired = np.zeros((2, outputs, 2, inputs, height, self.reach + 1), self.weights.dtype)
        for pixel in (0, 1):
            for tap in range(width):
                pair, side = divmod(pixel + tap, 2)
                paired[pixel, :, side, :, :, pair] = self.weights[..., tap]
        return paired.reshape(2 * outputs, 2 * inputs, height, self.reach + 1)


def _find_narrow(model: Any, index: GraphIndex) -> Iterator[_Convolution]:
    for node in model.graph.node:
        if node.op_type != "Conv" or node.domain not in ONNX_DOMAINS:
            continue
        made = index.sole_consumer(node.output[0])
        pairs: list[Any] = [index.producers.get(name) for name in node.input if name]
        if made is None or made.op_type != "QuantizeLinear" or not all(_is_pair(pair) for pair in pairs):
            continue
        source, weight, *others = pairs
        if len(source.input) < 3 or any(name not in index.constants for pair in pairs[1:] for name in pair.input):
            continue
        weights = index.array(weight.input[0])
        if _is_narrow(node, weights) and index.array(weight.input[1]).shape == weights.shape[:1]:
            bias = others[0] if others else None
            yield _Convolution(node=node, source=source, weight=weight, bias=bias, weights=weights)


def _is_pair(node: Any | None) -> bool:
    return node is not None and node.op_type == "DequantizeLinear" and node.domain in ONNX_DOMAINS


def _is_narrow(node: Any, weights: Array) -> bool:
    """Whether a row as wide as its input comes out of a kernel of odd width, and few channels."""
    if weights.ndim != 4 or read_attribute(node, "group", 1) != 1:
        return False
    outputs, inputs, _, width = weights.shape
    if read_attribute(node, "auto_pad", b"NOTSET") != b"NOTSET" or width % 2 == 0 or width == 1:
        return False
    pads = read_attribute(node, "pads", None) or [0] * 4
    steps = (read_attribute(node, "strides", None) or [1] * 2, read_attribute(node, "dilations", None) or [1] * 2)
    keeps_width = pads[1] == pads[3] == width // 2 and all(step[1] == 1 for step in steps)
    return bool(keeps_width and inputs % 2 == 0 == outputs % 2 and _BLOCK // 2 <= outputs <= _BLOCK)


def _find_sizes(model: Any) -> dict[str, tuple[int, int]]:
    """Returns tensor -> height and width of images whose size is known whatever is fed."""
    onnx = require_import("onnx", "onnx")
    sizes = {}
    for value in onnx.shape_inference.infer_shapes(model).graph.value_info:
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 4 and all(dim.HasField("dim_value") for dim in dims[2:]):
            sizes[value.name] = (dims[2].dim_value, dims[3].dim_value)
    return sizes


class _Writer:
    """Writes nodes one after the other, convolutions over pairs in the place of those that they are made of."""

    def __init__(self, index: GraphIndex) -> None:
        self._onnx = require_import("onnx", "onnx")
        self._index = index
        self._replaced: set[str] = set()
        self._shifted: dict[str, str] = {}
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def write(self, node: Any, conv: _Convolution | None) -> None:
        if conv is not None:
            self._write_pairs(conv)
        elif not self._replaced.intersection(node.output):
            self.nodes.append(node)

    def _write_pairs(self, conv: _Convolution) -> None:
        node = conv.node
        stem, (outputs, inputs, height, _) = f"{node.output[0]}_pairs", conv.weights.shape
        wide = self._shift(conv) if conv.shift else str(conv.source.input[0])
        read = self._reshape(wide, 2 * inputs, f"{stem}_in")
        given = [self._add("DequantizeLinear", [read, *conv.source.input[1:]], f"{stem}_in_floats")]
        given.append(self._repeat(conv.weight, conv.pair_weights(), f"{stem}_weight"))
        if conv.bias is not None:
            given.append(self._repeat(conv.bias, np.tile(self._index.array(conv.bias.input[0]), 2), f"{stem}_bias"))
        top, _, bottom, _ = read_attribute(node, "pads", None)
        kernel = {
            "kernel_shape": [height, conv.reach + 1],
            "pads": [top, conv.reach // 2, bottom, conv.reach // 2],
            "strides": read_attribute(node, "strides", None) or [1, 1],
            "dilations": read_attribute(node, "dilations", None) or [1, 1],
        }
        self.nodes.append(self._onnx.helper.make_node("Conv", given, [stem], node.name, **kernel))
        made = self._index.consumers[node.output[0]][0]
        rounded = self._add("QuantizeLinear", [stem, *made.input[1:]], f"{stem}_quantized")
        self._replaced.add(made.output[0])
        self._reshape(rounded, outputs, str(made.output[0]))

    def _shift(self, conv: _Convolution) -> str:
        """Returns the image with a column more at each side, of the integer that stands for zero."""
        source = str(conv.source.input[0])
        if source not in self._shifted:
            ends = np.zeros(8, np.int64)
            pad = self._index.producers.get(source)
            if pad is not None and self._is_for_one(source) and self._adds_zeros(pad):
                source, ends = str(pad.input[0]), ends + self._index.array(pad.input[1])  # one Pad does both
            ends[[3, 7]] += conv.shift
            name = f"{conv.node.output[0]}_pairs_shifted"
            given = [source, self._keep(ends, f"{name}_pads"), conv.source.input[2]]
            self._shifted[str(conv.source.input[0])] = self._add("Pad", given, name)
        return self._shifted[str(conv.source.input[0])]

    def _is_for_one(self, name: str) -> bool:
        reader = self._index.sole_consumer(name)
        return reader is not None and self._index.sole_consumer(reader.output[0]) is not None

    def _adds_zeros(self, node: Any) -> bool:
        """Whether a node pads with the integer that stands for zero, which all Pads between integers of ours do."""
        if node.op_type != "Pad" or read_attribute(node, "mode", b"constant") != b"constant":
            return False
        return len(node.input) == 3 and node.input[1] in self._index.constants

    def _reshape(self, name: str, channels: int, result: str) -> str:
        """Takes neighbours of a row together, or apart, so that there are so many channels."""
        last, turned = f"{result}_last", f"{result}_rows"
        self._add("Transpose", [name], last, perm=[0, 2, 3, 1])
        self._add("Reshape", [last, self._keep(np.array([0, 0, -1, channels]), f"{turned}_shape")], turned)
        return self._add("Transpose", [turned], result, perm=[0, 3, 1, 2])

    def _repeat(self, pair: Any, values: Array, result: str) -> str:
        """Writes other values for a weight or bias, which several may share, with its scales once for each pixel."""
        given = [self._keep(values, f"{result}_q")]
        for name in pair.input[1:]:
            parameter = self._index.array(name)
            given.append(self._keep(np.tile(parameter, 2), f"{name}_pairs") if parameter.ndim else name)
        kept = {"axis": read_attribute(pair, "axis", 1)}
        return self._add("DequantizeLinear", given, result, **kept)

    def _keep(self, values: Array, name: str) -> str:
        self.constants[name] = self._onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def _add(self, operator: str, given: Sequence[str], result: str, **attributes: Any) -> str:
        self.nodes.append(self._onnx.helper.make_node(operator, given, [result], f"{result}_node", **attributes))
        return result
