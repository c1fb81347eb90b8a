"""Proof that an engine computes in the precision that was asked for: by its own layers, not by trust."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.core.errors import BuildFailedError
from modelwright.targets import onnx_graph
from modelwright.targets.tensorrt.engine import BuiltEngine
from modelwright.targets.tensorrt.graph_check import COMPUTE_OPERATORS, find_float_types
from modelwright.targets.tensorrt.layers import count_precisions, find_node_precisions

_LISTED_NODES = 50
_ONNX_TYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def prove_precision(precision: str, target_name: str, built: BuiltEngine, graph_path: Path) -> dict[str, Any]:
    """Finds out what an engine's layers compute in, and checks that against the request.

    FP32 must be FP32 everywhere; FP16 and INT8 must be there among the layers that multiply (Conv, MatMul, ...), some
    of which may stay wider on purpose.

    Args:
        precision: That was asked for: `fp32`, `fp16`, `int8`.
        target_name: For errors.
        built: The engine.
        graph_path: The ONNX graph that it was built from.

    Returns:
        For the recipe: `source`, `layers` (type -> layers of the engine), `nodes` (type -> nodes of the graph that
        multiply) and `wider_nodes` (names of some that are not in the precision).

    Raises:
        BuildFailedError: The engine has no layer in the precision, or an FP32 engine has narrower ones.
    """
    model = onnx_graph.load_model(graph_path, weights=False)
    nodes = {node.name or f"node_of_{node.output[0]}" for node in model.graph.node if node.op_type in COMPUTE_OPERATORS}
    layers = count_precisions(built.layers)
    by_node = find_node_precisions(built.layers, nodes)
    if layers:
        # Where no layer names its nodes, the layers themselves count.
        counted, source = dict(Counter(by_node.values())) or layers, built.layers_source
    else:
        counted = _count_onnx_types(model)
        source = "types of the ONNX graph, which a strongly typed network obeys; TensorRT listed no layers"
    _require(precision, target_name, counted, source)
    return {
        "source": source,
        "layers": layers,
        "nodes": counted,
        "wider_nodes": sorted(name for name, found in by_node.items() if found != precision)[:_LISTED_NODES],
    }


def _count_onnx_types(model: Any) -> dict[str, int]:
    types = find_float_types(model)
    counted: Counter[str] = Counter()
    for kinds in types.compute.values():
        for name, count in kinds.items():
            counted[_ONNX_TYPES.get(name, name)] += count
    if not counted and types.half_nodes:
        counted["fp16"] = types.half_nodes
    return dict(counted)


def _require(precision: str, target_name: str, counted: Mapping[str, int], source: str) -> None:
    found = ", ".join(f"{count} in {name.upper()}" for name, count in sorted(counted.items())) or "none"
    if precision == "fp32":
        narrower = sorted(set(counted) & {"fp16", "bf16", "int8", "fp8"})
        if narrower:
            raise BuildFailedError(
                f"{target_name}: a request for FP32 that yields {narrower[0].upper()}: layers that multiply: {found}",
                hint="the model holds such types itself: export it in float32",
                detail=f"read from: {source}",
            )
    elif not counted.get(precision):
        raise BuildFailedError(
            f"{target_name}: a request for {precision.upper()} that yields an engine without it: layers that "
            f"multiply: {found}",
            hint="use another precision of this runtime",
            detail=f"read from: {source}",
        )
