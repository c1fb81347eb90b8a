"""Decides which layers TensorRT runs in INT8, and where pairs of QuantizeLinear and DequantizeLinear stand for it.

Pairs stand on all inputs of weighted operators and not on their outputs, and on the residual input of an Add that a
convolution fuses with: NVIDIA's documentation, "Explicit Quantization" and "Add Custom QDQ Insertion Case". From which
sizes on INT8 pays is taken from the quantizer of NVIDIA ModelOpt 0.47 (`find_nodes_from_convs_to_exclude` and
`find_nodes_from_matmul_to_exclude` in `modelopt/onnx/quantization`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelwright.core.onnx.facts import ONNX_DOMAINS, read_attribute
from modelwright.core.records.shapes import ShapeRange
from modelwright.targets.graphs.dtypes import infer_tensors
from modelwright.targets.graphs.index import GraphIndex, index_graph

_LEAST_DENSE = 16
"""Rows and columns of a matrix from which INT8 tensor cores pay (ModelOpt's `_MIN_MATMUL_DIM`)."""
_LEAST_CHANNELS = 16
_CHANNEL_STEP = 8
_LEAST_GROUP_KERNEL = 3


@dataclass(kw_only=True)
class PairPlan:
    """Which layers run in INT8, and where pairs of QuantizeLinear and DequantizeLinear stand for it.

    Attributes:
        layers: Names of the Conv, ConvTranspose, Gemm and MatMul nodes that run in INT8.
        left: Layer with constant weights that stays in float -> why.
        residuals: Name of an Add -> position of the operand that gets a pair.
        entries: Tensors that are quantized.
    """

    layers: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    residuals: dict[str, int] = field(default_factory=dict)
    entries: dict[str, None] = field(default_factory=dict)


def plan_pairs(
    model: Any,
    kept_float: Collection[str] = (),
    *,
    residuals: bool,
    float_operators: Collection[str] = (),
    vectors: Collection[str] = (),
) -> PairPlan:
    """Decides what runs in INT8.

    Args:
        model: A normalized float model.
        kept_float: Names of nodes that must stay in float.
        residuals: Whether Adds that a convolution fuses with get their other operand in INT8: pays in a CNN; a
            transformer's sums would lose accuracy for nothing.
        float_operators: Operators that the runtime has no INT8 kernel for.
        vectors: Nodes that multiply a single row (`find_vectors`).
    """
    index = index_graph(model)
    plan = PairPlan()
    for node in model.graph.node:
        if not is_weighted(node, index):
            continue
        reason = _explain_float(node, index, float_operators, model)
        if reason is None and node.name in vectors:
            reason = "it multiplies a single row: INT8 tensor cores do not pay"
        if reason is None and node.name in kept_float:
            reason = "sensitivity analysis"
        if reason is not None:
            plan.left[node.name] = reason
        else:
            plan.layers.append(node.name)
            plan.entries[node.input[0]] = None
    if residuals:
        _plan_residuals(model, index, plan)
    return plan


def find_vectors(model: Any, shapes: Mapping[str, ShapeRange]) -> set[str]:
    """Returns the Gemm and MatMul nodes that multiply a single row at the shapes that an engine is tuned for.

    Tensor cores have nothing to do there (ModelOpt leaves such layers in float).

    Args:
        model: A normalized float model.
        shapes: Input name -> range; inputs that are missing count as of unknown size.
    """
    facts = infer_tensors(model)
    sizes = {
        size: optimum
        for name, given in shapes.items()
        for size, optimum in zip((facts[name].shape if name in facts else None) or (), given.optimum, strict=False)
        if isinstance(size, str)
    }
    found = set()
    for node in model.graph.node:
        if node.op_type in ("Gemm", "MatMul") and node.input[0] in facts:
            shape = facts[node.input[0]].shape
            rows = [sizes.get(size, 0) if isinstance(size, str) else size or 0 for size in (shape or (None,))[:-1]]
            if shape is not None and all(size == 1 for size in rows):
                found.add(node.name)
    return found


def is_weighted(node: Any, index: GraphIndex) -> bool:
    """Whether a node is a Conv, ConvTranspose, Gemm or MatMul that multiplies activations by a constant weight."""
    if node.domain not in ONNX_DOMAINS or len(node.input) < 2 or not index.is_float_constant(node.input[1]):
        return False
    rank = len(index.constants[node.input[1]].dims)
    if node.input[0] in index.constants:
        return False
    if node.op_type in ("Gemm", "MatMul"):
        return rank == 2
    return node.op_type in ("Conv", "ConvTranspose")


def channel_axis(node: Any) -> int:
    """Returns the axis of a layer's output channels in its weight."""
    if node.op_type == "Conv" or (node.op_type == "Gemm" and read_attribute(node, "transB", 0)):
        return 0
    return 1


def _explain_float(node: Any, index: GraphIndex, float_operators: Collection[str], model: Any) -> str | None:
    """Returns why a layer stays in float; None when it does not."""
    dims = list(index.constants[node.input[1]].dims)
    if node.op_type in float_operators:
        return f"the runtime has no INT8 kernel for {node.op_type}"
    if node.op_type in ("Gemm", "MatMul"):
        if read_attribute(node, "transA", 0):
            return "its activation is transposed"
        return None if min(dims) >= _LEAST_DENSE else f"a matrix of {dims[0]}x{dims[1]} is too small for INT8 to pay"
    if node.op_type == "ConvTranspose":
        small = min(dims[:2]) < _LEAST_CHANNELS or read_attribute(node, "group", 1) > 1
        return "too few channels for INT8 to pay" if small else None
    inputs = {value.name for value in model.graph.input}
    return None if _conv_pays(node, dims, node.input[0] in inputs) else "too few channels for INT8 to pay"


def _conv_pays(node: Any, dims: list[int], is_first: bool) -> bool:
    outputs, inputs, kernel = dims[0], dims[1], dims[2:]
    if outputs >= _LEAST_CHANNELS and inputs >= _LEAST_CHANNELS:
        return True
    if read_attribute(node, "group", 1) > 1:
        return outputs % _CHANNEL_STEP == 0 and min(kernel) >= _LEAST_GROUP_KERNEL
    aligned = outputs % _CHANNEL_STEP == 0 or inputs % _CHANNEL_STEP == 0
    return aligned and len(set(kernel)) == 1 and (is_first or max(outputs, inputs) >= _LEAST_CHANNELS)


def _plan_residuals(model: Any, index: GraphIndex, plan: PairPlan) -> None:
    depths = _measure_depths(model)
    for node in model.graph.node:
        if node.op_type != "Add" or node.domain not in ONNX_DOMAINS or any(n in index.constants for n in node.input):
            continue
        fused = [position for position, name in enumerate(node.input) if _is_fused_conv(name, index, plan)]
        if not fused or node.input[0] == node.input[1]:
            continue
        # The convolution that comes last takes the Add with it; the other operand is the residual.
        main = max(fused, key=lambda position: depths.get(node.input[position], 0))
        residual = 1 - main
        if node.input[residual] in index.producers or node.input[residual] in plan.entries:
            plan.residuals[node.name] = residual
            plan.entries[node.input[residual]] = None


def _is_fused_conv(name: str, index: GraphIndex, plan: PairPlan) -> bool:
    producer = index.producers.get(name)
    return (
        producer is not None
        and producer.op_type in ("Conv", "ConvTranspose")
        and producer.name in plan.layers
        and index.sole_consumer(name) is not None
    )


def _measure_depths(model: Any) -> dict[str, int]:
    """Returns tensor -> number of nodes on the longest path to it."""
    depths: dict[str, int] = {}
    for node in model.graph.node:
        depth = 1 + max((depths.get(name, 0) for name in node.input), default=0)
        depths.update(dict.fromkeys(node.output, depth))
    return depths
