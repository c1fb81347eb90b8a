"""Chooses among INT8 recipes: the first candidate that follows FP32 closely enough on the tuning samples.

If none does, the layers that cost most are put back to float one after the other. Candidates are evaluated by ONNX
Runtime, whatever runtime they are for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.cores import available_cores
from modelwright.core.errors import BuildFailedError
from modelwright.core.outputs.fidelity import compare_outputs
from modelwright.core.samples.sample_set import SampleSet
from modelwright.targets.contract import BuildRequest, RunSettings
from modelwright.targets.graphs.run import open_file, open_session

Array = npt.NDArray[Any]

GOAL_COSINE = 0.999
"""Mean cosine with FP32 from which a candidate is good enough: about 4.5 % error in norm, 0.2 % in energy."""
GOAL_FLIPS = 0.02
"""Share of labelled tuning samples whose top class may change: one near-tie in 64 is no reason to give up speed."""
RANKING_SAMPLES = 16
"""Tuning samples that rank layers by sensitivity."""
TRIES_SMALL, TRIES_LARGE = 32, 12
"""Models tried in the sensitivity analysis, for networks below and above `LARGE_VALUES` weights."""
LARGE_VALUES = 5_000_000
MOST_FLOAT = 0.2
"""Share of the layers' work that may go back to float: beyond it the speed is gone too."""
POOR_COSINE = 0.98
"""Below it, layers go back to float for half the error even if the goal stays out of reach; above, speed wins."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How closely a candidate follows FP32 on the tuning samples.

    Attributes:
        cosine: Mean cosine of the float outputs, as `core.fidelity` measures it; of several outputs the worst.
        error: Energy of the difference as a share of the energy of FP32's outputs; of several the worst.
        agreement: Share of samples with FP32's top class; None without labels or for other outputs than [n, classes].
    """

    cosine: float
    error: float
    agreement: float | None

    @property
    def is_good(self) -> bool:
        return self.cosine >= GOAL_COSINE and (self.agreement is None or self.agreement >= 1 - GOAL_FLIPS)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to quantize: SmoothQuant's alpha or None, and how ranges are chosen (None: as it runs)."""

    alpha: float | None
    ranges: str | None


@dataclass(kw_only=True)
class SearchResult:
    """What the search chose.

    Attributes:
        model: The quantized model.
        recipe: For the manifest.
        notes: For the user.
    """

    model: Any
    recipe: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def search(
    request: BuildRequest,
    candidates: Sequence[Candidate],
    build: Callable[[Candidate, Collection[str]], Any],
    find_costs: Callable[[], Mapping[str, float]],
    *,
    session_entries: Mapping[str, str] | None = None,
) -> SearchResult:
    """Takes the first candidate that is good enough, else the best one, and then puts layers back to float.

    Args:
        request: Whose samples judge the candidates.
        candidates: In the order of trying.
        build: Builds a candidate with the named layers left in float.
        find_costs: Returns the quantizable layers -> their work; called after the first build.
        session_entries: Configuration entries of the ONNX Runtime sessions that evaluate the candidates.
    """
    judge = _Judge.create(request, session_entries or {})
    result = SearchResult(model=None)
    if judge is None:
        chosen = next((c for c in candidates if c.alpha == 0.7), candidates[0])
        result.model = build(chosen, ())
        result.recipe = {"chosen": asdict(chosen), "candidates": [], "float_nodes": []}
        result.notes.append("no samples to choose among recipes on: the usual one was taken, unchecked")
        return result
    tried: list[tuple[Candidate, Figures]] = []
    best: tuple[Candidate, Figures, Any] | None = None
    for candidate in candidates:
        model = build(candidate, ())
        figures = judge.judge(model)
        tried.append((candidate, figures))
        request.progress(f"{_describe(candidate)}: cosine {figures.cosine:.5f}, agreement {figures.agreement}")
        if best is None or (figures.is_good, -figures.error) > (best[1].is_good, -best[1].error):
            best = (candidate, figures, model)
        # Smoothing costs a multiplication per layer: it is not tried when the plain candidates suffice.
        following = candidates[len(tried)] if len(tried) < len(candidates) else None
        if best[1].is_good and (following is None or following.alpha != candidate.alpha):
            break
    assert best is not None
    chosen, figures, result.model = best
    kept: list[str] = []
    if not figures.is_good:
        kept, figures, result.model = _restore_layers(request, best, build, find_costs(), judge)
    if not figures.is_good:
        result.notes.append(
            f"the goal on tuning samples (cosine {GOAL_COSINE}) was not reached: cosine {figures.cosine:.4f}"
        )
    result.recipe = {
        "chosen": asdict(chosen),
        "figures": asdict(figures),
        "goal": {"cosine": GOAL_COSINE, "agreement": 1 - GOAL_FLIPS},
        "judged_on": {"part": judge.part, "samples": judge.count},
        "candidates": [{**asdict(candidate), **asdict(seen)} for candidate, seen in tried],
        "float_nodes": [{"node": name, "reason": "sensitivity analysis"} for name in kept],
    }
    return result


