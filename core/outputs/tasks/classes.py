"""Answers chosen among classes: one a sample, one a position or one a pixel.

What counts is whether the answer is FP32's: overall, corrected for chance, and for each class. Few samples cannot count
one flip in a hundred, so flips are also estimated from how close FP32's own answers are and how large the error is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.outputs.tasks.checks import Z_ONE_SIDED, Check, bound_share, format_share
from modelwright.core.outputs.tasks.margins import Margins, weigh_estimate
from modelwright.core.outputs.tasks.recall import MIN_CLASS_ROWS, check_recall, find_worst_class, name_rows
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.outputs.tasks.signs import as_softmax, is_sentinel

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

FLIPS = (0.03, 0.10)
"""Share of other answers than FP32's, where their regret is known: good, broken."""
PLAIN_FLIPS = (0.01, 0.10)
"""The same of answers without scores: nothing says that FP32 was in doubt."""
REGRET = (0.005, 0.03)
"""Accuracy that other answers cost by FP32's own probabilities, as much as may be lost where it is measured: a flip
between two classes that it holds for as likely costs nothing, one from a class that it is sure of costs a whole answer.
"""
LABELLED_FLIPS = (0.05, 0.15)
"""The same where labels decide: as right as FP32 with other answers to a tenth of the samples is still luck."""
WELL_LABELLED, WELL_LABELLED_FLIPS = 300, 0.35
"""Of that many labels it is none any more: a network of a thousand classes that is itself often in doubt changes many
answers, wrong ones for other wrong ones; where accuracy as it was seen holds up, more of them are let pass."""
ACCURACY_LOSS = (0.005, 0.03)
"""Points of accuracy lost: good, broken."""
_MANY_LABELS = 2000
TOKEN_FLIPS = (0.03, 0.10)
"""Of texts, where several words often fit; where most positions say "nothing", kappa is the stricter one."""
MASK_FLIPS = (0.02, 0.10)
KAPPA_LOSS = (0.05, 0.4)
"""1 - Cohen's kappa: agreement beyond chance. Landis and Koch (1977) call 0.6 the least that is substantial."""
LEAST_CHANGING_SHARE = 0.002
"""An answer that differs from the usual one in fewer rows than that is one that never changes."""
_TIED_SHARE = 0.01
"""Probabilities within this share of each other tie: two roundings of bfloat16 are 0.8 %, and 0.503 against 0.497 is a
toss of a coin in FP32 too."""
_LIKELY = 0.02
_CLASSES_COUNTED = 4096
"""Of larger vocabularies, recall by class is not kept; the tail has too few rows to say anything."""


@dataclass(frozen=True, kw_only=True)
class ClassFidelity:
    """How far the answers are FP32's.

    Attributes:
        rows: Answers compared.
        agreement: Share that is the same; a tie with FP32's best class is the same.
        regret: Mean probability, as FP32 has it, that an answer loses against FP32's own.
        estimated_flips: Share of other answers that margins and errors lead one to expect.
        estimated_regret: The same of the regret.
        kappa: Cohen's; None where FP32's answer never changes.
        worst_class: The class whose rows are lost most, with at least `MIN_CLASS_ROWS` of them; None without one.
        worst_recall: Share of its rows that are found.
        answers: Classes that FP32 ever answers with.
        labelled: Rows of which the right answer is known.
        right_lost: Of them, FP32's right answers that became wrong.
        right_won: Wrong ones that became right.
    """

    rows: int
    agreement: float
    regret: float
    estimated_flips: float
    estimated_regret: float
    kappa: float | None
    worst_class: int | None
    worst_recall: float | None
    worst_rows: int
    answers: int
    labelled: int
    right_lost: int
    right_won: int

    @property
    def differing(self) -> int:
        """Answers that are not FP32's."""
        return self.rows - round(self.agreement * self.rows)


