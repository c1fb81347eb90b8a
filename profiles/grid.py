"""How much carbon a kilowatt-hour from the grid stands for, by region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.profiles.tables import Key, Table, check_table, read_toml, suggest

_FILE = Path(__file__).with_name("grid.toml")

_SCHEMA = Table(
    entries={
        "regions": Table(
            required=True,
            many=True,
            entries={
                "name": Key(kind="text", pattern=r"[A-Z][A-Z0-9]*"),
                "title": Key(kind="text"),
                "g_per_kwh": Key(kind="number", at_least=0, at_most=2000),
                "year": Key(kind="integer", at_least=1990, at_most=2100),
                "source": Key(kind="text"),
            },
        )
    }
)


@dataclass(frozen=True, kw_only=True)
class GridRegion:
    """A region's yearly average.

    Attributes:
        name: ISO 3166-1 alpha-2 code, `EU27` or `WORLD`.
        title: For people.
        g_per_kwh: Grams of CO2 equivalents per kilowatt-hour generated, life cycle unless the source says
            otherwise.
        year: That the figure is of.
        source: Who published it.
    """

    name: str
    title: str
    g_per_kwh: float
    year: int
    source: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "g_per_kwh": self.g_per_kwh,
            "year": self.year,
            "source": self.source,
        }


@cache
def load_regions() -> Mapping[str, GridRegion]:
    """Returns the known regions by name, in the order of the file."""
    data = read_toml(_FILE, what="grid regions")
    check_table(data, _SCHEMA, where=f"grid regions {_FILE}")
    regions = (GridRegion(**{**item, "g_per_kwh": float(item["g_per_kwh"])}) for item in data["regions"])
    return MappingProxyType({region.name: region for region in regions})


def find_region(code: str) -> GridRegion:
    """Returns a region by its code, in any case.

    Raises:
        BadInputError: No such region.
    """
    regions = load_regions()
    region = regions.get(code.upper())
    if region is None:
        raise BadInputError(
            f"grid region {code!r} is not known",
            hint=f"{suggest(code.upper(), regions)} known: {', '.join(regions)}".strip(),
        )
    return region
