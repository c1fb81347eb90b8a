"""What many devices take in a year, as results hold it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from modelwright.core.records.codec import Count, Line, Record
from modelwright.harness.kinds import Figure, Number


class Usage(Record, kw_only=True):
    """How much a fleet infers, and what it pays for energy.

    Attributes:
        inferences: Of each device, in a period.
        period: The period.
        devices: Sizes of fleets.
        price_per_kwh: In `currency`; null where only energy and carbon are asked for.
        currency: Such as EUR.
        price_source: Where the price comes from.
    """

    inferences: Annotated[float, Meta(gt=0, le=1e9)]
    period: Literal["day", "week"]
    devices: tuple[Annotated[int, Meta(ge=1, le=10**9)], ...]
    price_per_kwh: Figure | None = None
    currency: Line | None = None
    price_source: Line | None = None


class FleetRow(Record, kw_only=True):
    """What one fleet takes in a year with one target.

    Attributes:
        target: Name of the row.
        devices: Of the fleet.
        energy_kwh: While inferring.
        carbon_kg: CO2 equivalent of it.
        cost: Of it, in the currency; null without a price.
        saved_kwh: Less than the baseline takes, negative where it is more; null where the two energies do not
            compare.
        saved_carbon_kg: Likewise.
        saved_cost: Likewise.
        infers_s: Seconds that each device infers; null without a latency.
        is_estimated: Whether the energy is an estimate, not a measurement.
    """

    target: str
    devices: Count
    energy_kwh: Figure
    carbon_kg: Figure
    cost: Figure | None = None
    saved_kwh: Number | None = None
    saved_carbon_kg: Number | None = None
    saved_cost: Number | None = None
    infers_s: Figure | None = None
    is_estimated: bool = False


class Fleet(Record, kw_only=True):
    """What fleets take in a year of 365 days while inferring; what devices draw between inferences is not in it.

    Attributes:
        usage: What was asked for.
        inferences_per_year: Of each device.
        region: Of the grid.
        g_per_kwh: Grams of CO2 equivalent of a kilowatt-hour there.
        year: That the figure is of.
        grid_source: Who published it.
        rows: One for each target with an energy and each size of the fleet.
    """

    usage: Usage
    inferences_per_year: Figure
    region: str
    g_per_kwh: Figure
    year: Count
    grid_source: str
    rows: tuple[FleetRow, ...]
