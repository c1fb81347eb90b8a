"""Statistics of activations, streamed in bounded memory, and SmoothQuant, which rests on them.

A transformer's activations have a few channels a hundred times larger than the rest; one scale for all of them
leaves the others two or three levels. SmoothQuant (Xiao et al., 2023, arXiv:2211.10438, equation 4) divides each
channel by s = max|x|^alpha / max|w|^(1 - alpha) and multiplies the weight's row by it: the product stays the same.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BuildFailedError
from modelwright.targets.contract import Feeds, require_import
from modelwright.targets.graphs.graph import (
    GraphIndex,
    find_weight_matmuls,
    index_graph,
    is_large,
    read_attribute,
    save_model,
)

Array = npt.NDArray[Any]
FeedSource = Callable[[], Iterator[Feeds]]
"""Starts reading the samples from the first one."""

GROUP_BYTES = 256 * 2**20
"""Activations of one sample held at a time; a model with more is run once for each group of this size."""
SMOOTHING_FLOOR = 1e-5
"""Channel maxima below it count as this much, so that a dead channel cannot blow up its weights."""
_HISTOGRAM_BINS = 2048
_HISTOGRAM_VALUES = 2**16
"""Values of one tensor and sample that enter its histogram; ranges do not need more."""
_CLIP_STEPS = 80
_LARGEST_CLIP = 0.8
"""The clipping search looks at ranges down to a fifth of the observed one."""


@dataclass(frozen=True, kw_only=True)
class TensorStatistics:
    """What was seen of one activation.

    Attributes:
        low: Smallest value, or 0 if that is smaller.
        high: Largest value, or 0 if that is larger.
        counts: int64 [bins]: a histogram over [low, high] of a part of the values.
        size: Number of values in one sample.
    """

    low: float
    high: float
    counts: Array
    size: int = 0

    def percentile_range(self, share: float) -> tuple[float, float]:
        """Returns the range that leaves out at most `1 - share` of the values, half of it at each end."""
        total = int(self.counts.sum())
        if total == 0:
            return self.low, self.high
        edges = np.linspace(self.low, self.high, len(self.counts) + 1)
        cumulative = np.cumsum(self.counts) / total
        tail = (1 - share) / 2
        first = int(np.searchsorted(cumulative, tail, side="right"))
        last = int(np.searchsorted(cumulative, 1 - tail, side="left"))
        return min(0.0, float(edges[first])), max(0.0, float(edges[min(last + 1, len(self.counts))]))

    def least_error_range(self, levels: int = 255) -> tuple[float, float]:
        """Returns the range with the least squared error of rounding and clipping together.

        The ends are moved one after the other: first the one farther from zero.
        """
        total = int(self.counts.sum())
        if total == 0 or self.high <= self.low:
            return self.low, self.high
        edges = np.linspace(self.low, self.high, len(self.counts) + 1)
        centres = (edges[:-1] + edges[1:]) / 2
        best = [self.low, self.high]
        for end in (0, 1) if -self.low > self.high else (1, 0):
            if best[end] == 0.0:
                continue
            errors = []
            tries = [best[end] * (1 - _LARGEST_CLIP * step / _CLIP_STEPS) for step in range(_CLIP_STEPS)]
            for value in tries:
                low, high = (value, best[1]) if end == 0 else (best[0], value)
                clipped = centres - np.clip(centres, low, high)
                rounding = ((high - low) / levels) ** 2 / 12  # variance of a uniform error of one step
                errors.append(float((self.counts * clipped**2).sum()) / total + rounding)
            best[end] = tries[int(np.argmin(errors))]
        return best[0], best[1]


_HOW: Mapping[str, Any] = {
    "providers": ["CPUExecutionProvider"],
    # onnxruntime 1.31.1 ends the process in it on FP16 graphs of some transformers.
    "disabled_optimizers": ["MatmulTransposeFusion"],
}


def open_session(model: Any, scratch: Path, *, threads: int = 0, entries: Mapping[str, str] | None = None) -> Any:
    """Opens a model in memory as an ONNX Runtime session on the CPU; one over 2 GiB goes through a file.

    Args:
        model: The model.
        scratch: For the file of a large one.
        threads: 0 takes all that this process may use.
        entries: Configuration entries of the session.

    Raises:
        BuildFailedError: ONNX Runtime refuses the model; its own words say which node or operator.
    """
    ort = require_import("onnxruntime", "ort")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    try:
        if not is_large(model):
            return ort.InferenceSession(model.SerializeToString(), options, **_HOW)
        # A folder of its own: sessions map their weights, and an earlier one may still be open.
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            path = Path(folder) / "model.onnx"
            save_model(model, path)
            return ort.InferenceSession(str(path), options, **_HOW)
    except Exception as error:  # onnxruntime raises a class of its own for every status code
        raise BuildFailedError("ONNX Runtime cannot load an intermediate of the build", detail=str(error)) from error


def stream_tensors(
    model: Any, names: Sequence[str], feeds: FeedSource, scratch: Path
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Runs the model on each sample and yields the named float32 tensors, which are then forgotten.

    Args:
        model: The model; graph outputs are added to it while this runs.
        names: Tensors of its main graph.
        feeds: The samples. Read once for each group of tensors and once for the groups' sizes.
        scratch: For the intermediate file of a large model.
    """
    inputs = {value.name for value in model.graph.input}
    for group in _group_tensors(model, [name for name in names if name not in inputs], feeds, scratch):
        with extra_outputs(model, group):
            session = open_session(model, scratch)
        for sample in feeds():
            values = session.run(list(group), dict(sample))
            while values:
                yield group[len(values) - 1], values.pop()
    for sample in feeds() if any(name in inputs for name in names) else ():
        yield from ((name, sample[name]) for name in names if name in inputs)