def _restore_layers(
    request: BuildRequest,
    best: tuple[Candidate, Figures, Any],
    build: Callable[[Candidate, Collection[str]], Any],
    costs: Mapping[str, float],
    judge: _Judge,
) -> tuple[list[str], Figures, Any]:
    """Ranks groups of layers by what the error loses when they run in float, and restores the worst until it is good.

    Returns:
        The layers left in float, and figures and model without them quantized.
    """
    candidate, whole, _ = best
    tries = TRIES_SMALL if judge.weight_values < LARGE_VALUES else TRIES_LARGE
    layers = np.array(list(costs), object)
    groups = [list(group) for group in np.array_split(layers, min(tries, len(layers)))]
    request.progress(f"sensitivity analysis of {len(groups)} groups of layers")
    before = judge.judge(best[2], RANKING_SAMPLES).error
    gains = [before - judge.judge(build(candidate, group), RANKING_SAMPLES).error for group in groups]
    work = [sum(costs[name] for name in group) / max(sum(costs.values()), 1.0) for group in groups]
    kept: list[str] = []
    spent = 0.0
    outcome: tuple[list[str], Figures, Any] = ([], whole, best[2])
    for position in np.argsort([-gain / (share + 1e-3) for gain, share in zip(gains, work, strict=True)]):
        if gains[position] <= 0 or spent + work[position] > MOST_FLOAT:
            continue
        kept = [*kept, *groups[position]]
        spent += work[position]
        model = build(candidate, kept)
        figures = judge.judge(model)
        if figures.is_good:
            outcome = (kept, figures, model)
            break
        if whole.cosine < POOR_COSINE and figures.error < outcome[1].error / 2:
            outcome = (kept, figures, model)
    request.progress(f"{len(outcome[0])} layers stay in float: cosine {outcome[1].cosine:.5f}")
    return outcome


@dataclass(kw_only=True)
class _Judge:
    """Compares candidates with FP32 on the tuning samples (the calibration samples where there are none)."""

    samples: SampleSet
    part: str
    count: int
    reference: list[list[Array]]
    weight_values: int
    scratch: Path
    session_entries: Mapping[str, str]

    @staticmethod
    def create(request: BuildRequest, session_entries: Mapping[str, str]) -> _Judge | None:
        part = "tuning" if request.tuning is not None and request.tuning.count else "calibration"
        samples = request.tuning if part == "tuning" else request.calibration
        if samples is None or samples.count == 0:
            return None
        count = min(samples.count, 64)
        names = [spec.name for spec in request.signature.outputs]
        if part == "tuning" and request.reference is not None and len(request.reference) >= count:
            reference = [[np.asarray(seen[name]) for name in names] for seen in request.reference[:count]]
        else:
            settings = RunSettings(threads=available_cores())
            session = open_file(request.model_path, settings, BuildFailedError)
            reference = [session.run(names, dict(feeds)) for feeds in samples.feeds(count)]
        values = request.model_path.stat().st_size // 4
        return _Judge(
            samples=samples,
            part=part,
            count=count,
            reference=reference,
            weight_values=values,
            scratch=request.scratch,
            session_entries=session_entries,
        )

    def judge(self, model: Any, limit: int | None = None) -> Figures:
        session = open_session(model, self.scratch, entries=self.session_entries)
        got = [session.run(None, dict(feeds)) for feeds in self.samples.feeds(min(limit or self.count, self.count))]
        errors, agreement = [], None
        for number, first in enumerate(got[0]):
            if first.dtype.kind != "f":
                continue
            pairs = [(self.reference[s][number].ravel(), got[s][number].ravel()) for s in range(len(got))]
            pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in pairs if a.shape == b.shape]
            energy = sum(float(a @ a) for a, _ in pairs)
            errors.append(sum(float((a - b) @ (a - b)) for a, b in pairs) / energy if energy else 0.0)
            if self.samples.labels is not None and agreement is None and first.ndim == 2 and first.shape[1] > 1:
                same = [self.reference[s][number].argmax(-1) == got[s][number].argmax(-1) for s in range(len(got))]
                agreement = float(np.mean(same))
        named = [_number_outputs(outputs) for outputs in (*self.reference[: len(got)], *got)]
        fidelity = compare_outputs(named[: len(got)], named[len(got) :])
        cosine = 1.0 if fidelity.cosine is None else fidelity.cosine
        return Figures(cosine=cosine, error=max(errors, default=0.0), agreement=agreement)


def _number_outputs(outputs: Sequence[Array]) -> dict[str, Array]:
    return {str(number): value for number, value in enumerate(outputs)}


def _describe(candidate: Candidate) -> str:
    smoothed = "no smoothing" if candidate.alpha is None else f"SmoothQuant {candidate.alpha}"
    return f"{smoothed}, ranges {candidate.ranges or 'dynamic'}"
