"""How many answers are right where a text has several: a tag for each of its words, or several classes at once.

Words count where their first token is, entities whole, as seqeval counts them: neither its type nor one of its ends may
differ (the rules are those of conlleval, of the CoNLL-2000 task). Intervals are of texts drawn again: the words of one
text are right or wrong together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from modelwright.core.records.codec import Count, Record, Share
from modelwright.core.records.texts import CLASS_SETS, IGNORED, TAGS, TextInputs
from modelwright.core.samples.sample_set import SampleSet

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]
Interval = tuple[Share, Share]

DRAWS, SEED = 2000, 20260101
LEVEL = 0.5
"""A class holds from this probability on, as transformers' pipelines have it."""
_OUTSIDE = "O"
_TAG = re.compile(r"(?P<place>[BIESLU])-(?P<kind>.+)", re.DOTALL)
_LAST, _FIRST = "ELSU", "BSU"
"""Places of a word after which an entity is over, and those that begin one."""
_COUNTED, _RIGHT, _SHARED, _FOUND, _SOUGHT = range(5)


class LabelFit(Record):
    """How right an artifact's answers are.

    Attributes:
        of: What has one answer: `words`; or `texts`, whose set of classes is right as a whole or not at all.
        count: Of them.
        correct: Of them, right ones.
        accuracy: Share of them.
        accuracy_ci95: Both ends of its 95 % interval.
        accuracy_fp32: FP32's.
        f1: Of `entities`, or of the classes that hold, over all texts (micro); null where there are none, and for tags
            that name no entities.
        f1_ci95: Likewise.
        f1_fp32: Likewise.
        sought: Entities, or classes that hold, which the texts have.
    """

    of: Literal["words", "texts"]
    count: Count
    correct: Count
    accuracy: Share
    accuracy_ci95: Interval
    accuracy_fp32: Share
    f1: Share | None = None
    f1_ci95: Interval | None = None
    f1_fp32: Share | None = None
    sought: Count = 0

    def describe(self) -> str:
        """Returns for instance `91.20 % (95 % interval 90.10 to 92.30) of 2,310 words right, FP32 91.50 %`, and F1."""
        told = f"{_show(self.accuracy, self.accuracy_ci95)} of {self.count:,} {self.of} right, FP32 "
        told += f"{100 * self.accuracy_fp32:.2f} %"
        if self.f1 is None or self.f1_ci95 is None or self.f1_fp32 is None:
            return told
        what = "entities" if self.of == "words" else "labels"
        f1 = f"F1 {_show(self.f1, self.f1_ci95)} of {self.sought:,} {what}, FP32 {100 * self.f1_fp32:.2f} %"
        return f"{told}; {f1}"


def _show(share: float, ends: Interval) -> str:
    low, high = ends
    return f"{100 * share:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f})"


