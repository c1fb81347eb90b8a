"""The ONNX graphs that TensorRT engines are built from: precision lives in them and nowhere else.

Networks are strongly typed: every layer computes in the type of its tensors. FP32 is the model as it was verified, FP16
comes from AutoCast, INT8 from symmetric Q/DQ pairs in a graph whose other nodes went through AutoCast.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.core.outputs.fidelity import compare_outputs
from modelwright.core.samples.sample_set import SampleSet
from modelwright.targets.contract import BuildRequest, package_versions
from modelwright.targets.graphs import graph as onnx_graph
from modelwright.targets.graphs import legality as graph_check
from modelwright.targets.graphs import types as graph_types
from modelwright.targets.graphs.emulation import round_half_results
from modelwright.targets.graphs.graph import GraphKind
from modelwright.targets.graphs.work import measure_work
from modelwright.targets.ort.recipes import prepare_model
from modelwright.targets.quantization import statistics as smoothing
from modelwright.targets.quantization.autocast import CastResult, cast_to_half, explain_single
from modelwright.targets.quantization.search import Candidate, SearchResult, search
from modelwright.targets.tensorrt.pair_plan import PairPlan
from modelwright.targets.tensorrt.quantize import SYMMETRIC_RANGES, PairBuilder, write_pairs

HALF_SCALES_OPSET = 19
"""The first opset whose QuantizeLinear and DequantizeLinear work on float16."""
_ALPHAS = (None, 0.7, 0.5, 0.8)
_CHECKED_SAMPLES = 8
_LEAST_COSINE = 0.9
"""A graph in FP16 below it is wrong, not imprecise; what precision costs is judged on the evaluation samples."""
_FLOAT_ARITHMETIC = {"session.disable_quant_qdq": "1"}
"""TensorRT adds int8 products exactly; ONNX Runtime's integer kernels may saturate on an old CPU, floats do not."""
_LISTED_NODES = 200
_QUANTIZED_OPERATORS = frozenset(
    {
        "QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger",
        "DynamicQuantizeLinear",
    }
)  # fmt: skip
_HALF_PAIRS_RUNTIME = (1, 30)
"""The first ONNX Runtime that evaluates float16 pairs right on a CPU: 1.24 was off by 20 times the error."""
_PACKAGES = ("nvidia-modelopt", "onnx", "onnxruntime", "numpy")


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


def make_fp32(request: BuildRequest) -> PrecisionGraph:
    """Returns the verified model as it is: the file that the request names.

    Raises:
        BuildFailedError: It is quantized in a way that TensorRT does not take.
    """
    model = onnx_graph.load_model(request.model_path, weights=False)
    graph_check.require_legal(model, "TensorRT FP32")
    return PrecisionGraph(
        path=request.model_path,
        emulation=request.model_path,
        recipe={"precision": "fp32", "method": "as exported"},
        versions=package_versions("onnx"),
    )


def make_fp16(request: BuildRequest, *, target_name: str = "TensorRT FP16") -> PrecisionGraph:
    """Casts the model with AutoCast, inputs and outputs as they were, and proves that its layers compute in float16.

    Args:
        request: Calibration samples decide what stays in FP32.
        target_name: For messages.

    Raises:
        BuildFailedError: AutoCast fails, yields FP32, or a graph whose outputs do not follow the model's.
        ToolchainMissingError: ModelOpt is absent or broken.
    """
    _require_float(request, target_name)
    request.progress("casting to FP16 with AutoCast")
    cast = cast_to_half(request.model_path, request.calibration, request.scratch, target_name)
    graph_check.require_legal(cast.model, target_name)
    types = graph_types.require_half(cast.model, target_name)
    emulation, seen = _emulate(request, cast.model, target_name)
    path = request.scratch / "half.onnx"
    onnx_graph.save_model(cast.model, path)
    recipe = {"precision": "fp16", **cast.recipe, **_describe_types(types, cast), "checked": seen}
    return PrecisionGraph(
        path=path,
        emulation=emulation,
        recipe=recipe,
        notes=cast.notes,
        versions=package_versions(*_PACKAGES),
        work=_measure_work(request, cast.model),
    )


