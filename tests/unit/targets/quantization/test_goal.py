"""What counts as following FP32: levels, order, words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelwright.core.outputs.fidelity import compare_outputs
from modelwright.core.outputs.tasks.roles import OutputRole, Role
from modelwright.targets.quantization.goal import Figures, Level, describe_goal, explain_miss


def make_figures(severity: float | None, **changes: Any) -> Figures:
    given = {"severity": severity, "error": severity, "kept": 0.9, "measure": "agreement", "samples": 64}
    return Figures(**{**given, "finding": "output y: 3 of 64 samples", **changes})


@pytest.mark.parametrize(
    ("severity", "level"),
    [
        (0.0, Level.GOOD),
        (1.0, Level.GOOD),
        (1.01, Level.FAIR),
        (1.99, Level.FAIR),
        (2.0, Level.POOR),
        (9.0, Level.POOR),
    ],
)
def test_levels(severity: float, level: Level) -> None:
    assert make_figures(severity).level is level
    assert make_figures(severity, fault="it crashes").level is Level.BROKEN


def compare(found: Any, *, expected: Any = None, role: Role = "regression") -> Figures:
    """Compares 40 samples of one output with FP32's."""
    rows = np.random.default_rng(0).standard_normal((40, 1, 4)).astype(np.float32) if expected is None else expected
    outputs = [{"y": np.asarray(found(row) if callable(found) else found)} for row in rows]
    roles = {"y": OutputRole(name="y", role=role, why="a test", axis=1)}
    return Figures.from_fidelity(compare_outputs([{"y": row} for row in rows], outputs, roles))


def test_figures_of_known_errors() -> None:
    exact = compare(lambda row: row)
    assert (exact.severity, exact.error, exact.fault, exact.kept) == (0.0, 0.0, None, 1.0)
    larger = compare(lambda row: row * np.float32(1.1))
    # 10 % of each value is 1 % of the energy, which is a little more than the variance.
    assert larger.kept == pytest.approx(0.99, abs=0.003)
    assert larger.level in (Level.GOOD, Level.FAIR)
    assert larger.rank < compare(lambda row: row + np.float32(1e-3)).rank


def test_other_answers_are_poor_and_not_broken_so_that_layers_in_float_can_mend_them() -> None:
    turned = compare(lambda row: row[:, ::-1])
    assert turned.level is Level.POOR
    assert turned.fault is None
    assert "noise" in turned.describe()


def test_integers_are_answers_themselves() -> None:
    classes = np.arange(40).reshape(40, 1, 1)
    changed = compare(lambda row: row * (row < 30), expected=classes, role="classes")
    assert (changed.kept, changed.level) == (30 / 40, Level.POOR)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (lambda row: row * np.nan, "NaN"),
        (lambda row: row[:, :3], "another shape"),
        (np.ones((1, 4), np.float32), "same on all 40 samples"),
    ],
)
def test_outputs_that_are_no_answers_are_broken(found: Any, words: str) -> None:
    figures = compare(found)
    assert figures.level is Level.BROKEN
    assert figures.error is None
    assert words in figures.describe()


def test_order_and_what_is_clearly_better() -> None:
    good, fair, poor = make_figures(0.5), make_figures(1.5), make_figures(3.0)
    broken = Figures.broken("no kernel")
    assert sorted([good, broken, poor, fair], key=lambda figures: figures.rank) == [broken, poor, fair, good]
    assert good.is_clearly_better(fair)
    assert not make_figures(1.4).is_clearly_better(fair)
    assert make_figures(0.2).is_clearly_better(good), "less than half of the error"
    assert poor.is_clearly_better(broken)
    assert not broken.is_clearly_better(broken)


def test_harm_beyond_what_is_there_anyhow() -> None:
    good, poor, broken = make_figures(0.5), make_figures(3.0), Figures.broken("no kernel")
    assert poor.harm_beyond(good) == pytest.approx(2.5)
    assert good.harm_beyond(poor) == pytest.approx(-2.5), "errors may cancel"
    assert good.harm_beyond(broken) == pytest.approx(0.5)
    assert broken.harm_beyond(good) > 100 * poor.harm_beyond(good)


