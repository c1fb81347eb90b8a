"""What a metric is, and the kinds of places that its figure may have; `metrics.py` has the metrics themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from modelwright.harness.results.record import Comparison, Measurement


def everywhere(_comparison: Comparison) -> bool:
    """Where a column is shown that all comparisons have."""
    return True


@dataclass(frozen=True, kw_only=True)
class Column:
    """A metric's column in the tables of the terminal and of the page, in the order of the metrics.

    Attributes:
        head: On the terminal, with the unit.
        name: On the page.
        unit: On the page, under the name; `{baseline}` is filled in.
        show: Returns the figure as text, without its unit.
        scale: Chooses a unit and the factor to it, for all figures of the column; it takes the place of the unit.
        under: Key of the metric that it stands under where the terminal has two lines a target.
        on_terminal: Where the terminal shows it.
        on_page: Where the page does.
        note: Key of the metric that stands beside it on the page, smaller.
        of_baseline: What the baseline's cell holds instead of a figure.
    """

    head: str
    name: str
    unit: str
    show: Callable[[Any], str]
    scale: Callable[[Iterable[float | None]], tuple[str, float]] | None = None
    under: str | None = None
    on_terminal: Callable[[Comparison], bool] = everywhere
    on_page: Callable[[Comparison], bool] = everywhere
    note: str | None = None
    of_baseline: str | None = None


@dataclass(frozen=True, kw_only=True)
class Detail:
    """A metric's place among the details of a target.

    Attributes:
        line: Label of the line; metrics of one line stand side by side.
        show: Returns the figure with its unit; None for nothing to say.
        name: Before the figure, where it shares the line.
        on_device: Whether it stands among what only a device has.
    """

    line: str
    show: Callable[[Any], str | None]
    name: str = ""
    on_device: bool = False


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A metric's tile beside the verdict on the page.

    Attributes:
        place: Among the tiles.
        label: Above the figure.
        show: Returns the figure with its unit.
        note: `baseline`: the baseline's figure; `samples`: how many it was taken on; `interval`: its own.
    """

    place: int
    label: str
    show: Callable[[Any], str]
    note: Literal["baseline", "samples", "interval"] = "baseline"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart of bars on the page.

    Attributes:
        note: What the bars mean.
        show: Returns the figure with its unit.
        on_device: Whether only rows on one have it.
    """

    title: str
    note: str
    show: Callable[[float | None], str]
    on_device: bool = False


@dataclass(frozen=True, kw_only=True)
class Csv:
    """A column of results.csv.

    Attributes:
        place: Among the first columns, which other benchmarks have too and programs may count; None follows them.
        per: What the figure is divided by.
        value: Makes the number of the figure; None takes it as it is.
    """

    name: str
    place: int | None = None
    per: float = 1.0
    value: Callable[[Metric, Measurement, Comparison], float | None] | None = None


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What a user may ask of a metric.

    Attributes:
        place: Among the limits.
        name: Of the option, as Python spells it: `max_p50_ms`; `max_` or `min_` says which way.
        metavar: Of the option's value.
        help: Of the option.
        what: The metric in the sentence about a miss.
        unit: There.
        per: What the figure is divided by to be in that unit.
        may_be_zero: Whether nothing at all may be asked for.
    """

    place: int
    name: str
    metavar: str
    help: str
    what: str
    unit: str = ""
    per: float = 1.0
    may_be_zero: bool = False

    @property
    def is_maximum(self) -> bool:
        return self.name.startswith("max_")

    def explain_miss(self, value: float | None, asked: float) -> str | None:
        """Returns what is missed; None for nothing. A figure that is not there misses its limit."""
        if value is None:
            return f"{self.what} is not known"
        found = value / self.per
        if found <= asked if self.is_maximum else found >= asked:
            return None
        return (
            f"{self.what} {found:.4g} {self.unit}".rstrip() + f" is {'over' if self.is_maximum else 'under'} {asked:g}"
        )


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure of a row.

    Attributes:
        key: Where it lies in a row of results.json.
        title: What it is, in a few words.
        unit: Of the value in the file; empty for shares and ratios.
        better: Which direction is; None where none is.
        null: Where it is null, for the JSON Schema; the row's `unavailable` has the reason.
        estimated: Tells whether a row's figure is an estimate.
        scope: Tells what a row's figure covers; figures of two scopes are never ranked together.
    """

    key: str
    title: str
    unit: str = ""
    better: Literal["lower", "higher"] | None = None
    null: str = ""
    column: Column | None = None
    detail: Detail | None = None
    tile: Tile | None = None
    chart: Chart | None = None
    csv: tuple[Csv, ...] = ()
    limit: Limit | None = None
    estimated: Callable[[Measurement], bool] | None = None
    scope: Callable[[Measurement], str] | None = None

    def read(self, row: Measurement) -> Any:
        """Returns a row's figure; None where it has none."""
        value: Any = row
        for name in self.key.split("."):
            if value is None:
                return None
            value = value.get(name) if isinstance(value, dict) else getattr(value, name)
        return value
