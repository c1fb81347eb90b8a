"""The plot of a mix: quality against estimated energy, readable without colours."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from modelwright.harness.formatting import energy_unit
from modelwright.harness.mixing.record import Kind, Mixture, Row
from modelwright.targets.readiness import require_import

_INK = {"channel": "#0072B2", "tensor": "#D55E00", None: "#000000"}
_RANKED_INK = "#009E73"
"""Of Okabe and Ito's palette, which colour-blind people tell apart; filled and hollow tell them apart in print."""
_MARKS: dict[Kind, str] = {"float": "*", "fixed": "s", "thirds": "^", "program": "o"}
_WORDS: dict[Kind, str] = {
    "float": "FP32",
    "fixed": "the same bits everywhere",
    "thirds": "mixed, by thirds",
    "program": "mixed, by the program",
}


def draw_pareto(mixture: Mixture, kind: str) -> bytes:
    """Returns the plot as a file.

    Args:
        mixture: What to draw.
        kind: `png` or `svg`.

    Raises:
        ToolchainMissingError: matplotlib is not installed.
    """
    figures = require_import("matplotlib.figure", "mix")
    rc_context = require_import("matplotlib", "mix").rc_context
    rows = mixture.rows[1:]
    unit, factor = energy_unit(row.energy_j for row in rows)
    with rc_context({"svg.hashsalt": "modelwright", "svg.fonttype": "none", "font.size": 9}):
        figure = figures.Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        for row in rows:
            _draw_row(axes, row, factor)
        fp32 = mixture.rows[0]
        axes.axhline(100 * fp32.quality.value, color="black", linewidth=0.8, linestyle=":")
        axes.annotate(
            f"FP32, {fp32.energy_j * factor:.3g} {unit}",
            (0.01, 100 * fp32.quality.value),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            xytext=(0, 3),
        )
        front = find_front(rows)
        axes.plot(
            [row.energy_j * factor for row in front],
            [100 * row.quality.value for row in front],
            color="grey",
            linewidth=0.8,
            zorder=1,
            label="Pareto front",
        )
        axes.set_xlabel(f"energy of an inference, estimated for {mixture.technology.node} [{unit}]")
        axes.set_ylabel(f"{fp32.quality.measure} [%], simulated, {fp32.quality.samples} samples")
        axes.grid(axis="y", color="0.92")
        _draw_widths(axes, rows, factor)
        _draw_legend(axes, rows)
        file = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {}
        figure.savefig(file, format=kind, dpi=160, metadata=metadata)
    return file.getvalue()


def find_front(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows that no other row beats in both energy and quality, the cheapest first."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.energy_j, -row.quality.value)):
        if not front or row.quality.value > front[-1].quality.value:
            front.append(row)
    return front


def _draw_row(axes: Any, row: Row, factor: float) -> None:
    ink = _RANKED_INK if row.rank_aware else _INK[row.granularity]
    value = 100 * row.quality.value
    interval = row.quality.ci95
    bars = None if interval is None else [[max(0.0, value - 100 * interval[0])], [max(0.0, 100 * interval[1] - value)]]
    axes.errorbar(
        [row.energy_j * factor],
        [value],
        yerr=bars,
        fmt=_MARKS[row.kind],
        color=ink,
        markerfacecolor=ink if row.granularity == "channel" else "white",
        markersize=9 if row.chosen else 6,
        elinewidth=0.7,
        capsize=2,
    )
    if row.chosen:
        axes.annotate("the plan", (row.energy_j * factor, value), textcoords="offset points", xytext=(7, -11))


def _draw_widths(axes: Any, rows: Sequence[Row], factor: float) -> None:
    """Says above the plot where the same bits everywhere lie, which is one place whatever the scales are."""
    places = {row.name: row.energy_j * factor for row in rows if row.kind == "fixed"}
    for name, energy in places.items():
        axes.axvline(energy, color="0.85", linewidth=0.8, zorder=0)
        axes.annotate(
            name, (energy, 1.0), xycoords=("data", "axes fraction"), textcoords="offset points", xytext=(0, 3),
            ha="center",
        )  # fmt: skip


def _draw_legend(axes: Any, rows: Sequence[Row]) -> None:
    lines = require_import("matplotlib.lines", "mix")
    handles = [
        lines.Line2D([], [], linestyle="", marker=_MARKS[kind], color="black", label=_WORDS[kind])
        for kind in dict.fromkeys(row.kind for row in rows)
    ]
    for granularity in dict.fromkeys(row.granularity for row in rows):
        ink = _INK[granularity]
        handles.append(
            lines.Line2D(
                [], [], linestyle="", marker="o", color=ink,
                markerfacecolor=ink if granularity == "channel" else "white", label=f"a scale for each {granularity}",
            )
        )  # fmt: skip
    if any(row.rank_aware for row in rows):
        words = "which keep the order of attention's scores"
        handles.append(lines.Line2D([], [], linestyle="", marker="o", color=_RANKED_INK, label=words))
    handles.append(lines.Line2D([], [], color="grey", linewidth=0.8, label="Pareto front"))
    axes.legend(handles=handles, loc="lower right", fontsize=8, framealpha=0.9)