def test_what_loses_nothing() -> None:
    before = make_figures(0.5)
    assert make_figures(0.55).loses_nothing(before)
    assert not make_figures(0.7).loses_nothing(before), "it costs a fifth of what nobody would notice"
    assert make_figures(1.05).loses_nothing(make_figures(0.98)), "good was missed by a hair"
    assert not make_figures(2.05).loses_nothing(make_figures(1.98)), "it is poor"


def test_words() -> None:
    assert explain_miss(make_figures(0.5)) is None
    assert "less closely than wanted on 64 samples: agreement 90.0%" in str(explain_miss(make_figures(1.5)))
    missed = str(explain_miss(make_figures(4.0, kept=0.6)))
    assert "agreement 60.0%, output y: 3 of 64 samples" in missed
    assert "compare its accuracy before shipping it" in missed
    assert set(describe_goal()) == {"good", "fair"}
    assert make_figures(1.5).to_dict()["level"] == "fair"


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_value_a_sample_is_compared_by_its_value(shape: tuple[int, ...]) -> None:
    """The cosine of two scalars is 1 whatever they are: 3.0 against 300.0."""
    rows = [np.full(shape, value, np.float32) for value in np.linspace(2.0, 4.0, 40)]
    axis = len(shape) - 1 if len(shape) > 1 else None
    roles = {"y": OutputRole(name="y", role="regression", why="a test", axis=axis)}

    def judge(factor: float) -> Figures:
        found = [{"y": row * np.float32(factor)} for row in rows]
        return Figures.from_fidelity(compare_outputs([{"y": row} for row in rows], found, roles))

    assert judge(1.0).level is Level.GOOD
    assert judge(100.0).level <= Level.POOR


def test_the_distance_is_the_noise_of_the_output_that_follows_worst() -> None:
    rng = np.random.default_rng(0)
    near, far = (
        compare(lambda row, s=size: row + np.float32(s) * rng.standard_normal(row.shape)) for size in (0.1, 0.2)
    )
    assert near.distance == pytest.approx(0.1, rel=0.1)
    assert far.distance == pytest.approx(0.2, rel=0.15), "of the worse of four channels"
    assert near.is_closer(far)
    assert not far.is_closer(near)
    assert not near.is_closer(near)


def test_an_output_that_hardly_varies_does_not_drown_the_others() -> None:
    """A constant of 10 that varies by a millionth was a thousand times its signal off by a rounding to 0.1 %."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "y": rng.standard_normal((1, 4)).astype(np.float32),
            "z": (10 + 1e-5 * rng.standard_normal((1, 4))).astype(np.float32),
        }
        for _ in range(40)
    ]
    roles = {name: OutputRole(name=name, role="regression", why="a test", axis=1) for name in ("y", "z")}

    def judge(noise: float) -> Figures:
        found = [
            {"y": row["y"] + np.float32(noise) * rng.standard_normal((1, 4)), "z": row["z"] + np.float32(0.01)}
            for row in rows
        ]
        drifting = [{**each, "z": each["z"] + np.float32(1e-3) * rng.standard_normal((1, 4))} for each in found]
        return Figures.from_fidelity(compare_outputs(rows, drifting, roles))

    near, far = judge(0.2), judge(0.3)
    assert near.distance == pytest.approx(0.2, rel=0.2)
    assert near.is_closer(far), "by the output that varies"


def test_answers_of_few_samples_do_not_outweigh_all_values() -> None:
    lucky = make_figures(0.3, distance=0.027)
    unlucky = make_figures(1.2, distance=0.018)
    assert not unlucky.loses_nothing(lucky)
    assert unlucky.is_closer(lucky)
    assert not make_figures(2.5, distance=0.001).is_closer(lucky), "what is poor is not chance"
    assert not make_figures(1.2).is_closer(lucky)
    assert not unlucky.is_closer(make_figures(0.3, distance=0.027, drop=0.4)), "the user's limit is kept"


def test_what_may_change_where_neither_answers_nor_values_say_no() -> None:
    before = make_figures(0.5, distance=0.05)
    assert make_figures(0.55, distance=0.09).is_as_close(before)
    assert make_figures(1.2, distance=0.053).is_as_close(before), "one answer more of few is chance"
    assert not make_figures(1.2, distance=0.06).is_as_close(before)
    assert not make_figures(2.5, distance=0.05).is_as_close(before), "what is poor is not chance"
    assert not make_figures(1.2, distance=0.05).is_as_close(make_figures(0.5, distance=0.05, drop=0.4))
