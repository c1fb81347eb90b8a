"""The ONNX graphs that TensorRT engines are built from: precision lives in them and nowhere else.

Networks are strongly typed: every layer computes in the type of its tensors. FP32 is the model as it was verified, FP16
comes from AutoCast, INT8 from symmetric Q/DQ pairs in a graph whose other nodes went through AutoCast.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from modelwright.core.errors import BuildFailedError
from modelwright.core.onnx.facts import find_opset
from modelwright.core.onnx.quantized import OwnScales
from modelwright.core.versions import is_at_least
from modelwright.targets.contract import BuildRequest
from modelwright.targets.graphs.classify import GraphKind, classify_graph
from modelwright.targets.graphs.dtypes import find_float_types, infer_tensor_types
from modelwright.targets.graphs.files import load_model, save_model
from modelwright.targets.graphs.legality import require_legal
from modelwright.targets.graphs.rewrite import normalize_graph, raise_opset
from modelwright.targets.quantization.autocast import cast_to_half
from modelwright.targets.quantization.half import (
    LISTED_NODES,
    PACKAGES,
    PrecisionGraph,
    describe_types,
    emulate,
    measure_request_work,
    require_float,
)
from modelwright.targets.quantization.judge import Judge
from modelwright.targets.quantization.onnx_quantizer import OnnxCandidate
from modelwright.targets.quantization.own_scales import describe_own, explain_own, read_own_scales
from modelwright.targets.quantization.prepare import prepare_model
from modelwright.targets.quantization.search import Found, search
from modelwright.targets.readiness import package_versions
from modelwright.targets.tensorrt.pair_plan import PairPlan
from modelwright.targets.tensorrt.quantize import PairQuantizer, write_pairs

HALF_SCALES_OPSET = 19
"""The first opset whose QuantizeLinear and DequantizeLinear work on float16."""
_HALF_PAIRS_RUNTIME = "1.30"
"""The first ONNX Runtime that evaluates float16 pairs right on a CPU: 1.24 was off by 20 times the error."""


def make_fp32(request: BuildRequest) -> PrecisionGraph:
    """Returns the verified model as it is: the file that the request names.

    Raises:
        BuildFailedError: It is quantized in a way that TensorRT does not take.
    """
    model = load_model(request.model_path, weights=False)
    require_legal(model, "TensorRT FP32")
    return PrecisionGraph(
        path=request.model_path,
        emulation=request.model_path,
        recipe={"precision": "fp32", "method": "as exported"},
        versions=package_versions("onnx"),
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
        BuildFailedError: No samples, nothing to quantize, quantized already in a way that TensorRT does not
            take, or a step failed.
        ToolchainMissingError: ModelOpt is absent or broken.
    """
    if request.calibration is None or request.calibration.count == 0:
        raise BuildFailedError("TensorRT INT8 needs calibration samples", hint="give --samples FILE.npz")
    own = read_own_scales(request)
    if own is not None:
        return _take_own_scales(request, own)
    require_float(request, "TensorRT INT8")
    model, prepared = prepare_model(request)
    model = _raise_for_half_scales(model, prepared)
    kind = classify_graph(model)
    quantizer = PairQuantizer(request, model, kind, float_operators)
    _require_layers(model, quantizer.plan())
    found = search(quantizer, Judge.of_request(request), request.progress)
    return _finish(request, quantizer, found, kind, prepared)


def _take_own_scales(request: BuildRequest, own: OwnScales) -> PrecisionGraph:
    """Returns a model that is quantized already as it is, where TensorRT takes its pairs; its rest stays in FP32."""
    model = load_model(request.model_path)
    require_legal(model, "TensorRT INT8")
    if not find_float_types(model).count("int8"):
        raise BuildFailedError("TensorRT INT8: no layer of the graph computes in INT8")
    return PrecisionGraph(
        path=request.model_path,
        emulation=request.model_path,
        recipe={"precision": "int8", **describe_own(own)},
        notes=[explain_own(own)],
        versions=package_versions("onnx"),
        work=measure_request_work(request, model),
    )


def _finish(
    request: BuildRequest,
    quantizer: PairQuantizer,
    chosen: Found[OnnxCandidate, Any],
    kind: GraphKind,
    prepared: dict[str, Any],
) -> PrecisionGraph:
    """Writes the pairs of the chosen candidate into the cast graph, checks it, and writes down what was done."""
    plan, limits = quantizer.prepare(chosen.candidate, chosen.kept)
    source = request.scratch / "float.onnx"
    save_model(quantizer.smoothed, source)
    request.progress("casting what stays float to FP16 with AutoCast")
    cast = cast_to_half(source, request.calibration, request.scratch, "TensorRT INT8", opset=HALF_SCALES_OPSET)
    types = infer_tensor_types(cast.model)
    _require_same_layers(cast.model, plan)
    model = write_pairs(cast.model, plan, quantizer.smoothed, limits, types)
    require_legal(model, "TensorRT INT8")
    found = find_float_types(model)
    if not found.count("int8"):
        raise BuildFailedError("TensorRT INT8: no layer of the graph computes in INT8")
    emulation, seen = emulate(request, model, "TensorRT INT8")
    path = request.scratch / "int8.onnx"
    save_model(model, path)
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
        "int8_layers": plan.layers[:LISTED_NODES],
        "int8_layer_count": len(plan.layers),
        "int8_residuals": len(plan.residuals),
        "float_layers": [{"layer": name, "reason": reason} for name, reason in plan.left.items()][:LISTED_NODES],
        "calibration_samples": quantizer.sample_count,
        "search": chosen.describe(),
        **prepared,
        "rest": {**cast.recipe, **describe_types(found, cast)},
        "checked": seen,
    }
    notes = [*chosen.notes(), *quantizer.notes(), *cast.notes]
    runtime = package_versions("onnxruntime").get("onnxruntime", "0.0")
    if not is_at_least(runtime, _HALF_PAIRS_RUNTIME):
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
        versions=package_versions(*PACKAGES),
        work=measure_request_work(request, model),
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
    found = find_opset(model)
    if found < HALF_SCALES_OPSET:
        try:
            model = raise_opset(model, HALF_SCALES_OPSET)
            normalize_graph(model)
            prepared["raised_opset"] = {"from": found, "to": HALF_SCALES_OPSET}
        except BuildFailedError as error:
            prepared["opset_note"] = f"left to AutoCast: {error.message}"
    return model


def _require_same_layers(model: Any, plan: PairPlan) -> None:
    """Checks that AutoCast left the names of the layers alone: pairs are written by them."""
    names = {node.name for node in model.graph.node}
    gone = [name for name in (*plan.layers, *plan.residuals) if name not in names]
    opset = find_opset(model)
    if gone or opset < HALF_SCALES_OPSET:
        raise BuildFailedError(
            f"TensorRT INT8: AutoCast renamed {len(gone)} layers, such as {gone[0]}"
            if gone
            else f"TensorRT INT8 needs opset {HALF_SCALES_OPSET}; the model has {opset} and does not convert",
            hint=f"export the model again at opset {HALF_SCALES_OPSET} or later",
        )
