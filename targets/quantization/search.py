"""Chooses how to quantize: the first candidates that follow FP32 closely enough, else the best, with layers in float.

The same for every runtime. What a runtime can do is its `Quantizer`, what is close enough is `goal`, what it is judged
on is `Judge`; here is only the order of trying, and when to stop.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from modelwright.core.errors import BuildFailedError, ModelwrightError, ToolchainMissingError
from modelwright.targets.quantization.goal import Figures, Level, describe_goal, explain_miss
from modelwright.targets.quantization.judge import Judge
from modelwright.targets.quantization.quantizer import (
    CandidateT,
    ModelT,
    Quantizer,
    Trial,
    describe_candidate,
)
from modelwright.targets.quantization.sensitivity import list_worst, rank_layers

BUDGET_S = 120.0
"""Nothing is tried any more that would probably end after this."""
_FEW, _MANY = 0.2, 0.5
"""Share of the work that may go back to float to make a candidate good, as beyond it the speed is gone too; and to save
one that is poor, which nobody can use at any speed."""
_FLOAT_HINT = "the float targets of this runtime need no quantization"
_TRACE_CHARACTERS = 2000
_NAMED = 8
"""Layers named in a note."""


def describe_limits() -> dict[str, Any]:
    """Returns what bounds a search and what it is after: with other limits it may choose otherwise."""
    return {"budget_s": BUDGET_S, "work_for_good": _FEW, "work_for_fair": _MANY, "goal": describe_goal()}


@dataclass(frozen=True, kw_only=True)
class Found(Generic[CandidateT, ModelT]):
    """What a search found.

    Attributes:
        candidate: The way to quantize.
        kept: Layers that stay in float.
        model: The quantized model.
        figures: How it does on the samples that judge; None without samples.
        trials: All that was tried, in order.
        judge: What it was judged by; None without samples.
        ended_by: `goal` (it was reached), `time` (the budget) or `candidates` (nothing was left to try).
    """

    candidate: CandidateT
    kept: tuple[str, ...]
    model: ModelT
    figures: Figures | None
    trials: tuple[Trial[CandidateT], ...] = ()
    judge: Judge | None = None
    ended_by: str = "candidates"

    def describe(self) -> dict[str, Any]:
        """Returns the `search` of the recipe, for the manifest."""
        return {
            "goal": describe_goal(),
            "judged_on": None if self.judge is None else self.judge.to_dict(),
            "chosen": describe_candidate(self.candidate),
            "figures": None if self.figures is None else self.figures.to_dict(),
            "float_layers": [{"layer": name, "reason": "sensitivity analysis"} for name in self.kept],
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
        notes = [kept, explain_miss(self.figures)]
        if self.kept and kept is None:
            named = ", ".join(self.kept[:_NAMED]) + (", ..." if len(self.kept) > _NAMED else "")
            count = f"{len(self.kept)} layer{'s' if len(self.kept) > 1 else ''}"
            them = "them" if len(self.kept) > 1 else "it"
            notes[0] = f"{count} left in float, because quantizing {them} loses too much: {named}"
        return [note for note in notes if note is not None]


def search(
    quantizer: Quantizer[CandidateT, ModelT],
    judge: Judge | None,
    progress: Callable[[str], None],
    *,
    budget_s: float = BUDGET_S,
    clock: Callable[[], float] = time.monotonic,
) -> Found[CandidateT, ModelT]:
    """Tries candidates group by group until one is good; if none is, puts the layers that cost most back to float.

    Args:
        quantizer: The runtime's side.
        judge: What decides; None takes the usual candidate unchecked.
        progress: Takes a line about what is going on.
        budget_s: No try begins that would probably end later. The first one always does.
        clock: Seconds.

    Raises:
        BuildFailedError: No candidate builds, runs and gives numbers; says why the first does not.
    """
    if judge is None:
        candidate = quantizer.unchecked()
        return Found(candidate=candidate, kept=(), model=quantizer.build(candidate, ()), figures=None)
    return _Search(quantizer, judge, progress, budget_s, clock).run()


@dataclass(frozen=True, kw_only=True)
class _Made(Generic[CandidateT, ModelT]):
    """A trial and its model, which is None where it did not build."""

    trial: Trial[CandidateT]
    model: ModelT | None

    @property
    def figures(self) -> Figures:
        return self.trial.figures


def _is_rival(figures: Figures, best: Figures) -> bool:
    return figures.loses_nothing(best) or figures.is_closer(best)


class _Search(Generic[CandidateT, ModelT]):
    def __init__(
        self,
        quantizer: Quantizer[CandidateT, ModelT],
        judge: Judge,
        progress: Callable[[str], None],
        budget_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._quantizer, self._judge, self._progress = quantizer, judge, progress
        self._clock, self._deadline, self._ran_out = clock, clock() + budget_s, False
        self._trials: list[Trial[CandidateT]] = []
        self._errors: list[ModelwrightError] = []

    def run(self) -> Found[CandidateT, ModelT]:
        best = self._try_candidates()
        # A candidate that is closer than a good one needs no repair, whatever the answers of few samples say.
        if all(trial.figures.level < Level.GOOD for trial in self._trials):
            best = self._keep_unless(best, lambda: self._put_layers_back(best))
        if best.model is None or best.figures.level is Level.BROKEN:
            raise self._explain_failure(best)
        missed = "time" if self._ran_out else "candidates"
        return Found(
            candidate=best.trial.candidate,
            kept=best.trial.kept,
            model=best.model,
            figures=best.figures,
            trials=tuple(self._trials),
            judge=self._judge,
            ended_by="goal" if best.figures.level is Level.GOOD else missed,
        )

    def _try_candidates(self) -> _Made[CandidateT, ModelT]:
        """Returns the candidate to take of the first group that has a good one, else of the group with the best."""
        best: _Made[CandidateT, ModelT] | None = None
        rivals: list[Trial[CandidateT]] = []
        for group in self._quantizer.candidates():
            tried = []
            for candidate in group:
                if best is not None and not self._has_time(self._trials[0], self._quantizer.effort(candidate)):
                    break
                made = self._attempt(candidate)
                tried.append(made.trial)
                if best is None or made.figures.rank > best.figures.rank:
                    best, rivals = made, tried
            if best is not None and best.figures.level is Level.GOOD:
                break
        assert best is not None, "a quantizer has candidates"
        if best.figures.level < Level.FAIR:
            return best
        chosen = self._quantizer.choose([trial for trial in rivals if _is_rival(trial.figures, best.figures)])
        return best if chosen is best.trial else self._keep_unless(best, lambda: self._make_again(chosen))

    def _keep_unless(
        self, best: _Made[CandidateT, ModelT], improve: Callable[[], _Made[CandidateT, ModelT]]
    ) -> _Made[CandidateT, ModelT]:
        """Returns what a further step makes; what there is where the step fails: nothing that works is given up."""
        try:
            return improve()
        except ToolchainMissingError:
            raise
        except Exception as error:  # of a vendor's toolchain, or of ours around it
            self._progress(f"{best.trial.candidate.name} is kept: {self._note(error).describe()}")
            return best

    def _put_layers_back(self, best: _Made[CandidateT, ModelT]) -> _Made[CandidateT, ModelT]:
        """Returns the best candidate with the fewest layers in float that make it good, or a poor one fair."""
        whole = self._find_base(best)
        if whole.model is None or not self._has_time(whole.trial):
            return best
        groups = rank_layers(
            self._quantizer,
            self._judge,
            whole.trial.candidate,
            whole.model,
            self._progress,
            lambda: self._has_time(whole.trial, 2.0),  # and for a try with what was found
        )
        few = self._keep_fewest(whole, list_worst([group for group in groups if group.gain > 0], _FEW), Level.GOOD)
        if best.figures.level >= Level.FAIR:
            return few if few is not None and few.figures.level is Level.GOOD else best
        better = few if few is not None and few.figures.is_clearly_better(best.figures) else best
        if better.figures.level >= Level.FAIR:
            return better
        many = self._keep_fewest(whole, list_worst(groups, _MANY), Level.FAIR)
        return many if many is not None and many.figures.is_clearly_better(better.figures) else better

    def _keep_fewest(
        self, whole: _Made[CandidateT, ModelT], choices: Sequence[tuple[str, ...]], level: Level
    ) -> _Made[CandidateT, ModelT] | None:
        """Tries a candidate with the most layers in float first, then halves its way to the fewest that suffice.

        Args:
            whole: The candidate without layers in float, which is below the level.
            choices: Layers to keep, fewer first, each with those of the ones before.
            level: To reach.

        Returns:
            The trial with the fewest layers that reaches the level; the one with the most where none does; None where
            there was no time for any.
        """
        found = None
        short, enough, tried = -1, len(choices), len(choices) - 1
        while short < tried < enough and self._has_time(whole.trial):
            made = self._attempt(whole.trial.candidate, choices[tried])
            if made.figures.level >= level:
                found, enough = made, tried
            elif found is None:
                return made
            else:
                short = tried
            tried = (short + enough) // 2
        return found

    def _find_base(self, best: _Made[CandidateT, ModelT]) -> _Made[CandidateT, ModelT]:
        """Returns the candidate to put layers back in, without any in float."""
        candidate = self._quantizer.base(best.trial.candidate)
        if candidate == best.trial.candidate:
            return best
        known = next((trial for trial in self._trials if trial.candidate == candidate), None)
        return self._attempt(candidate) if known is None else self._make_again(known)

    def _attempt(self, candidate: CandidateT, kept: tuple[str, ...] = ()) -> _Made[CandidateT, ModelT]:
        started = self._clock()
        name = candidate.name + (f", {len(kept)} layers in float" if kept else "")
        self._progress(f"quantizing: {name}")
        model, figures = self._build_and_judge(candidate, kept)
        seconds = self._clock() - started
        trial = Trial(candidate=candidate, kept=kept, figures=figures, seconds=seconds)
        self._trials.append(trial)
        self._progress(f"{name}: {figures.describe()}")
        return _Made(trial=trial, model=model)

    def _build_and_judge(self, candidate: CandidateT, kept: tuple[str, ...]) -> tuple[ModelT | None, Figures]:
        try:
            model = self._quantizer.build(candidate, kept)
        except ToolchainMissingError:
            raise
        except Exception as error:  # what a vendor's toolchain raises; candidates before and after may do all the same
            return None, self._note(error)
        figures = self._run(model)
        if figures.level < Level.GOOD:
            for other in self._quantizer.other_ways(model):
                seen = self._run(other)
                if seen.is_clearly_better(figures):
                    model, figures = other, seen
        return model, figures

    def _run(self, model: ModelT) -> Figures:
        try:
            return self._judge.judge(lambda feeds: self._quantizer.run(model, feeds))
        except ToolchainMissingError:
            raise
        except Exception as error:
            return self._note(error)

    def _note(self, error: Exception) -> Figures:
        """Remembers why a try failed, and returns what it counts as."""
        if not isinstance(error, ModelwrightError):
            error = BuildFailedError(
                f"quantizing failed: {type(error).__name__}: {error}",
                hint=_FLOAT_HINT,
                detail="".join(traceback.format_exception(error))[-_TRACE_CHARACTERS:],
            )
        self._errors.append(error)
        return Figures.broken(error.message)

    def _make_again(self, trial: Trial[CandidateT]) -> _Made[CandidateT, ModelT]:
        """Returns an earlier trial with its model, which is not kept for all of them: models are large."""
        return _Made(trial=trial, model=self._quantizer.build(trial.candidate, trial.kept))

    def _has_time(self, like: Trial[CandidateT], effort: float = 1.0) -> bool:
        """Whether a try would probably end within the budget, going by one that was made."""
        if self._clock() + like.seconds * effort <= self._deadline:
            return True
        self._ran_out = True
        return False

    def _explain_failure(self, best: _Made[CandidateT, ModelT]) -> ModelwrightError:
        if self._errors:
            return self._errors[0]
        return BuildFailedError(
            f"no way of quantizing gives usable numbers: {best.figures.describe()}",
            hint=_FLOAT_HINT,
        )