def collect_statistics(
    model: Any, names: Sequence[str], feeds: FeedSource, scratch: Path
) -> dict[str, TensorStatistics]:
    """Collects range and histogram of activations in two passes over the samples.

    Raises:
        BuildFailedError: A tensor holds NaN or infinity: names it and the node that makes it.
    """
    bounds: dict[str, tuple[float, float]] = {}
    sizes: dict[str, int] = {}
    for name, values in stream_tensors(model, names, feeds, scratch):
        if values.size:
            low, high = bounds.get(name, (0.0, 0.0))
            bounds[name] = float(np.minimum(low, values.min())), float(np.maximum(high, values.max()))
            sizes[name] = max(sizes.get(name, 0), int(values.size))
    for name, ends in bounds.items():
        if not np.isfinite(ends).all():
            producer = index_graph(model).producers.get(name)
            where = f"node {producer.name} ({producer.op_type})" if producer is not None else "the input"
            raise BuildFailedError(f"calibration saw NaN or infinity in {name}, made by {where}")
    counts = {name: np.zeros(_HISTOGRAM_BINS, np.int64) for name in bounds}
    for name, values in stream_tensors(model, list(bounds), feeds, scratch):
        low, high = bounds[name]
        if high > low and values.size:
            # An odd stride walks through all channels instead of always meeting the same ones.
            part = values.reshape(-1)[:: max(1, values.size // _HISTOGRAM_VALUES) | 1]
            bins = ((part - low) * (_HISTOGRAM_BINS / (high - low))).astype(np.int64)
            counts[name] += np.bincount(np.minimum(bins, _HISTOGRAM_BINS - 1), minlength=_HISTOGRAM_BINS)
    return {
        name: TensorStatistics(low=ends[0], high=ends[1], counts=counts[name], size=sizes[name])
        for name, ends in bounds.items()
    }


def collect_channel_maxima(
    model: Any, names: Sequence[str], feeds: FeedSource, scratch: Path
) -> dict[str, npt.NDArray[np.float32]]:
    """Returns for each tensor [..., channels] the largest absolute value of each channel: float32 [channels]."""
    maxima: dict[str, npt.NDArray[np.float32]] = {}
    for name, values in stream_tensors(model, names, feeds, scratch):
        if values.size:
            largest = np.abs(values.reshape(-1, values.shape[-1])).max(axis=0)
            maxima[name] = np.maximum(maxima[name], largest) if name in maxima else largest
    return maxima


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
    folded into a LayerNormalization whose output nothing else reads; elsewhere it is an explicit Mul.

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


def _group_tensors(model: Any, names: Sequence[str], feeds: FeedSource, scratch: Path) -> list[list[str]]:
    """Splits tensors into groups that fit `GROUP_BYTES` together, by their sizes on the first sample."""
    onnx = require_import("onnx", "onnx")
    if not names:
        return []
    sizes = [f"{name}__size" for name in names]
    nodes = [onnx.helper.make_node("Size", [name], [size]) for name, size in zip(names, sizes, strict=True)]
    with extra_outputs(model, sizes, nodes, onnx.TensorProto.INT64):
        session = open_session(model, scratch)
    counts = session.run(sizes, dict(next(feeds())))
    groups: list[list[str]] = [[]]
    held = 0
    for name, count in zip(names, counts, strict=True):
        needed = int(count) * 4
        if groups[-1] and held + needed > GROUP_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += needed
    return groups


@contextmanager
def extra_outputs(model: Any, names: Sequence[str], nodes: Sequence[Any] = (), dtype: int = 1) -> Iterator[None]:
    """Makes tensors outputs of the graph for a while, with the nodes that they need."""
    onnx = require_import("onnx", "onnx")
    graph = model.graph
    before = len(graph.output), len(graph.node)
    present = {value.name for value in graph.output}
    graph.node.extend(nodes)
    graph.output.extend(onnx.helper.make_tensor_value_info(name, dtype, None) for name in names if name not in present)
    try:
        yield
    finally:
        del graph.output[before[0] :]
        del graph.node[before[1] :]
