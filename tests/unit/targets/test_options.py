"""Settings as data: what a search tries, what is refused, and that each target's own are sound."""

from __future__ import annotations

import pytest

from modelwright.core.errors import BadInputError
from modelwright.targets.options import RunOption, resolve_options
from modelwright.targets.table import get_target, target_names

SPIN = RunOption(name="spinning", kind="boolean", default=True, vendor_name="spin", help="Spins.")
LEVEL = RunOption(name="level", kind="choice", choices=("low", "high"), default="high", vendor_name="l", help="Level.")
BLOCK = RunOption(
    name="block", kind="integer", minimum=0, maximum=64, default=0, tried=(4,), vendor_name="b", help="Block."
)
SETTINGS = (SPIN, LEVEL, BLOCK)


@pytest.mark.parametrize(("option", "tried"), [(SPIN, (True, False)), (LEVEL, ("high", "low")), (BLOCK, (0, 4))])
def test_a_search_tries_the_default_first(option: RunOption, tried: tuple[object, ...]) -> None:
    assert option.candidates == tried


def test_what_was_not_chosen_is_at_its_default() -> None:
    assert resolve_options(SETTINGS, {"block": 8}) == {"spinning": True, "level": "high", "block": 8}


@pytest.mark.parametrize(
    ("chosen", "words", "hint", "mended"),
    [
        ({"spining": True}, "no setting 'spining'", "did you mean spinning?", {"spinning": True}),
        ({"level": "all"}, "level cannot be 'all'", "it takes low|high", {"level": "low"}),
        ({"spinning": 1}, "spinning cannot be 1", "it takes true|false", {"spinning": False}),
        ({"block": True}, "block cannot be True", "it takes 0..64", {"block": 1}),
        ({"block": 65}, "block cannot be 65", "it takes 0..64", {"block": 64}),
    ],
)
def test_settings_of_a_manifest_are_the_targets_own(
    chosen: dict[str, bool | int | str], words: str, hint: str, mended: dict[str, bool | int | str]
) -> None:
    with pytest.raises(BadInputError, match=words) as caught:
        resolve_options(SETTINGS, chosen)
    assert hint in (caught.value.hint or "")
    assert resolve_options(SETTINGS, mended).items() >= mended.items()


@pytest.mark.parametrize("name", target_names())
def test_settings_of_every_target_are_sound(name: str) -> None:
    settings = get_target(name).record.settings
    assert len({option.name for option in settings}) == len(settings)
    for option in settings:
        assert len(option.candidates) > 1, f"{option.name}: a search has nothing to try"
        for value in option.candidates:
            assert resolve_options(settings, {option.name: value})[option.name] == value
        assert option.vendor_name
        assert option.help.endswith(".")
