"""What many devices take in a year, for the terminal, the page and a table of its own."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from modelwright.harness.formatting import MISSING, clean_text, format_number, format_significant
from modelwright.harness.results.fleet_record import Fleet, FleetRow
from modelwright.harness.results.record import Comparison

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_DAY_S = 86_400.0
_FORMULA_STARTS = ("=", "+", "-", "@")


def fleet_heads(fleet: Fleet) -> list[tuple[str, str]]:
    """Returns name and unit of the figures of a row."""
    money = [] if fleet.usage.currency is None else [("cost", fleet.usage.currency)]
    plain = [("energy", "kWh"), ("carbon", "kg CO2e"), *money]
    return [*plain, *((f"{name} saved", unit) for name, unit in plain)]


def fleet_cells(fleet: Fleet, row: FleetRow, baseline: str) -> list[str]:
    """Returns the figures of a row as text, in the order of `fleet_heads`; estimates are marked."""
    has_price = fleet.usage.currency is not None
    plain = [row.energy_kwh, row.carbon_kg, *([row.cost] if has_price else [])]
    saved = [row.saved_kwh, row.saved_carbon_kg, *([row.saved_cost] if has_price else [])]
    if row.target == baseline:
        saved = [None] * len(saved)
    mark = "~" if row.is_estimated else ""
    return [MISSING if value is None else f"{mark}{format_significant(value)}" for value in (*plain, *saved)]


def fleet_title(fleet: Fleet, devices: int) -> str:
    """Returns what a fleet is."""
    usage = fleet.usage
    noun = "device" if devices == 1 else "devices"
    return f"{devices:,} {noun}, {usage.inferences:,.10g} inferences a {usage.period} each"


def fleet_notes(fleet: Fleet) -> list[str]:
    """Returns how to read the figures, and where each factor comes from."""
    usage, rows = fleet.usage, fleet.rows
    notes = [
        f"a year of 365 days: {fleet.inferences_per_year:,.10g} inferences of each device, at the energy of one as "
        "measured here",
        "energy is that of inferring alone: what devices draw between inferences is not in it",
    ]
    if any(row.is_estimated for row in rows):
        notes.append("~ estimated by the profile's power while inferring, not metered; so is all that follows from it")
    busiest = max((row.infers_s or 0.0 for row in rows), default=0.0) / 365
    if busiest:
        notes.append(f"the slowest target infers for {format_significant(busiest)} s a day on each device")
    if busiest > _DAY_S:
        notes.append("that is more than a day has: so many inferences are beyond one device")
    year = f", {fleet.year}"
    notes.append(f"grid: {format_significant(fleet.g_per_kwh)} g CO2e/kWh ({fleet.region}{year}): {fleet.grid_source}")
    if usage.price_per_kwh is not None:
        notes.append(f"price: {usage.price_per_kwh:g} {usage.currency}/kWh: {usage.price_source}")
    return notes


def choose_fleet_rows(comparison: Comparison, devices: int) -> list[FleetRow]:
    """Returns the rows of a fleet that a terminal has room for: baseline, recommended, and the least energy."""
    fleet = comparison.fleet
    rows = [] if fleet is None else [row for row in fleet.rows if row.devices == devices]
    ship = None if comparison.verdict is None else comparison.verdict.ship
    least = min(rows, key=lambda row: row.energy_kwh, default=None)
    wanted = {comparison.baseline, ship, None if least is None else least.target}
    return [row for row in rows if row.target in wanted]


def print_fleet(comparison: Comparison, console: Console) -> None:
    """Prints what fleets take with the baseline, with what is recommended, and with what takes least."""
    from rich.text import Text

    fleet = comparison.fleet
    if fleet is None:
        return
    if not fleet.rows:
        console.print(Text("fleet: no target has an energy, so nothing can be counted"), highlight=False)
        return
    for devices in fleet.usage.devices:
        console.print()
        title = f"{fleet_title(fleet, devices)}, a year; under it what is saved"
        console.print(Text(title, style="bold"), highlight=False)
        console.print(_make_table(comparison, fleet, devices))
    for note in fleet_notes(fleet):
        console.print(Text(clean_text(note), style="dim"), highlight=False)


def _make_table(comparison: Comparison, fleet: Fleet, devices: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("", overflow="fold")
    units = [unit for _, unit in fleet_heads(fleet)]
    for unit in units[: len(units) // 2]:
        table.add_column(clean_text(unit), justify="right", no_wrap=True)
    for row in choose_fleet_rows(comparison, devices):
        cells = fleet_cells(fleet, row, comparison.baseline)
        taken, saved = cells[: len(cells) // 2], cells[len(cells) // 2 :]
        is_base = row.target == comparison.baseline
        shown = [
            Text(figure) if is_base else Text(figure).append(f"\n{less}", style="dim")
            for figure, less in zip(taken, saved, strict=True)
        ]
        table.add_row(Text(clean_text(row.target) + (" (baseline)" if is_base else "")), *shown)
    return table


def render_fleet_csv(fleet: Fleet) -> str:
    """Returns the text of `fleet.csv`: one row a target and a size of the fleet."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        (
            "model_variant", "devices", "inferences_per_year", "energy_kwh", "carbon_kg", "cost", "energy_saved_kwh",
            "carbon_saved_kg", "cost_saved", "currency", "price_per_kwh", "g_co2e_per_kwh", "energy_is_estimated",
        )
    )  # fmt: skip
    usage = fleet.usage
    for row in fleet.rows:
        numbers = [
            row.energy_kwh, row.carbon_kg, row.cost, row.saved_kwh, row.saved_carbon_kg, row.saved_cost,
        ]  # fmt: skip
        writer.writerow(
            [
                _text(row.target),
                row.devices,
                format_number(fleet.inferences_per_year),
                *map(format_number, numbers),
                _text(usage.currency or ""),
                format_number(usage.price_per_kwh),
                format_number(fleet.g_per_kwh),
                "yes" if row.is_estimated else "no",
            ]
        )
    return text.getvalue()


def _text(value: str) -> str:
    """Returns text that a spreadsheet will not run as a formula."""
    return f"'{value}" if value.startswith(_FORMULA_STARTS) else value
