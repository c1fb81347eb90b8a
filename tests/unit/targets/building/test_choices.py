"""What the user chose about a build."""

from __future__ import annotations

import pytest

from modelwright.core.errors import UsageError
from modelwright.targets.building.choices import BuildChoices, read_choices, read_options

BOTH = ("ort-int8", "tensorrt-int8", "tensorrt-rtx-int8")


def test_an_option_goes_to_every_target_that_has_it() -> None:
    assert read_options(["workspace-mb=512", "tf32=yes"], BOTH) == {
        name: {"workspace-mb": 512, "tf32": True} for name in BOTH[1:]
    }


def test_a_target_before_the_name_keeps_it_to_that_one() -> None:
    chosen = read_options(["optimization-level=5", "tensorrt-int8:optimization-level=1"], BOTH)
    assert chosen["tensorrt-int8"] == {"optimization-level": 1}
    assert chosen["tensorrt-rtx-int8"] == {"optimization-level": 5}


def test_what_was_not_chosen_has_its_default() -> None:
    choices = BuildChoices(options=read_options(["tf32=on"], BOTH))
    options = choices.options_of("tensorrt-rtx-int8")
    assert options["tf32"] is True
    assert options["workspace-mb"] is None
    assert options["hardware-compatible"] == "none"
    assert choices.options_of("ort-int8") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workspace-mb", "no option"),
        ("=3", "no option"),
        ("workspce-mb=3", "no.* option 'workspce-mb'|has an option"),
        ("ort-fp32:tf32=yes", "not among the targets"),
        ("ort-int8:tf32=yes", "has an option"),
        ("tf32=perhaps", "true or false"),
        ("hardware-compatible=all", "one of none"),
        ("optimization-level=6", "from 0 to 5"),
        ("optimization-level=-1", "from 0 to 5"),
        ("workspace-mb=1e3", "whole number"),
        ("workspace-mb=99999999999999999999999", "whole number"),
        ("workspace-mb=٣", "whole number"),
    ],
)
def test_mistakes_are_named(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_options([text], BOTH)


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(UsageError) as caught:
        read_options(["workspce-mb=3"], BOTH)
    assert caught.value.hint == "did you mean workspace-mb?"


def test_ranges_and_the_batch_are_kept_for_all_targets() -> None:
    choices = read_choices([], ["x=1x3"], BOTH, batch=4)
    assert choices.shapes["x"].maximum == (1, 3)
    assert choices.batch == 4
