"""Reading and rewriting ONNX graphs in plain onnx: what several targets need before they quantize.

Functions that rewrite a model do so in place, unless their docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.targets.readiness import require_import

Array = npt.NDArray[Any]
MICROSOFT_DOMAIN = "com.microsoft"
GraphKind = Literal["cnn", "transformer", "rnn", "dense", "other"]

PER_AXIS_OPSET = 13
"""The first opset whose QuantizeLinear and DequantizeLinear take one scale a channel."""
ONNX_DOMAINS = ("", "ai.onnx")
_INITIALIZERS_APART_IR = 4
_PROTOBUF_LIMIT_BYTES = 2**31 - 2**24
"""Protobuf cannot serialize more than 2 GiB; the rest is left for the graph."""
_STORED_APART_BYTES = 1024
_PAGE_BYTES = 4096
_FLOAT = 1


@dataclass(kw_only=True)
class GraphIndex:
    """Who makes and who reads each tensor of a model's main graph. A snapshot: stale after a rewrite.

    Attributes:
        producers: Tensor name -> the node that makes it.
        consumers: Tensor name -> the nodes that read it, each once; subgraphs' reads included as their owner.
        constants: Initializer name -> its tensor; those that callers may override as inputs are left out.
        outputs: Names of the graph's outputs.
    """

    producers: dict[str, Any] = field(default_factory=dict)
    consumers: dict[str, list[Any]] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    outputs: frozenset[str] = frozenset()

    def array(self, name: str) -> Array:
        """Returns a constant's values."""
        numpy_helper = require_import("onnx.numpy_helper", "onnx")
        return cast(Array, numpy_helper.to_array(self.constants[name]))

    def is_float_constant(self, name: str) -> bool:
        return name in self.constants and self.constants[name].data_type == _FLOAT

    def sole_consumer(self, name: str) -> Any | None:
        """Returns the only reader of a tensor, None when there are more or it leaves the graph."""
        readers = self.consumers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None


def load_model(path: Path, *, weights: bool = True) -> Any:
    """Loads an ONNX model, with its external data unless `weights` is False.

    Raises:
        BadInputError: The file or its external data cannot be read.
    """
    onnx = require_import("onnx", "onnx")
    try:
        return onnx.load(str(path), load_external_data=weights)
    except Exception as error:  # protobuf, OSError and onnx.checker errors have no common base
        raise BadInputError(f"{path} cannot be read as an ONNX model", detail=str(error)) from error


def save_model(model: Any, path: Path) -> None:
    """Saves a model, unchanged; one too large for protobuf gets its large weights in `<name>.data` beside it."""
    if not is_large(model):
        path.write_bytes(model.SerializeToString())
        return
    onnx = require_import("onnx", "onnx")
    apart = onnx.ModelProto()
    for entry, value in model.ListFields():
        if entry.name not in ("graph", "opset_import", "functions", "metadata_props", "training_info"):
            setattr(apart, entry.name, value)
    for name in ("opset_import", "functions", "metadata_props"):
        getattr(apart, name).extend(getattr(model, name))
    apart.graph.name = model.graph.name
    for name in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(apart.graph, name).extend(getattr(model.graph, name))
    with path.with_name(f"{path.name}.data").open("wb") as file:
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) < _STORED_APART_BYTES:
                apart.graph.initializer.append(tensor)
                continue
            file.write(b"\0" * (-file.tell() % _PAGE_BYTES))  # runtimes map weights that start on a page
            stored = apart.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            stored.data_location = onnx.TensorProto.EXTERNAL
            facts = {"location": f"{path.name}.data", "offset": file.tell(), "length": len(tensor.raw_data)}
            for key, fact in facts.items():
                stored.external_data.add(key=key, value=str(fact))
            file.write(tensor.raw_data)
    path.write_bytes(apart.SerializeToString())


