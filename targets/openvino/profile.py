"""What OpenVINO's layers compute in, read from the execution graph, and what each took, from its counters."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from modelwright.core.records.operators import Kind, OperatorProfile
from modelwright.targets.profiling import WARM_UPS, TimedOperator, make_profile, run_inferences
from modelwright.targets.readiness import package_versions

# Layer types of the execution graph that do the arithmetic; the others move, reshape or combine what these make.
_COMPUTE_LAYERS = frozenset(
    {"Convolution", "Deconvolution", "FullyConnected", "MatMul", "RNNCell", "RNNSeq", "ScaledDotProductAttention"}
)
_CONVERSIONS = frozenset({"Convert", "FakeQuantize", "Reorder", "Transpose"})
_PRECISIONS: Mapping[str, str] = {
    "bf16": "bf16",
    "f16": "fp16",
    "f32": "fp32",
    "f64": "fp64",
    "i8": "int8",
    "u8": "int8",
}
_INTEGERS, _FLOATS = frozenset({"i8", "u8"}), frozenset({"bf16", "f16", "f32"})
_DISTURBED = 1.3
"""An inference that takes this many times the median was interrupted."""
_HOLDERS = frozenset({"If", "Loop", "TensorIterator"})
"""Their precision is that of what decides which branch runs; what runs in them is not told."""
_UNNAMED = frozenset({"Constant", "FakeQuantize", "Parameter", "Result"})
"""Operators of the model that nobody asks for by name: quantizing put them in, or they hold values."""


def profile_request(model: Any, request: Callable[[], Any], call: Callable[[], object]) -> OperatorProfile:
    """Runs a few inferences of a model that was compiled with `PERF_COUNT`, and reads its counters.

    Args:
        model: As read from its files.
        request: Returns the inference request that the last call used.
        call: Runs one inference.
    """
    means_us: list[dict[str, float]] = []
    walls_us = run_inferences(call, lambda: means_us.append(_read_means(request())))
    times_us = find_times(means_us, walls_us)
    types = {node.get_friendly_name(): node.get_type_name() for node in model.get_ops()}
    layers = request().get_compiled_model().get_runtime_model().get_ops()
    version = package_versions("openvino").get("openvino", "")
    return make_profile(
        f"performance counters of OpenVINO {version}",
        list(_describe_layers(layers, types, times_us)),
        walls_us,
        {},
    )


def find_times(means_us: Sequence[Mapping[str, float]], walls_us: Sequence[float]) -> dict[str, float]:
    """Returns what each layer took in an inference that nothing disturbed.

    The counters are means of all inferences since the model was compiled, in whole microseconds, so that one inference
    that was interrupted stays in all that follow. What each added is taken where its time by the clock is usual.

    Args:
        means_us: Layer -> counter, after each inference that counts.
        walls_us: What each of these inferences took.
    """
    usual_us = _DISTURBED * statistics.median(walls_us)
    quiet = [index for index in range(1, len(walls_us)) if walls_us[index] <= usual_us] or [len(walls_us) - 1]
    times_us = {}
    for name in means_us[-1]:
        sums_us = [mean.get(name, 0.0) * (WARM_UPS + 1 + index) for index, mean in enumerate(means_us)]
        added_us = sum(sums_us[index] - sums_us[index - 1] for index in quiet)
        times_us[name] = max(0.0, added_us / len(quiet))
    return times_us


def _read_means(request: Any) -> dict[str, float]:
    """Returns layer -> the mean time of all inferences so far, in µs, of the layers that ran."""
    return {
        info.node_name: info.real_time.total_seconds() * 1e6
        for info in request.get_profiling_info()
        if info.status == type(info).Status.EXECUTED
    }


def _describe_layers(layers: Any, types: Mapping[str, str], times_us: Mapping[str, float]) -> Iterator[TimedOperator]:
    matmuls = find_matmuls(types)
    for layer in layers:
        name = layer.get_friendly_name()
        if name not in times_us:
            continue
        facts = layer.get_rt_info()
        kind, precision = classify(layer, types, matmuls)
        originals = [one for one in facts["originalLayersNames"].get().split(",") if one]
        yield TimedOperator(
            name=name,
            type=facts["layerType"].get(),
            kind=kind,
            precision=precision,
            nodes=tuple(one for one in originals if types.get(one, "Constant") not in _UNNAMED),
            times_us=[times_us[name]],
        )


def classify(layer: Any, types: Mapping[str, str], matmuls: AbstractSet[str]) -> tuple[Kind, str | None]:
    """Returns what a layer of the execution graph does, and the precision that it executes in.

    Args:
        layer: Of the execution graph.
        types: Operator of the model -> its type.
        matmuls: Of `find_matmuls`.
    """
    facts = layer.get_rt_info()
    computes = read_compute_precisions(layer, matmuls)
    if computes:
        return "compute", _PRECISIONS.get(min(computes, key=lambda name: name not in _INTEGERS), computes[0])
    originals = {types.get(name) for name in facts["originalLayersNames"].get().split(",") if name}
    if facts["layerType"].get() in _CONVERSIONS or (originals and originals <= _CONVERSIONS):
        return "conversion", None
    if facts["layerType"].get() in _HOLDERS:
        return "other", None
    return "other", _PRECISIONS.get(facts["runtimePrecision"].get())


def find_matmuls(types: Mapping[str, str]) -> frozenset[str]:
    """Returns the operators of the model that multiply matrices, which a kernel of several layers may hold."""
    return frozenset(name for name, kind in types.items() if kind == "MatMul")


def read_compute_precisions(layer: Any, matmuls: AbstractSet[str]) -> list[str]:
    """Returns the precisions, in OpenVINO's words, of what a layer multiplies; empty for one that does not.

    Args:
        layer: Of the execution graph.
        matmuls: Of `find_matmuls`.
    """
    facts = layer.get_rt_info()
    if facts["layerType"].get() in _COMPUTE_LAYERS:
        return [_read_executed(facts)]
    if matmuls.isdisjoint(facts["originalLayersNames"].get().split(",")):
        return []
    return _read_weight_precisions(layer)


def _read_executed(facts: Any) -> str:
    """Returns what a layer multiplies in: the kernel's own word where integers are its weights' storage alone."""
    told, kernel = str(facts["runtimePrecision"].get()), str(facts["primitiveType"].get()).rpartition("_")[2].lower()
    return kernel if told in _INTEGERS and kernel in _FLOATS else told


def _read_weight_precisions(node: Any) -> list[str]:
    """Returns the precisions of the weight matrices that a kernel of several fused layers reads: one a layer."""
    matrices = []
    for value in node.input_values():
        facts = value.get_node().get_rt_info()
        shape = value.get_partial_shape()
        if facts["layerType"].get() == "Const" and shape.is_static and sum(size > 1 for size in shape.to_shape()) > 1:
            matrices.append(str(facts["outputPrecisions"].get()))
    return matrices
