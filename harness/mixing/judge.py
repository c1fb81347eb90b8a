"""How well a simulated network serves, by right answers or by what it keeps of FP32's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from modelwright.core.errors import BadInputError
from modelwright.core.outputs.fidelity import FidelityMeter, count_correct
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.samples.sample_set import SampleSet
from modelwright.harness.mixing.record import Judged, Quality
from modelwright.harness.mixing.running import map_samples, open_runner
from modelwright.harness.results.statistics import wilson_interval

Answers = Sequence[Mapping[str, npt.NDArray[Any]]]


class Judge:
    """Judges networks on one part of the samples.

    Args:
        samples: The part.
        answers: FP32's, one mapping a sample.
        roles: What the outputs mean.
        scratch: For the intermediate file of a large model.
    """

    def __init__(self, samples: SampleSet, answers: Answers, roles: Mapping[str, OutputRole], scratch: Path) -> None:
        self._samples, self._answers, self._roles, self._scratch = samples, answers, roles, scratch
        self._names = list(answers[0])
        labels = samples.labels
        # Labels that FP32 gets none of right say something else than these answers.
        self._labels = labels if labels is not None and any(map(count_correct, answers, labels)) else None
        self.ignores_labels = labels is not None and self._labels is None
        self.count = samples.count

    def judge_fp32(self) -> Judged:
        """Returns what FP32's own answers are worth."""
        return self._judge(self._answers)

    def judge(self, model: Any) -> Judged:
        """Runs a network on the samples.

        Raises:
            BuildFailedError: ONNX Runtime cannot run it.
        """
        run = open_runner(model, self._names, self._scratch)
        found = [dict(zip(self._names, values, strict=True)) for values in map_samples(run, self._samples.feeds())]
        return self._judge(found)

    def _judge(self, found: Answers) -> Judged:
        if self._labels is not None:
            right = tuple(bool(count_correct(*pair)) for pair in zip(found, self._labels, strict=True))
            return self._count("accuracy", right)
        meter = FidelityMeter(self._roles)
        kept = []
        for expected, answer in zip(self._answers, found, strict=True):
            meter.add(expected, answer)
            alone = FidelityMeter(self._roles)
            alone.add(expected, answer)
            task = alone.result().task
            kept.append(None if task is None else task.kept)
        fidelity = meter.result()
        task = fidelity.task
        if task is not None and task.kept is not None:
            one_each = all(answers.rows == task.samples for answers in task.answers)
            if task.measure == "agreement" and one_each and all(share in (0.0, 1.0) for share in kept):
                return self._count("agreement", tuple(bool(share) for share in kept))
            return Judged(quality=Quality(measure=task.measure, value=task.kept, samples=self.count))
        for measure, value in (("cosine", fidelity.cosine), ("agreement", fidelity.agreement)):
            if value is not None:
                return Judged(quality=Quality(measure=measure, value=value, samples=self.count))
        raise BadInputError(
            f"what the outputs {', '.join(self._names)} keep of FP32's answers cannot be told: they are no numbers, "
            "and not one answer a sample",
            hint="give samples with labels, or take an output away that only says something else",
        )

    def _count(self, measure: str, right: tuple[bool, ...]) -> Judged:
        count = sum(right)
        quality = Quality(
            measure=measure, value=count / self.count, samples=self.count, ci95=wilson_interval(count, self.count)
        )
        return Judged(quality=quality, right=right)