class ClassMeter:
    """Counts answers over one output of class scores."""

    def __init__(self, role: OutputRole) -> None:
        self.role = role
        self._rows = 0
        self._agreed = 0
        self._expected: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._found: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._hits: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._labelled = self._right_lost = self._right_won = 0
        self._margins = Margins()
        self._regret = 0.0

    def add(self, expected: Array, found: Array, label: int | None = None) -> None:
        """Takes FP32's scores and the candidate's, of the same shape; rows that FP32 leaves NaN are skipped.

        Args:
            expected: FP32's.
            found: The candidate's.
            label: The right class, where the sample says it and the output gives one answer.
        """
        wanted, have = self._to_rows(expected), self._to_rows(found)
        # What is masked is no answer, nor is a position that holds one number throughout: it is padding.
        wanted = np.where(is_sentinel(wanted, self.role.sentinel), -np.inf, wanted)
        sound = np.isfinite(wanted).any(axis=1) & ~np.isnan(wanted).any(axis=1)
        sound &= (wanted != wanted[:, :1]).any(axis=1)
        wanted, have = wanted[sound], have[sound]
        if not len(wanted):
            return
        classes = wanted.shape[1]
        if not self._hits.size:
            kept = min(classes, _CLASSES_COUNTED)
            self._expected, self._found, self._hits = (np.zeros(kept, np.int64) for _ in range(3))
        legible = np.asarray(~np.isnan(have).any(axis=1))
        answer = np.argmax(np.where(np.isnan(wanted), -np.inf, wanted), axis=1)
        given = np.argmax(np.where(np.isnan(have), -np.inf, have), axis=1)
        rows = np.arange(len(wanted))
        # Of probabilities that hardly differ, FP32 itself might have named either.
        least = wanted[rows, answer] * (1 - _TIED_SHARE if self.role.is_probability else 1.0)
        agreed = legible & (wanted[rows, given] >= least)
        # A tie is FP32's own choice too: it counts as the class that FP32 names.
        given = np.where(agreed, answer, given)
        if label is not None and len(wanted) == 1:
            right, still = bool(answer[0] == label), bool(given[0] == label and legible[0])
            self._labelled += 1
            self._right_lost += right and not still
            self._right_won += still and not right
        self._rows += len(wanted)
        self._agreed += int(np.count_nonzero(agreed))
        size = len(self._hits)
        for counts, chosen in ((self._expected, answer), (self._found, given), (self._hits, answer[agreed])):
            counts += np.bincount(chosen[chosen < size], minlength=size)
        if wanted.shape[1] > 1:
            likely = as_softmax(wanted) if not self.role.is_probability else np.nan_to_num(wanted)
            lost = likely[rows, answer] - np.where(legible, likely[rows, given], 0.0)
            self._regret += float(np.maximum(lost, 0.0).sum())
            self._note_margins(wanted, have, answer, likely)

    def _note_margins(self, wanted: Floats, have: Floats, answer: Array, likely: Floats) -> None:
        """Notes how far FP32's answer is ahead of its next class, and by how much the candidate is off in that."""
        rows = np.arange(len(wanted))
        others = wanted.copy()
        others[rows, answer] = -np.inf
        second = np.argmax(others, axis=1)
        doubtful = np.ones(len(wanted), np.bool_)
        if self.role.is_probability:
            # Where the next class is out of the question, the logarithm of its probability is all rounding.
            doubtful = wanted[rows, second] > _LIKELY
            wanted, have = _to_logits(wanted), _to_logits(have)
        margin = wanted[rows, answer] - wanted[rows, second]
        with np.errstate(invalid="ignore"):
            error = have[rows, answer] - have[rows, second] - margin
        usable = np.isfinite(margin) & np.isfinite(error) & (margin > 0.0)
        gap = likely[rows, answer] - likely[rows, second]
        self._margins.add(margin[usable], error[usable], gap[usable], doubtful[usable])

    def _to_rows(self, value: Array) -> Floats:
        axis = -1 if self.role.axis is None else self.role.axis
        moved = np.moveaxis(np.asarray(value, np.float64), axis, -1)
        return moved.reshape(-1, moved.shape[-1])

    def result(self) -> ClassFidelity | None:
        """Returns what was counted; None when no row could be."""
        if not self._rows:
            return None
        agreement = self._agreed / self._rows
        chance = float((self._expected / self._rows) @ (self._found / self._rows))
        constant = self._rows - int(self._expected.max(initial=0)) <= LEAST_CHANGING_SHARE * self._rows
        kappa = None if constant or chance >= 1.0 else (agreement - chance) / (1 - chance)
        worst = find_worst_class(self._expected, self._hits)
        rows = 0 if worst is None else int(self._expected[worst])
        recall = None if worst is None else float(self._hits[worst] / rows)
        flips, regret = self._margins.estimate()
        return ClassFidelity(
            rows=self._rows,
            agreement=agreement,
            regret=self._regret / self._rows,
            estimated_flips=flips,
            estimated_regret=regret,
            kappa=kappa,
            worst_class=worst,
            worst_recall=recall,
            worst_rows=rows,
            answers=int(np.count_nonzero(self._expected)),
            labelled=self._labelled,
            right_lost=self._right_lost,
            right_won=self._right_won,
        )

    def kept(self) -> float | None:
        """Returns the share of answers that are FP32's."""
        return self._agreed / self._rows if self._rows else None

    def checks(self) -> list[Check]:
        """Returns the findings: flips, agreement beyond chance, the class that loses most."""
        seen = self.result()
        if seen is None:
            return []
        name = self.role.name
        limits = {"mask": MASK_FLIPS, "tokens": TOKEN_FLIPS}
        good, broken = LABELLED_FLIPS if self._labelled else limits.get(self.role.role, FLIPS)
        if self._labelled >= WELL_LABELLED and self._accuracy_drop() < ACCURACY_LOSS[1]:
            broken = WELL_LABELLED_FLIPS
        flips = weigh_estimate(1 - seen.agreement, seen.estimated_flips, seen.rows)
        differing = seen.differing
        # What was seen is broken whatever margins and errors lead one to expect.
        if differing >= max(MIN_CLASS_ROWS, broken * seen.rows):
            flips = max(flips, differing / seen.rows)
        checks = [
            Check(
                output=name,
                measure="flips",
                value=flips,
                good=good,
                broken=broken,
                text=_describe_flips(differing, seen, name_rows(self.role)),
            )
        ]
        if seen.kappa is not None and seen.rows >= 20:
            # What chance may have done is taken off: a bound of the agreement, not the agreement itself.
            slack = bound_share(seen.agreement * seen.rows, seen.rows, upper=True) - seen.agreement
            scale = (1 - seen.kappa) / max(1 - seen.agreement, 1e-12)
            checks.append(
                Check(
                    output=name,
                    measure="kappa",
                    value=max(0.0, (1 - seen.kappa) - slack * scale),
                    good=KAPPA_LOSS[0],
                    broken=KAPPA_LOSS[1],
                    text=f"agreement beyond chance (Cohen's kappa) is {seen.kappa:.3f}",
                )
            )
        checks.extend(check_recall(self.role, self._expected, self._hits))
        if self._labelled:
            checks.append(self._check_accuracy())
        elif self.role.role != "mask":
            checks.append(self._check_regret(seen))
        return checks

    def _check_regret(self, seen: ClassFidelity) -> Check:
        regret = weigh_estimate(seen.regret, seen.estimated_regret, seen.rows)
        return Check(
            output=self.role.name,
            measure="regret",
            value=max(0.0, regret),
            good=REGRET[0],
            broken=REGRET[1],
            text=f"other answers than FP32's cost {100 * regret:.2g} points of accuracy, by FP32's own probabilities",
        )

    def _accuracy_drop(self) -> float:
        return (self._right_lost - self._right_won) / self._labelled

    def _check_accuracy(self) -> Check:
        """Holds the accuracy against FP32's on the same samples; what chance may have done is taken off (McNemar)."""
        lost, won, count = self._right_lost, self._right_won, self._labelled
        drop = self._accuracy_drop()
        deviation = math.sqrt(max(lost + won - (lost - won) ** 2 / count, 0.0)) / count
        return Check(
            output=self.role.name,
            measure="accuracy",
            value=max(0.0, drop - Z_ONE_SIDED * deviation if count < _MANY_LABELS else drop),
            good=ACCURACY_LOSS[0],
            broken=ACCURACY_LOSS[1],
            text=f"accuracy changes by {-100 * drop:+.2g} points: of {count} labelled samples {lost} right answers are "
            f"lost and {won} won",
        )