class LabelMeter:
    """Counts, text by text, the right answers of an artifact and of FP32.

    Args:
        samples: With `TAGS` or `CLASS_SETS`, where they say what is right.
        texts: What the model makes of texts; None where samples are none.
    """

    def __init__(self, samples: SampleSet, texts: TextInputs | None) -> None:
        self._samples = samples
        known = [name for name in (TAGS, CLASS_SETS) if texts is not None and name in samples.target_names]
        self._name = known[0] if known else None
        classes = () if texts is None else texts.classes or ()
        self._classes = classes if all(name == _OUTSIDE or _TAG.fullmatch(name) for name in classes) else ()
        self._counts: tuple[list[Counts], list[Counts]] = ([], [])

    def add(self, position: int, found: Mapping[str, Array], fp32: Mapping[str, Array]) -> None:
        """Takes the answers to a sample; an artifact that gives none has none right."""
        if self._name is None:
            return
        right = self._samples.target(self._name, position)
        count = self._count_tags if self._name == TAGS else _count_classes
        for counts, answers in zip(self._counts, (found, fp32), strict=True):
            counts.append(count(right, next(iter(answers.values()), np.zeros(0))))

    def result(self) -> LabelFit | None:
        """Returns the figures; None where nothing says what is right."""
        if self._name is None or not self._counts[0]:
            return None
        own, fp32 = (np.stack(counts) for counts in self._counts)
        total, reference = own.sum(axis=0), fp32.sum(axis=0)
        if not total[_COUNTED]:
            return None
        # Of an interval of F1, draws without any entity say nothing.
        drawn = np.random.default_rng(SEED).multinomial(len(own), np.full(len(own), 1 / len(own)), DRAWS) @ own
        f1, f1_fp32 = _find_f1(total[None]), _find_f1(reference[None])
        known = bool(f1.size and f1_fp32.size)
        counted = drawn[drawn[:, _COUNTED] > 0]
        return LabelFit(
            of="words" if self._name == TAGS else "texts",
            count=int(total[_COUNTED]),
            correct=int(total[_RIGHT]),
            accuracy=float(total[_RIGHT] / total[_COUNTED]),
            accuracy_ci95=_find_ends(counted[:, _RIGHT] / counted[:, _COUNTED]),
            accuracy_fp32=float(reference[_RIGHT] / reference[_COUNTED]),
            f1=float(f1[0]) if known else None,
            f1_ci95=_find_ends(_find_f1(drawn)) if known else None,
            f1_fp32=float(f1_fp32[0]) if known else None,
            sought=int(total[_SOUGHT]),
        )

    def _count_tags(self, right: Array, scores: Array) -> Counts:
        """Returns words, right ones, and entities: shared, found, sought."""
        places = np.flatnonzero(right != IGNORED)
        wanted = right[places]
        given = _choose(scores, len(right))[places]
        shared = found = sought = 0
        if self._classes:
            names = (*self._classes, _OUTSIDE)  # the last is for no answer, -1
            known = [find_entities([names[tag] for tag in tags]) for tags in (wanted, given)]
            sought, found, shared = len(known[0]), len(known[1]), len(known[0] & known[1])
        return np.array([len(wanted), np.count_nonzero(wanted == given), shared, found, sought], np.int64)


def find_entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Returns type, first and last word of the entities that a text's tags name.

    Args:
        tags: `O`, or a place within an entity (B, I, E or L, S or U), `-`, and its type.
    """
    found = set()
    kind, first, place = "", 0, _OUTSIDE
    for number, tag in enumerate((*tags, _OUTSIDE)):
        match = _TAG.fullmatch(tag)
        now, what = (match["place"], match["kind"]) if match else (_OUTSIDE, "")
        begins = now in _FIRST or place in (_OUTSIDE, *_LAST) or what != kind
        if kind and (begins or not what):
            found.add((kind, first, number - 1))
        if begins:
            first = number
        kind, place = what, now
    return found


def _choose(scores: Array, tokens: int) -> Counts:
    """Returns the class of each token; -1 where an artifact gives no scores for it."""
    rows = np.asarray(scores, np.float64).reshape(-1, scores.shape[-1]) if scores.ndim == 3 else np.zeros((0, 1))
    if len(rows) != tokens:
        return np.full(tokens, -1, np.int64)
    return np.where(np.isnan(rows).any(axis=1), -1, np.argmax(rows, axis=1)).astype(np.int64)


def _count_classes(right: Array, scores: Array) -> Counts:
    """Returns one text, whether its set of classes is right, and classes that hold: shared, found, sought."""
    given = np.asarray(scores, np.float64).ravel() >= LEVEL
    held = right > 0
    if given.shape != held.shape:
        return np.array([1, 0, 0, 0, held.sum()], np.int64)
    return np.array([1, np.array_equal(given, held), (given & held).sum(), given.sum(), held.sum()], np.int64)


def _find_f1(counts: Counts) -> npt.NDArray[np.float64]:
    """Returns F1 of each row of counts, of those that have any."""
    either = (counts[:, _FOUND] + counts[:, _SOUGHT]).astype(np.float64)
    shares: npt.NDArray[np.float64] = 2 * counts[either > 0, _SHARED] / either[either > 0]
    return shares


def _find_ends(values: npt.NDArray[np.float64]) -> Interval:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
