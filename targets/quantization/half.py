"""Graphs in FP16 for runtimes whose precision lies in the ONNX: cast by AutoCast, checked, and emulated on a CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.core.onnx.facts import is_quantized_operator
from modelwright.core.onnx.walk import iterate_graphs
from modelwright.core.outputs.fidelity import compare_outputs
from modelwright.core.samples.sample_set import SampleSet
from modelwright.targets.contract import BuildRequest
from modelwright.targets.graphs.dtypes import FloatTypes, require_half
from modelwright.targets.graphs.emulation import round_half_results
from modelwright.targets.graphs.files import load_model, save_model
from modelwright.targets.graphs.legality import require_legal
from modelwright.targets.graphs.run import open_session
from modelwright.targets.graphs.work import measure_work
from modelwright.targets.quantization.autocast import CastResult, cast_to_half, explain_single
from modelwright.targets.readiness import package_versions

_CHECKED_SAMPLES = 8
_LEAST_COSINE = 0.9
"""A graph in FP16 below it is wrong, not imprecise; what precision costs is judged on the evaluation samples."""
FLOAT_ARITHMETIC = {"session.disable_quant_qdq": "1"}
"""TensorRT adds int8 products exactly; ONNX Runtime's integer kernels may saturate on an old CPU, floats do not."""
LISTED_NODES = 200
PACKAGES = ("nvidia-modelopt", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True, kw_only=True)
class PrecisionGraph:
    """A graph for TensorRT's parser.

    Attributes:
        path: An ONNX file; weights that it keeps apart lie beside it. Read only.
        emulation: An ONNX file with the same arithmetic for ONNX Runtime on a CPU.
        recipe: For the manifest, in JSON values.
        notes: For the user.
        versions: Package -> version of what made it.
        work: Node -> multiplications of one inference; None without samples, and where nobody asks.
    """

    path: Path
    emulation: Path
    recipe: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    work: dict[str, float] | None = None


def make_fp16(request: BuildRequest, *, target_name: str = "TensorRT FP16") -> PrecisionGraph:
    """Casts the model with AutoCast, inputs and outputs as they were, and proves that its layers compute in float16.

    Args:
        request: Calibration samples decide what stays in FP32.
        target_name: For messages.

    Raises:
        BuildFailedError: AutoCast fails, yields FP32, or a graph whose outputs do not follow the model's.
        ToolchainMissingError: ModelOpt is absent or broken.
    """
    require_float(request, target_name)
    request.progress("casting to FP16 with AutoCast")
    cast = cast_to_half(request.model_path, request.calibration, request.scratch, target_name)
    require_legal(cast.model, target_name)
    types = require_half(cast.model, target_name)
    emulation, seen = emulate(request, cast.model, target_name)
    path = request.scratch / "half.onnx"
    save_model(cast.model, path)
    recipe = {"precision": "fp16", **cast.recipe, **describe_types(types, cast), "checked": seen}
    return PrecisionGraph(
        path=path,
        emulation=emulation,
        recipe=recipe,
        notes=cast.notes,
        versions=package_versions(*PACKAGES),
        work=measure_request_work(request, cast.model),
    )


def require_float(request: BuildRequest, target_name: str) -> None:
    """Refuses a model that is quantized already."""
    model = load_model(request.model_path, weights=False)
    for node in (node for graph in iterate_graphs(model) for node in graph.node):
        if is_quantized_operator(node.op_type):
            raise BuildFailedError(
                f"{target_name}: the model is quantized already: node {node.name or node.output[0]} ({node.op_type})",
                hint="give the float model that it was made from",
            )


def describe_types(types: FloatTypes, cast: CastResult) -> dict[str, Any]:
    """Returns for the manifest in which types the layers compute, and what stayed in FP32."""
    return {
        "compute_types": {name: dict(kinds) for name, kinds in sorted(types.compute.items())},
        "fp32_nodes": explain_single(cast, types.float32_nodes[:LISTED_NODES]),
        "fp32_node_count": len(types.float32_nodes),
    }


def emulate(request: BuildRequest, model: Any, target_name: str) -> tuple[Path, dict[str, Any] | None]:
    """Saves the graph as ONNX Runtime evaluates it with a GPU's rounding, and compares it with the FP32 model.

    Raises:
        BuildFailedError: It does not follow the FP32 model at all.
    """
    emulated = round_half_results(model)
    seen = _compare(request, emulated)
    _require_following(seen, target_name)
    path = request.scratch / "emulation.onnx"
    save_model(emulated, path)
    return path, seen


def _compare(request: BuildRequest, model: Any) -> dict[str, Any] | None:
    """Evaluates a graph with ONNX Runtime beside the FP32 model; None without samples."""
    samples: SampleSet | None = request.tuning if request.tuning is not None and request.tuning.count else None
    samples = samples or request.calibration
    if samples is None or samples.count == 0:
        return None
    names = [spec.name for spec in request.signature.outputs]
    before = open_session(load_model(request.model_path), request.scratch)
    after = open_session(model, request.scratch, entries=FLOAT_ARITHMETIC)
    pairs = [
        (before.run(names, dict(feeds)), after.run(names, dict(feeds))) for feeds in samples.feeds(_CHECKED_SAMPLES)
    ]
    if any(_overflows(*values) for before_after in pairs for values in zip(*before_after, strict=True)):
        return {"samples": len(pairs), "cosine": None, "finite": False}
    expected, found = ([dict(zip(names, pair[side], strict=True)) for pair in pairs] for side in (0, 1))
    fidelity = compare_outputs(expected, found)
    return {"samples": len(pairs), "cosine": fidelity.cosine, "finite": True}


def measure_request_work(request: BuildRequest, model: Any) -> dict[str, float] | None:
    """Returns node -> multiplications on the first calibration sample; None without samples."""
    samples = request.calibration
    if samples is None or samples.count == 0:
        return None
    return measure_work(model, next(samples.feeds(1)), request.scratch)


def _overflows(expected: Any, found: Any) -> bool:
    """Whether a result is NaN or infinite where FP32's is not."""
    return bool(found.dtype.kind == "f" and (~np.isfinite(found) & np.isfinite(expected)).any())


def _require_following(seen: dict[str, Any] | None, target_name: str) -> None:
    if seen is None or (seen["finite"] and (seen["cosine"] is None or seen["cosine"] >= _LEAST_COSINE)):
        return
    what = f"cosine {seen['cosine']:.4f}" if seen["finite"] else "NaN or infinity"
    raise BuildFailedError(
        f"{target_name}: the graph does not follow the FP32 model on {seen['samples']} samples: {what}",
        hint="take the FP32 target of this runtime",
    )
