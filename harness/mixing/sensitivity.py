"""What rounding a layer does: to what it makes, and by that to what the network answers.

S = ||y_full - y_quant||_2 is taken of every layer, for every number of bits, in one pass over the calibration samples:
beside each layer run its rounded twins, which read what FP32 makes, so that the errors of the layers before do not
count. How much of an error reaches the answers is a property of the network, not of the grid: it is taken once a layer,
by adding its error to what it makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BadInputError
from modelwright.harness.mixing.calibration import Rounding
from modelwright.harness.mixing.running import map_samples, open_runner
from modelwright.harness.mixing.simulate import PREFIX, RoundedNodes
from modelwright.targets.contract import Feeds
from modelwright.targets.graphs.rewrite import rebuild_model
from modelwright.targets.readiness import require_import

GAIN_SAMPLES = 16
"""Of the samples, so many say how much of a layer's error reaches the answers: each is run once a layer."""
_SWITCHES = f"{PREFIX}switches"
_FLOATS = frozenset({"float16", "float32", "float64"})


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What rounding one layer does.

    Attributes:
        errors: Bits -> S, over all elements that the layer makes on the calibration samples.
        norm: ||y_full||_2 over the same.
        gain: Relative error of the network's answers for each unit of S at the fewest bits; 0 for a layer whose error
            does not reach them. Of a network without answers in floats, the layer's own relative error.
        nuclear_norm: Of what the layer makes, see `nuclear.py`; None where nobody asked.
    """

    errors: Mapping[int, float]
    norm: float
    gain: float
    nuclear_norm: float | None = None

    def answer_error(self, bits: int | None) -> float:
        """Returns the relative error of the answers that rounding this layer alone makes; an estimate."""
        return 0.0 if bits is None else self.gain * self.errors[bits]


def measure_sensitivity(
    rounding: Rounding, widths: Sequence[int], feeds: Sequence[Feeds], outputs: Sequence[str], scratch: Path
) -> dict[str, Sensitivity]:
    """Returns layer's output -> what rounding it does.

    Args:
        rounding: How.
        widths: Bits to measure.
        feeds: The calibration samples.
        outputs: Of the network, by which its answers are compared.
        scratch: For the intermediate file of a large model.

    Raises:
        BadInputError: No layer's error is a number on these samples.
    """
    errors, norms = _measure_errors(rounding, widths, feeds, scratch)
    gains = _measure_gains(rounding, min(widths), feeds[:GAIN_SAMPLES], outputs, scratch)
    lowest = min(widths)
    if gains is None:  # then a layer's own error has to do, as a share of what it makes
        gains = {name: found[lowest] / norms[name] if norms[name] > 0.0 else 0.0 for name, found in errors.items()}
    return {
        name: Sensitivity(
            errors=found,
            norm=norms[name],
            gain=gains[name] / found[lowest] if found[lowest] > 0.0 else 0.0,
        )
        for name, found in errors.items()
    }


def _measure_errors(
    rounding: Rounding, widths: Sequence[int], feeds: Sequence[Feeds], scratch: Path
) -> tuple[dict[str, dict[int, float]], dict[str, float]]:
    make = require_import("onnx", "onnx").helper.make_node
    network, rounded = rounding.network, RoundedNodes(rounding)
    layers = {layer.output: layer for layer in network.layers}
    nodes: list[Any] = []
    wanted: list[str] = []
    for node in network.model.graph.node:
        nodes.append(node)
        layer = layers.get(node.output[0]) if len(node.output) else None
        if layer is None:
            continue
        base = f"{PREFIX}{layer.output}"
        nodes.append(make("ReduceSumSquare", [layer.output], [f"{base}/norm"], f"{base}/Norm", keepdims=0))
        wanted.append(f"{base}/norm")
        for bits in widths:
            made, twin = rounded.round_layer(node, layer, bits)
            twin.name, twin.output[0] = f"{base}/{bits}/Twin", f"{base}/{bits}/twin"
            difference, error = f"{base}/{bits}/difference", f"{base}/{bits}/error"
            nodes += [
                *made,
                twin,
                make("Sub", [layer.output, twin.output[0]], [difference], f"{base}/{bits}/Sub"),
                make("ReduceSumSquare", [difference], [error], f"{base}/{bits}/Error", keepdims=0),
            ]
            wanted.append(error)
    run = open_runner(_with_outputs(rebuild_model(network.model, nodes, rounded.constants), wanted), wanted, scratch)
    sums = np.zeros(len(wanted))
    for values in map_samples(run, feeds):
        sums += np.asarray(values, np.float64).ravel()
    found = dict(zip(wanted, np.sqrt(sums).tolist(), strict=True))
    _require_numbers(found)
    errors = {name: {bits: found[f"{PREFIX}{name}/{bits}/error"] for bits in widths} for name in layers}
    return errors, {name: found[f"{PREFIX}{name}/norm"] for name in layers}


def _measure_gains(
    rounding: Rounding, bits: int, feeds: Sequence[Feeds], outputs: Sequence[str], scratch: Path
) -> dict[str, float] | None:
    """Returns the relative error of the answers with the error of one layer after the other added.

    None where no answer is a float other than zero, as of a network that gives class numbers.
    """
    onnx = require_import("onnx", "onnx")
    make = onnx.helper.make_node
    network, rounded = rounding.network, RoundedNodes(rounding)
    names = [layer.output for layer in network.layers]
    layers = {layer.output: layer for layer in network.layers}
    nodes: list[Any] = []
    for node in network.model.graph.node:
        layer = layers.get(node.output[0]) if len(node.output) else None
        if layer is None:
            nodes.append(node)
            continue
        base = f"{PREFIX}{layer.output}"
        made, twin = rounded.round_layer(node, layer, bits)
        exact = onnx.NodeProto()
        exact.CopyFrom(node)
        exact.output[0], twin.output[0], twin.name = f"{base}/exact", f"{base}/twin", f"{base}/Twin"
        place, switch, difference, part = (f"{base}/{word}" for word in ("place", "switch", "difference", "part"))
        rounded.constants[place] = onnx.numpy_helper.from_array(np.int64(names.index(layer.output)).reshape(()), place)
        nodes += [
            *made,
            exact,
            twin,
            make("Sub", [twin.output[0], exact.output[0]], [difference], f"{base}/Sub"),
            make("Gather", [_SWITCHES, place], [switch], f"{base}/Gather", axis=0),
            make("Mul", [difference, switch], [part], f"{base}/Mul"),
            make("Add", [exact.output[0], part], [layer.output], f"{base}/Add"),
        ]
    model = rebuild_model(network.model, nodes, rounded.constants)
    model.graph.input.append(onnx.helper.make_tensor_value_info(_SWITCHES, onnx.TensorProto.FLOAT, [len(names)]))
    run = open_runner(model, list(outputs), scratch)

    def compare_one(sample: Feeds) -> tuple[list[float], list[list[float]]]:
        """Returns the squared norm of each answer, and its squared error with each layer's."""
        off = np.zeros(len(names), np.float32)
        exact = run({**sample, _SWITCHES: off})
        rounded_one = (run({**sample, _SWITCHES: _switch_on(off, number)}) for number in range(len(names)))
        return [_sum_squares(value) for value in exact], [list(_compare(exact, found)) for found in rounded_one]

    errors, norms = np.zeros((len(names), len(outputs))), np.zeros(len(outputs))
    for norm, error in map_samples(compare_one, feeds):
        norms += norm
        errors += error
    if not norms.any():
        return None
    shares = errors / np.where(norms > 0.0, norms, 1.0)
    return dict(zip(names, np.sqrt(np.nan_to_num(shares).sum(axis=1)).tolist(), strict=True))


