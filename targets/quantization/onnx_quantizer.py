"""Candidates that are ONNX graphs, calibrated and run in ONNX Runtime, whatever runtime they are for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BuildFailedError
from modelwright.targets.contract import BuildRequest, Feeds
from modelwright.targets.graphs.classify import GraphKind
from modelwright.targets.graphs.files import hash_graph
from modelwright.targets.graphs.run import open_session
from modelwright.targets.quantization.judge import Outputs
from modelwright.targets.quantization.quantizer import Quantizer
from modelwright.targets.quantization.smoothquant import CALIBRATION_SAMPLES, measure_maxima, smooth_copy
from modelwright.targets.quantization.statistics import TensorStatistics, collect_statistics
from modelwright.targets.quantization.twins import NOISE_SAMPLES, find_twins, measure_noise, quantize_only

_ALPHAS = (0.8, 0.7, 0.5, None)
"""In the order of trying: first what follows FP32 best, layer by layer and as a whole, on a sentence classifier.
Smoothing costs some 3 % of its time; without it twice as much of its answers is lost."""
_USUAL_ALPHA = 0.8
_NAMED = 4
_TRANSFORMER_RANGES = 2
"""Ways to choose ranges that are tried in a transformer, where smoothing matters more."""


@dataclass(frozen=True, kw_only=True)
class OnnxCandidate:
    """One way to quantize.

    Attributes:
        alpha: SmoothQuant's; None without.
        ranges: How those of activations are chosen; None for as it runs.
        rounded: Whether weights are rounded for what they make of the calibration samples; see `rounding`.
    """

    alpha: float | None
    ranges: str | None
    rounded: bool = False

    @property
    def name(self) -> str:
        smoothed = "no smoothing" if self.alpha is None else f"SmoothQuant {self.alpha}"
        return f"{smoothed}, ranges {self.ranges or 'dynamic'}{', rounded weights' if self.rounded else ''}"


def run_candidate(
    request: BuildRequest, model: Any, feeds: Iterable[Feeds], entries: Mapping[str, str] | None = None
) -> Iterator[Outputs]:
    """Runs a candidate in ONNX Runtime, one sample after the other.

    Args:
        request: Whose outputs are wanted.
        model: An ONNX model.
        feeds: One inference's inputs each.
        entries: Configuration entries of the session.

    Raises:
        BuildFailedError: ONNX Runtime cannot load or run it.
    """
    session = open_session(model, request.scratch, entries=entries)
    names = [spec.name for spec in request.signature.outputs]
    for inputs in feeds:
        try:
            outputs = session.run(names, dict(inputs))
        except Exception as error:  # onnxruntime raises a class of its own for every status code
            raise BuildFailedError("ONNX Runtime cannot run a candidate", detail=str(error)) from error
        yield dict(zip(names, outputs, strict=True))


class OnnxQuantizer(Quantizer[OnnxCandidate, Any]):
    """What quantizers of ONNX graphs share: SmoothQuant, statistics of tensors, and how a candidate is run.

    Args:
        request: Whose samples calibrate.
        model: The normalized float model.
        kind: Of its graph: smoothing is for transformers.
        ranges: Names of the ways to choose ranges, in the order of trying; none for ranges that are taken as it runs.

    Attributes:
        smoothed: The float model of the candidate that was built last.
        sample_count: How many samples calibrate.
    """

    session_entries: ClassVar[Mapping[str, str]] = {}
    """Configuration of the ONNX Runtime sessions that evaluate the candidates."""

    def __init__(self, request: BuildRequest, model: Any, kind: GraphKind, ranges: Sequence[str] = ()) -> None:
        self._request = request
        self._model = model
        self._smooths = kind == "transformer" and request.calibration is not None
        self._ranges: Sequence[str | None] = ranges[: _TRANSFORMER_RANGES if self._smooths else None] or (None,)
        self._alpha: float | None = None
        self._statistics: dict[str, TensorStatistics] = {}
        self._maxima: dict[str, npt.NDArray[np.float32]] | None = None
        self.smoothed = model
        self.sample_count = min(request.calibration.count if request.calibration else 0, CALIBRATION_SAMPLES)

    def candidates(self) -> Sequence[Sequence[OnnxCandidate]]:
        alphas = _ALPHAS if self._smooths else (None,)
        return [[OnnxCandidate(alpha=alpha, ranges=ranges) for ranges in self._ranges] for alpha in alphas]

    def unchecked(self) -> OnnxCandidate:
        return OnnxCandidate(alpha=_USUAL_ALPHA if self._smooths else None, ranges=self._ranges[0])

    def identify(self, model: Any) -> str | None:
        return hash_graph(model)

    def run(self, model: Any, feeds: Iterable[Feeds]) -> Iterator[Outputs]:
        return self.run_session(model, feeds, self.session_entries)

    def run_session(self, model: Any, feeds: Iterable[Feeds], entries: Mapping[str, str]) -> Iterator[Outputs]:
        """Runs one sample after the other in a session with these configuration entries."""
        return run_candidate(self._request, model, feeds, entries)

    def estimate_noise(self, candidate: OnnxCandidate, model: Any) -> Mapping[str, float]:
        self.smooth(candidate.alpha)
        samples = self._request.calibration
        if samples is None:
            return {}
        twins = find_twins(self.smoothed, model, set(self.costs(model)))
        feeds = samples.feeds(NOISE_SAMPLES)
        return measure_noise(self.smoothed, twins.values(), feeds, self._request.scratch)

    def build_for_ranking(self, candidate: OnnxCandidate, model: Any, quantized: Collection[str]) -> Any:
        """Puts the quantized layers into the float graph: also those that run in integers only between others."""
        self.smooth(candidate.alpha)
        return quantize_only(self.smoothed, find_twins(self.smoothed, model, quantized).values())

    def smooth(self, alpha: float | None) -> bool:
        """Makes `smoothed` the float model of an alpha; says whether it was another one before."""
        if alpha == self._alpha:
            return False
        self._alpha, self._statistics = alpha, {}
        if alpha is not None and self._maxima is None:
            self._maxima = measure_maxima(self._request, self._model)
        self.smoothed = smooth_copy(self._model, self._maxima, alpha)
        return True

    def measure(self, names: Iterable[str]) -> Mapping[str, TensorStatistics]:
        """Returns statistics of tensors of the smoothed model, on the calibration samples."""
        missing = [name for name in names if name not in self._statistics]
        samples = self._request.calibration
        if missing and samples is not None:
            self._request.progress(f"calibrating on {self.sample_count} samples")
            self._statistics |= collect_statistics(
                self.smoothed, missing, lambda: samples.feeds(CALIBRATION_SAMPLES), self._request.scratch
            )
        return self._statistics

    def notes(self) -> list[str]:
        """Returns what calibration did not count."""
        odd = [name for name, seen in self._statistics.items() if seen.left_out]
        if not odd:
            return []
        named = ", ".join(odd[:_NAMED]) + (", ..." if len(odd) > _NAMED else "")
        return [f"calibration left out values that are NaN or infinite, of {named}"]
