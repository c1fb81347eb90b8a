"""A grower's rules, with errors of their own: without them controls would follow from state and weather alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelwright.examples.greenhouse.climate import saturation_vapour

Floats = npt.NDArray[np.float64]

MAX_HEATING_W, MAX_FOG, LAMPS_W = 150.0, 300.0, 80.0
_DAY = (6.0, 20.0)
"""Hours between which the day's set point holds."""
_CHANCE = 0.03
"""Share of steps in which a control is set at random, for as long as `_HOLD` steps."""
_HOLD = 6


class Grower:
    """Decides on controls, step by step.

    Args:
        weeks: How many greenhouses are looked after, each in its own week.
        rng: Source of chance.
    """

    def __init__(self, weeks: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._day_set = rng.uniform(18.0, 22.0, weeks)
        self._night_set = self._day_set - rng.uniform(1.0, 4.0, weeks)
        self._has_lamps = rng.random(weeks) < 0.5
        self._random = np.zeros((weeks, 6))
        self._left = np.zeros((weeks, 6), dtype=int)

    def decide(self, state: Floats, weather: Floats, hour: float) -> Floats:
        """Returns the controls for a step: [weeks, 6], see `climate.CONTROLS`.

        Args:
            state: [weeks, 4].
            weather: [weeks, 6].
            hour: Of the day.
        """
        air, vapour = state[:, 0], state[:, 1]
        outside, sun = weather[:, 0], weather[:, 2]
        is_day = _DAY[0] <= hour < _DAY[1]
        wanted = self._day_set if is_day else self._night_set
        humidity = vapour / saturation_vapour(air)
        thermal = np.where((sun < 5) & (outside < 12), 0.95, 0.0)
        lamps = np.where(self._has_lamps & (4 <= hour < 20) & (sun < 200), LAMPS_W, 0.0)
        planned = np.stack(
            (
                np.clip(30.0 * (wanted - air), 0.0, MAX_HEATING_W),
                np.clip(0.2 * (air - wanted - 2.0) + 6.0 * (humidity - 0.82), 0.0, 1.0),
                thermal,
                np.where(sun > 600, 0.8, 0.0),
                np.where((humidity < 0.6) & (sun > 200), MAX_FOG * np.clip((0.6 - humidity) / 0.15, 0, 1), 0.0),
                lamps,
            ),
            axis=-1,
        )
        self._draw()
        return np.where(self._left > 0, self._random, planned)

    def _draw(self) -> None:
        self._left = np.maximum(self._left - 1, 0)
        begins = (self._left == 0) & (self._rng.random(self._left.shape) < _CHANCE / _HOLD)
        most = np.array([MAX_HEATING_W, 1.0, 1.0, 1.0, MAX_FOG, LAMPS_W])
        drawn = self._rng.random(self._left.shape) * most
        self._random = np.where(begins, drawn, self._random)
        self._left = np.where(begins, _HOLD, self._left)
