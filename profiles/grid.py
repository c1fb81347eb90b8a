"""How much carbon a kilowatt-hour from the grid stands for, by region."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from msgspec import Meta

from modelwright.core.errors import BadInputError, suggest
from modelwright.core.files import read_toml
from modelwright.core.records.codec import Record, Text, decode

_FILE = Path(__file__).with_name("grid.toml")


class GridRegion(Record):
    """A region's yearly average.

    Attributes:
        name: ISO 3166-1 alpha-2 code, `EU27` or `WORLD`.
        title: For people.
        g_per_kwh: Grams of CO2 equivalents per kilowatt-hour generated, life cycle unless the source says
            otherwise.
        year: That the figure is of.
        source: Who published it.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9]*$")]
    title: Text
    g_per_kwh: Annotated[float, Meta(ge=0, le=2000)]
    year: Annotated[int, Meta(ge=1990, le=2100)]
    source: Text


class _GridFile(Record):
    regions: tuple[GridRegion, ...]


@cache
def load_regions() -> Mapping[str, GridRegion]:
    """Returns the known regions by name, in the order of the file."""
    file = decode(_GridFile, read_toml(_FILE, "grid regions"), where=f"grid regions {_FILE}")
    return MappingProxyType({region.name: region for region in file.regions})


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
