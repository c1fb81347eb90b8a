"""In which types the tensors and layers of an ONNX graph are: a strongly typed network computes in just these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.core.errors import BuildFailedError
from modelwright.targets.readiness import require_import

COMPUTE_OPERATORS = frozenset(
    {"Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN", "Attention"}
)
"""Operators that a network spends its time in: their types are the network's precision."""
PAIR_OPERATORS = ("QuantizeLinear", "DequantizeLinear")
_NAMED_NODES = 3


@dataclass(frozen=True, kw_only=True)
class FloatTypes:
    """In which types the layers of a graph compute.

    Attributes:
        compute: Operator -> type -> how many of its nodes compute in it: `float32`, `float16`, `bfloat16`, `int8`
            (both operands come out of DequantizeLinear), `unknown`. Only of `COMPUTE_OPERATORS`.
        float32_nodes: Names of all nodes that read or write float32 tensors, conversions between types left out.
        half_nodes: How many nodes of any kind work on float16 tensors.
        nodes: Name (`name_layer`) of the main graph's nodes among `COMPUTE_OPERATORS` -> type.
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
    compute: dict[str, dict[str, int]] = {}
    single: list[str] = []
    nodes: dict[str, str] = {}
    half = 0
    for node, prefix in walk_nodes(infer_types(model).graph):
        if node.op_type in ("Cast", "Constant", *PAIR_OPERATORS):
            continue
        seen = {name_type(value.dtype) for value in (*node.inputs, *node.outputs) if value is not None}
        if "float16" in seen:
            half += 1
        if "float32" in seen and "float16" not in seen:
            single.append(prefix + (node.name or node.outputs[0].name))
        if node.op_type in COMPUTE_OPERATORS:
            kind = _find_compute_type(node)
            per_type = compute.setdefault(node.op_type, {})
            per_type[kind] = per_type.get(kind, 0) + 1
            if not prefix:
                nodes[name_layer(node.name, node.outputs[0].name)] = kind
    return FloatTypes(compute=compute, float32_nodes=tuple(single), half_nodes=half, nodes=nodes)


def name_layer(name: str, first_output: str) -> str:
    """Returns a node's name, or what TensorRT's parser calls one without."""
    return name or f"node_of_{first_output}"


def require_half(model: Any, target_name: str) -> FloatTypes:
    """Proves that a graph which was asked for in FP16 computes in it.

    Raises:
        BuildFailedError: No Conv, Gemm, MatMul or recurrent layer of the graph computes in float16; of a graph without
            such layers: no node at all.
    """
    found = find_float_types(model)
    if found.count("float16") or (not found.compute and found.half_nodes):
        return found
    if not found.compute and not found.float32_nodes:
        raise BuildFailedError(
            f"{target_name}: a request for FP16 of a network without a floating-point operator",
            hint="take the FP32 target",
        )
    kinds = ", ".join(f"{name} in {'/'.join(types)}" for name, types in sorted(found.compute.items()))
    kinds = kinds or f"{', '.join(found.float32_nodes[:_NAMED_NODES])} in float32"
    raise BuildFailedError(
        f"{target_name}: a request for FP16 that yields FP32: no layer of the graph computes in float16 ({kinds})",
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
    """Returns what is declared and can be inferred of the tensors of a model's main graph, where the type is known."""
    require_import("onnx_ir", "modelopt")
    from onnx_ir.convenience import create_value_mapping

    facts: dict[str, TensorFacts] = {}
    for name, value in create_value_mapping(infer_types(model).graph, include_subgraphs=False).items():
        dtype = name_type(value.dtype)
        if dtype is not None:
            sizes = None if value.shape is None else tuple(getattr(size, "value", size) for size in value.shape)
            facts[name] = TensorFacts(dtype=dtype, shape=sizes)
    return facts


def infer_tensor_types(model: Any) -> dict[str, str]:
    """Returns tensor name -> numpy's name of its type, for the main graph of a model; unknown ones are left out."""
    return {name: facts.dtype for name, facts in infer_tensors(model).items()}


def infer_types(model: Any) -> Any:
    """Returns a model as onnx-ir sees it, with what can be inferred of its tensors.

    Each tensor is an object there: one name that means several things in several graphs is no matter. Weights are not
    copied, and what is declared is there even where the inference fails.
    """
    ir, passes = (require_import(name, "modelopt") for name in ("onnx_ir", "onnx_ir.passes.common"))
    typed = read_ir(model)
    for value in typed.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = None  # onnx's inference gives up on values that were not loaded
    return passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(typed).model


def read_ir(model: Any) -> Any:
    """Returns a model as onnx-ir sees it; weights are not copied.

    Raises:
        BuildFailedError: The graph is none, as where two nodes make one tensor.
    """
    ir = require_import("onnx_ir", "modelopt")
    try:
        return ir.from_proto(model)
    except ir.serde.SerdeError as error:
        reason: BaseException = error
        while reason.__cause__ is not None:
            reason = reason.__cause__
        raise BuildFailedError("onnx-ir cannot read this graph", detail=str(reason)) from error


def walk_nodes(graph: Any, prefix: str = "") -> Iterator[tuple[Any, str]]:
    """Yields the nodes of an onnx-ir graph and of those inside its nodes, each with what stands before its name."""
    for node in graph:
        yield node, prefix
        for attribute in node.attributes.values():
            if attribute.is_ref() or attribute.type.name not in ("GRAPH", "GRAPHS"):
                continue
            for inner in [attribute.value] if attribute.type.name == "GRAPH" else attribute.value:
                yield from walk_nodes(inner, f"{prefix}{node.name or node.op_type}/")


def name_type(dtype: Any | None) -> str | None:
    """Returns numpy's name of one of onnx-ir's types; None for an unknown one."""
    try:
        return None if dtype is None else str(dtype.numpy().name)
    except TypeError:  # a type that numpy lacks
        return f"ONNX type {dtype}"


def _find_compute_type(node: Any) -> str:
    operands = [value for value in node.inputs[:2] if value is not None]
    makers = [value.producer() for value in operands]
    if [maker and maker.op_type for maker in makers] == ["DequantizeLinear"] * 2:
        return "int8"
    found = [name_type(value.dtype) for value in (*operands, *node.outputs)]
    return next((name for name in found if name is not None), "unknown")
