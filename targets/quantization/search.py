"""Chooses how to quantize: the first candidates that follow FP32 closely enough, else the best, with layers in float.

The same for every runtime. What a runtime can do is its `Quantizer`, what is close enough is `goal`, what it is judged
on is `Judge`; here is only the order of trying, and when to stop. `repair` puts layers back to float.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic

from modelwright.targets.quantization.budget import MOST, count_evaluations, describe_budget
from modelwright.targets.quantization.goal import Figures, Level, describe_goal, explain_miss
from modelwright.targets.quantization.judge import Judge, describe_samples
from modelwright.targets.quantization.kept import KeptLayer, KeptLayers
from modelwright.targets.quantization.quantizer import (
    CandidateT,
    ModelT,
    Quantizer,
    Trial,
    describe_candidate,
)
from modelwright.targets.quantization.repair import describe_repair, put_layers_back
from modelwright.targets.quantization.rounding import describe_rounding
from modelwright.targets.quantization.sensitivity import describe_ranking
from modelwright.targets.quantization.trials import Made, Trials, explain_failures


def describe_limits() -> dict[str, Any]:
    """Returns what bounds a search and what it is after: with other limits it may choose otherwise."""
    return {
        "budget": describe_budget(),
        "samples": describe_samples(),
        "ranking": describe_ranking(),
        "repair": describe_repair(),
        "rounding": describe_rounding(),
        "rivals": "of the best one's group and of those before it",
        "goal": describe_goal(),
    }


@dataclass(frozen=True, kw_only=True)
class Found(Generic[CandidateT, ModelT]):
    """What a search found.

    Attributes:
        candidate: The way to quantize.
        kept: Layers that stay in float.
        layers: The same, with what is known of them.
        model: The quantized model.
        figures: How it does on the samples that judge; None without samples.
        trials: All that was tried, in order.
        judge: What it was judged by; None without samples.
        ended_by: `goal` (it was reached), `budget` (as many were evaluated as may be) or `candidates` (nothing was left
            to try).
    """

    candidate: CandidateT
    kept: tuple[str, ...]
    model: ModelT
    figures: Figures | None
    trials: tuple[Trial[CandidateT], ...] = ()
    judge: Judge | None = None
    ended_by: str = "candidates"
    layers: KeptLayers = field(default_factory=KeptLayers)

    def describe(self) -> dict[str, Any]:
        """Returns the `search` of the recipe, for the manifest."""
        return {
            "goal": describe_goal(),
            "judged_on": None if self.judge is None else self.judge.to_dict(),
            "chosen": describe_candidate(self.candidate),
            "figures": None if self.figures is None else self.figures.to_dict(),
            **self.layers.to_dict(),
            "candidates": [trial.to_dict() for trial in self.trials],
            "ended_by": self.ended_by,
        }

    def notes(self, kept: str | None = None) -> list[str]:
        """Returns what the user has to know of the result.

        Args:
            kept: What to say of the layers that were put back, where it is not that they are in float.
        """
        if self.figures is None:
            return ["there were no samples to choose a way of quantizing on: the usual one was taken, unchecked"]
        notes = [kept or self.layers.explain(), explain_miss(self.figures), explain_failures(self.trials)]
        return [note for note in notes if note is not None]


def search(
    quantizer: Quantizer[CandidateT, ModelT],
    judge: Judge | None,
    progress: Callable[[str], None],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Found[CandidateT, ModelT]:
    """Tries candidates group by group until one is good; if none is, puts the layers that cost most back to float.

    Args:
        quantizer: The runtime's side.
        judge: What decides; None takes the usual candidate unchecked.
        progress: Takes a line about what is going on.
        clock: Seconds, for the record only: nothing is decided by them.

    Raises:
        BuildFailedError: No candidate builds, runs and gives numbers; says why the first does not.
    """
    if judge is None:
        candidate = quantizer.unchecked()
        return Found(candidate=candidate, kept=(), model=quantizer.build(candidate, ()), figures=None)
    trials = Trials(quantizer, judge, progress, clock)
    best, ran_out = _try_candidates(quantizer, trials, count_evaluations(judge))
    # A candidate that is closer than a good one needs no repair, whatever the answers of few samples say.
    if all(trial.figures.level < Level.GOOD for trial in trials.made):
        best = trials.keep_unless(best, lambda: put_layers_back(trials, best))
    if best.model is None or best.figures.level is Level.BROKEN:
        raise trials.explain_failure(best)
    missed = "budget" if ran_out else "candidates"
    return Found(
        candidate=best.trial.candidate,
        kept=best.trial.kept,
        model=best.model,
        figures=best.figures,
        trials=tuple(trials.made),
        judge=judge,
        ended_by="goal" if best.figures.level is Level.GOOD else missed,
        layers=_describe_kept(trials, best),
    )


def _try_candidates(
    quantizer: Quantizer[CandidateT, ModelT], trials: Trials[CandidateT, ModelT], evaluations: int
) -> tuple[Made[CandidateT, ModelT], bool]:
    """Returns the candidate to take: the best of the first group that has a good one, or one that is no worse.

    One of an earlier group, which is as fast, may be no worse: that a later one is good can be chance, where few
    samples have few answers that could change.

    And whether one was left out, because evaluating it is more than was left; the first never is.
    """
    best: Made[CandidateT, ModelT] | None = None
    tried: list[Trial[CandidateT]] = []
    rivals: list[Trial[CandidateT]] = []
    left, ran_out = float(evaluations), False
    for group in quantizer.candidates():
        leads = False
        for candidate in group:
            if quantizer.repeats(candidate):
                continue
            effort = quantizer.effort(candidate)
            if best is not None and (effort > left or len(trials.made) >= MOST):
                ran_out = True
                continue
            left -= effort
            made = trials.attempt(candidate)
            if made.trial.same_as is not None:
                continue
            tried.append(made.trial)
            if best is None or made.figures.rank > best.figures.rank:
                best, leads = made, True
        rivals = list(tried) if leads else rivals
        if best is not None and best.figures.level is Level.GOOD:
            break
    assert best is not None, "a quantizer has candidates"
    if best.figures.level < Level.FAIR:
        return best, ran_out
    usable = [trial for trial in rivals if _is_rival(trial.figures, best.figures, equally_fast=quantizer.equally_fast)]
    chosen = trials.prefer_faster(quantizer.choose(usable), usable)
    if chosen is not best.trial:
        best = trials.keep_unless(best, lambda: trials.make_again(chosen))
    return best, ran_out


def _is_rival(figures: Figures, best: Figures, *, equally_fast: bool) -> bool:
    """Whether a candidate may be taken instead of its group's best."""
    if figures.level is Level.GOOD and not equally_fast:
        return True
    return figures.loses_nothing(best) or figures.is_closer(best)


def _describe_kept(trials: Trials[CandidateT, ModelT], best: Made[CandidateT, ModelT]) -> KeptLayers:
    """Returns what is known of the layers in float; their times never decide."""
    ranked = {layer.name: layer for layer in trials.ranked}
    kept_layers = [
        KeptLayer(name=name, work_share=ranked[name].share, noise=ranked[name].noise)
        if name in ranked
        else KeptLayer(name=name)
        for name in best.trial.kept
    ]
    layers = KeptLayers(layers=tuple(kept_layers))
    if not kept_layers or best.model is None:
        return layers
    try:
        kept = trials.quantizer.time_layers(best.model)
        if kept is None:
            return layers
        whole = trials.quantizer.time_layers(trials.quantizer.build(best.trial.candidate, ()))
        return layers if whole is None else layers.timed(kept, whole)
    except Exception as error:  # of a profiler: what was built is as good without times
        trials.progress(f"layers in float are not timed: {error}")
        return layers
