"""Layers of a model that NNCF quantized, computed in float again without quantizing it anew, and the noise of each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.targets.contract import Array
from modelwright.targets.openvino.branches import list_branches
from modelwright.targets.openvino.session import WITHOUT_FUSION

_WEIGHTS, _SMOOTHED, _NO_BIAS = "/fq_weights_", "/nncf_smooth_quant", "/nncf_null_bias"
"""Parts of the names that NNCF gives to what it puts in: rounded weights, SmoothQuant's factors, biases of zero."""
_LEAST_SIGNAL = 1e-9
"""Share of the strongest channel's energy that every channel counts as having: a dead one has nothing to lose."""
# Operators that a quantized value passes through unchanged, on its way to the one that computes with it.
TRANSPARENT = frozenset(
    {"Reshape", "Transpose", "Split", "VariadicSplit", "Squeeze", "Unsqueeze", "Concat", "MaxPool", "StridedSlice"}
)


def is_activation_quantizer(node: Any) -> bool:
    """Whether a node rounds an activation; NNCF stores weights as integers, without such a node."""
    return bool(node.get_type_name() == "FakeQuantize" and node.input_value(0).get_node().get_type_name() != "Constant")


def find_quantized(nodes: Iterable[Any]) -> set[str]:
    """Returns the names of the operators that compute with what was rounded, activations or weights.

    A lookup table has no quantizer of an activation: what looks it up are integers.
    """
    names: set[str] = set()
    for node in nodes:
        if is_activation_quantizer(node):
            names |= find_consumers(node)
        elif any(is_rounded(value) for value in node.input_values()):
            names.add(str(node.get_friendly_name()))
    return names


def find_consumers(node: Any) -> set[str]:
    """Returns the names of the operators that compute with a node's output."""
    names: set[str] = set()
    waiting = [node]
    while waiting:
        for target in [target for port in waiting.pop().outputs() for target in port.get_target_inputs()]:
            consumer = target.get_node()
            if consumer.get_type_name() in TRANSPARENT:
                waiting.append(consumer)
            elif consumer.get_type_name() not in {"FakeQuantize", "Result", "ShapeOf"}:
                names.add(str(consumer.get_friendly_name()))
    return names


def bypass_layers(openvino: Any, original: Any, model: Any, layers: Collection[str]) -> Any:
    """Returns a copy of a quantized model in which some layers compute in float: activations, weights and biases.

    Args:
        openvino: The vendor's package.
        original: The model that was quantized.
        model: What NNCF made of it.
        layers: Names of operators; what else reads their inputs through the same quantizer stays as it is.
    """
    changed = model.clone()
    _bypass(openvino, original, changed, layers)
    return changed


def _bypass(openvino: Any, original: Any, changed: Any, layers: Collection[str]) -> None:
    """Puts layers back to float in place: those of a graph, and of the branches in it."""
    sources = {str(node.get_friendly_name()): node for node in original.get_ops()}
    for node in changed.get_ordered_ops():
        if is_activation_quantizer(node):
            for target in node.output(0).get_target_inputs():
                if not _find_readers(target).isdisjoint(layers):
                    target.replace_source_output(node.input_value(0))
    for node in changed.get_ordered_ops():
        source = sources.get(str(node.get_friendly_name()))
        if source is None:
            continue
        if node.get_friendly_name() in layers:
            _restore_weights(openvino, node, source)
            _restore_bias(openvino, node, sources)
        for before, after in zip(list_branches(source), list_branches(node), strict=True):
            _bypass(openvino, before, after, layers)


def measure_noise(
    openvino: Any, core: Any, original: Any, model: Any, layers: Collection[str], feeds: Iterable[Mapping[str, Any]]
) -> dict[str, float]:
    """Returns layer -> noise to signal of what it multiplies: its rounded activations on FP32's values, its weights.

    Args:
        openvino: The vendor's package.
        core: Its device manager.
        original: The model that was quantized.
        model: What NNCF made of it.
        layers: Names of operators.
        feeds: A few samples, in the types of the model's ports.
    """
    probe = bypass_layers(openvino, original, model, layers)
    # The quantizers of a copy that has them all stand in the same order as those that nothing reads any more.
    whole = [node for node in model.get_ordered_ops() if is_activation_quantizer(node)]
    found = {str(node.get_friendly_name()): node for node in probe.get_ops()}
    ops, readers, outputs = openvino.opset13, [], []
    for node in whole:
        source = found.get(str(node.input_value(0).get_node().get_friendly_name()))
        rank = node.get_output_partial_shape(0).rank
        if source is None or not rank.is_static:
            continue
        value = source.output(node.input_value(0).get_index())
        limits = [ops.constant(node.input_value(position).get_node().data) for position in range(1, 5)]
        rounded = ops.fake_quantize(value, *limits, int(node.get_attributes()["levels"]))
        count = rank.get_length()
        axes = np.array([axis for axis in range(count) if axis != _find_channels(count)], np.int64)
        error = ops.subtract(rounded, value)
        outputs += [ops.reduce_sum(ops.multiply(each, each), axes).output(0) for each in (error, value)]
        readers.append(find_consumers(node) & set(layers))
    energies = _run(core, probe, outputs, feeds)
    noise = {
        name: _find_weight_noise(node) for node in model.get_ops() if (name := str(node.get_friendly_name())) in layers
    }
    for names, error, signal in zip(readers, energies[::2], energies[1::2], strict=True):
        for name in names:
            noise[name] += _relate(error, signal)
    return noise