def is_large(model: Any) -> bool:
    """Whether a model is too large to be one protobuf message."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _PROTOBUF_LIMIT_BYTES


def find_external_files(path: Path) -> list[str]:
    """Returns the files beside a model that hold its weights, relative to the model's folder; loads no weights.

    Raises:
        BadInputError: The model cannot be read, or names a file outside its folder or one that is absent.
    """
    onnx = require_import("onnx", "onnx")
    external_data = require_import("onnx.external_data_helper", "onnx")
    try:
        model = onnx.load(str(path), load_external_data=False)
        tensors = [t for t in model.graph.initializer if external_data.uses_external_data(t)]
        tensors += [
            attribute.t
            for node in model.graph.node
            for attribute in node.attribute
            if attribute.HasField("t") and external_data.uses_external_data(attribute.t)
        ]
    except Exception as error:  # protobuf and OSError have no common base
        raise BadInputError(f"{path} cannot be read as an ONNX model", detail=str(error)) from error
    names = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    folder = path.resolve().parent
    for name in names:
        file = (folder / name).resolve()
        if not file.is_relative_to(folder) or not file.is_file():
            raise BadInputError(f"{path} keeps weights in {name}, which is not a file in the model's own folder")
    return sorted(names)


def find_opset(model: Any) -> int:
    """Returns the version of the standard operator set."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ONNX_DOMAINS), 1)


def index_graph(model: Any) -> GraphIndex:
    """Indexes a model's main graph."""
    graph = model.graph
    fed = {value.name for value in graph.input} if model.ir_version >= _INITIALIZERS_APART_IR else set()
    index = GraphIndex(outputs=frozenset(value.name for value in graph.output))
    index.constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in fed}
    for node in graph.node:
        for name in node.output:
            if name:
                index.producers[name] = node
        for name in dict.fromkeys(read_names(node)):
            index.consumers.setdefault(name, []).append(node)
    return index


def normalize_graph(model: Any) -> None:
    """Brings a model to the form that the rewrites here expect.

    Constants become initializers; initializers that old files (IR below 4) list among the inputs are taken out of
    them; every node gets a unique name; value_info of initializers is dropped, because a rewrite that transposes a
    weight would then contradict it.
    """
    graph = model.graph
    if model.ir_version < _INITIALIZERS_APART_IR:
        model.ir_version = _INITIALIZERS_APART_IR
        constants = {tensor.name for tensor in graph.initializer}
        _drop(graph.input, lambda value: value.name in constants)
    _hoist_constants(graph)
    drop_constant_value_info(model)
    taken: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}_{node.output[0] if node.output else ''}"
        taken.add(node.name)


def drop_constant_value_info(model: Any) -> None:
    """Drops the value_info of initializers."""
    constants = {tensor.name for tensor in model.graph.initializer}
    _drop(model.graph.value_info, lambda value: value.name in constants)


def raise_opset(model: Any, minimum: int, verify: Callable[[Any], None] | None = None) -> Any:
    """Returns the model at an opset of at least `minimum`: the same object when it is there already.

    Args:
        model: Any ONNX model.
        minimum: The wanted version of the standard operator set.
        verify: Takes the converted model and raises BuildFailedError when its numbers differ.

    Raises:
        BuildFailedError: The converter fails, as it does on operators whose definition changed incompatibly.
    """
    onnx = require_import("onnx", "onnx")
    found = find_opset(model)
    if found >= minimum:
        return model
    if is_large(model):
        raise BuildFailedError(
            f"a model over 2 GiB at opset {found} cannot be converted to opset {minimum}",
            hint=f"export it again at opset {minimum} or later",
        )
    require_import("onnx.version_converter", "onnx")
    try:
        converted = onnx.version_converter.convert_version(model, minimum)
    except Exception as error:  # the converter raises bare C++ exceptions
        raise BuildFailedError(
            f"onnx cannot convert the model from opset {found} to {minimum}",
            hint=f"export it again at opset {minimum} or later",
            detail=str(error),
        ) from error
    for entry in model.opset_import:
        if entry.domain not in {other.domain for other in converted.opset_import}:
            converted.opset_import.append(entry)
    if verify is not None:
        verify(converted)
    return converted


