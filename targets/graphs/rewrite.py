"""Rewrites of ONNX graphs that several targets need before they quantize.

They are made in place, unless the docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.core.onnx.facts import INITIALIZERS_APART_IR, find_opset, read_attribute
from modelwright.core.onnx.sparse import densify_graph
from modelwright.core.onnx.walk import read_names
from modelwright.targets.graphs.files import is_large
from modelwright.targets.graphs.index import GraphIndex, index_graph
from modelwright.targets.readiness import require_import

MICROSOFT_DOMAIN = "com.microsoft"
PER_AXIS_OPSET = 13
"""The first opset whose QuantizeLinear and DequantizeLinear take one scale a channel."""


def normalize_graph(model: Any) -> None:
    """Brings a model to the form that the rewrites here expect.

    Constants become initializers, sparse ones dense; initializers that old files (IR below 4) list among the inputs are
    taken out of them; every node gets a unique name; value_info of initializers is dropped, because a rewrite that
    transposes a weight would then contradict it.
    """
    graph = model.graph
    densify_graph(graph)
    if model.ir_version < INITIALIZERS_APART_IR:
        model.ir_version = INITIALIZERS_APART_IR
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


def split_gemms(model: Any, only: Collection[str] | None = None) -> list[str]:
    """Turns every Gemm with a constant weight and no scaling into MatMul and Add.

    Args:
        model: A normalized float model.
        only: Names of those that are wanted; None for all.

    Returns:
        The names of the new MatMul nodes, each the Gemm's own name.
    """
    onnx = require_import("onnx", "onnx")
    index = index_graph(model)
    changed: list[str] = []
    nodes: list[Any] = []
    for node in model.graph.node:
        is_wanted = only is None or node.name in only
        if node.op_type != "Gemm" or not is_wanted or not _is_plain_gemm(node, index):
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
    """Turns a ReduceMean over all spatial axes into GlobalAveragePool, which runtimes have integer kernels for.

    One that drops these axes gets a Flatten behind it.
    """
    onnx = require_import("onnx", "onnx")
    index = index_graph(model)
    flattened: list[tuple[int, Any]] = []
    ranks = {
        output: len(index.constants[node.input[1]].dims)
        for node in model.graph.node
        if node.op_type == "Conv" and node.input[1] in index.constants
        for output in node.output
    }
    for position, node in enumerate(model.graph.node):  # operators that keep a feature map's rank, in topological order
        if node.op_type in ("Relu", "Clip", "Add", "Mul", "Sigmoid", "HardSwish", "MaxPool", "LeakyRelu", "Concat"):
            known = [ranks[name] for name in node.input if name in ranks]
            ranks.update(dict.fromkeys(node.output, known[0]) if known else {})
        if node.op_type != "ReduceMean" or node.input[0] not in ranks:
            continue
        axes = read_attribute(node, "axes", None)
        if axes is None and len(node.input) > 1 and node.input[1] in index.constants:
            axes = index.array(node.input[1]).tolist()
        rank = ranks[node.input[0]]
        if axes is not None and sorted(axis % rank for axis in axes) == list(range(2, rank)):
            pooled = output = str(node.output[0])
            if read_attribute(node, "keepdims", 1) == 0:
                pooled = f"{output}_pooled"
                flatten = onnx.helper.make_node("Flatten", [pooled], [output], f"{node.name}_flatten")
                flattened.append((position + 1, flatten))
            node.CopyFrom(onnx.helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], node.name))
    for position, flatten in reversed(flattened):
        model.graph.node.insert(position, flatten)


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


def drop_unread(nodes: Iterable[Any], outputs: Iterable[str]) -> list[Any]:
    """Returns those of a graph's nodes, in order, that its outputs depend on."""
    wanted = set(outputs)
    alive: list[Any] = []
    for node in reversed(list(nodes)):
        if wanted.intersection(node.output):
            alive.append(node)
            wanted.update(read_names(node))
    return alive[::-1]


def prune_graph(model: Any) -> None:
    """Drops the initializers that nothing reads any more."""
    used = {name for node in model.graph.node for name in read_names(node)}
    used |= {value.name for value in model.graph.output}
    _drop(model.graph.initializer, lambda tensor: tensor.name not in used)


def keep_needed(nodes: Sequence[Any], wanted: Collection[str]) -> tuple[list[Any], set[str]]:
    """Returns the nodes that lead to what is wanted, in their order, and all that these read."""
    read, kept = set(wanted), []
    for node in reversed(nodes):
        if any(name in read for name in node.output):
            kept.append(node)
            read.update(read_names(node))
    return kept[::-1], read


def require_domain(model: Any, domain: str, version: int) -> None:
    """Adds an operator set to the model's imports."""
    onnx = require_import("onnx", "onnx")
    if not any(entry.domain == domain for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(domain, version))


def _is_plain_gemm(node: Any, index: GraphIndex) -> bool:
    scaled = read_attribute(node, "alpha", 1.0) != 1.0 or read_attribute(node, "beta", 1.0) != 1.0
    turned = read_attribute(node, "transA", 0)
    return not scaled and not turned and index.is_float_constant(node.input[1])


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