def _describe_flips(differing: int, seen: ClassFidelity, rows: str) -> str:
    """Returns how many answers differ, or how many are to be expected where these samples show fewer than that."""
    expected = format_share(seen.estimated_flips)
    if seen.estimated_flips * seen.rows > differing:
        return (
            f"about {expected} of {rows} can be expected to get another class than FP32's, by the margins and errors "
            f"seen here, where {differing} of {seen.rows} do"
        )
    return (
        f"{differing} of {seen.rows} {rows} get another class than FP32's ({expected} expected from margins and errors)"
    )


class EqualMeter:
    """Counts equal answers where an output gives classes or flags themselves, one or a map of them."""

    def __init__(self, role: OutputRole) -> None:
        self.role = role
        self._equal = self._count = 0
        self._expected, self._hits = (np.zeros(_CLASSES_COUNTED, np.int64) for _ in range(2))

    def add(self, expected: Array, found: Array) -> None:
        """Takes FP32's answers and the candidate's, of the same shape."""
        wanted = np.asarray(expected).ravel()
        same = wanted == np.asarray(found).ravel()
        self._equal += int(np.count_nonzero(same))
        self._count += wanted.size
        if wanted.dtype.kind in "iub":
            counted = (wanted >= 0) & (wanted < _CLASSES_COUNTED)
            for counts, chosen in ((self._expected, wanted[counted]), (self._hits, wanted[counted & same])):
                counts += np.bincount(chosen.astype(np.int64), minlength=_CLASSES_COUNTED)

    def kept(self) -> float | None:
        """Returns the share of answers that are FP32's."""
        return self._equal / self._count if self._count else None

    def checks(self) -> list[Check]:
        """Returns the findings: answers that differ, the class that loses most."""
        if not self._count:
            return []
        differing = self._count - self._equal
        text = f"{differing} of {self._count} answers are others than FP32's"
        # Few may be chance; several are not.
        sure = bound_share(differing, self._count, upper=False)
        value = differing / self._count if differing >= MIN_CLASS_ROWS else sure
        good, broken = MASK_FLIPS if self.role.role == "mask" else PLAIN_FLIPS
        flips = Check(output=self.role.name, measure="flips", value=value, good=good, broken=broken, text=text)
        return [flips, *check_recall(self.role, self._expected, self._hits)]


def _to_logits(probabilities: Floats) -> Floats:
    """Returns the logarithms, in which an error is alike wherever it happens; far below 1e-7 they are rounding."""
    return np.asarray(np.log(np.clip(probabilities, 1e-7, 1.0)))
