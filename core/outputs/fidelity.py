"""How closely one model follows another on consecutive inputs: an artifact FP32, or an export its source.

Streaming: a `FidelityMeter` takes one inference after the other and keeps sums, no outputs. Only numpy is needed, so
devices run it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BadInputError
from modelwright.core.outputs.output_meter import OutputFidelity, OutputMeter, is_float
from modelwright.core.outputs.tasks.judge import TaskFidelity, TaskMeter
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.records.codec import Cosine, Count, Record, Share

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]
"""One inference's outputs: name -> array."""

_SCORE_NAME = re.compile("logit|score|prob|class|softmax", re.IGNORECASE)
MIN_EQUAL_SHARE = 0.5
"""Integer outputs (class numbers, mostly) that differ in more than half of their elements are not following."""


class Fidelity(Record):
    """How a candidate follows its reference.

    Attributes:
        samples: Inferences compared.
        outputs: One record an output, in the reference's order.
        worst_output: The float output with the lowest mean cosine; without float outputs the integer one with the
            lowest share of equal elements.
        cosine: Mean cosine of the worst float output; None without float outputs.
        agreement: Share of rows whose top class is the reference's, over the primary output; see `find_scores`. Of a
            model without float outputs, the share of the first output's classes or flags that are equal.
        agreement_reason: Why there is no agreement.
        task: How it serves the task; None where nobody said what the outputs mean.
    """

    samples: Count
    outputs: tuple[OutputFidelity, ...]
    worst_output: str | None
    cosine: Cosine | None
    agreement: Share | None
    agreement_reason: str | None
    task: TaskFidelity | None = None


class FidelityMeter:
    """Compares inference after inference.

    Memory: some float64 arrays the size of one sample's outputs.

    Args:
        roles: What the outputs mean, from `find_roles`; None compares by value alone.
    """

    def __init__(self, roles: Mapping[str, OutputRole] | None = None) -> None:
        self._tasks = None if roles is None else TaskMeter(roles)
        self._sentinels = {name: role.sentinel for name, role in (roles or {}).items()}
        self._samples = 0
        self._outputs: dict[str, OutputMeter] = {}
        self._scores: str | None = None
        self._agreed = 0
        self._rows = 0

    def add(self, reference: Outputs, candidate: Outputs, label: int | None = None) -> None:
        """Takes the outputs of one inference on the same input; a missing output counts as one of another shape.

        Args:
            reference: FP32's.
            candidate: The candidate's.
            label: The right class, where it is known.
        """
        if not self._samples:
            self._scores = find_scores(reference) or _find_classes(reference)
        self._samples += 1
        if self._tasks is not None:
            self._tasks.add(reference, candidate, label)
        for name, expected in reference.items():
            expected = np.asarray(expected)
            meter = self._outputs.get(name)
            if meter is None:
                free = None if self._tasks is None else self._tasks.find_free_axis(name, reference)
                meter = self._outputs[name] = OutputMeter(
                    name, is_float=is_float(expected), sentinel=self._sentinels.get(name), free_axis=free
                )
            found = candidate.get(name)
            meter.add(expected, None if found is None else np.asarray(found))
        if self._scores is not None:
            count = _count_agreeing if is_float(np.asarray(reference[self._scores])) else _count_equal
            agreed, rows = count(reference[self._scores], candidate.get(self._scores))
            self._agreed += agreed
            self._rows += rows

    def result(self) -> Fidelity:
        """Returns what was seen so far."""
        outputs = tuple(meter.result() for meter in self._outputs.values())
        task = None if self._tasks is None or not self._samples else self._tasks.result()
        # Rows that stand by rank have no cosine: two that tie change places, and nothing is lost.
        matched = set() if task is None else set(task.detection)
        floats = [output for output in outputs if output.cosine_mean is not None and output.name not in matched]
        worst = min(floats, key=lambda output: output.cosine_mean or 0.0, default=None)
        named = worst or min(outputs, key=lambda output: output.equal_share or 0.0, default=None)
        reason = None
        if not self._rows:
            reason = "no output reads as class scores" if self._samples else "no sample was compared"
        agreement = self._agreed / self._rows if self._rows else None
        if task is not None and any(output.is_float for output in outputs):
            agreement = task.kept if task.measure == "agreement" else None
            reason = None if agreement is not None else _explain_no_agreement(task)
        return Fidelity(
            samples=self._samples,
            outputs=outputs,
            worst_output=None if named is None else named.name,
            cosine=None if worst is None else worst.cosine_mean,
            agreement=agreement,
            agreement_reason=reason,
            task=task,
        )


def compare_outputs(
    reference: Iterable[Outputs],
    candidate: Iterable[Outputs],
    roles: Mapping[str, OutputRole] | None = None,
    labels: Iterable[int] | None = None,
) -> Fidelity:
    """Compares two equally long sequences of outputs; see `FidelityMeter`."""
    meter = FidelityMeter(roles)
    known = iter(labels) if labels is not None else repeat(None)
    for expected, found in zip(reference, candidate, strict=True):
        meter.add(expected, found, next(known))
    return meter.result()


