"""Proof that an engine computes in the precision that was asked for: by its own layers, not by trust."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.core.errors import BuildFailedError
from modelwright.targets.graphs.dtypes import FloatTypes, find_float_types
from modelwright.targets.graphs.files import load_model
from modelwright.targets.tensorrt.engine import BuiltEngine
from modelwright.targets.tensorrt.layers import count_precisions, find_node_precisions

_LISTED_NODES = 50
_NAMED_NODES = 3
_LEAST_SHARE = 0.5
"""Share of the multiplications in the precision that was asked for below which the user is told."""
_SHORT_NAMES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def prove_precision(
    precision: str, target_name: str, built: BuiltEngine, graph_path: Path, work: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Finds out what an engine's layers compute in, and checks that against the request.

    FP32 must be FP32 everywhere; FP16 and INT8 must be there among the layers that multiply (Conv, MatMul, ...), some
    of which may stay wider on purpose.

    Args:
        precision: That was asked for: `fp32`, `fp16`, `int8`.
        target_name: For errors.
        built: The engine.
        graph_path: The ONNX graph that it was built from.
        work: Node -> multiplications; None where they were not counted.

    Returns:
        For the recipe: `source`, `layers` (type -> layers of the engine), `nodes` (type -> nodes of the graph that
        multiply), `work` (type -> share of the multiplications; None where unknown), `wider_nodes` (names of some that
        are not in the precision) and `widened_nodes` (those that the graph has in the precision and the engine not).

    Raises:
        BuildFailedError: The engine has no layer in the precision, or an FP32 engine has narrower ones.
    """
    types = find_float_types(load_model(graph_path, weights=False))
    asked = {name: _SHORT_NAMES.get(kind, kind) for name, kind in types.nodes.items()}
    layers = count_precisions(built.layers)
    if layers:
        found, source = find_node_precisions(built.layers, asked), built.layers_source
        # Where no layer names its nodes, the layers themselves count; of a network in which nothing multiplies, one may
        # be INT8 or FP16 because it reads an input of that type.
        counted = dict(Counter(found.values())) or ({} if precision == "fp32" and not asked else layers)
    else:
        found, counted = asked, _count_types(types)
        source = "types of the ONNX graph, which a strongly typed network obeys; TensorRT listed no layers"
    _require(precision, target_name, counted, source)
    wider = sorted(name for name, kind in found.items() if kind != precision)
    return {
        "source": source,
        "layers": layers,
        "nodes": counted,
        "work": _share_work(found, work or {}),
        "wider_nodes": wider[:_LISTED_NODES],
        "widened_nodes": [name for name in wider if asked[name] == precision][:_LISTED_NODES],
    }


def note_shares(precision: str, proof: Mapping[str, Any]) -> list[str]:
    """Returns sentences for the user where an engine is less in a precision than its name says.

    Args:
        precision: That was asked for.
        proof: From `prove_precision`.
    """
    notes = []
    work, widened = proof["work"] or {}, proof["widened_nodes"]
    share = work.get(precision, 0.0)
    if work and share < _LEAST_SHARE:
        rest = ", ".join(f"{part:.0%} in {name.upper()}" for name, part in work.items() if name != precision)
        notes.append(
            f"only {share:.0%} of the multiplications run in {precision.upper()}, {rest}: the target of the wider "
            "precision may be as fast; the manifest's recipe says which layers are not in it, and why"
        )
    if widened:
        named = ", ".join(widened[:_NAMED_NODES]) + (", ..." if len(widened) > _NAMED_NODES else "")
        notes.append(f"TensorRT computes layers wider than the graph has them ({len(widened)}): {named}")
    return notes


def _share_work(found: Mapping[str, str], work: Mapping[str, float]) -> dict[str, float] | None:
    """Returns type -> share of the multiplications, the largest first; None where no node's are known."""
    sums = dict.fromkeys(found.values(), 0.0)
    for name, kind in found.items():
        sums[kind] += work.get(name, 0.0)
    total = sum(sums.values())
    return {kind: round(sums[kind] / total, 4) for kind in sorted(sums, key=lambda k: -sums[k])} if total else None


def _count_types(types: FloatTypes) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for kinds in types.compute.values():
        for name, count in kinds.items():
            counted[_SHORT_NAMES.get(name, name)] += count
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
