"""What the layers of a built engine compute in, read from TensorRT's own listings.

There are two: the engine inspector's JSON, which needs the engine on a GPU, and the table that the builder logs when
it builds with detailed verbosity, which an ahead-of-time build on a CPU gives too. Both name, for every layer, the
types of its inputs, weights and outputs and the ONNX nodes that it came from.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_TABLE_HEAD = "Layers:"
_LAYER_LINE = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), (?P<rest>.*)$")
_SECTION = re.compile(r"(?:^|, )(Inputs|Constants|Outputs|TacticName): ")
_TENSOR_TYPE = re.compile(r"Data[Tt]ype: (\w+)")
_ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
# In the order of looking: `BFloat16` holds `Float16`, and `Int8` must not be found in `UInt8` (a type of images).
_TYPE_WORDS = (
    ("bf16", re.compile(r"bfloat16|bf16", re.IGNORECASE)),
    ("fp16", re.compile(r"\bhalf\b|float16|fp16", re.IGNORECASE)),
    ("fp8", re.compile(r"\bfp8|float8", re.IGNORECASE)),
    ("int8", re.compile(r"\bint8", re.IGNORECASE)),
    ("fp32", re.compile(r"\bfloat\b|float32|fp32", re.IGNORECASE)),
)
_MOVES_ONLY = frozenset({"constant", "noop", "reformat", "reformatting", "shape_call", "shuffle", "signal", "wait"})
"""Kinds of layers that compute nothing."""
_GENERATED = "kgen"
"""Kernels generated around the ones that multiply: element by element, casts, quantizing. They name the same nodes."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of an engine, as TensorRT lists it.

    Attributes:
        name: TensorRT's.
        kind: TensorRT's word for what it is: `correlation`, `gemm`, `CaskConvolution`, `kgen`, ...
        reads: Types (`fp32`, `fp16`, `bf16`, `int8`, `fp8`) of its inputs and weights.
        writes: Types of its outputs.
        nodes: Names of the ONNX nodes that it came from.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    nodes: tuple[str, ...]

    @property
    def precision(self) -> str | None:
        """The narrowest type that it reads, which its kernel multiplies in; None for a layer that only moves data.

        Scales and biases beside INT8 or FP16 tensors are often FP32, so the widest type would say nothing.
        """
        if self.kind.lower() in _MOVES_ONLY:
            return None
        return next((name for name in ("int8", "fp8", "fp16", "bf16", "fp32") if name in self.reads), None)


def parse_inspector(text: str) -> list[Layer]:
    """Reads `EngineInspector.get_engine_information` in JSON, of TensorRT 10 (`Format/Datatype`) and 11 (`Datatype`).

    Layers without details (another verbosity) are left out.
    """
    try:
        listed = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):
        return []
    return [_read_layer(layer) for layer in listed if isinstance(layer, dict)]


def parse_log(lines: Iterable[str]) -> list[Layer]:
    """Reads the table of layers that the builder logs at its most talkative; empty when it is not among the lines."""
    table = next((line for line in lines if line.startswith(_TABLE_HEAD)), "")
    layers = []
    for line in table.splitlines()[1:]:
        match = _LAYER_LINE.match(line)
        if match is None:
            break  # the table ends, other tables follow
        pieces = _SECTION.split(match["rest"])  # what is before, then a name and its content in turn
        sections = {name: _TENSOR_TYPE.findall(body) for name, body in zip(pieces[1::2], pieces[2::2], strict=True)}
        layers.append(
            Layer(
                name=match["name"],
                kind=match["kind"],
                reads=_read_types(sections.get("Inputs", []) + sections.get("Constants", [])),
                writes=_read_types(sections.get("Outputs", [])),
                nodes=tuple(_ONNX_NODE.findall(match["rest"])),
            )
        )
    return layers


def is_layer_table(line: str) -> bool:
    """Whether a line of the builder's log is the table that `parse_log` reads."""
    return line.startswith(_TABLE_HEAD)


def count_precisions(layers: Iterable[Layer]) -> dict[str, int]:
    """Returns how many of the layers that compute do so in which type."""
    return dict(Counter(layer.precision for layer in layers if layer.precision is not None).most_common())


def find_node_precisions(layers: Iterable[Layer], nodes: Collection[str]) -> dict[str, str]:
    """Returns the type that each of some ONNX nodes is computed in: the narrowest of the layers that it is part of.

    Generated kernels count only where a node has no other: one that reads INT8 may do so to turn it into float.

    Args:
        layers: Of the engine.
        nodes: Names of ONNX nodes, of those that multiply: Conv, MatMul, ...
    """
    order = ("int8", "fp8", "fp16", "bf16", "fp32")
    found: dict[bool, dict[str, str]] = {True: {}, False: {}}
    for layer in layers:
        precision = layer.precision
        if precision is None:
            continue
        named = found[layer.kind == _GENERATED]
        for node in set(layer.nodes) & set(nodes):
            named[node] = min(named.get(node, precision), precision, key=order.index)
    return found[True] | found[False]


def _read_layer(layer: Mapping[str, Any]) -> Layer:
    tensors = [*_as_list(layer.get("Inputs")), *_as_list(layer.get("Constants"))]
    weights = [value.get("Type", "") for key, value in layer.items() if key == "Weights" and isinstance(value, dict)]
    return Layer(
        name=str(layer.get("Name", "")),
        kind=str(layer.get("LayerType", "")),
        reads=_read_types([*map(_type_text, tensors), *map(str, weights)]),
        writes=_read_types([_type_text(tensor) for tensor in _as_list(layer.get("Outputs"))]),
        nodes=tuple(_ONNX_NODE.findall(str(layer.get("Metadata", "")))),
    )


def _type_text(tensor: Any) -> str:
    """Returns the words that hold a tensor's type, wherever this version of TensorRT puts them."""
    if not isinstance(tensor, dict):
        return ""
    for key in ("Datatype", "DataType", "Format/Datatype", "Format"):
        if key in tensor:
            return str(tensor[key])
    return ""


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _read_types(words: Iterable[str]) -> tuple[str, ...]:
    """Returns the float and INT8 types among TensorRT's words; indices, booleans and images are no precision."""
    found: dict[str, None] = {}
    for text in words:
        name = next((name for name, pattern in _TYPE_WORDS if pattern.search(text)), None)
        if name is not None:
            found[name] = None
    return tuple(found)