def _run(core: Any, probe: Any, outputs: list[Any], feeds: Iterable[Mapping[str, Any]]) -> list[Array]:
    """Returns the sum over samples of outputs that are added to a model."""
    before = len(probe.outputs)
    probe.add_outputs(outputs)
    hints = {"INFERENCE_PRECISION_HINT": "f32", **WITHOUT_FUSION}
    request = core.compile_model(probe, "CPU", hints).create_infer_request()
    sums: list[Array] = [np.zeros(()) for _ in outputs]
    for inputs in feeds:
        request.infer(dict(inputs))
        for position in range(len(outputs)):
            sums[position] = sums[position] + np.asarray(request.get_output_tensor(before + position).data, np.float64)
    return sums


def _find_channels(rank: int) -> int:
    """Returns the axis of channels of what a quantizer rounds: the second of feature maps, else the last."""
    return 1 if rank >= 4 else rank - 1


def _relate(error: Array, signal: Array) -> float:
    """Returns the mean over channels of noise to signal, each at most 1."""
    strongest = float(np.max(signal, initial=0.0))
    if strongest <= 0.0:
        return 0.0
    return float(np.mean(np.clip(error / np.maximum(signal, strongest * _LEAST_SIGNAL), 0.0, 1.0)))


def _find_weight_noise(node: Any) -> float:
    """Returns the noise to signal of rounded weights: that of a step of their grid, against their own energy."""
    for value in node.input_values():
        weights = value.get_node()
        if not is_rounded(value):
            continue
        integers = _find_integers(weights)
        if integers is not None:  # in steps of the grid, whose rounding has a variance of 1/12
            return float(1 / 12 / max(np.mean(np.square(integers, dtype=np.float64)), 1.0))
    return 0.0


def is_rounded(value: Any) -> bool:
    """Whether a value is weights that NNCF rounded."""
    return _WEIGHTS in value.get_node().get_friendly_name()


def _find_integers(weights: Any) -> npt.NDArray[Any] | None:
    """Returns the integers that NNCF's Convert and Multiply make weights of."""
    node = weights
    while node.get_type_name() != "Constant":
        if not node.get_input_size():
            return None
        node = node.input_value(0).get_node()
    return np.asarray(node.data)


def _find_readers(target: Any) -> set[str]:
    """Returns the names of the operators that compute with what one input takes."""
    consumer = target.get_node()
    if consumer.get_type_name() in TRANSPARENT:
        return find_consumers(consumer)
    return {str(consumer.get_friendly_name())}


def _restore_weights(openvino: Any, node: Any, source: Any) -> None:
    """Gives a layer its float weights, and what it multiplies without the factors that were divided out of them."""
    for position, value in enumerate(node.input_values()):
        weights = source.input_value(position).get_node()
        if not is_rounded(value) or weights.get_type_name() != "Constant":
            continue
        restored = openvino.opset13.constant(np.array(weights.data))
        node.input(position).replace_source_output(restored.output(0))
        for other, smoothed in enumerate(node.input_values()):
            if _SMOOTHED in smoothed.get_node().get_friendly_name():
                node.input(other).replace_source_output(smoothed.get_node().input_value(0))


def _restore_bias(openvino: Any, node: Any, sources: Mapping[str, Any]) -> None:
    """Takes back what was added to a layer's bias to make up for its rounding."""
    for target in node.output(0).get_target_inputs():
        adder = target.get_node()
        if adder.get_type_name() != "Add":
            continue
        position = 1 - target.get_index()
        bias = adder.input_value(position).get_node()
        source = sources.get(str(adder.get_friendly_name()))
        if bias.get_type_name() != "Constant":
            continue
        if source is not None and source.input_value(position).get_node().get_type_name() == "Constant":
            values = np.array(source.input_value(position).get_node().data)
        elif _NO_BIAS in adder.get_friendly_name():
            values = np.zeros_like(bias.data)
        else:
            continue
        if values.shape == np.shape(bias.data):
            adder.input(position).replace_source_output(openvino.opset13.constant(values).output(0))