def classify_graph(model: Any) -> GraphKind:
    """Says what a network is, by what most of its weights' work is done in."""
    counts: dict[str, int] = {}
    for node in model.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    index = index_graph(model)
    dense = sum(1 for _ in find_weight_matmuls(model, index))
    if any(counts.get(name) for name in ("LSTM", "GRU", "RNN")):
        return "rnn"
    attends = counts.get("Softmax", 0) or counts.get("Attention", 0)
    normalizes = any(counts.get(name, 0) for name in ("LayerNormalization", "RMSNormalization", "ReduceMean", "Pow"))
    if dense > counts.get("Conv", 0) and attends and normalizes:
        return "transformer"
    if counts.get("Conv", 0):
        return "cnn"
    return "dense" if dense else "other"


def find_weight_matmuls(model: Any, index: GraphIndex) -> Iterator[Any]:
    """Yields the MatMul and Gemm nodes whose second operand is a constant float32 matrix."""
    for node in model.graph.node:
        if node.domain in ONNX_DOMAINS and node.op_type in ("MatMul", "Gemm") and len(node.input) > 1:
            name = node.input[1]
            if index.is_float_constant(name) and len(index.constants[name].dims) == 2:
                yield node


def split_gemms(model: Any) -> list[str]:
    """Turns every Gemm with a constant weight and no scaling into MatMul and Add.

    Returns:
        The names of the new MatMul nodes, each the Gemm's own name.
    """
    onnx = require_import("onnx", "onnx")
    index = index_graph(model)
    changed: list[str] = []
    nodes: list[Any] = []
    for node in model.graph.node:
        if node.op_type != "Gemm" or not _is_plain_gemm(node, index):
            nodes.append(node)
            continue
        weight = node.input[1]
        if read_attribute(node, "transB", 0):
            weight = f"{node.input[1]}_{node.name}_transposed"
            values = np.ascontiguousarray(index.array(node.input[1]).T)
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, weight))
        has_bias = len(node.input) > 2 and bool(node.input[2])
        product = f"{node.output[0]}_product" if has_bias else node.output[0]
        nodes.append(onnx.helper.make_node("MatMul", [node.input[0], weight], [product], node.name))
        if has_bias:
            bias = [product, node.input[2]]
            nodes.append(onnx.helper.make_node("Add", bias, [node.output[0]], f"{node.name}_bias"))
        changed.append(node.name)
    if changed:
        _replace(model.graph.node, nodes)
        prune_graph(model)
    return changed


def pool_spatial_means(model: Any) -> None:
    """Turns a ReduceMean over all spatial axes into GlobalAveragePool, which runtimes have integer kernels for."""
    onnx = require_import("onnx", "onnx")
    index = index_graph(model)
    ranks = {
        output: len(index.constants[node.input[1]].dims)
        for node in model.graph.node
        if node.op_type == "Conv" and node.input[1] in index.constants
        for output in node.output
    }
    for node in model.graph.node:  # operators that keep the rank of a feature map, in topological order
        if node.op_type in ("Relu", "Clip", "Add", "Mul", "Sigmoid", "HardSwish", "MaxPool", "LeakyRelu", "Concat"):
            known = [ranks[name] for name in node.input if name in ranks]
            ranks.update(dict.fromkeys(node.output, known[0]) if known else {})
        if node.op_type != "ReduceMean" or node.input[0] not in ranks or read_attribute(node, "keepdims", 1) != 1:
            continue
        axes = read_attribute(node, "axes", None)
        if axes is None and len(node.input) > 1 and node.input[1] in index.constants:
            axes = index.array(node.input[1]).tolist()
        rank = ranks[node.input[0]]
        if axes is not None and sorted(axis % rank for axis in axes) == list(range(2, rank)):
            pool = onnx.helper.make_node("GlobalAveragePool", [node.input[0]], list(node.output), node.name)
            node.CopyFrom(pool)


