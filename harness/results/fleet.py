"""Counts what many devices take in a year: energy of an inference times inferences times devices."""

from __future__ import annotations

from collections.abc import Iterator

from modelwright.harness.results.fleet_record import Fleet, FleetRow, Usage
from modelwright.harness.results.record import Comparison, Measurement
from modelwright.profiles.grid import GridRegion

DAYS_PER_YEAR = 365
_DAYS = {"day": 1, "week": 7}
_J_PER_KWH = 3.6e6
_G_PER_KG = 1e3


def count_fleet(comparison: Comparison, usage: Usage, region: GridRegion) -> Fleet:
    """Returns what fleets take in a year with each target that has an energy.

    Args:
        comparison: What was measured.
        usage: Inferences, devices and the price of energy.
        region: Of the grid that they run on.
    """
    per_year = usage.inferences / _DAYS[usage.period] * DAYS_PER_YEAR
    baseline = comparison.find(comparison.baseline)
    return Fleet(
        usage=usage,
        inferences_per_year=per_year,
        region=region.title,
        g_per_kwh=region.g_per_kwh,
        year=region.year,
        grid_source=region.source,
        rows=tuple(
            row
            for devices in usage.devices
            for measured in comparison.measured
            for row in _count(measured, baseline, devices, per_year, usage.price_per_kwh, region.g_per_kwh)
        ),
    )


def _count(
    row: Measurement,
    baseline: Measurement | None,
    devices: int,
    per_year: float,
    price: float | None,
    g_per_kwh: float,
) -> Iterator[FleetRow]:
    if row.energy_j is None:
        return
    kwh_per_j = per_year * devices / _J_PER_KWH
    energy_kwh, saved_kwh = row.energy_j * kwh_per_j, None
    if baseline is not None and baseline.energy_j is not None and row.energy_compares_with(baseline):
        saved_kwh = (baseline.energy_j - row.energy_j) * kwh_per_j
    mean_ms = None if row.latency_ms is None else row.latency_ms.mean
    yield FleetRow(
        target=row.target,
        devices=devices,
        energy_kwh=energy_kwh,
        carbon_kg=energy_kwh * g_per_kwh / _G_PER_KG,
        cost=None if price is None else energy_kwh * price,
        saved_kwh=saved_kwh,
        saved_carbon_kg=None if saved_kwh is None else saved_kwh * g_per_kwh / _G_PER_KG,
        saved_cost=None if saved_kwh is None or price is None else saved_kwh * price,
        infers_s=None if mean_ms is None else mean_ms / 1e3 * per_year,
        is_estimated=row.energy_estimated,
    )