def make_int8(request: BuildRequest, *, float_operators: Collection[str] = ()) -> PrecisionGraph:
    """Quantizes the layers with constant weights to INT8 and casts the rest to FP16.

    The candidates are searched in float32 with pairs; the pairs of the one that was chosen are then written into the
    graph that AutoCast made of the same float model. The other order lets AutoCast part a weight's DequantizeLinear
    from its layer by a Cast, which TensorRT does not fuse.

    Args:
        request: With calibration samples.
        float_operators: Operators that the runtime has no INT8 kernel for.

    Raises:
        BuildFailedError: No samples, nothing to quantize, already quantized, or a step failed.
        ToolchainMissingError: ModelOpt is absent or broken.
    """
    if request.calibration is None or request.calibration.count == 0:
        raise BuildFailedError("TensorRT INT8 needs calibration samples", hint="give --samples FILE.npz")
    _require_float(request, "TensorRT INT8")
    model, prepared = prepare_model(request)
    model = _raise_for_half_scales(model, prepared)
    kind = onnx_graph.classify_graph(model)
    builder = PairBuilder(request, model, kind, float_operators)
    plan = builder.plan()
    _require_layers(model, plan)
    ranges = list(SYMMETRIC_RANGES) if kind != "transformer" else list(SYMMETRIC_RANGES)[:2]
    alphas = _ALPHAS if kind == "transformer" else _ALPHAS[:1]
    candidates = [Candidate(alpha=alpha, ranges=method) for alpha in alphas for method in ranges]
    result = search(request, candidates, builder.build, builder.costs, session_entries=_FLOAT_ARITHMETIC)
    return _finish(request, builder, result, kind, prepared)


def _finish(
    request: BuildRequest, builder: PairBuilder, result: SearchResult, kind: GraphKind, prepared: dict[str, Any]
) -> PrecisionGraph:
    """Writes the pairs of the chosen candidate into the cast graph, checks it, and writes down what was done."""
    chosen = Candidate(**result.recipe["chosen"])
    kept = [entry["node"] for entry in result.recipe["float_nodes"]]
    plan, limits = builder.prepare(chosen, kept)
    source = request.scratch / "float.onnx"
    onnx_graph.save_model(builder.smoothed, source)
    request.progress("casting what stays float to FP16 with AutoCast")
    cast = cast_to_half(source, request.calibration, request.scratch, "TensorRT INT8", opset=HALF_SCALES_OPSET)
    types = graph_types.infer_tensor_types(cast.model)
    _require_same_layers(cast.model, plan)
    model = write_pairs(cast.model, plan, builder.smoothed, limits, types)
    graph_check.require_legal(model, "TensorRT INT8")
    found = graph_types.find_float_types(model)
    if not found.count("int8"):
        raise BuildFailedError("TensorRT INT8: no layer of the graph computes in INT8")
    emulation, seen = _emulate(request, model, "TensorRT INT8")
    path = request.scratch / "int8.onnx"
    onnx_graph.save_model(model, path)
    recipe = {
        "precision": "int8",
        "method": "static symmetric Q/DQ",
        "graph": kind,
        "formats": {
            "activations": "int8 symmetric, one scale a tensor, zero point 0",
            "weights": "int8 symmetric, one scale an output channel",
            "bias": "float",
            "scales": "float16 numbers",
        },
        "int8_layers": plan.layers[:_LISTED_NODES],
        "int8_layer_count": len(plan.layers),
        "int8_residuals": len(plan.residuals),
        "float_layers": [{"node": name, "reason": reason} for name, reason in plan.left.items()][:_LISTED_NODES],
        "calibration_samples": builder.sample_count,
        **result.recipe,
        **prepared,
        "rest": {**cast.recipe, **_describe_types(found, cast)},
        "checked": seen,
    }
    notes = [*result.notes, *cast.notes]
    runtime = package_versions("onnxruntime").get("onnxruntime", "0.0")
    if tuple(int(part) for part in re.findall(r"\d+", runtime)[:2]) < _HALF_PAIRS_RUNTIME:
        notes.append(
            f"onnxruntime {runtime} evaluates float16 pairs inexactly: the engine follows FP32 closer than told"
        )
    if kind == "rnn":
        notes.append("recurrent layers stay in FP16: TensorRT has no INT8 for them")
    return PrecisionGraph(
        path=path,
        emulation=emulation,
        recipe=recipe,
        notes=notes,
        versions=package_versions(*_PACKAGES),
        work=_measure_work(request, model),
    )


def _require_float(request: BuildRequest, target_name: str) -> None:
    """Refuses a model that is quantized already."""
    model = onnx_graph.load_model(request.model_path, weights=False)
    for node in model.graph.node:
        if node.op_type in _QUANTIZED_OPERATORS:
            raise BuildFailedError(
                f"{target_name}: the model is quantized already: node {node.name or node.output[0]} ({node.op_type})",
                hint="give the float model that it was made from",
            )


