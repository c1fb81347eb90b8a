"""Weeks of a simulated greenhouse as training data and samples.

``data.py:training_batches`` is what ``--train`` takes; ``held_out.npz`` beside this file holds other weeks.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modelwright.examples.greenhouse.climate import advance
from modelwright.examples.greenhouse.control import Grower
from modelwright.examples.greenhouse.weather import STEPS_PER_WEEK, make_weather

HELD_OUT_PATH = Path(__file__).with_name("held_out.npz")
TRAINING_WEEKS, VALIDATION_WEEKS, HELD_OUT_WEEKS = 48, 6, 4
_SEEDS = {"training": 20261127, "validation": 20261128, "held out": 20261129}
_WARM_UP = 288
"""Steps before the first one that counts: the first state is a guess."""
_BATCH = 512
_EXTREMES, _CALIBRATING = 16, 1024
"""Steps at either end of each thing that is watched, and of all that calibrate."""

Floats = npt.NDArray[np.float32]


def training_batches() -> Iterator[dict[str, Floats]]:
    """Yields the training weeks in batches of a few hundred steps, in a random but fixed order.

    Yields:
        `features` [batch, 16] and `target_next_state` [batch, 4], float32, see `simulate`.
    """
    features, following = training_weeks()
    order = np.random.default_rng(_SEEDS["training"]).permutation(len(features))
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        yield {"features": features[rows], "target_next_state": following[rows]}


@cache
def training_weeks() -> tuple[Floats, Floats]:
    """Returns the weeks that train; see `simulate`."""
    return simulate(TRAINING_WEEKS, _SEEDS["training"])


def simulate_validation() -> tuple[Floats, Floats]:
    """Returns the weeks that settings of the training are chosen by; see `simulate`."""
    return simulate(VALIDATION_WEEKS, _SEEDS["validation"])


def simulate_held_out() -> tuple[Floats, Floats]:
    """Returns the weeks that only judge; see `simulate`."""
    return simulate(HELD_OUT_WEEKS, _SEEDS["held out"])


def simulate(weeks: int, seed: int, steps: int = STEPS_PER_WEEK) -> tuple[Floats, Floats]:
    """Simulates weeks of greenhouses, each with its own weather and grower.

    Args:
        weeks: How many, side by side.
        seed: Of all chance.
        steps: The first ones of each week.

    Returns:
        State, controls and weather of each step, float32 [weeks * steps, 16], one week after the other, in the order
        and the units of `climate.STATE`, `CONTROLS` and `WEATHER`; and the state five minutes later, float32
        [weeks * steps, 4].
    """
    rng = np.random.default_rng(seed)
    weather = make_weather(weeks, rng)
    grower = Grower(weeks, rng)
    state = np.tile(np.array([18.0, 11.0, 18.0, 16.0]), (weeks, 1))
    features = np.empty((max(steps, _WARM_UP), weeks, 16))
    following = np.empty((max(steps, _WARM_UP), weeks, 4))
    for step in (*range(_WARM_UP), *range(steps)):
        controls = grower.decide(state, weather[step], 24 * (step % 288) / 288)
        features[step] = np.concatenate((state, controls, weather[step]), axis=1)
        state = advance(state, controls, weather[step])
        following[step] = state
    return (
        features[:steps].swapaxes(0, 1).reshape(-1, 16).astype(np.float32),
        following[:steps].swapaxes(0, 1).reshape(-1, 4).astype(np.float32),
    )


def calibration_samples() -> Iterator[dict[str, Floats]]:
    """Yields training steps one by one: the extremes of every input and of every change, and others at random.

    Integers have the range that calibration has seen, and what lies beyond it is cut off: a storm or a vent that opens
    on a hot day is one step in thousands, and costs more than all others together.

    Yields:
        `features` [1, 16] and `target_next_state` [4], float32, see `simulate`.
    """
    features, following = training_weeks()
    watched = np.concatenate((features, following - features[:, : following.shape[1]]), axis=1)
    ranked = np.argsort(watched, axis=0)
    extremes = np.unique(np.concatenate((ranked[:_EXTREMES], ranked[-_EXTREMES:])))
    generator = np.random.default_rng(_SEEDS["training"])
    others = generator.choice(len(features), _CALIBRATING - len(extremes), replace=False)
    for row in generator.permutation(np.concatenate((extremes, others))):
        yield {"features": features[row : row + 1], "target_next_state": following[row]}
