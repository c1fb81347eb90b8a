"""Error and R squared against what answers should be: known answers, and which arrays are taken for targets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.core.outputs.target_fit import FitMeter, TargetFit
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, open_samples

Array = np.ndarray[Any, Any]
X = np.zeros((4, 1), np.float32)


def measure(
    folder: Path, targets: Mapping[str, Array], found: Mapping[str, Array], fp32: Mapping[str, Array] | None = None
) -> dict[str, TargetFit]:
    """Returns the figures by name; answers are arrays with a row a sample."""
    np.savez(folder / "s.npz", x=X, **targets)  # type: ignore[arg-type]
    signature = Signature(inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 1)),), outputs=())
    samples = open_samples(SampleRef(path=folder / "s.npz"), signature)
    fp32 = fp32 or found

    def row(answers: Mapping[str, Array], index: int) -> dict[str, Array]:
        return {name: array[index : index + 1] for name, array in answers.items()}

    meter = FitMeter(samples, row(fp32, 0))
    for position, index in enumerate(samples.rows):
        meter.add(position, row(found, index), row(fp32, index))
    return {fit.name: fit for fit in meter.result()}


def test_error_and_r_squared_have_known_answers(tmp_path: Path) -> None:
    targets = np.array([[0.0, 10.0], [2.0, 10.0], [4.0, 10.0], [6.0, 10.0]])
    found = targets + np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 2.0]])
    fits = measure(tmp_path, {"target_y": targets}, {"y": found}, {"y": targets})
    assert fits["y[0]"].rmse == pytest.approx(1.0)
    assert fits["y[0]"].r2 == pytest.approx(1 - 4 / 20), "the targets' squares around their mean of 3 are 20"
    assert fits["y[1]"].rmse == pytest.approx(1.0)
    assert fits["y[1]"].r2 is None, "they do not vary"
    assert [fit.rmse_fp32 for fit in fits.values()] == [0.0, 0.0]
    assert fits["y[0]"].r2_fp32 == 1.0


def test_the_mean_of_the_targets_explains_nothing(tmp_path: Path) -> None:
    targets = np.array([1.0, 2.0, 3.0, 4.0], np.float32)[:, None]
    fits = measure(tmp_path, {"target_y": targets}, {"y": np.full((4, 1), 2.5)})
    assert fits["y"].r2 == pytest.approx(0.0)
    assert fits["y"].rmse == pytest.approx(math.sqrt(1.25))


def test_targets_far_from_zero_lose_no_digits(tmp_path: Path) -> None:
    targets = 1e8 + np.array([0.0, 1.0, 2.0, 3.0])[:, None]
    fits = measure(tmp_path, {"target_y": targets}, {"y": targets + 0.5})
    assert fits["y"].r2 == pytest.approx(1 - 1 / 5)


def test_an_output_of_many_values_has_one_figure(tmp_path: Path) -> None:
    targets = np.arange(4 * 20, dtype=np.float64).reshape(4, 4, 5)
    fits = measure(tmp_path, {"target_mask": targets}, {"mask": targets + 2})
    assert list(fits) == ["mask"]
    assert fits["mask"].rmse == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        ({"target_other": np.zeros((4, 2))}, {"y": np.zeros((4, 2))}),
        ({"target_y": np.zeros((4, 3))}, {"y": np.zeros((4, 2))}),
        ({"target_y": np.array(["a", "b", "c", "d"])}, {"y": np.zeros((4, 1))}),
        ({}, {"y": np.zeros((4, 2))}),
    ],
)
def test_what_is_no_target_of_an_output_gives_no_figure(
    tmp_path: Path, targets: Mapping[str, Array], found: Mapping[str, Array]
) -> None:
    assert measure(tmp_path, targets, found) == {}


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_an_answer_that_is_no_number_gives_no_figure(tmp_path: Path, broken: float) -> None:
    found = np.array([0.0, 1.0, broken, 3.0])[:, None]
    assert measure(tmp_path, {"target_y": np.arange(4.0)[:, None]}, {"y": found}, {"y": np.zeros((4, 1))}) == {}
