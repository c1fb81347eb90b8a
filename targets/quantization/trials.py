"""Tries candidates, keeps account of what was tried, and lets a step that fails cost no more than itself."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from modelwright.core.errors import BuildFailedError, ModelwrightError, ToolchainMissingError
from modelwright.targets.quantization.goal import Figures, Level
from modelwright.targets.quantization.judge import Judge
from modelwright.targets.quantization.quantizer import CandidateT, ModelT, Quantizer, Trial, name_trial
from modelwright.targets.quantization.sensitivity import Layer

_FLOAT_HINT = "the float targets of this runtime need no quantization"
_TRACE_CHARACTERS = 2000
_SHOWN_CHARACTERS = 200
"""Of the reason why a trial failed; the manifest has all of it."""


@dataclass(frozen=True, kw_only=True)
class Made(Generic[CandidateT, ModelT]):
    """A trial and its model, which is None where it did not build."""

    trial: Trial[CandidateT]
    model: ModelT | None

    @property
    def figures(self) -> Figures:
        return self.trial.figures


def explain_failures(trials: Sequence[Trial[CandidateT]]) -> str | None:
    """Returns a sentence for the user on the trials that gave no answers, and why; None where all did."""
    reasons: dict[str, list[str]] = {}
    for trial in trials:
        fault = trial.figures.fault
        if fault is not None:
            names = reasons.setdefault(fault.replace(f" ({trial.candidate.name})", "")[:_SHOWN_CHARACTERS], [])
            names.append(trial.name)
    if not reasons:
        return None
    told = ", and ".join(f"{reason} ({'; '.join(names)})" for reason, names in reasons.items())
    return f"{sum(map(len, reasons.values()))} of {len(trials)} ways of quantizing that were tried failed: {told}"


class Trials(Generic[CandidateT, ModelT]):
    """Builds and judges candidates.

    Args:
        quantizer: The runtime's side.
        judge: What decides.
        progress: Takes a line about what is going on.
        clock: Seconds, for the record only: nothing is decided by them.

    Attributes:
        made: All trials, in order.
        ranked: Layers, the worst first, where they were ranked.
    """

    def __init__(
        self,
        quantizer: Quantizer[CandidateT, ModelT],
        judge: Judge,
        progress: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self.quantizer, self.judge, self.progress = quantizer, judge, progress
        self.made: list[Trial[CandidateT]] = []
        self.ranked: list[Layer] = []
        self._clock = clock
        self._errors: list[ModelwrightError] = []
        self._judged: dict[str, Trial[CandidateT]] = {}

    def attempt(self, candidate: CandidateT, kept: tuple[str, ...] = ()) -> Made[CandidateT, ModelT]:
        """Builds a candidate with some layers in float, and judges it where no other one made the same model."""
        started = self._clock()
        name = name_trial(candidate, kept)
        self.progress(f"quantizing: {name}")
        model, figures = self._build(candidate, kept)
        mark = None if model is None else self.quantizer.identify(model)
        twin = None if mark is None else self._judged.get(mark)
        way: int | None = None
        if twin is not None:
            way, figures = twin.way, twin.figures
        elif model is not None:
            way, figures = self._judge(model)
        trial = Trial(
            candidate=candidate,
            kept=kept,
            figures=figures,
            seconds=self._clock() - started,
            way=way,
            same_as=None if twin is None else twin.name,
        )
        self.made.append(trial)
        if mark is not None:
            self._judged.setdefault(mark, trial)
        self.progress(f"{name}: {figures.describe() if twin is None else f'the same as {twin.name}'}")
        return Made(trial=trial, model=None if model is None else self._run_its_way(trial, model))

    def make_again(self, trial: Trial[CandidateT]) -> Made[CandidateT, ModelT]:
        """Returns an earlier trial with its model, which is not kept for all of them: models are large."""
        return Made(trial=trial, model=self._run_its_way(trial, self.quantizer.build(trial.candidate, trial.kept)))

    def _run_its_way(self, trial: Trial[CandidateT], model: ModelT) -> ModelT:
        """Returns a trial's model, as it was just built, in the way of running it that was judged."""
        return model if trial.way is None else list(self.quantizer.other_ways(model))[trial.way]

    def prefer_faster(self, chosen: Trial[CandidateT], others: Sequence[Trial[CandidateT]]) -> Trial[CandidateT]:
        """Returns one of an earlier group, which is faster, that is as close as the chosen one; else the chosen one."""
        for group in self.quantizer.candidates():
            members = [trial for trial in others if trial.candidate in group]
            if chosen in members:
                break
            close = [
                trial
                for trial in members
                if trial.figures.loses_nothing(chosen.figures) and not chosen.figures.is_closer(trial.figures)
            ]
            if close:
                return self.quantizer.choose(close)
        return chosen

    def keep_unless(
        self, best: Made[CandidateT, ModelT], improve: Callable[[], Made[CandidateT, ModelT]]
    ) -> Made[CandidateT, ModelT]:
        """Returns what a further step makes; what there is where the step fails: nothing that works is given up."""
        try:
            return improve()
        except ToolchainMissingError:
            raise
        except Exception as error:  # of a vendor's toolchain, or of ours around it
            self.progress(f"{best.trial.candidate.name} is kept: {self._note(error).describe()}")
            return best

    def explain_failure(self, best: Made[CandidateT, ModelT]) -> ModelwrightError:
        """Returns why there is nothing to ship: what the first one that failed says, else the best one's figures."""
        if self._errors:
            return self._errors[0]
        return BuildFailedError(
            f"no way of quantizing gives usable numbers: {best.figures.describe()}",
            hint=_FLOAT_HINT,
        )

    def _build(self, candidate: CandidateT, kept: tuple[str, ...]) -> tuple[ModelT | None, Figures]:
        """Returns a model, or why there is none."""
        try:
            return self.quantizer.build(candidate, kept), Figures.broken("it was not run")
        except ToolchainMissingError:
            raise
        except Exception as error:  # what a vendor's toolchain raises; candidates before and after may do all the same
            return None, self._note(error)

    def _judge(self, model: ModelT) -> tuple[int | None, Figures]:
        """Returns how a model does, and the place of another way to run it where that does clearly better."""
        best: int | None = None
        figures = self._run(model)
        if figures.level < Level.GOOD:
            for place, other in enumerate(self.quantizer.other_ways(model)):
                seen = self._run(other)
                if seen.is_clearly_better(figures):
                    best, figures = place, seen
        return best, figures

    def _run(self, model: ModelT) -> Figures:
        try:
            return self.judge.judge(lambda feeds: self.quantizer.run(model, feeds))
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