def _require_layers(model: Any, plan: PairPlan) -> None:
    if plan.layers:
        return
    if plan.left:
        name, reason = next(iter(plan.left.items()))
        raise BuildFailedError(
            f"TensorRT INT8: none of the model's {len(plan.left)} layers with constant weights gains from INT8: for "
            f"instance {name}: {reason}",
            hint="use the FP16 target of this runtime",
        )
    halves = any(t.data_type == _FLOAT16 and len(t.dims) > 1 for t in model.graph.initializer)
    raise BuildFailedError(
        "TensorRT INT8: the model has no Conv, ConvTranspose, MatMul or Gemm with constant float32 weights: nothing to "
        "quantize",
        hint="its weights are float16: export it in float32" if halves else "use the FP16 target of this runtime",
    )


_FLOAT16 = 10
"""`onnx.TensorProto.FLOAT16`."""


def _raise_for_half_scales(model: Any, prepared: dict[str, Any]) -> Any:
    found = onnx_graph.find_opset(model)
    if found < HALF_SCALES_OPSET:
        try:
            model = onnx_graph.raise_opset(model, HALF_SCALES_OPSET)
            onnx_graph.normalize_graph(model)
            prepared["raised_opset"] = {"from": found, "to": HALF_SCALES_OPSET}
        except BuildFailedError as error:
            prepared["opset_note"] = f"left to AutoCast: {error.message}"
    return model


def _require_same_layers(model: Any, plan: PairPlan) -> None:
    """Checks that AutoCast left the names of the layers alone: pairs are written by them."""
    names = {node.name for node in model.graph.node}
    gone = [name for name in (*plan.layers, *plan.residuals) if name not in names]
    opset = onnx_graph.find_opset(model)
    if gone or opset < HALF_SCALES_OPSET:
        raise BuildFailedError(
            f"TensorRT INT8: AutoCast renamed {len(gone)} layers, such as {gone[0]}"
            if gone
            else f"TensorRT INT8 needs opset {HALF_SCALES_OPSET}; the model has {opset} and does not convert",
            hint=f"export the model again at opset {HALF_SCALES_OPSET} or later",
        )


def _describe_types(types: graph_types.FloatTypes, cast: CastResult) -> dict[str, Any]:
    return {
        "compute_types": {name: dict(kinds) for name, kinds in sorted(types.compute.items())},
        "fp32_nodes": explain_single(cast, types.float32_nodes[:_LISTED_NODES]),
        "fp32_node_count": len(types.float32_nodes),
    }


def _emulate(request: BuildRequest, model: Any, target_name: str) -> tuple[Path, dict[str, Any] | None]:
    """Saves the graph as ONNX Runtime evaluates it with a GPU's rounding, and compares it with the FP32 model.

    Raises:
        BuildFailedError: It does not follow the FP32 model at all.
    """
    emulated = round_half_results(model)
    seen = _compare(request, emulated)
    _require_following(seen, target_name)
    path = request.scratch / "emulation.onnx"
    onnx_graph.save_model(emulated, path)
    return path, seen


def _compare(request: BuildRequest, model: Any) -> dict[str, Any] | None:
    """Evaluates a graph with ONNX Runtime beside the FP32 model; None without samples."""
    samples: SampleSet | None = request.tuning if request.tuning is not None and request.tuning.count else None
    samples = samples or request.calibration
    if samples is None or samples.count == 0:
        return None
    names = [spec.name for spec in request.signature.outputs]
    before = smoothing.open_session(onnx_graph.load_model(request.model_path), request.scratch)
    after = smoothing.open_session(model, request.scratch, entries=_FLOAT_ARITHMETIC)
    pairs = [
        (before.run(names, dict(feeds)), after.run(names, dict(feeds))) for feeds in samples.feeds(_CHECKED_SAMPLES)
    ]
    if any(_overflows(*values) for before_after in pairs for values in zip(*before_after, strict=True)):
        return {"samples": len(pairs), "cosine": None, "finite": False}
    expected, found = ([dict(zip(names, pair[side], strict=True)) for pair in pairs] for side in (0, 1))
    fidelity = compare_outputs(expected, found)
    return {"samples": len(pairs), "cosine": fidelity.cosine, "finite": True}


def _measure_work(request: BuildRequest, model: Any) -> dict[str, float] | None:
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
