"""Statistics of activations, streamed in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BuildFailedError
from modelwright.targets.contract import Feeds
from modelwright.targets.graphs.index import index_graph
from modelwright.targets.graphs.run import extra_outputs, open_session
from modelwright.targets.readiness import require_import

Array = npt.NDArray[Any]
FeedSource = Callable[[], Iterator[Feeds]]
"""Starts reading the samples from the first one."""

GROUP_BYTES = 256 * 2**20
"""Activations of one sample held at a time; a model with more is run once for each group of this size."""
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
        left_out: Values that were NaN or infinite, as of rows that are all masked.
    """

    low: float
    high: float
    counts: Array
    size: int = 0
    left_out: int = 0

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

    What is NaN or infinite has no place in a range: it is left out, and counted.

    Raises:
        BuildFailedError: A tensor holds nothing else: names it and the node that makes it.
    """
    bounds: dict[str, tuple[float, float]] = {}
    sizes: dict[str, int] = {}
    left_out: dict[str, int] = {}
    for name, values in stream_tensors(model, names, feeds, scratch):
        if values.size:
            sizes[name] = max(sizes.get(name, 0), int(values.size))
            finite = _drop_nonfinite(values)
            left_out[name] = left_out.get(name, 0) + values.size - finite.size
            if finite.size:
                low, high = bounds.get(name, (0.0, 0.0))
                bounds[name] = min(low, float(finite.min())), max(high, float(finite.max()))
    for name in sizes:
        if name not in bounds:
            producer = index_graph(model).producers.get(name)
            where = f"node {producer.name} ({producer.op_type})" if producer is not None else "the input"
            raise BuildFailedError(
                f"calibration saw nothing but NaN or infinity in {name}, made by {where}",
                hint="give --samples on which the FP32 model computes numbers there",
            )
    counts = {name: np.zeros(_HISTOGRAM_BINS, np.int64) for name in bounds}
    for name, values in stream_tensors(model, list(bounds), feeds, scratch):
        low, high = bounds[name]
        if high > low and values.size:
            # An odd stride walks through all channels instead of always meeting the same ones.
            part = _drop_nonfinite(values.reshape(-1)[:: max(1, values.size // _HISTOGRAM_VALUES) | 1])
            bins = ((part - low) * (_HISTOGRAM_BINS / (high - low))).astype(np.int64)
            counts[name] += np.bincount(np.minimum(bins, _HISTOGRAM_BINS - 1), minlength=_HISTOGRAM_BINS)
    return {
        name: TensorStatistics(
            low=ends[0], high=ends[1], counts=counts[name], size=sizes[name], left_out=left_out[name]
        )
        for name, ends in bounds.items()
    }


def _drop_nonfinite(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns the values that are numbers; the array itself where all are."""
    finite = np.isfinite(values)
    return values if finite.all() else values[finite]


def collect_channel_maxima(
    model: Any, names: Sequence[str], feeds: FeedSource, scratch: Path
) -> dict[str, npt.NDArray[np.float32]]:
    """Returns for each tensor [..., channels] the largest absolute value of each channel: float32 [channels]."""
    maxima: dict[str, npt.NDArray[np.float32]] = {}
    for name, values in stream_tensors(model, names, feeds, scratch):
        if values.size:
            rows = values.reshape(-1, values.shape[-1])
            largest = np.where(np.isfinite(rows), np.abs(rows), 0.0).max(axis=0)
            maxima[name] = np.maximum(maxima[name], largest) if name in maxima else largest
    return maxima


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
