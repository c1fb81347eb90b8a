from __future__ import annotations

import pytest

from modelwright.core.errors import BadInputError
from modelwright.profiles.grid import find_region, load_regions


def test_germany_is_the_documented_default() -> None:
    region = find_region("de")
    assert (region.name, region.g_per_kwh) == ("DE", 420)
    assert next(iter(load_regions())) == "DE"


def test_regions_have_year_and_source() -> None:
    regions = load_regions()
    assert set(regions) >= {"DE", "FR", "GB", "US", "SE", "PL", "CN", "IN", "EU27", "WORLD"}
    for region in regions.values():
        assert region.source
        assert 2020 <= region.year <= 2026
    # Known order: hydro and nuclear below gas, gas below coal.
    order = ["NO", "FR", "GB", "WORLD", "PL", "IN"]
    values = [regions[name].g_per_kwh for name in order]
    assert values == sorted(values)


def test_an_unknown_region_lists_the_known() -> None:
    with pytest.raises(BadInputError) as caught:
        find_region("EU")
    assert "'EU'" in caught.value.message
    assert caught.value.hint is not None
    assert "EU27" in caught.value.hint
    assert "WORLD" in caught.value.hint