def prune_graph(model: Any) -> None:
    """Drops the initializers that nothing reads any more."""
    used = {name for node in model.graph.node for name in read_names(node)}
    used |= {value.name for value in model.graph.output}
    _drop(model.graph.initializer, lambda tensor: tensor.name not in used)


def read_attribute(node: Any, name: str, default: Any) -> Any:
    """Returns a node's attribute as a Python value."""
    onnx = require_import("onnx", "onnx")
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def require_domain(model: Any, domain: str, version: int) -> None:
    """Adds an operator set to the model's imports."""
    onnx = require_import("onnx", "onnx")
    if not any(entry.domain == domain for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(domain, version))


def _is_plain_gemm(node: Any, index: GraphIndex) -> bool:
    scaled = read_attribute(node, "alpha", 1.0) != 1.0 or read_attribute(node, "beta", 1.0) != 1.0
    turned = read_attribute(node, "transA", 0)
    return not scaled and not turned and index.is_float_constant(node.input[1])


def read_names(node: Any) -> Iterator[str]:
    """Yields the tensors a node reads, by itself or in its subgraphs."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.HasField("g") else []
        for graph in (*graphs, *attribute.graphs):
            made = {name for inner in graph.node for name in inner.output} | {value.name for value in graph.input}
            read = {name for inner in graph.node for name in read_names(inner)}
            yield from (read | {value.name for value in graph.output}) - made


def _hoist_constants(graph: Any) -> None:
    numpy_helper = require_import("onnx.numpy_helper", "onnx")
    nodes = []
    for node in graph.node:
        tensor = _constant_tensor(node, numpy_helper) if node.op_type == "Constant" else None
        if tensor is None:
            nodes.append(node)
        else:
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
    if len(nodes) != len(graph.node):
        _replace(graph.node, nodes)


def _constant_tensor(node: Any, numpy_helper: Any) -> Any | None:
    """Returns a Constant node's value as a tensor; None for strings and sparse ones, which stay nodes."""
    for attribute in node.attribute:
        if attribute.name == "value":
            return attribute.t
        if attribute.name in ("value_float", "value_floats"):
            floats = attribute.f if attribute.name == "value_float" else list(attribute.floats)
            return numpy_helper.from_array(np.array(floats, np.float32))
        if attribute.name in ("value_int", "value_ints"):
            integers = attribute.i if attribute.name == "value_int" else list(attribute.ints)
            return numpy_helper.from_array(np.array(integers, np.int64))
    return None


def _replace(repeated: Any, items: Iterable[Any]) -> None:
    kept = list(items)
    del repeated[:]
    repeated.extend(kept)


def _drop(repeated: Any, unwanted: Callable[[Any], bool]) -> None:
    """Deletes in place: unlike `_replace` it copies no weights."""
    for position in range(len(repeated) - 1, -1, -1):
        if unwanted(repeated[position]):
            del repeated[position]


def rebuild_model(model: Any, nodes: list[Any], constants: Mapping[str, Any]) -> Any:
    """Returns a new model of other nodes: the initializers that they read are copied, the rest is left behind."""
    onnx = require_import("onnx", "onnx")
    made = onnx.ModelProto()
    made.ir_version = model.ir_version
    made.opset_import.extend(model.opset_import)
    made.functions.extend(model.functions)
    made.graph.name = model.graph.name or "graph"
    made.graph.input.extend(model.graph.input)
    made.graph.output.extend(model.graph.output)
    made.graph.node.extend(nodes)
    used = set(index_graph(made).consumers) | {value.name for value in model.graph.output}
    made.graph.initializer.extend(t for t in model.graph.initializer if t.name in used)
    made.graph.initializer.extend(constants.values())
    if any(node.domain == MICROSOFT_DOMAIN for node in nodes):
        require_domain(made, MICROSOFT_DOMAIN, 1)
    prune_graph(made)
    return made