def _explain_no_agreement(task: TaskFidelity) -> str:
    if task.task in ("classes", "tokens") and task.measure == "overlap":
        return "every class is decided by itself, so no sample has one answer"
    return (
        "the outputs do not read as classes"
        if task.task == "other"
        else f"the outputs read as {task.task}, not classes"
    )


def find_scores(outputs: Outputs) -> str | None:
    """Returns the output that reads as class scores: a float one [rows, classes], else [rows, tokens, classes].

    One class alone has no top: a last dimension of 1 does not count. Of several, one that is named for scores goes
    before embeddings and boxes; else the first.
    """
    for rank in (2, 3):
        fitting = [
            name
            for name, value in outputs.items()
            if is_float(np.asarray(value)) and np.ndim(value) == rank and np.shape(value)[-1] > 1
        ]
        if fitting:
            return next((name for name in fitting if _SCORE_NAME.search(name)), fitting[0])
    return None


def count_correct(outputs: Outputs, label: int | np.integer[Any]) -> int:
    """Returns 1 when the top class of one inference is `label`, else 0.

    Scores come from the output [1, classes], see `find_scores`; without one, a single integer is the class itself.

    Raises:
        BadInputError: No output says one class for the sample, so labels cannot be used.
    """
    name = find_scores(outputs)
    if name is not None:
        scores = np.asarray(outputs[name])
        if scores.size == scores.shape[-1]:
            return int(not np.isnan(scores).any() and int(np.argmax(scores)) == int(label))
    for value in map(np.asarray, outputs.values()):
        if value.size == 1 and value.dtype.kind in "iu":
            return int(int(value.reshape(())) == int(label))
    described = ", ".join(f"{name} {list(np.shape(value))}" for name, value in outputs.items())
    raise BadInputError(
        f"the samples have labels, but no output gives one class for a sample: {described}",
        hint="labels work with an output of the shape [batch, classes]; leave them out of the samples otherwise",
    )


def explain_broken(fidelity: Fidelity) -> str | None:
    """Returns why nobody would use the candidate for its task, naming output and channel; None when they would.

    Args:
        fidelity: Measured with roles.
    """
    task = fidelity.task
    matched = () if task is None else task.detection
    rest = msgspec.structs.replace(
        fidelity, outputs=tuple(output for output in fidelity.outputs if output.name not in matched)
    )
    fault = _explain_broken(fidelity) or _explain_values(rest)
    if fault is not None or task is None or task.worst is None or not task.is_broken:
        return fault
    layout = "".join(_explain_layout(output) for output in fidelity.outputs if output.name == task.worst.output)
    return f"output {task.worst.output}: {task.worst.text}{layout}"


def _explain_broken(fidelity: Fidelity) -> str | None:
    if not fidelity.samples or not fidelity.outputs:
        return "no sample was compared"
    for output in fidelity.outputs:
        if output.shape_fault is not None:
            return f"output {output.name} has another shape: {output.shape_fault}{_explain_layout(output)}"
    for output in fidelity.outputs:
        if output.nonfinite:
            return (
                f"output {output.name} has {output.nonfinite} NaN or infinite elements "
                "where FP32 is finite, which mostly means an overflow"
            )
    return None


def _explain_values(fidelity: Fidelity) -> str | None:
    for output in fidelity.outputs:
        if output.is_constant:
            return f"output {output.name} is the same on all {fidelity.samples} samples, while FP32's is not"
        if output.equal_share is not None and output.equal_share < MIN_EQUAL_SHARE:
            return (
                f"output {output.name} equals FP32 in {output.equal_share:.1%} of its elements "
                f"(at least {MIN_EQUAL_SHARE:.0%} is expected)"
            )
    return None


def _explain_layout(output: OutputFidelity) -> str:
    if output.layout is None:
        return ""
    return (
        f"; after the permutation {output.layout} of its axes the values match, so it most likely comes out in another "
        "layout (NCHW and NHWC mixed up)"
    )


def _find_classes(outputs: Outputs) -> str | None:
    """Returns the first output of a model that gives classes or flags themselves and no floats."""
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    if any(value.dtype.kind not in "iub" for value in arrays.values()):
        return None
    return next(iter(arrays), None)


def _count_equal(expected: Array, found: Array | None) -> tuple[int, int]:
    """Returns equal elements and elements."""
    wanted = np.asarray(expected)
    if found is None or np.shape(found) != wanted.shape:
        return 0, wanted.size
    return int(np.count_nonzero(wanted == np.asarray(found))), wanted.size


def _count_agreeing(expected: Array, found: Array | None) -> tuple[int, int]:
    """Returns agreeing rows and rows; a choice that ties with the reference's top agrees."""
    wanted = np.asarray(expected)
    rows = wanted.reshape(-1, wanted.shape[-1])
    if found is None or np.shape(found) != wanted.shape:
        return 0, len(rows)
    have = np.asarray(found).reshape(rows.shape)
    sound = np.isfinite(have).all(axis=1) | ~np.isfinite(rows).all(axis=1)
    chosen = np.take_along_axis(rows, np.argmax(have, axis=1)[:, None], axis=1)[:, 0]
    agreed = sound & (chosen == rows.max(axis=1))
    return int(np.count_nonzero(agreed)), len(rows)
