"""SmoothQuant: moves the difficulty of quantizing activations into the weights.

A transformer's activations have a few channels a hundred times larger than the rest; one scale for all of them
leaves the others two or three levels. SmoothQuant (Xiao et al., 2023, arXiv:2211.10438, equation 4) divides each
channel by s = max|x|^alpha / max|w|^(1 - alpha) and multiplies the weight's row by it: the product stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.onnx.facts import read_attribute
from modelwright.targets.contract import Array, BuildRequest
from modelwright.targets.graphs.index import GraphIndex, find_weight_matmuls, index_graph
from modelwright.targets.graphs.rewrite import prune_graph, rebuild_model
from modelwright.targets.quantization.statistics import collect_channel_maxima
from modelwright.targets.readiness import require_import

SMOOTHING_FLOOR = 1e-5
"""Channel maxima below it count as this much, so that a dead channel cannot blow up its weights."""
_OUTLIERS = 4.0
"""An activation whose largest channel is within this of the middle one gets no multiplication. In MiniLM these are the
averages that attention gives (up to 3.9), and dividing them changes nothing of the answers' error that can be seen;
dividing what normalizations and Gelu give (4.3 to 20) halves it."""


def find_smoothable(model: Any, index: GraphIndex) -> dict[str, list[Any]]:
    """Returns the activations that MatMul and Gemm nodes with constant weights read -> those nodes."""
    found: dict[str, list[Any]] = {}
    for node in find_weight_matmuls(model, index):
        if not read_attribute(node, "transA", 0) and not index.is_float_constant(node.input[0]):
            found.setdefault(node.input[0], []).append(node)
    return found


def smooth_model(model: Any, maxima: Mapping[str, npt.NDArray[np.float32]], alpha: float) -> list[str]:
    """Divides each smoothable activation by its channels' factors and multiplies them into the weights, in place.

    MatMuls that read one tensor share their factors, so that what quantizes it can be shared too. The division is
    folded into a LayerNormalization whose output nothing else reads; elsewhere it is an explicit Mul, where channels
    differ enough to be worth one.

    Args:
        model: A normalized float model.
        maxima: From `collect_channel_maxima` on `find_smoothable`.
        alpha: Share of the difficulty that moves into the weights: 0 none, 1 all.

    Returns:
        Names of the smoothed nodes.
    """
    onnx = require_import("onnx", "onnx")
    index = index_graph(model)
    smoothed: list[str] = []
    divisions: list[tuple[str, Any]] = []
    for name, nodes in find_smoothable(model, index).items():
        turned = [bool(read_attribute(node, "transB", 0)) for node in nodes]
        stored = [index.array(node.input[1]) for node in nodes]
        weights = [weight.T if turn else weight for weight, turn in zip(stored, turned, strict=True)]
        if name not in maxima or len(maxima[name]) != len(weights[0]):
            continue
        factors = _find_factors(maxima[name], weights, alpha)
        source = name
        if not _fold_into_norm(model, index, name, nodes, factors):
            if not _has_outliers(maxima[name]):
                continue
            source = f"{name}_smoothed"
            model.graph.initializer.append(onnx.numpy_helper.from_array(1 / factors, f"{source}_factors"))
            mul = onnx.helper.make_node("Mul", [name, f"{source}_factors"], [source], f"{source}_mul")
            divisions.append((nodes[0].name, mul))
        for node, weight, turn in zip(nodes, stored, turned, strict=True):
            scaled = f"{node.input[1]}_{node.name}_smoothed"
            values = weight * (factors[None, :] if turn else factors[:, None])
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, scaled))
            node.input[0], node.input[1] = source, scaled
            smoothed.append(node.name)
    for reader, mul in divisions:
        position = next(number for number, node in enumerate(model.graph.node) if node.name == reader)
        model.graph.node.insert(position, mul)
    return smoothed


def _has_outliers(activations: npt.NDArray[np.float32]) -> bool:
    usual = max(float(np.median(activations)), SMOOTHING_FLOOR)
    return bool(activations.size) and float(activations.max()) > _OUTLIERS * usual


def _find_factors(
    activations: npt.NDArray[np.float32], weights: Sequence[Array], alpha: float
) -> npt.NDArray[np.float32]:
    rows = np.maximum.reduce([np.abs(weight).max(axis=1) for weight in weights])
    factors = np.maximum(activations, SMOOTHING_FLOOR) ** alpha / np.maximum(rows, SMOOTHING_FLOOR) ** (1 - alpha)
    # Only their proportions matter; the middle one at 1 keeps the numbers in their usual range.
    return np.asarray(factors / np.exp(np.mean(np.log(factors))), np.float32)


def _fold_into_norm(model: Any, index: GraphIndex, name: str, readers: Sequence[Any], factors: Array) -> bool:
    """Folds the division into gain and bias of the normalization that makes the tensor, if nothing else reads it."""
    onnx = require_import("onnx", "onnx")
    norm = index.producers.get(name)
    others = len(index.consumers[name]) != len(readers) or name in index.outputs
    if norm is None or norm.op_type != "LayerNormalization" or others:
        return False
    parameters = [position for position in (1, 2) if len(norm.input) > position and norm.input[position]]
    if any(not index.is_float_constant(norm.input[position]) for position in parameters):
        return False
    if any(index.array(norm.input[position]).shape != factors.shape for position in parameters):
        return False
    for position in parameters:
        folded = f"{norm.input[position]}_{norm.name}_smoothed"
        values = np.asarray(index.array(norm.input[position]) / factors, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, folded))
        norm.input[position] = folded
    return True


CALIBRATION_SAMPLES = 128


def measure_maxima(request: BuildRequest, model: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Measures the channels of the activations that SmoothQuant divides, on the calibration samples."""
    samples = request.calibration
    assert samples is not None
    request.progress("measuring channels for SmoothQuant")
    names = list(find_smoothable(model, index_graph(model)))
    return collect_channel_maxima(model, names, lambda: samples.feeds(CALIBRATION_SAMPLES), request.scratch)


def smooth_copy(model: Any, maxima: Mapping[str, npt.NDArray[np.float32]] | None, alpha: float | None) -> Any:
    """Returns a smoothed copy of a model: the model itself when `alpha` is None."""
    if alpha is None or maxima is None:
        return model
    copy = rebuild_model(model, list(model.graph.node), {})
    smooth_model(copy, maxima, alpha)
    prune_graph(copy)
    return copy
