"""Energy and vapour balance of a greenhouse, per square metre of its floor, in steps of five minutes.

Four stores: the heat of the air, its water vapour, the heat of the canopy and that of the floor. The terms are those of
greenhouse climate models (De Zwart, 1996, *Analyzing energy-saving options in greenhouse cultivation using a simulation
model*; Van Henten, 1994, *Greenhouse climate management: an optimal control approach*; Vanthoor, 2011, *A model-based
greenhouse design method*); the constants are of the order of theirs and fitted to no greenhouse in particular. It is a
source of data that behave like a greenhouse's, and no design tool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

STATE = ("air_temperature", "air_vapour", "canopy_temperature", "floor_temperature")
"""In degrees Celsius, but the vapour in grams a cubic metre."""
CONTROLS = ("heating", "vents", "thermal_screen", "shading_screen", "fog", "lamps")
"""W/m2, opening from 0 to 1, closing from 0 to 1 twice, grams of water a square metre and hour, W/m2."""
WEATHER = ("temperature", "vapour", "radiation", "wind", "sky_temperature", "soil_temperature")
"""Degrees Celsius, g/m3, W/m2 of global radiation, m/s, degrees Celsius twice; the soil is half a metre down."""
STEP_S = 300.0
"""Of the data: what is predicted is the state so much later, with controls and weather held."""

_SUBSTEP_S = 15.0
"""Of the integration (Euler); the fastest store, the canopy, follows the air in some 90 s."""
_KELVIN = 273.15
_VAPOUR_GAS_CONSTANT = 461.5  # J/(kg K)
_LATENT_HEAT = 2.45e6  # J/kg
_PSYCHROMETRIC = 65.8  # Pa/K
_AIR_HEAT = 1206.0  # J/(m3 K): 1.2 kg/m3 of 1,005 J/(kg K)
_STEFAN_BOLTZMANN = 5.67e-8  # W/(m2 K4)


@dataclass(frozen=True, kw_only=True)
class Greenhouse:
    """What a greenhouse is made of.

    Attributes:
        height_m: Mean height of the air.
        air_capacity: Heat capacity of air, structure and pipes, J/(m2 K).
        canopy_capacity: Of the leaves, J/(m2 K).
        floor_capacity: Of floor and topsoil, J/(m2 K).
        leaf_area: Leaves, m2 per m2.
        transmission: Share of the sun's energy that passes the cover.
        canopy_absorption: Share of what passed that the canopy takes up.
        floor_absorption: Share of what the canopy left.
        cover_loss: Heat through the bare cover by convection and conduction, W/(m2 K).
        cover_emission: Share of the heat that a black surface would radiate to the sky.
        screen_saving: Share of both losses that the closed thermal screen keeps.
        shading: Share of the sun's energy that the closed shading screen keeps out.
        vent_flow: Air exchanged by fully open vents, m3/(m2 s) for each m/s of wind.
        stack_flow: The same by warmth alone, m3/(m2 s) for each square root of a kelvin.
        leakage: Air exchanged by closed vents, m3/(m2 s).
        floor_exchange: Between floor and air, W/(m2 K).
        soil_exchange: Between floor and deep soil, W/(m2 K).
        leaf_exchange: Between leaves and air, W/(m2 K) of leaf side.
        boundary_resistance: Of the air around a leaf to vapour, s/m.
        stomatal_resistance: The least of the stomata, s/m, in full light.
        condensation: Speed at which vapour reaches the cover, m/s.
        mist_s: Seconds in which vapour above saturation turns into mist and settles.
        lamp_heat: Share of the lamps' power that warms the air; the rest reaches the canopy.
    """

    height_m: float = 4.5
    air_capacity: float = 30e3
    canopy_capacity: float = 3.6e3
    floor_capacity: float = 100e3
    leaf_area: float = 3.0
    transmission: float = 0.7
    canopy_absorption: float = 0.7
    floor_absorption: float = 0.6
    cover_loss: float = 5.0
    cover_emission: float = 0.5
    screen_saving: float = 0.55
    shading: float = 0.5
    vent_flow: float = 0.004
    stack_flow: float = 0.003
    leakage: float = 1e-4
    floor_exchange: float = 3.0
    soil_exchange: float = 1.4
    leaf_exchange: float = 5.0
    boundary_resistance: float = 275.0
    stomatal_resistance: float = 82.0
    condensation: float = 4e-3
    mist_s: float = 120.0
    lamp_heat: float = 0.5


def advance(state: Floats, controls: Floats, weather: Floats, greenhouse: Greenhouse | None = None) -> Floats:
    """Returns the state one step of `STEP_S` later.

    Args:
        state: [greenhouses, 4], see `STATE`.
        controls: [greenhouses, 6], see `CONTROLS`; held for the step.
        weather: [greenhouses, 6], see `WEATHER`; held for the step.
        greenhouse: What they are made of; the usual one by default.
    """
    house = greenhouse or Greenhouse()
    for _ in range(round(STEP_S / _SUBSTEP_S)):
        state = state + _SUBSTEP_S * find_rates(state, controls, weather, house)
    return state


def find_rates(state: Floats, controls: Floats, weather: Floats, house: Greenhouse) -> Floats:
    """Returns how fast the stores change: [greenhouses, 4], units of `STATE` a second."""
    air, vapour, canopy, floor = np.moveaxis(state, -1, 0)
    heating, vents, thermal, shade, fog, lamps = np.moveaxis(controls, -1, 0)
    outside, outside_vapour, sun, wind, sky, soil = np.moveaxis(weather, -1, 0)

    # Sun: through cover and screen, to the canopy and to the floor; the rest leaves again.
    inside_sun = sun * house.transmission * (1 - house.shading * shade)
    canopy_sun = inside_sun * house.canopy_absorption
    floor_sun = (inside_sun - canopy_sun) * house.floor_absorption

    # Air: through vents and leaks, by wind and by warmth.
    flow = house.leakage + vents * (house.vent_flow * wind + house.stack_flow * np.sqrt(np.maximum(air - outside, 0.0)))

    # Cover: heat to the outside air and to the sky; its own temperature lies between, and vapour condenses on it.
    kept = 1 - house.screen_saving * thermal
    radiated = house.cover_emission * _STEFAN_BOLTZMANN * ((air + _KELVIN) ** 4 - (sky + _KELVIN) ** 4)
    lost = kept * (house.cover_loss * (air - outside) + radiated)
    cover = outside + (air - outside) / 3
    mist = house.height_m * np.maximum(vapour - saturation_vapour(air), 0.0) / house.mist_s  # g/(m2 s)
    condensed = house.condensation * np.maximum(vapour - saturation_vapour(cover), 0.0) * kept  # g/(m2 s)

    # Leaves: heat on both sides, and water through stomata that open with light.
    light = canopy_sun + (1 - house.lamp_heat) * lamps
    stomata = house.stomatal_resistance * (light / (2 * house.leaf_area) + 4.3) / (light / (2 * house.leaf_area) + 0.54)
    conductance = 2 * house.leaf_area * _AIR_HEAT / (_LATENT_HEAT * _PSYCHROMETRIC)
    deficit = saturation_pressure(canopy) - vapour_pressure(vapour, air)
    transpired = conductance * deficit / (house.boundary_resistance + stomata)  # kg/(m2 s); below 0 it is dew
    leaf_heat = 2 * house.leaf_area * house.leaf_exchange * (canopy - air)
    floor_heat = house.floor_exchange * (floor - air)
    fogged = fog / 3600.0  # g/(m2 s)

    gained = heating + house.lamp_heat * lamps + leaf_heat + floor_heat - lost
    vented = _AIR_HEAT * flow * (air - outside)
    return np.stack(
        (
            (gained - vented - _LATENT_HEAT * (fogged - mist) / 1000.0) / house.air_capacity,
            (1000.0 * transpired + fogged - mist - condensed - flow * (vapour - outside_vapour)) / house.height_m,
            (light - leaf_heat - _LATENT_HEAT * transpired) / house.canopy_capacity,
            (floor_sun - floor_heat - house.soil_exchange * (floor - soil)) / house.floor_capacity,
        ),
        axis=-1,
    )


def saturation_pressure(temperature: Floats) -> Floats:
    """Returns the vapour pressure of saturated air, Pa (Magnus, with the constants of Alduchov and Eskridge, 1996)."""
    return 610.94 * np.exp(17.625 * temperature / (temperature + 243.04))


def saturation_vapour(temperature: Floats) -> Floats:
    """Returns the vapour that saturates air of a temperature in degrees Celsius, g/m3."""
    return 1000.0 * saturation_pressure(temperature) / (_VAPOUR_GAS_CONSTANT * (temperature + _KELVIN))


def vapour_pressure(vapour: Floats, temperature: Floats) -> Floats:
    """Returns the pressure, Pa, of so many grams of vapour a cubic metre."""
    return vapour / 1000.0 * _VAPOUR_GAS_CONSTANT * (temperature + _KELVIN)
