"""The four panels that people ask for: energy, carbon and latency of an inference, and what is saved of the baseline's.

Made to be printed: every kind of precision has a hatch of its own, and the colours (of Okabe and Ito, 2008, which the
colour-blind tell apart) differ in lightness, so that a grey copy reads the same.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from modelwright.harness.formatting import clean_text, energy_unit, format_significant, shorten
from modelwright.harness.results.record import Comparison, Measurement
from modelwright.harness.verdict.judge import verdict_of
from modelwright.targets.readiness import require_import

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EXTRA = "study"
_KINDS = {
    "float": ("#0072B2", ""),
    "int8": ("#E69F00", "////"),
    "int8-dynamic": ("#F0E442", "...."),
    "int8-weights": ("#56B4E9", "\\\\\\\\"),
    "int4-weights": ("#CC79A7", "xxxx"),
}
"""Precision -> colour and hatch; all that compute in floats are one kind."""
_OTHER = ("#999999", "++++")
_DPI = 150
_WIDTH_IN, _ROW_IN, _HEAD_IN = 11.0, 0.30, 1.5
_LONGEST = 34


def require_matplotlib() -> None:
    """Imports matplotlib.

    Raises:
        ToolchainMissingError: It is not there, or broken.
    """
    require_import("matplotlib", _EXTRA)


def draw_study(comparison: Comparison, target_reduction: float) -> tuple[bytes, bytes]:
    """Returns the four panels of the rows that were measured, as PNG and as SVG.

    Args:
        comparison: What was measured, in the order that is drawn.
        target_reduction: Per cent, where the line of the last panel stands.
    """
    matplotlib = require_import("matplotlib", _EXTRA)
    figures = require_import("matplotlib.figure", _EXTRA)
    images = []
    # Text stays text in the SVG, a dollar in a name is one, and the files are the same for the same figures.
    settings = {"svg.fonttype": "none", "svg.hashsalt": "modelwright", "hatch.linewidth": 0.6, "text.parse_math": False}
    with matplotlib.rc_context(settings):
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            figure = _Panels(comparison, target_reduction, figures.Figure).draw()
            file = io.BytesIO()
            figure.savefig(file, format=kind, dpi=_DPI, metadata=metadata)
            images.append(file.getvalue())
    return images[0], images[1]


class _Panels:
    """The figure, panel by panel."""

    def __init__(self, comparison: Comparison, target_reduction: float, make_figure: Callable[..., Figure]) -> None:
        self._comparison = comparison
        self._rows = comparison.measured
        self._baseline = comparison.find(comparison.baseline)
        self._ship = verdict_of(comparison).ship
        self._line = target_reduction
        self._make_figure = make_figure

    def draw(self) -> Figure:
        height = 2 * (_HEAD_IN + _ROW_IN * max(4, len(self._rows)))
        figure = self._make_figure(figsize=(_WIDTH_IN, height), layout="constrained")
        (energy, carbon), (latency, reduction) = figure.subplots(2, 2, sharey=True)
        self._draw_energy(energy)
        self._draw_carbon(carbon)
        self._draw_latency(latency)
        self._draw_reduction(reduction)
        for axes in (energy, latency):
            self._name_rows(axes)
        figure.suptitle(self._describe(), fontsize=11)
        figure.legend(handles=self._list_kinds(), loc="outside lower center", ncols=6, frameon=False, fontsize=8)
        return figure

    def _describe(self) -> str:
        comparison = self._comparison
        environment = clean_text(comparison.environment.device)
        threads = comparison.settings.threads
        return f"{environment}; {threads} thread{'s' if threads > 1 else ''}, batch {comparison.settings.batch}"

    def _draw_energy(self, axes: Axes) -> None:
        joules = [row.energy_j for row in self._rows]
        unit, factor = energy_unit(joules)
        values = [None if value is None else value * factor for value in joules]
        self._draw_bars(axes, values, f"energy of an inference, {unit}{self._of_estimates()}")

    def _draw_carbon(self, axes: Axes) -> None:
        grams = [None if row.carbon is None else row.carbon.per_inference_g for row in self._rows]
        unit, factor = _carbon_unit(grams)
        values = [None if value is None else value * factor for value in grams]
        grid = next((row.carbon for row in self._rows if row.carbon is not None), None)
        of_grid = "" if grid is None or grid.g_per_kwh is None else f" at {grid.g_per_kwh:g} g/kWh"
        self._draw_bars(axes, values, f"carbon of an inference{of_grid}, {unit} CO2e{self._of_estimates()}")

    def _draw_latency(self, axes: Axes) -> None:
        values = [row.typical_ms for row in self._rows]
        base = None if self._baseline is None else self._baseline.typical_ms
        ends = [
            None
            if (interval := self._interval(row)) is None or base is None
            else (base / interval[1], base / interval[0])
            for row in self._rows
        ]
        self._draw_bars(axes, values, "median latency, ms; lines: 95 % interval of the ratio to the baseline", ends)

    def _draw_reduction(self, axes: Axes) -> None:
        parts: Sequence[tuple[str, list[float | None]]] = (
            ("energy", [self._reduce(row, lambda each: each.energy_j) for row in self._rows]),
            ("carbon", [self._reduce(row, _grams) for row in self._rows]),
        )
        for (name, values), shift in zip(parts, (-0.2, 0.2), strict=True):
            is_energy = name == "energy"
            for place, (row, value) in enumerate(zip(self._rows, values, strict=True)):
                if value is None:
                    self._say(axes, place, "" if row is self._baseline or is_energy else " not comparable")
                    continue
                face, hatch = _kind(row)
                axes.barh(
                    place + shift, value, height=0.36, facecolor=face if is_energy else "white", hatch=hatch,
                    edgecolor="black", linewidth=0.6,
                )  # fmt: skip
                interval = self._reduction_interval(row) if is_energy else None
                ends = (value, *(interval or ()))
                if interval is not None:
                    self._draw_interval(axes, place + shift, interval)
                if is_energy:
                    self._say(axes, place + shift, f" {value:.1f}", at=max(0.0, *ends))
        axes.axvline(0, color="black", linewidth=0.8)
        axes.axvline(self._line, color="black", linestyle="--", linewidth=1.2)
        axes.annotate(
            f"target {self._line:g} %", (self._line, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2),
            textcoords="offset points", ha="center", va="bottom", fontsize=7,
        )  # fmt: skip
        low = min([0.0, *(value for _, values in parts for value in values if value is not None)])
        axes.set_xlim(max(low * 1.15, -150.0), 118.0)
        baseline = clean_text(self._comparison.baseline)
        axes.set_xlabel(f"saved of what {baseline} takes, %{self._of_estimates()}", fontsize=8)
        axes.tick_params(labelsize=8)

    def _draw_bars(
        self,
        axes: Axes,
        values: Sequence[float | None],
        label: str,
        ends: Sequence[tuple[float, float] | None] | None = None,
    ) -> None:
        for place, (row, value) in enumerate(zip(self._rows, values, strict=True)):
            if value is None:
                self._say(axes, place, " none")
                continue
            face, hatch = _kind(row)
            axes.barh(place, value, height=0.72, facecolor=face, hatch=hatch, edgecolor="black", linewidth=0.6)
            interval = ends[place] if ends else None
            if interval is not None:
                self._draw_interval(axes, place, interval)
            mark = "~" if row.energy_estimated and ends is None else ""
            self._say(
                axes, place, f" {mark}{format_significant(value)}", at=max(value, interval[1] if interval else value)
            )
        largest = max((value for value in values if value is not None), default=1.0)
        axes.set_xlim(0, largest * 1.22)
        axes.set_xlabel(label, fontsize=8)
        axes.tick_params(labelsize=8)

    def _draw_interval(self, axes: Axes, place: float, ends: tuple[float, float]) -> None:
        axes.plot(ends, (place, place), color="black", linewidth=1.2, marker="|", markersize=5)

    def _say(self, axes: Axes, place: float, text: str, *, at: float = 0.0) -> None:
        axes.annotate(
            text, (at, place), xytext=(2, 0), textcoords="offset points", va="center", fontsize=7, annotation_clip=False
        )

    def _name_rows(self, axes: Axes) -> None:
        names = [
            shorten(clean_text(row.target), _LONGEST)
            + (" (baseline)" if row is self._baseline else "")
            + (" *" if row.target == self._ship else "")
            for row in self._rows
        ]
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_ylim(len(names) - 0.4, -0.6)

    def _list_kinds(self) -> list[Any]:
        patches = require_import("matplotlib.patches", _EXTRA)
        kinds = dict.fromkeys("float" if row.is_float else row.precision for row in self._rows)
        handles = []
        for kind in kinds:
            face, hatch = _KINDS.get(kind, _OTHER)
            handles.append(patches.Patch(facecolor=face, hatch=hatch, edgecolor="black", linewidth=0.6, label=kind))
        handles.append(patches.Patch(facecolor="white", edgecolor="black", linewidth=0.6, label="white: carbon saved"))
        if self._ship is not None:
            handles.append(patches.Patch(facecolor="none", edgecolor="none", label="* recommended"))
        if any(row.energy_estimated for row in self._rows):
            handles.append(patches.Patch(facecolor="none", edgecolor="none", label="~ estimated, not metered"))
        return handles

    def _of_estimates(self) -> str:
        rows = [row for row in self._rows if row.energy_j is not None]
        return " (estimated)" if rows and all(row.energy_estimated for row in rows) else ""

    def _interval(self, row: Measurement) -> tuple[float, float] | None:
        """Returns the 95 % interval of the speed-up, where the row is not what it is over."""
        return None if row is self._baseline or row.speedup is None else row.speedup.ci95

    def _reduction_interval(self, row: Measurement) -> tuple[float, float] | None:
        """Returns that of an energy which is time at the baseline's power, in per cent; no other is known."""
        base, interval = self._baseline, self._interval(row)
        if interval is None or base is None or base.energy is None or row.energy is None:
            return None
        if not row.energy_estimated or row.energy.mean_power_w != base.energy.mean_power_w:
            return None
        low, high = ((1 - 1 / end) * 100 for end in interval)
        return low, high

    def _reduce(self, row: Measurement, read: Callable[[Measurement], float | None]) -> float | None:
        """Returns how much less than the baseline a row takes, in per cent; None for the baseline and other meters."""
        base = self._baseline
        if base is None or row is base or not row.energy_compares_with(base):
            return None
        value, of_base = read(row), read(base)
        return None if value is None or not of_base else (1 - value / of_base) * 100


def _grams(row: Measurement) -> float | None:
    return None if row.carbon is None else row.carbon.per_inference_g


def _kind(row: Measurement) -> tuple[str, str]:
    return _KINDS.get("float" if row.is_float else row.precision, _OTHER)


def _carbon_unit(grams: Sequence[float | None]) -> tuple[str, float]:
    """Returns a unit in which the largest is between 1 and 1000, and the factor to it."""
    largest = max((value for value in grams if value is not None), default=0.0)
    units = (("g", 1.0), ("mg", 1e3), ("µg", 1e6), ("ng", 1e9))
    return next(((unit, factor) for unit, factor in units if largest * factor >= 1), units[-1])
