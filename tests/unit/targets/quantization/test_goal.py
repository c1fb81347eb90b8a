"""What counts as following FP32: levels, order, words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelwright.core.outputs.fidelity import compare_outputs
from modelwright.targets.quantization.goal import Figures, Level, describe_goal, explain_miss


def make_figures(cosine: float | None, agreement: float | None = None, samples: int = 64, **changes: Any) -> Figures:
    error = None if cosine is None else 1 - cosine**2
    return Figures(**{"cosine": cosine, "error": error, "agreement": agreement, "samples": samples, **changes})


@pytest.mark.parametrize(
    ("cosine", "agreement", "level"),
    [
        (0.9995, 1.0, Level.GOOD),
        (0.9995, 0.985, Level.GOOD),
        (0.9995, 0.97, Level.POOR),
        (0.995, 1.0, Level.FAIR),
        (0.98, 1.0, Level.POOR),
        (0.9991, None, Level.GOOD),
        (0.9989, None, Level.FAIR),
        (None, 0.985, Level.GOOD),
        (None, 0.5, Level.POOR),
    ],
)
def test_levels(cosine: float | None, agreement: float | None, level: Level) -> None:
    assert make_figures(cosine, agreement).level is level


def test_one_close_call_of_a_few_samples_is_forgiven_if_the_cosine_holds() -> None:
    assert make_figures(0.9995, 14 / 15, 15).level is Level.GOOD
    assert make_figures(0.9995, 13 / 15, 15).level is Level.POOR
    assert make_figures(0.985, 14 / 15, 15).level is Level.POOR
    assert make_figures(0.9995, 62 / 64, 64).level is Level.POOR


def compare(found: Any, *, labelled: bool = False, expected: Any = None) -> Figures:
    """Compares eight samples of one output, 1 or found to FP32's."""
    rows = np.random.default_rng(0).standard_normal((8, 1, 4)).astype(np.float32) if expected is None else expected
    outputs = [{"y": np.asarray(found(row) if callable(found) else found)} for row in rows]
    return Figures.from_fidelity(compare_outputs([{"y": row} for row in rows], outputs), labelled=labelled)


def test_figures_of_known_errors() -> None:
    exact = compare(lambda row: row)
    assert (exact.cosine, exact.error, exact.fault) == (pytest.approx(1.0), 0.0, None)
    larger = compare(lambda row: row * np.float32(1.1))
    assert larger.cosine == pytest.approx(1.0)
    assert larger.error == pytest.approx(0.01, rel=1e-4)
    # A right direction of the wrong size loses against a right size that is slightly off.
    assert larger.rank < compare(lambda row: row + np.float32(1e-3)).rank


def test_top_classes_count_only_where_samples_have_labels() -> None:
    def swap(row: Any) -> Any:
        return row[:, ::-1]

    assert compare(swap).agreement is None
    assert compare(swap, labelled=True).agreement is not None
    # Integer outputs are classes themselves: there is nothing else to judge them by.
    classes = np.arange(8).reshape(8, 1, 1)
    unlabelled = compare(lambda row: row * (row < 6), expected=classes)
    assert (unlabelled.cosine, unlabelled.agreement, unlabelled.error) == (None, 6 / 8, 2 / 8)
    assert unlabelled.level is Level.POOR


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (lambda row: row * np.nan, "NaN"),
        (lambda row: row[:, :3], "another shape"),
        (np.ones((1, 4), np.float32), "same on all 8 samples"),
    ],
)
def test_outputs_that_are_no_answers_are_broken(found: Any, words: str) -> None:
    figures = compare(found)
    assert figures.level is Level.BROKEN
    assert figures.error is None
    assert words in figures.describe()


def test_order_and_what_is_clearly_better() -> None:
    good, fair, poor = make_figures(0.9995), make_figures(0.995), make_figures(0.9)
    broken = Figures.broken("no kernel")
    assert sorted([good, broken, poor, fair], key=lambda figures: figures.rank) == [broken, poor, fair, good]
    assert good.is_clearly_better(fair)
    assert not make_figures(0.996).is_clearly_better(fair)
    assert make_figures(0.998).is_clearly_better(fair), "a third of the error"
    assert poor.is_clearly_better(broken)
    assert not broken.is_clearly_better(broken)


def test_gain_of_a_broken_one() -> None:
    good, poor, broken = make_figures(0.9995), make_figures(0.9), Figures.broken("no kernel")
    assert good.gain_over(poor) == pytest.approx(0.19 - 0.001, abs=1e-4)
    assert broken.gain_over(poor) == 0.0
    assert good.gain_over(broken) > poor.gain_over(broken) > 1.0


def test_what_loses_nothing() -> None:
    before = make_figures(0.9998, 1.0)
    assert make_figures(0.9995, 1.0).loses_nothing(before)
    assert not make_figures(0.9991, 1.0).loses_nothing(before), "cosine lost"
    assert not make_figures(0.9999, 0.97).loses_nothing(before), "classes lost"


def test_words() -> None:
    assert explain_miss(make_figures(0.9995)) is None
    assert "less closely than wanted: cosine 0.99500" in str(explain_miss(make_figures(0.995)))
    missed = str(explain_miss(make_figures(0.91, 0.6)))
    assert "agreement 60.0%" in missed
    assert "compare its accuracy before shipping it" in missed
    assert set(describe_goal()) == {"good", "fair"}
    assert make_figures(0.995).to_dict()["level"] == "fair"
