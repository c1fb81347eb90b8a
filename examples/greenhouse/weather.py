"""Weeks of made-up weather at 52 degrees north, in steps of five minutes, from a seed.

The sun is geometry (Haurwitz, 1945, for the clear sky), what varies from hour to hour is autoregressive noise. It is no
record of any place.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelwright.examples.greenhouse.climate import STEP_S, saturation_vapour

Floats = npt.NDArray[np.float64]

STEPS_PER_WEEK = 2016
_STEPS_PER_DAY = 288
_LATITUDE = np.radians(52.0)
_KELVIN = 273.15


def make_weather(weeks: int, rng: np.random.Generator) -> Floats:
    """Returns the weather of weeks that begin on days of the year drawn at random.

    Args:
        weeks: How many.
        rng: Source of chance.

    Returns:
        [steps, weeks, 6], see `climate.WEATHER`.
    """
    first_day = rng.uniform(0, 365, weeks)
    step = np.arange(STEPS_PER_WEEK)[:, None]
    day = first_day + step / _STEPS_PER_DAY
    hour = 24 * (step % _STEPS_PER_DAY) / _STEPS_PER_DAY + np.zeros(weeks)
    season = np.cos(2 * np.pi * (day - 200) / 365)

    cloud = 1 / (1 + np.exp(-1.6 * _vary(weeks, 8.0, rng)))
    sun = find_clear_sky(day, hour) * (1 - 0.75 * cloud)
    daily = np.cos(2 * np.pi * (hour - 15) / 24) * (1.5 + 3.5 * (1 - cloud))
    temperature = 10.5 + 7.5 * season + daily + 3.0 * _vary(weeks, 36.0, rng)
    humidity = np.clip(0.78 - 0.035 * daily + 0.08 * _vary(weeks, 12.0, rng), 0.3, 1.0)
    wind = np.clip(np.exp(1.1 + 0.6 * _vary(weeks, 6.0, rng)), 0.2, 18.0)
    clear = 0.0552 * (temperature + _KELVIN) ** 1.5 - _KELVIN  # Swinbank, 1963
    sky = clear + cloud * (temperature - 2.0 - clear)
    soil = 10.5 + 5.0 * np.cos(2 * np.pi * (day - 225) / 365)
    return np.stack((temperature, humidity * saturation_vapour(temperature), sun, wind, sky, soil), axis=-1)


def find_clear_sky(day: Floats, hour: Floats) -> Floats:
    """Returns the global radiation of a clear sky, W/m2.

    Args:
        day: Of the year, from 0.
        hour: Of the day, solar time.
    """
    declination = np.radians(23.45) * np.sin(2 * np.pi * (day + 284) / 365)
    angle = np.radians(15 * (hour - 12))
    height = np.sin(_LATITUDE) * np.sin(declination) + np.cos(_LATITUDE) * np.cos(declination) * np.cos(angle)
    above = np.maximum(height, 1e-3)
    return np.where(height > 0, 1098 * above * np.exp(-0.057 / above), 0.0)


def _vary(weeks: int, hours: float, rng: np.random.Generator) -> Floats:
    """Returns noise of mean 0 and deviation 1 that forgets itself in so many hours: [steps, weeks]."""
    keep = np.exp(-STEP_S / (3600 * hours))
    values = np.empty((STEPS_PER_WEEK, weeks))
    values[0] = rng.standard_normal(weeks)
    for step in range(1, STEPS_PER_WEEK):
        values[step] = keep * values[step - 1] + np.sqrt(1 - keep**2) * rng.standard_normal(weeks)
    return values
