"""Evidence that is none: samples that repeat, answers that never change, labels that FP32 gets wrong.

A candidate that ignores its input follows FP32 perfectly on such samples. They are compared all the same; what the
comparison cannot say is said beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from modelwright.core.outputs.tasks.judge import find_labelled
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.outputs.tasks.signs import is_number
from modelwright.targets.contract import Array

LEAST_SAMPLES = 8
"""Of fewer samples, that they agree says little."""
_REPEATED_SHARE = 0.1
"""Some repeated rows are in every real data set."""


def find_doubts(
    feeds: Iterable[Mapping[str, Array]],
    answers: Sequence[Mapping[str, Array]],
    roles: Mapping[str, OutputRole],
    labels: Array | None,
) -> list[str]:
    """Returns what the evaluation samples cannot show, a sentence each.

    Args:
        feeds: The samples.
        answers: FP32's outputs on them.
        roles: What the outputs mean.
        labels: int64 [samples], where there are any.
    """
    count = len(answers)
    if count < LEAST_SAMPLES:
        return []
    return [*_doubt_samples(feeds, count), *_doubt_answers(answers, roles), *_doubt_labels(answers, roles, labels)]


def _doubt_samples(feeds: Iterable[Mapping[str, Array]], count: int) -> list[str]:
    seen, empty = set(), 0
    for sample in feeds:
        digest = hashlib.sha256()
        for name in sorted(sample):
            digest.update(np.ascontiguousarray(sample[name]).tobytes())
        seen.add(digest.digest())
        empty += all(not np.any(value) for value in sample.values())
    found = []
    if count - len(seen) > _REPEATED_SHARE * count:
        found.append(
            f"only {len(seen)} of the {count} evaluation samples differ: repeated ones are no further evidence"
        )
    if empty > 1:
        found.append(f"{empty} of the {count} evaluation samples hold nothing but zeros")
    return found


def _doubt_answers(answers: Sequence[Mapping[str, Array]], roles: Mapping[str, OutputRole]) -> list[str]:
    found = []
    chooses = find_labelled(roles)
    for name, first in answers[0].items():
        values = [np.asarray(answer[name]) for answer in answers]
        if all(np.array_equal(value, first, equal_nan=is_number(value)) for value in values):
            found.append(
                f"FP32's output {name} is the same on all {len(answers)} samples: nothing shows whether it works"
            )
        elif name == chooses and len({int(np.argmax(value)) for value in values}) == 1:
            found.append(
                f"FP32 answers with class {int(np.argmax(first))} on all {len(answers)} samples: agreement says "
                "nothing about the other classes"
            )
    return found


def _doubt_labels(
    answers: Sequence[Mapping[str, Array]], roles: Mapping[str, OutputRole], labels: Array | None
) -> list[str]:
    if labels is None:
        return []
    found = []
    if len(np.unique(labels)) == 1:
        found.append(f"all {len(labels)} labels name class {int(labels[0])}: accuracy says nothing about the others")
    name = find_labelled(roles)
    if name is not None and not any(
        int(np.argmax(answer[name])) == label for answer, label in zip(answers, labels, strict=True)
    ):
        found.append(
            f"FP32 gets none of the {len(labels)} labels right: they are most likely counted from another start, or "
            "name other classes"
        )
    return found
