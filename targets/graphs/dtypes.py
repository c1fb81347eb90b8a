"""In which types the tensors and layers of an ONNX graph are: a strongly typed network computes in just these."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.targets.readiness import require_import

COMPUTE_OPERATORS = frozenset(
    {"Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN", "Attention"}
)
"""Operators that a network spends its time in: their types are the network's precision."""
PAIR_OPERATORS = ("QuantizeLinear", "DequantizeLinear")
_SMALL_VALUES = 1024
"""Initializers up to this size may be shapes, which shape inference reads."""


@dataclass(frozen=True, kw_only=True)
class FloatTypes:
    """In which types the layers of a graph compute.

    Attributes:
        compute: Operator -> type -> how many of its nodes compute in it: `float32`, `float16`, `bfloat16`, `int8`
            (both operands come out of DequantizeLinear), `unknown`. Only of `COMPUTE_OPERATORS`.
        float32_nodes: Names of all nodes that read or write float32 tensors, conversions between types left out.
        half_nodes: How many nodes of any kind work on float16 tensors.
        nodes: Name (`name_node`) of the main graph's nodes among `COMPUTE_OPERATORS` -> type.
    """

    compute: Mapping[str, Mapping[str, int]]
    float32_nodes: tuple[str, ...]
    half_nodes: int
    nodes: Mapping[str, str]

    def count(self, type_name: str) -> int:
        """Returns how many compute nodes have a type."""
        return sum(types.get(type_name, 0) for types in self.compute.values())


def find_float_types(model: Any) -> FloatTypes:
    """Reads the types that a graph's layers compute in from its tensors: declared, inferred, and by its Cast nodes."""
    types = infer_tensor_types(model)
    compute: dict[str, dict[str, int]] = {}
    single: list[str] = []
    nodes: dict[str, str] = {}
    half = 0
    for graph, prefix in walk_graphs(model.graph, ""):
        producers = {name: node for node in graph.node for name in node.output}
        for node in graph.node:
            if node.op_type in ("Cast", "Constant", *PAIR_OPERATORS):
                continue
            seen = {types.get(name) for name in (*node.input, *node.output) if name}
            if "float16" in seen:
                half += 1
            if "float32" in seen and "float16" not in seen:
                single.append(prefix + (node.name or node.output[0]))
            if node.op_type in COMPUTE_OPERATORS:
                kind = _find_compute_type(node, types, producers)
                per_type = compute.setdefault(node.op_type, {})
                per_type[kind] = per_type.get(kind, 0) + 1
                if not prefix:
                    nodes[name_node(node)] = kind
    return FloatTypes(compute=compute, float32_nodes=tuple(single), half_nodes=half, nodes=nodes)


def name_node(node: Any) -> str:
    """Returns a node's name, or what TensorRT's parser calls one without."""
    return str(node.name or f"node_of_{node.output[0]}")


def require_half(model: Any, target_name: str) -> FloatTypes:
    """Proves that a graph which was asked for in FP16 computes in it.

    Raises:
        BuildFailedError: No Conv, Gemm, MatMul or recurrent layer of the graph computes in float16; of a graph without
            such layers: no node at all.
    """
    found = find_float_types(model)
    if found.count("float16") or (not found.compute and found.half_nodes):
        return found
    kinds = ", ".join(f"{name} in {'/'.join(types)}" for name, types in sorted(found.compute.items()))
    raise BuildFailedError(
        f"{target_name}: a request for FP16 that yields FP32: no layer of the graph computes in float16"
        + (f" ({kinds})" if kinds else ""),
        hint="the values of this network are too large for float16 on the samples: take the FP32 target, or normalize "
        "the inputs before the network",
    )


@dataclass(frozen=True, kw_only=True)
class TensorFacts:
    """What is known of a tensor.

    Attributes:
        dtype: numpy's name of its type.
        shape: A size or a dimension's name for each axis, None for an unknown size; None for an unknown rank.
    """

    dtype: str
    shape: tuple[int | str | None, ...] | None


def infer_tensors(model: Any) -> dict[str, TensorFacts]:
    """Returns what is declared and can be inferred of the tensors of all graphs of a model.

    Weights are not copied: shape inference sees large initializers as inputs.
    """
    onnx = require_import("onnx", "onnx")
    light = _copy_without_weights(model, onnx)
    with contextlib.suppress(Exception):  # bare C++ exceptions; what is declared is there without the inference
        light = onnx.shape_inference.infer_shapes(light)
    facts: dict[str, TensorFacts] = {}
    for graph, _ in walk_graphs(light.graph, ""):
        for value in (*graph.input, *graph.output, *graph.value_info):
            found = value.type.tensor_type
            if found.elem_type:
                sizes = [
                    dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else None) for dim in found.shape.dim
                ]
                facts[value.name] = TensorFacts(
                    dtype=name_type(found.elem_type), shape=tuple(sizes) if found.HasField("shape") else None
                )
        for tensor in graph.initializer:
            facts[tensor.name] = TensorFacts(dtype=name_type(tensor.data_type), shape=tuple(tensor.dims))
    return facts


def infer_tensor_types(model: Any) -> dict[str, str]:
    """Returns tensor name -> numpy's name of its type, for all graphs of a model; unknown ones are left out."""
    return {name: facts.dtype for name, facts in infer_tensors(model).items()}


def _copy_without_weights(model: Any, onnx: Any) -> Any:
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = model.graph.name or "graph"
    for name in ("node", "input", "output", "value_info"):
        getattr(light.graph, name).extend(getattr(model.graph, name))
    fed = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if int(np.prod(tensor.dims)) <= _SMALL_VALUES and not tensor.external_data:
            light.graph.initializer.append(tensor)
        elif tensor.name not in fed:
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    return light


def _find_compute_type(node: Any, types: Mapping[str, str], producers: Mapping[str, Any]) -> str:
    operands = [name for name in node.input[:2] if name]
    pairs = [producers[name].op_type for name in operands if name in producers]
    if len(operands) == 2 and pairs == ["DequantizeLinear"] * 2:
        return "int8"
    found = [types[name] for name in (*operands, *node.output) if name in types]
    return found[0] if found else "unknown"


def walk_graphs(graph: Any, prefix: str) -> Iterator[tuple[Any, str]]:
    """Yields a graph and those inside its nodes, each with what stands before its nodes' names."""
    yield graph, prefix
    for node in graph.node:
        for inner in find_subgraphs(node):
            yield from walk_graphs(inner, f"{prefix}{node.name or node.op_type}/")


def find_subgraphs(node: Any) -> Iterable[Any]:
    """Yields the graphs in a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def name_type(elem_type: int) -> str:
    """Returns numpy's name of a type in ONNX's numbering."""
    onnx = require_import("onnx", "onnx")
    try:
        return str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type)).name)
    except (KeyError, ValueError, TypeError):
        return f"ONNX type {elem_type}"
