"""Evidence that is none: samples that repeat, answers that never change, labels that FP32 gets wrong.

A candidate that ignores its input follows FP32 perfectly on such samples. They are compared all the same; what the
comparison cannot say is said beside it. What nothing can be compared with is refused.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from modelwright.core.errors import BadInputError
from modelwright.core.outputs.fidelity import count_correct
from modelwright.core.outputs.limit import SHARE_POINTS, Limit
from modelwright.core.outputs.states import State
from modelwright.core.outputs.tasks.checks import bound_share
from modelwright.core.outputs.tasks.judge import find_labelled, find_task
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.outputs.tasks.signs import is_number, is_sentinel
from modelwright.targets.contract import Array

LEAST_SAMPLES = 8
"""Of fewer samples, that they agree says little."""
_REPEATED_SHARE = 0.1
"""Some repeated rows are in every real data set."""
_SHARED_SHARE = 0.01
"""So are some that are in two files; one in a hundred is no accident any more."""
_CONSTANT_SHARE = 1e-5
"""What moves by less of its size moves by rounding."""
_BEYOND, _WITHIN = 2.0, 8.0
"""How many times as large as in the samples FP32's own states are where fixed ranges cut them off; and how many times
as small where fixed steps are too wide for them. Recorded samples have the size of chains, but for chance."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What samples are, each by its hash.

    Attributes:
        digests: SHA-256 of each sample's inputs.
        empty: Samples that hold nothing but zeros.
        still: Inputs that are the same in all of them.
    """

    digests: Sequence[bytes]
    empty: int
    still: AbstractSet[str]


def look_at(feeds: Iterable[Mapping[str, Array]]) -> Rows:
    """Hashes samples, one after the other, as the model is fed with them."""
    digests: list[bytes] = []
    empty = 0
    first: Mapping[str, bytes] = {}
    still: set[str] = set()
    for sample in feeds:
        # Adding 0 makes one zero of the two that floats have.
        inputs = {name: hashlib.sha256(_add_zero(sample[name]).tobytes()).digest() for name in sorted(sample)}
        digests.append(hashlib.sha256(b"".join(inputs.values())).digest())
        empty += all(not np.any(value) for value in sample.values())
        if not first:
            first, still = inputs, set(inputs)
        still = {name for name in still if inputs[name] == first[name]}
    return Rows(digests=digests, empty=empty, still=still)


def _add_zero(value: Array) -> Array:
    return np.asarray(value + np.zeros((), value.dtype)) if value.dtype.kind == "f" else value


def require_other_samples(judged: Rows, calibrating: Rows) -> None:
    """Refuses samples that are the calibration's over again, in whatever order.

    Raises:
        BadInputError: They are.
    """
    if sorted(judged.digests) == sorted(calibrating.digests):
        raise BadInputError(
            f"all {len(judged.digests)} samples of --eval are those of --samples: what calibrates would judge itself",
            hint="leave out --eval: half of the samples is then held back to judge",
        )


def require_finite_answers(answers: Sequence[Mapping[str, Array]]) -> None:
    """Refuses a model that gives no number on any sample: whatever an artifact did would agree with it.

    Raises:
        BadInputError: Every output is floating point, and holds nothing but NaN and infinities.
    """
    if not answers or not answers[0]:
        return
    kinds = dict.fromkeys(answers[0], "")
    for answer in answers:
        for name, value in answer.items():
            if not is_number(np.asarray(value)) or np.isfinite(np.asarray(value, np.float64)).any():
                return
            if np.size(value):
                kinds[name] = kinds[name] or ("NaN" if np.isnan(np.asarray(value, np.float64)).any() else "infinite")
    if not any(kinds.values()):
        return  # nothing but empty outputs: a detector that finds nothing
    described = "; ".join(f"output {name} is {kind}" for name, kind in kinds.items() if kind)
    raise BadInputError(
        f"FP32 itself gives no finite number on any of the {len(answers)} samples: {described}",
        hint="look for a division by zero, the logarithm of zero, or weights that are NaN; and check that the samples "
        "are scaled as the model was trained on",
    )


def find_doubts(
    judged: Rows,
    answers: Sequence[Mapping[str, Array]],
    roles: Mapping[str, OutputRole],
    labels: Array | None,
    *,
    calibrating: AbstractSet[bytes] = frozenset(),
    states: Sequence[State] = (),
) -> list[str]:
    """Returns what the evaluation samples cannot show, a sentence each.

    Args:
        judged: The samples.
        answers: FP32's outputs on them.
        roles: What the outputs mean.
        labels: int64 [samples], where there are any.
        calibrating: Hashes of the samples that calibrate and tune.
        states: What the next step is fed with.
    """
    count = len(answers)
    found = [*_doubt_origin(judged, calibrating), *_doubt_states(judged, states)]
    if count < LEAST_SAMPLES:
        samples = "1 sample judges" if count == 1 else f"{count} samples judge"
        return [f"only {samples}: that an artifact follows FP32 there says little; give 100 or more", *found]
    return [*_doubt_samples(judged), *found, *_doubt_answers(answers, roles), *_doubt_labels(answers, roles, labels)]


def _doubt_samples(judged: Rows) -> list[str]:
    count, different = len(judged.digests), len(set(judged.digests))
    found = []
    if different == 1:
        found.append(f"all {count} evaluation samples are the same one: they show what one shows")
    elif count - different > _REPEATED_SHARE * count:
        found.append(
            f"only {different} of the {count} evaluation samples differ: repeated ones are no further evidence"
        )
    if judged.empty > 1:
        found.append(f"{judged.empty} of the {count} evaluation samples hold nothing but zeros")
    return found


def _doubt_origin(judged: Rows, calibrating: AbstractSet[bytes]) -> list[str]:
    shared, count = sum(digest in calibrating for digest in judged.digests), len(judged.digests)
    if shared <= _SHARED_SHARE * count:
        return []
    return [
        f"{shared} of the {count} evaluation samples are also among those that calibrate: quality is judged too well "
        "on them; give others with --eval"
    ]


def _doubt_states(judged: Rows, states: Sequence[State]) -> list[str]:
    still = [state.input for state in states if state.input in judged.still]
    if not still or len(judged.digests) == 1:
        return []
    return [
        f"input {', '.join(still)} is the same in all samples, and is a state that changes from step to step: what "
        "quantizes on them sees no other; run the model over a stream and save the state that each step begins with"
    ]


def find_foreign_states(
    feeds: Iterable[Mapping[str, Array]], states: Sequence[State], ends: Iterable[Mapping[str, Array]]
) -> dict[str, str]:
    """Returns states whose values in the samples are not such as FP32 makes -> what both are.

    Args:
        feeds: The samples, one after the other.
        states: What is fed back.
        ends: FP32's outputs after many steps, each fed with its own state.
    """
    names = {state.output: state.input for state in states}
    given, own = _find_peaks(feeds, names.values()), _find_peaks(ends, names)
    found = {}
    for output, name in names.items():
        if given[name] > 0 and not given[name] / _WITHIN <= own[output] <= given[name] * _BEYOND:
            found[name] = (
                f"{name} holds values up to {given[name]:.3g} in the samples, "
                f"and up to {own[output]:.3g} when FP32 is fed with its own"
            )
    return found


def _find_peaks(values: Iterable[Mapping[str, Array]], names: Iterable[str]) -> dict[str, float]:
    peaks = dict.fromkeys(names, 0.0)
    for each in values:
        for name, peak in peaks.items():
            value = np.abs(np.asarray(each[name], np.float64))
            peaks[name] = max(peak, float(np.nanmax(value, initial=0.0)))
    return peaks


def _doubt_answers(answers: Sequence[Mapping[str, Array]], roles: Mapping[str, OutputRole]) -> list[str]:
    found = []
    chooses = find_labelled(roles)
    for name, first in answers[0].items():
        values = [np.asarray(answer[name]) for answer in answers]
        broken = sum(bool(np.isnan(np.asarray(value, np.float64)).any()) for value in values) if is_number(first) else 0
        if broken:
            found.append(
                f"FP32's output {name} holds NaN on {broken} of the {len(answers)} samples: there it is no measure of "
                "anything"
            )
        role = roles.get(name)
        masked = None if role is None else role.sentinel
        if all(_is_same(value, first, masked) for value in values):
            found.append(
                f"FP32's output {name} is the same on all {len(answers)} samples: nothing shows whether it works"
            )
        elif name == chooses and len({int(np.argmax(value)) for value in values}) == 1:
            found.append(
                f"FP32 answers with class {int(np.argmax(first))} on all {len(answers)} samples: agreement says "
                "nothing about the other classes"
            )
    return found


def _is_same(value: Array, first: Array, masked: float | None) -> bool:
    """Whether two answers differ by rounding at most: of what they say, not of a -1e9 that stands for masked."""
    if value.shape != first.shape or not is_number(value):
        return bool(np.array_equal(value, first))
    one, other = np.asarray(value, np.float64), np.asarray(first, np.float64)
    number = np.isfinite(other) & ~is_sentinel(other, masked)
    size = float(np.abs(other[number]).max(initial=0.0))
    if not np.array_equal(one[~number], other[~number], equal_nan=True):
        return False
    return bool(np.all(np.abs(one[number] - other[number]) <= _CONSTANT_SHARE * size))


def count_right(answers: Sequence[Mapping[str, Array]], labels: Array | None) -> int | None:
    """Returns how many labels FP32 gets right; None without any."""
    if labels is None:
        return None
    return sum(count_correct(answer, label) for answer, label in zip(answers, labels, strict=True))


def doubt_limit(limit: Limit, roles: Mapping[str, OutputRole], *, right: int | None) -> list[str]:
    """Returns what the evaluation samples cannot show of a limit.

    Args:
        limit: By right answers or by what is kept of FP32's.
        roles: What the outputs mean.
        right: Labels that FP32 gets right; None without labels.
    """
    found = []
    if right == 0:
        found.append(
            "--max-drop is judged by what is kept of FP32's answers: it gets none of the labels right, so accuracy has "
            "nothing to lose"
        )
    step = SHARE_POINTS / max(1, limit.evaluated)
    is_counted = limit.by == "accuracy" or (find_task(roles) == "classes" and find_labelled(roles) is not None)
    if is_counted and limit.max_drop < step:
        samples = "1 sample resolves" if limit.evaluated == 1 else f"{limit.evaluated} samples resolve"
        needed = f" {math.ceil(SHARE_POINTS / limit.max_drop)} or more" if limit.max_drop > 0 else " more"
        found.append(
            f"{samples} {step:.3g} points, and --max-drop allows {limit.max_drop:g}: a single lost answer is over "
            f"it; give{needed} with --eval"
        )
    return found


def _doubt_labels(
    answers: Sequence[Mapping[str, Array]], roles: Mapping[str, OutputRole], labels: Array | None
) -> list[str]:
    if labels is None:
        return []
    found = []
    count = len(labels)
    if len(np.unique(labels)) == 1:
        found.append(f"all {count} labels name class {int(labels[0])}: accuracy says nothing about the others")
    correct = count_right(answers, labels) or 0
    name = find_labelled(roles)
    chance = 0.0 if name is None else 1 / np.shape(answers[0][name])[-1]
    if correct == 0:
        found.append(
            f"FP32 gets none of the {count} labels right: they are most likely counted from another start, or name "
            "other classes"
        )
    elif bound_share(correct, count, upper=True) < chance:
        found.append(
            f"FP32 gets {correct} of the {count} labels right, fewer than guessing would: they most likely name other "
            "classes, or stand in another order"
        )
    return found