def _switch_on(switches: npt.NDArray[np.float32], number: int) -> npt.NDArray[np.float32]:
    turned = switches.copy()
    turned[number] = 1.0
    return turned


def _compare(exact: Sequence[npt.NDArray[Any]], found: Sequence[npt.NDArray[Any]]) -> Iterator[float]:
    """Yields the squared error of each output of floats; one whose shape changes, as detections do, is lost whole."""
    for wanted, have in zip(exact, found, strict=True):
        if wanted.dtype.name not in _FLOATS:
            yield 0.0
        elif wanted.shape == have.shape:
            yield _sum_squares(have.astype(np.float64) - wanted)
        else:
            yield _sum_squares(wanted)


def _sum_squares(values: npt.NDArray[Any]) -> float:
    if values.dtype.name not in _FLOATS:
        return 0.0
    finite = np.where(np.isfinite(values), values, 0.0).astype(np.float64)
    return float(np.vdot(finite, finite))


def _with_outputs(model: Any, names: Sequence[str]) -> Any:
    onnx = require_import("onnx", "onnx")
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    return model


def _require_numbers(found: Mapping[str, float]) -> None:
    broken = next((name for name, value in found.items() if not np.isfinite(value)), None)
    if broken is not None:
        layer = broken.removeprefix(PREFIX).rpartition("/")[0]
        raise BadInputError(
            f"{layer} is NaN or infinite on the calibration samples, so that nothing says what rounding costs there",
            hint="give --samples on which the FP32 model computes numbers there",
        )
